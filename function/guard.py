"""The ASGI guard in front of the MCP SDK: answers what the SDK would get wrong, and lets everything else through.

The ids beside refusals are those of `conformance/requirements`, where each requirement has its source. The deviations
were measured on mcp 2.3.0; when one is mended upstream its lines here can go. The guard must not run tools or keep
state.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, KNOWN_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

import batch

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 4 << 20
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
HEADER_MISMATCH, UNSUPPORTED_VERSION = -32020, -32022
PROTOCOL_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
# What a tools-only server implements of 2026-07-28; anything else is 404 before its parameters are looked at.
MODERN_METHODS = ("server/discover", "tools/list", "tools/call")


class Refusal(Exception):
    """A request that ends here: an HTTP status and, where JSON-RPC has a say, an error object."""

    def __init__(
        self,
        status: int,
        code: int | None = None,
        message: str = "",
        *,
        request_id: str | int | None = None,
        data: Any = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.request_id, self.data = status, code, message, request_id, data
        self.headers = list(headers)

    async def send(self, send: Send) -> None:
        body = b""
        if self.code is not None:
            error: dict[str, Any] = {"code": self.code, "message": self.message}
            if self.data is not None:
                error["data"] = self.data
            body = json.dumps({"jsonrpc": "2.0", "id": self.request_id, "error": error}).encode()
        headers = [(b"content-length", str(len(body)).encode()), *self.headers]
        if body:
            headers.append((b"content-type", b"application/json"))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Guard:
    """Wraps the MCP endpoint `app`. `origins` are the allowed values of the Origin header, besides same-host ones."""

    def __init__(self, app: App, *, origins: Iterable[str] = ()) -> None:
        self.app = app
        self.origins = frozenset(origin.rstrip("/").lower() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # RFC 9110 5.5: whitespace around a field value is not part of it. The SDK compares verbatim.
        headers = [(name.lower(), value.strip(b" \t")) for name, value in scope["headers"]]
        try:
            self._check_origin(headers)
            if scope["method"] != "POST":
                # T26-26, T25-05. A GET would open a stream that never ends, until the function's timeout.
                raise Refusal(405, headers=[(b"allow", b"POST")])
            body = await _read_body(receive, headers)
            messages = batch.split(body, _header(headers, b"mcp-protocol-version"))
            if messages is None:
                await self._answer({**scope, "headers": headers}, _replay(body, receive), send, body)
            else:
                await self._answer_batch({**scope, "headers": headers}, send, messages)
        except batch.BatchError as error:
            await Refusal(400, INVALID_REQUEST, str(error)).send(send)
        except Refusal as refusal:
            await refusal.send(send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        if not _check_message(body, _header(scope["headers"], b"mcp-protocol-version")):
            raise Refusal(202)
        await self.app(scope, receive, send)

    async def _answer_batch(self, scope: Scope, send: Send, messages: list[bytes]) -> None:
        """Answers each message in turn as if it had come by itself, then all at once."""
        answers, rules = [], batch.Rules()
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        for body in messages:
            answer = batch.CapturedAnswer()
            try:
                _refuse_in_a_batch(body, rules)
                length = (b"content-length", str(len(body)).encode())
                await self._answer({**scope, "headers": [*headers, length]}, _replay(body, _silence), answer, body)
            except Refusal as refusal:
                await refusal.send(answer)
            answers.append(answer)
        status, media, body = batch.join(answers)
        typed = [(b"content-type", media.encode())] if media else []
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [length, *typed]})
        await send({"type": "http.response.body", "body": body})

    def _check_origin(self, headers: list[tuple[bytes, bytes]]) -> None:
        """T26-02, T25-02: an Origin that is present and not allowed is 403."""
        host = _header(headers, b"host").lower()
        for name, value in headers:
            if name != b"origin":
                continue
            origin = value.decode("latin-1").rstrip("/").lower()
            if origin not in self.origins and not _same_host(origin, host):
                raise Refusal(403, INVALID_REQUEST, "Origin not allowed")


def _same_host(origin: str, host: str) -> bool:
    """Whether a browser page of this very host made the request. Only for loopback: a rebound name is not one."""
    try:
        parts = urlsplit(origin)
    except ValueError:  # such as an IPv6 address without its end
        return False
    return (
        parts.hostname in ("localhost", "127.0.0.1", "::1")
        and parts.scheme in ("http", "https")
        and parts.netloc == host
    )


def _header(headers: list[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key == name), "")


async def _read_body(receive: Receive, headers: list[tuple[bytes, bytes]]) -> bytes:
    declared = _header(headers, b"content-length")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise Refusal(413, INVALID_REQUEST, f"Request body is larger than {MAX_BODY_BYTES} bytes")
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refusal(400, PARSE_ERROR, "The connection ended within the body")
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise Refusal(413, INVALID_REQUEST, f"Request body is larger than {MAX_BODY_BYTES} bytes")
        if not message.get("more_body"):
            return bytes(body)


def _replay(body: bytes, rest: Receive) -> Receive:
    """`body` as one message, then whatever the transport says: an SSE response ends early on a disconnect."""
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            return await rest()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _silence() -> Message:
    """The rest of a transport that says nothing more: each answer of a batch is kept, so none can be cut off."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets the event")


def _refuse_in_a_batch(body: bytes, rules: batch.Rules) -> None:
    message = json.loads(body)
    why = rules.refuse(message)
    if why:
        request_id = message.get("id")
        told = request_id if isinstance(request_id, str | int) and not isinstance(request_id, bool) else None
        raise Refusal(400, INVALID_REQUEST, why, request_id=told)


def _check_message(body: bytes, header_version: str) -> bool:
    """Whether the SDK shall see this message. False: accepted and nothing to do (202). Raises Refusal."""
    try:
        message = json.loads(body.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise Refusal(400, PARSE_ERROR, "Body is not JSON in UTF-8") from None  # B26-07, B25-04
    if not isinstance(message, dict):  # B26-08, B25-04
        raise Refusal(400, INVALID_REQUEST, "A message must be one JSON-RPC object; only 2025-03-26 has batches")
    request_id = message.get("id")
    if "id" in message and (isinstance(request_id, bool) or not isinstance(request_id, str | int)):  # B26-06, B25-02
        raise Refusal(400, INVALID_REQUEST, "id must be a string or an integer")
    if message.get("jsonrpc") != "2.0":
        raise Refusal(400, INVALID_REQUEST, 'jsonrpc must be "2.0"', request_id=request_id)
    params = message.get("params")
    if params is not None and not isinstance(params, dict):
        raise Refusal(400, INVALID_PARAMS, "params must be an object", request_id=request_id)
    method = message.get("method")
    modern = header_version in MODERN_PROTOCOL_VERSIONS
    if method is None:
        # T25-03. A posted response: the handshake revisions accept it with 202, and here nobody waits for one.
        if ("result" in message) != ("error" in message) and "id" in message and not modern:
            return False
        raise Refusal(400, INVALID_REQUEST, "method is missing", request_id=request_id)
    if not isinstance(method, str):
        raise Refusal(400, INVALID_REQUEST, "method must be a string", request_id=request_id)
    _check_version(message, header_version)
    # T26-15
    if modern and "id" in message and method not in MODERN_METHODS and _declared_version(params) == header_version:
        raise Refusal(404, METHOD_NOT_FOUND, f"Method not found: {method}", request_id=request_id)
    return True


def _declared_version(params: dict[str, Any] | None) -> Any:
    meta = (params or {}).get("_meta")
    return meta.get(PROTOCOL_VERSION_KEY) if isinstance(meta, dict) else None


def _check_version(message: dict[str, Any], header: str) -> None:
    """T26-13, T26-14, T25-07: the header and `_meta` say the same version, and it is known."""
    declared = _declared_version(message.get("params"))
    request_id = message.get("id")
    if header in HANDSHAKE_PROTOCOL_VERSIONS or not header:
        # The SDK routes on the header alone and would serve a body of the per-request era as handshake era.
        if declared is not None and (declared != header):
            said = f"header {header!r}" if header else "no header"
            text = f"MCP-Protocol-Version: {said}, but _meta says {str(declared)[:40]!r}"
            raise Refusal(400, HEADER_MISMATCH, text, request_id=request_id)
        return
    if header not in KNOWN_PROTOCOL_VERSIONS and declared in (None, header):
        # The same list as server/discover gives; the handshake revisions are negotiated by initialize.
        data = {"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": header[:40]}
        raise Refusal(400, UNSUPPORTED_VERSION, "Unsupported protocol version", request_id=request_id, data=data)
