"""A small correct MCP server in both eras, and ways to make it wrong in exactly one way each, for testing the suite.

Written without the MCP SDK so that it shares no bug with what it stands in for. The fault is chosen by the first
segment of the path, so that one process serves the correct server (/correct/mcp) and every mutant of it (/<name>/mcp).
It runs code in its own process with no protection at all: never serve it to anyone.
"""

import ast
import asyncio
import base64
import contextlib
import io
import itertools
import json
import os
import socket
import sys
import time
import traceback
import types
import warnings
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

sys.path.insert(0, str(Path(__file__).parent))  # it may be run with -P, which keeps its own directory off the path
import more_than_tools

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

META = "io.modelcontextprotocol"
MODERN = "2026-07-28"
HANDSHAKE = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
SUPPORTED = [MODERN, HANDSHAKE[0]]
MAX_BODY = 4 << 20
SERVER_INFO = {"name": "reference", "version": "1.0"}
# The smallest PNG there is: one pixel.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ERROR_SCHEMA = {"anyOf": [{"type": "null"}, {"type": "object", "required": ["type", "name", "message"]}]}
TOOLS: list[dict[str, Any]] = [
    {
        "name": "execute_python",
        "description": "Run Python",
        "inputSchema": {
            "type": "object",
            "properties": {
                "code": {"type": "string"},
                "requirements": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["code"],
        },
        "outputSchema": {
            "type": "object",
            "properties": {"success": {"type": "boolean"}, "stdout": {"type": "string"}, "error": ERROR_SCHEMA},
            "required": ["success", "result", "stdout", "stderr", "warnings"],
        },
    },
    {
        "name": "list_preinstalled_packages",
        "inputSchema": {"type": "object"},
        "outputSchema": {"type": "object", "required": ["packages"]},
    },
    {
        "name": "get_environment_info",
        "inputSchema": {"type": "object"},
        "outputSchema": {"type": "object", "required": ["confinement"]},
    },
]


class Refusal(Exception):
    """An answer that ends a request early."""

    def __init__(self, status: int, code: int | None = None, message: str = "", data: Any = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.data = status, code, message, data


@dataclass(slots=True)
class Call:
    """One request and the name of the fault to answer it with, "correct" for none."""

    fault: str
    method: str
    headers: list[tuple[str, str]]
    body: bytes
    message: Any = None
    request_id: Any = None
    era: str = ""
    query: str = ""
    extra_headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def rich(self) -> bool:
        """Whether this is the server that has more than tools."""
        return self.fault == "rich" or self.fault.startswith("rich-")

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


counter = itertools.count()
kept: dict[str, Any] = {}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application: /<fault>/mcp, with and without a last slash."""
    if scope["type"] != "http":
        return
    segments = [part for part in scope["path"].split("/") if part]
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = [(key.decode("latin-1").lower(), value.decode("latin-1").strip()) for key, value in scope["headers"]]
    call = Call(segments[0] if segments else "", scope["method"], headers, body)
    call.query = scope["query_string"].decode()
    # A fault that several checks must notice is in `mutants` once for each, under its name with one of these ends.
    call.fault = call.fault.removesuffix("-older").removesuffix("-in-schema")
    told = more_than_tools.metadata(scope["path"], call.header("host") or "")
    if told is not None:
        await _send(send, told[0], json.dumps(told[1]).encode(), [(b"content-type", b"application/json")])
        return
    if call.fault == "redirects-one-form" and not scope["path"].endswith("/"):
        await _send(send, 307, b"", [(b"location", scope["path"].encode() + b"/")])
        return
    try:
        status, payload = _answer(call)
    except Refusal as refusal:
        status, payload = refusal.status, _error(call, refusal)
    if call.fault == "hangs-on-get" and call.method == "GET":
        await asyncio.sleep(30)
    if status == 200 and call.rich and await _rich_stream(call, send):
        return
    await _reply(call, send, status, payload)


def _error(call: Call, refusal: Refusal) -> dict[str, Any] | None:
    if refusal.code is None:
        return None
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.data is not None:
        error["data"] = refusal.data
    if call.fault == "error-code-is-text":
        error["code"] = str(refusal.code)
    if call.fault == "errors-show-values":
        error["message"] += f" [input_value={call.body[:40]!r}]"
    if call.fault == "error-without-message":
        del error["message"]
    if call.fault == "undefined-error-code":
        error["code"] = -32077
    if call.fault == "old-range-error-code":
        error["code"] = -32001
    if call.fault == "retired-error-code":
        error["code"] = -32002
    request_id = 999 if call.fault == "error-loses-the-id" else call.request_id
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


async def _rich_stream(call: Call, send: Send) -> bool:
    """Serves what a rich server streams without end: a GET, and a subscription."""
    listens = call.message is not None and call.message.get("method") == "subscriptions/listen"
    if call.method != "GET" and not listens:
        return False
    notes = [
        f"data: {json.dumps(one)}\n\n".encode() for one in more_than_tools.subscription(call.fault, call.request_id)
    ]
    body = b"".join(notes) if listens else more_than_tools.stream(call.fault)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for _ in range(8):
        await send({"type": "http.response.body", "body": body, "more_body": True})
        body = b": still here\n\n"
        await asyncio.sleep(0.5)
    await send({"type": "http.response.body", "body": b""})
    return True


async def _reply(call: Call, send: Send, status: int, payload: Any) -> None:
    extra = call.extra_headers
    if payload is None:
        body = b"accepted" if call.fault == "notification-has-a-body" and status == 202 else b""
        await _send(send, status, body, extra)
        return
    text = json.dumps(payload)
    if call.fault == "latin-1-body":
        text = json.dumps(payload, ensure_ascii=False)
    encoded = text.encode("latin-1", "replace") if call.fault == "latin-1-body" else text.encode()
    streams = call.era == "handshake" and status == 200
    told = _progress(call) if status == 200 else b""
    streams |= bool(told)
    streams |= call.fault in ("server-asks", "modern-log-unasked", "modern-stream-never-ends") and status == 200
    if streams or (call.fault == "buffered-stream" and status == 200):
        data = told + b"event: message\ndata: " + encoded + b"\n\n"
        if call.rich and call.era == "handshake":
            prime = b"id: 1\ndata:\n\n"
            response = b"id: 2\ndata: " + encoded + b"\n\n"
            data = response + prime if call.fault == "rich-primes-late" else prime + told + response
        if call.fault == "progress-unasked":
            note = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}})
            data = b"event: message\ndata: " + note.encode() + b"\n\n" + data
        if call.fault == "modern-log-unasked" and call.era == "modern":
            note = json.dumps({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
            data = b"data: " + note.encode() + b"\n\n" + data
        if call.fault == "server-asks" and call.message.get("method") == "tools/list":
            ask = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "roots/list"})
            data = b"data: " + ask.encode() + b"\n\n" + data
        endless = {"stream-never-ends": ("handshake", "ping"), "modern-stream-never-ends": ("modern", "tools/list")}
        open_end = endless.get(call.fault) == (call.era, call.message.get("method"))
        await _send(send, status, data, [(b"content-type", b"text/event-stream"), *extra], open_end=open_end)
        return
    wrong = call.fault == "wrong-content-type" and b'"inputSchema"' in encoded
    kind = b"text/plain" if wrong else b"application/json"
    await _send(send, status, encoded, [(b"content-type", kind), *extra])


def _progress(call: Call) -> bytes:
    """Two progress events for a request that carries a token."""
    params = call.message.get("params") if isinstance(call.message, dict) else None
    meta = params.get("_meta") if isinstance(params, dict) else None
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    if token is None:
        return b""
    if call.fault == "progress-of-another-token":
        token = "another"
    steps = {"progress-falls": (2, 1), "progress-is-text": ("1", "2")}.get(call.fault, (1, 2))
    notes = [{"progressToken": token, "progress": step} for step in steps]
    messages = [{"jsonrpc": "2.0", "method": "notifications/progress", "params": note} for note in notes]
    return b"".join(b"data: " + json.dumps(message).encode() + b"\n\n" for message in messages)


async def _send(
    send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]], *, open_end: bool = False
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": open_end})
    if open_end:
        await asyncio.sleep(20)
        await send({"type": "http.response.body", "body": b""})


def _answer(call: Call) -> tuple[int, Any]:
    if call.rich and call.method in ("GET", "DELETE") and call.header("mcp-protocol-version") != MODERN:
        if call.header("origin") and call.fault != "rich-origin-unchecked-on-get":
            raise Refusal(403)
        status, _ = more_than_tools.session(call.fault, call.header, call.method, "")
        return status or 200, None
    _check_http(call)
    if call.body.lstrip()[:1] == b"[" and call.header("mcp-protocol-version") == "2025-03-26":
        batch = _batch(call)
        if batch is not None:
            return 200, batch
    message = _parse(call)
    method = str(message.get("method"))
    params = message.get("params", {})
    call.era = _era(call, message)
    if call.era == "modern":
        _check_modern(call, method, params)
    else:
        _check_version_header(call)
    if "id" not in message:
        if call.fault == "cancellation-refused" and method == "notifications/cancelled":
            raise Refusal(404)
        if call.fault == "notification-is-200":
            return 200, {"jsonrpc": "2.0", "id": None, "result": {}}
        return 202, None
    if call.rich and call.era == "handshake":
        status, minted = more_than_tools.session(call.fault, call.header, call.method, method)
        if status is not None:
            raise Refusal(status)
        if minted:
            call.extra_headers.append((b"mcp-session-id", minted.encode()))
    result = _dispatch(call, method, params if isinstance(params, dict) else {})
    if call.era == "modern":
        result = _modern_result(call, method, result)
    return 200, _envelope(call, result)


def _batch(call: Call) -> list[Any] | None:
    """The responses to a batch, which 2025-03-26 alone allows; None when it is to be refused like any other."""
    requests = json.loads(call.body)
    if call.fault in ("batch-never-served", "rich-batch-refused") or not all(isinstance(one, dict) for one in requests):
        return None
    called = [Call(call.fault, call.method, call.headers, json.dumps(one).encode()) for one in requests]
    call.message = {}
    return [_answer(one)[1] for one in called]


KEY = "the-right-key"


def _check_http(call: Call) -> None:
    key = call.header("x-api-key")
    right = {
        "keyed": key == KEY,
        "key-optional": key in (None, KEY),
        "any-key": key is not None,
        "key-by-prefix": key is not None and (KEY.startswith(key) or key.startswith(KEY)),
    }
    if not right.get(call.fault, True):
        raise Refusal(403)
    if call.fault.startswith("oauth"):
        refused = more_than_tools.authorization(call.fault, call.header, call.query)
        if refused is not None:
            call.extra_headers.append((b"www-authenticate", refused[1].encode()))
            raise Refusal(refused[0])
    if call.fault == "session-minted":
        call.extra_headers.append((b"mcp-session-id", b"minted"))
    if call.fault == "session-id-with-space":
        call.extra_headers.append((b"mcp-session-id", b"two words"))
    for origin in call.all("origin"):
        allowed = origin.startswith(("http://127.0.0.1", "http://localhost"))
        if call.fault == "origin-suffix-match":
            allowed = allowed or "127.0.0.1" in origin
        if call.fault == "origin-null-allowed":
            allowed = allowed or origin == "null"
        if not allowed and call.fault != "origin-unchecked":
            raise Refusal(403)
    if call.fault == "origin-demanded" and not call.all("origin") and b"tools/list" in call.body:
        raise Refusal(403)
    if call.method != "POST":
        raise Refusal({"get-is-200": 200, "delete-is-500": 500}.get(call.fault, 405))
    if len(call.body) > MAX_BODY:
        raise Refusal(500 if call.fault == "big-body-is-500" else 413)
    if "json" not in (call.header("content-type") or "") and call.fault != "content-type-unchecked":
        raise Refusal(415)
    if call.fault == "accept-crash" and "event-stream" not in (call.header("accept") or ""):
        raise Refusal(500)
    if call.fault == "last-event-id-is-400" and call.header("last-event-id"):
        raise Refusal(400)
    if call.fault == "session-id-is-404" and call.header("mcp-session-id"):
        raise Refusal(404)
    if call.fault == "unknown-param-header-is-400" and call.header("mcp-param-nothing"):
        raise Refusal(400)


def _parse(call: Call) -> dict[str, Any]:
    try:
        text = call.body.decode("utf-8", "replace" if call.fault == "bad-utf8-taken" else "strict")
        message = json.loads(text)
    except ValueError as error:
        if call.fault == "bad-json-is-200":
            raise Refusal(200, -32700, "Parse error") from None
        if call.fault == "bad-json-is-500":
            raise Refusal(500) from None
        code = -32603 if call.fault == "bad-json-is-internal-error" else -32700
        told = (
            traceback.format_exc() if call.fault == "error-shows-traceback" else f"Parse error: {type(error).__name__}"
        )
        raise Refusal(400, code, told) from None
    if isinstance(message, list):
        if call.fault == "batch-served" and message:
            message = message[0]
        else:
            raise Refusal(400, -32600, "A batch is not supported")
    if call.fault == "text-taken-for-a-method" and isinstance(message, str):
        message = {"jsonrpc": "2.0", "id": 1, "method": message}
    if not isinstance(message, dict):
        raise Refusal(400, -32600, "Not an object")
    call.message = message
    if message.get("jsonrpc") != "2.0" and call.fault != "jsonrpc-unchecked":
        raise Refusal(400, -32600, "jsonrpc must be 2.0")
    if call.fault == "method-guessed" and "method" not in message and "params" in message:
        message["method"] = "tools/list"
    if call.fault == "posted-response-answered" and "method" not in message and "result" in message:
        message["method"] = "tools/list"
    if not isinstance(message.get("method"), str):
        if call.fault == "malformed-notification-taken":
            message["method"] = str(message.get("method"))
        else:
            raise Refusal(400, -32600, "method must be a string")
    request_id = message.get("id")
    valid = isinstance(request_id, str | int) and not isinstance(request_id, bool)
    if "id" in message and not valid and call.fault != "id-type-unchecked":
        raise Refusal(400, -32600, "id must be a string or an integer")
    call.request_id = request_id
    return message


def _era(call: Call, message: dict[str, Any]) -> str:
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    says_modern = isinstance(meta, dict) and f"{META}/protocolVersion" in meta
    header = call.header("mcp-protocol-version")
    if call.fault == "era-by-header-alone":
        return "handshake" if header in HANDSHAKE else "modern"
    if header is None and says_modern and message.get("method") != "server/discover":
        if call.fault == "missing-version-header-is-500":
            raise Refusal(500)
        return "handshake"
    return "modern" if says_modern or (header not in (*HANDSHAKE, None) and not _unknown(header)) else "handshake"


def _unknown(header: str | None) -> bool:
    """A version header of neither era, on a message without `_meta`: the handshake era's rule is 400."""
    return header != MODERN


def _check_version_header(call: Call) -> None:
    header = call.header("mcp-protocol-version")
    if call.fault == "june-version-unchecked" and call.message.get("method") == "ping":
        return
    if call.fault == "version-header-demanded" and header is None and call.message.get("method") != "initialize":
        raise Refusal(400, -32600, "MCP-Protocol-Version is missing")
    if header is not None and header not in HANDSHAKE and call.fault != "version-header-unchecked":
        raise Refusal(400, -32600, "Unknown MCP-Protocol-Version")


def _check_modern(call: Call, method: str, params: Any) -> None:
    meta = params.get("_meta") if isinstance(params, dict) else None
    version = meta.get(f"{META}/protocolVersion") if isinstance(meta, dict) else None
    if version is None and call.fault == "meta-optional":
        version, meta = MODERN, modern_meta()
    if version is None:
        raise Refusal(400, -32602, "_meta lacks protocolVersion")
    if f"{META}/clientCapabilities" not in (meta or {}) and call.fault != "client-capabilities-optional":
        raise Refusal(400, -32602, "_meta lacks clientCapabilities")
    if call.fault == "client-info-demanded" and f"{META}/clientInfo" not in (meta or {}):
        raise Refusal(400, -32602, "_meta lacks clientInfo")
    if call.fault == "extensions-refused" and (meta or {}).get(f"{META}/clientCapabilities", {}).get("extensions"):
        raise Refusal(400, -32602, "unknown extension")
    level = (meta or {}).get(f"{META}/logLevel")
    if level is not None and level not in ("debug", "info", "error") and call.fault != "log-level-unchecked":
        raise Refusal(400, -32602, "unknown logLevel")
    _check_routing(call, method, params, version)


def modern_meta() -> dict[str, Any]:
    """The least `_meta` a modern request can have."""
    return {f"{META}/protocolVersion": MODERN, f"{META}/clientCapabilities": {}}


def _check_routing(call: Call, method: str, params: Any, version: Any) -> None:
    headers = call.all("mcp-protocol-version")
    joined = len(set(headers)) > 1 or len(set(call.all("mcp-method"))) > 1
    if joined and call.fault != "first-of-duplicates":
        raise Refusal(400, -32020, "A routing header is repeated")
    if headers and headers[0] != version and call.fault not in ("version-mismatch-taken", "era-by-header-alone"):
        raise Refusal(400, -32020, "MCP-Protocol-Version and _meta differ")
    taken = call.fault == "unacceptable-notification-taken" and "id" not in call.message
    if version != MODERN and call.fault != "any-version-served" and not taken:
        data = None if call.fault == "supported-versions-untold" else {"supported": SUPPORTED, "requested": version}
        if data and call.fault == "versions-told-twice":
            data["supported"] = [MODERN]
        raise Refusal(400, -32022, "Unsupported protocol version", data)
    if "id" not in call.message:
        return
    named = call.header("mcp-method")
    if named is None and call.fault != "method-header-optional":
        raise Refusal(400, -32020, "Mcp-Method is missing")
    same = named is None or named == method or (call.fault == "method-header-without-case" and named.lower() == method)
    if not same and call.fault != "method-header-unchecked":
        raise Refusal(400, -32020, "Mcp-Method differs from the method")
    if method == "tools/call" and isinstance(params.get("name"), str):
        _check_name(call, params["name"])
    if method == "prompts/get" and isinstance(params.get("name"), str):
        _check_name(call, params["name"])


def _check_name(call: Call, name: str) -> None:
    header = call.header("mcp-name")
    if header is None:
        if call.fault == "name-header-optional":
            return
        raise Refusal(400, -32020, "Mcp-Name is missing")
    if header.startswith("=?base64?") and call.fault != "name-header-not-decoded":
        try:
            header = base64.b64decode(header[len("=?base64?") :].removesuffix("?="), validate=True).decode()
        except ValueError:
            if call.fault == "bad-base64-taken":
                return
            raise Refusal(400, -32020, "Mcp-Name is not base64") from None
    if header != name and call.fault != "name-header-unchecked":
        raise Refusal(400, -32020, "Mcp-Name differs from the tool")


def _capabilities(call: Call) -> dict[str, Any]:
    if call.fault == f"tools-undeclared{'' if call.era == 'modern' else '-in-the-handshake'}":
        return {}
    if call.rich:
        return more_than_tools.capabilities(modern=call.era == "modern")
    return {"tools": {"listChanged": False}}


def _dispatch(call: Call, method: str, params: dict[str, Any]) -> Any:
    modern = call.era == "modern"
    if call.rich:
        try:
            answered = more_than_tools.dispatch(call.fault, method, params, modern=modern)
        except more_than_tools.Fault as fault:
            raise Refusal(fault.status, fault.code, fault.message) from None
        if answered is not None:
            return answered
        if modern and method == "subscriptions/listen":
            return {}
    if method == "tools/list":
        return _list_tools(call, params)
    if method == "tools/call":
        return _call_tool(call, params)
    if modern and method == "server/discover":
        versions = ["2025-11-25"] if call.fault == "discover-hides-version" else SUPPORTED
        return {"supportedVersions": versions, "capabilities": _capabilities(call), "instructions": "Runs Python."}
    if call.fault == "modern-alone-untold" and not modern:
        raise Refusal(400, -32601, "Not here")
    if not modern and method == "initialize":
        return _initialize(call, params)
    if not modern and method == "ping":
        return {"pong": True} if call.fault == "ping-has-a-payload" else {}
    if call.fault == "serves-undeclared" and method in ("prompts/list", "resources/list"):
        return {method.split("/")[0]: [], **({"ttlMs": 0, "cacheScope": "private"} if modern else {})}
    if modern and call.fault == "serves-ping" and method == "ping":
        return {}
    if modern and call.fault == "serves-listen" and method == "subscriptions/listen":
        return {}
    told = f"Method not found: {method}"
    if call.fault == "error-code-changed":
        raise Refusal(404 if modern else 200, -32603, told)
    raise Refusal(404 if modern and call.fault != "unknown-method-is-200" else 200, -32601, told)


def _initialize(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    wanted = params.get("protocolVersion")
    if wanted is None and call.fault != "initialize-unchecked":
        raise Refusal(400, -32602, "protocolVersion is missing")
    agreed = wanted if wanted in HANDSHAKE else HANDSHAKE[0]
    if call.fault == "version-not-negotiated":
        agreed = HANDSHAKE[1]
    if call.fault == "any-version-echoed":
        agreed = wanted
    info = {"name": "reference"} if call.fault == "server-info-incomplete" else SERVER_INFO
    return {"protocolVersion": agreed, "capabilities": _capabilities(call), "serverInfo": info}


def _list_tools(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    if params.get("cursor") and call.fault not in ("cursor-ignored", "pages-never-end"):
        raise Refusal(400, -32602, "Unknown cursor")
    if params.get("inputResponses") is not None and call.fault == "input-responses-refused":
        raise Refusal(400, -32602, "unexpected inputResponses")
    tools = json.loads(json.dumps(TOOLS))
    if call.fault == "list-order-varies" and next(counter) % 2:
        tools.reverse()
    if call.fault == "bad-tool-name":
        tools.append({"name": "a tool!", "inputSchema": {"type": "object"}})
    if call.fault == "tool-listed-twice":
        tools.append(tools[0])
    if call.fault == "icon-over-http":
        tools[0]["icons"] = [{"src": "http://example.com/icon.png"}]
    if call.fault == "schema-invalid":
        tools[0]["inputSchema"]["properties"]["code"]["type"] = "text"
    if call.fault == "schema-not-object":
        tools[1]["inputSchema"] = {"type": "string"}
    if call.fault == "schema-refers-to-network":
        tools[0]["inputSchema"]["properties"]["code"] = {"$ref": "https://example.com/code.json"}
    if call.fault == "bad-param-header":
        tools[0]["inputSchema"]["properties"]["code"]["x-mcp-header"] = "not a token"
    if call.fault == "tool-missing":
        tools.pop()
    if call.fault == "extra-required":
        tools[0]["inputSchema"]["required"].append("requirements")
    if call.fault == "no-output-schema":
        del tools[0]["outputSchema"], tools[1]["outputSchema"]
    if call.fault == "strict-output-schema":
        tools[0]["outputSchema"]["properties"]["stdout"] = {"type": "string", "maxLength": 0}
        tools[1]["outputSchema"]["required"] = ["no_such_key"]
    if call.fault == "no-tools-for" and call.header("mcp-protocol-version") != HANDSHAKE[0]:
        tools = []
    result = {"tools": tools}
    if call.fault == "task-made" and "task" in params:
        result["task"] = {"taskId": "1"}
    if call.fault == "pages-never-end":
        result["nextCursor"] = "again"
    return result


def _modern_result(call: Call, method: str, result: dict[str, Any]) -> dict[str, Any]:
    result = {"resultType": "complete", **result}
    if call.fault == "result-type-missing":
        del result["resultType"]
    if call.fault == "input-required" and method == "tools/list":
        result["resultType"] = "input_required"
    if method in ("server/discover", "tools/list") and call.fault != "cache-hints-missing":
        ttl = "60" if call.fault == "ttl-is-text" else 60_000
        result |= {"ttlMs": ttl, "cacheScope": "shared" if call.fault == "scope-unknown" else "public"}
    if call.fault != "server-info-untold":
        result["_meta"] = {f"{META}/serverInfo": SERVER_INFO}
        if call.fault == "meta-key-malformed":
            result["_meta"]["two words"] = 1
        if call.fault == "meta-prefix-squatted":
            result["_meta"]["com.mcp/mine"] = 1
    if call.fault == "input-asked" and method == "tools/call":
        result |= {"resultType": "input_required", "inputRequests": {}}
    return result


def _envelope(call: Call, result: Any) -> dict[str, Any]:
    request_id = call.request_id
    if call.fault == "id-becomes-text":
        request_id = str(request_id)
    if call.fault == "ids-mix":
        request_id, kept["id"] = kept.get("id", request_id), request_id
    envelope = {"jsonrpc": "2.0", "id": request_id, "result": result}
    if call.fault == "jsonrpc-missing":
        del envelope["jsonrpc"]
    if call.fault == "result-and-error":
        envelope["error"] = {"code": 0, "message": ""}
    return envelope


def _call_tool(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    name, arguments = params.get("name"), params.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        if call.fault == "malformed-call-is-a-result":
            return {"content": [{"type": "text", "text": "bad call"}], "isError": True}
        raise Refusal(400 if call.era == "modern" else 200, -32602, "Malformed tools/call")
    if name not in [tool["name"] for tool in TOOLS]:
        if call.fault == "unknown-tool-is-a-result":
            return {"content": [{"type": "text", "text": f"Unknown tool: {name}"}], "isError": True}
        code = -32603 if call.fault == "unknown-tool-code-changed" else -32602
        raise Refusal(400 if call.era == "modern" else 200, code, f"Unknown tool: {name}")
    if name == "list_preinstalled_packages":
        names = ("numpy", "pandas") if call.fault == "package-missing" else ("numpy", "pandas", "matplotlib")
        return _result(call, {"packages": [{"name": one, "version": "2.0.1"} for one in names]})
    if name == "get_environment_info":
        layers = [] if call.fault == "layers-untold" else [{"name": "seccomp"}, {"name": "landlock"}]
        version = "3" if call.fault == "python-version-untold" else "3.12.1"
        return _result(call, {"python_version": version, "confinement": layers})
    fault = _argument_fault(arguments)
    if fault:
        return _bad_arguments(call, fault)
    return _execute(call, arguments["code"])


def _argument_fault(arguments: dict[str, Any]) -> str | None:
    if not isinstance(arguments.get("code"), str):
        return "code must be a string"
    requirements = arguments.get("requirements", [])
    if not isinstance(requirements, list) or not all(isinstance(one, str) for one in requirements):
        return "requirements must be a list of strings"
    return None


def _bad_arguments(call: Call, fault: str) -> dict[str, Any]:
    if call.fault == "bad-arguments-are-a-protocol-error":
        raise Refusal(400 if call.era == "modern" else 200, -32602, fault)
    if call.fault == "bad-arguments-told-vaguely":
        fault = "something is wrong"
    if call.fault == "bad-arguments-not-flagged":
        return {"content": [{"type": "text", "text": fault}]}
    return {"content": [{"type": "text", "text": fault}], "isError": True}


def _result(call: Call, data: dict[str, Any], *, failed: bool = False, images: int = 0) -> dict[str, Any]:
    text = "see structuredContent" if call.fault == "no-text-mirror" else json.dumps(data, indent=2)
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    png = PIXEL[:20] if call.fault == "figure-is-broken" else PIXEL
    content += [{"type": "image", "mimeType": "image/png", "data": base64.b64encode(png).decode()}] * images
    result: dict[str, Any] = {"content": content, "structuredContent": data}
    if call.fault == "content-missing":
        del result["content"]
    if failed and call.fault not in ("is-error-unset", "is-error-unset-anywhere"):
        result["isError"] = True
    return result


def _execute(call: Call, code: str) -> dict[str, Any]:
    """Runs code as the contract says, in this process. Only what the checks of the contract look at is here."""
    names: dict[str, Any] = kept if call.fault == "namespace-kept" else {}
    names |= {"__name__": "__main__", "__builtins__": __builtins__}
    out, err = io.StringIO(), io.StringIO()
    data: dict[str, Any] = {"success": True, "result": "Code executed successfully", "error": None, "violations": []}
    started, cpu = time.perf_counter(), time.process_time()
    shown: list[int] = []
    builtins_before = set(vars(sys.modules["builtins"]))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("always")
        try:
            with _stand_ins(shown):
                value = _run(ast.parse(code), names, call)
            if value is not None:
                data["result"] = str(value)
        except BaseException as error:
            data |= _failure(call, error)
    for name in set(vars(sys.modules["builtins"])) - builtins_before:
        delattr(sys.modules["builtins"], name)
    stdout, failed = out.getvalue(), not data["success"]
    limit = 1 << 20
    data |= {
        "stdout": "" if failed and call.fault == "stdout-lost-on-error" else stdout[:limit],
        "stderr": "" if call.fault == "stderr-lost" else err.getvalue(),
        "warnings": "",
        "truncated": ["stdout"] if len(stdout) > limit and call.fault != "cut-unflagged" else [],
        "outputs": [{"mime_type": "image/png", "bytes": len(PIXEL), "width": 1, "height": 1} for _ in shown],
        "usage": {
            "wall_ms": (time.perf_counter() - started) * 1000,
            "cpu_ms": 0 if call.fault == "usage-made-up" else (time.process_time() - cpu) * 1000,
            "max_rss_mb": 40,
        },
    }
    if call.fault == "stdout-lost":
        data["stdout"] = ""
    if call.fault == "always-flagged-cut":
        data["truncated"] = ["stdout"]
    if call.fault == "ascii-only":
        data["stdout"] = data["stdout"].encode("ascii", "replace").decode()
    if call.fault == "key-missing":
        del data["warnings"]
    if call.fault == "outputs-wrong" and data["outputs"]:
        data["outputs"][0]["bytes"] = 1
    return _result(call, data, failed=failed, images=0 if call.fault == "figures-lost" else len(shown))


def _run(tree: Any, names: dict[str, Any], call: Call) -> Any:
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names) if last else None
    if call.fault == "last-expression-lost":
        value = None
    return value if call.fault == "result-variable-ignored" else names.get("result", value)


class Blocked(Exception):
    """Stands for a refusal of the blocker this server does not have."""


@contextlib.contextmanager
def _stand_ins(shown: list[int]) -> Any:
    """A refusing os.system, and a pyplot of nothing, so that the contract's checks have something to look at."""

    def refuse(_command: str) -> int:
        raise Blocked("os.system")

    pyplot = types.SimpleNamespace(plot=lambda *_: None, show=lambda: shown.append(1))
    saved = {name: sys.modules.get(name) for name in ("matplotlib", "matplotlib.pyplot")}
    fake = types.ModuleType("matplotlib")
    fake.pyplot = pyplot  # type: ignore[attr-defined]
    sys.modules |= {"matplotlib": fake, "matplotlib.pyplot": pyplot}  # type: ignore[dict-item]
    original, os.system = os.system, refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        os.system = original
        for name, module in saved.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _failure(call: Call, error: BaseException) -> dict[str, Any]:
    if isinstance(error, Blocked):
        told = f"Security Error: Blocked dangerous operation: {error}"
        if call.fault == "refusal-reworded":
            told = "not allowed"
        kind = "security"
    else:
        told = f"{type(error).__name__}: {error}"
        kind = "syntax" if isinstance(error, SyntaxError) else "exit" if isinstance(error, SystemExit) else "runtime"
        if call.fault == "exit-untyped" and kind == "exit":
            kind = "runtime"
    line = error.lineno if isinstance(error, SyntaxError) else _line(error)
    if call.fault == "error-line-lost":
        line = None
    text = "".join(traceback.format_exception(error))
    return {
        "success": False,
        "result": told,
        "violations": [str(error)] if kind == "security" else [],
        "error": {"type": kind, "name": type(error).__name__, "message": str(error), "line": line, "traceback": text},
    }


def _line(error: BaseException) -> int | None:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<cell>"]
    return lines[-1] if lines else None


def serve(port: int) -> None:
    """Serves in the foreground; prints its base URL once it is bound, so that port 0 can be asked for."""
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    serve(int(sys.argv[1]))
