"""Speaks to the target for the checks: adds credentials, records every exchange redacted, and judges every message.

It must not retry and must not decide whether a check passes.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from conformance.messages import (
    JSON_HEADERS,
    Era,
    Reply,
    changed,
    encode,
    next_id,
    read_reply,
    request_headers,
    request_message,
)
from conformance.target import Target
from conformance.wire import Answer, Header, Request, WireError, exchange, standard_headers

EXCERPT_BYTES = 2000


@dataclass(slots=True)
class Client:
    """One check's way to the endpoint; `exchanges` is what a failed check shows."""

    target: Target
    session_id: str | None = None
    exchanges: list[dict[str, object]] = field(default_factory=list)

    def send(
        self,
        body: bytes = b"",
        *,
        method: str = "POST",
        headers: Sequence[Header] = JSON_HEADERS,
        path: str | None = None,
        timeout_s: float | None = None,
        allow_partial: bool = False,
        exact: Request | None = None,
        credentials: Sequence[Header] | None = None,
        half_close: bool = False,
    ) -> Answer:
        """Sends one HTTP request and returns its answer. `exact` is written as it is, without any added header;
        `credentials` stand in for the target's own.

        Raises:
            WireError
        """
        endpoint = self.target.endpoint
        if exact is None:
            extra = [*headers, *(self.target.credentials if credentials is None else credentials)]
            exact = Request(method, path or endpoint.path, standard_headers(endpoint, body, extra), body)
        record: dict[str, object] = {"request": self._curl(exact)}
        self.exchanges.append(record)
        try:
            answer = exchange(
                endpoint,
                exact,
                timeout_s=timeout_s or self.target.timeout_s,
                allow_partial=allow_partial,
                half_close=half_close,
            )
        except WireError as error:
            record["error"] = self.target.redact(str(error))
            raise
        record |= {
            "status": answer.status,
            "headers": [f"{name}: {self.target.redact(value)}" for name, value in answer.headers],
            "body": self._excerpt(answer.body),
            "elapsed_ms": round(answer.elapsed_ms, 1),
        }
        return answer

    def call(
        self,
        era: Era,
        method: str,
        params: Mapping[str, object] | None = None,
        *,
        request_id: object = None,
        headers: Mapping[str, str | list[str] | None] | None = None,
        path: str | None = None,
        timeout_s: float | None = None,
        result_schema: bool = True,
    ) -> Reply:
        """Makes one JSON-RPC request in the manner of `era`, with some headers changed, and reads its response.

        Without `result_schema` a result is not judged: for checks in which any result is already the fault.

        Raises:
            WireError, Malformed
        """
        identity = next_id() if request_id is None else request_id
        body = encode(request_message(era, method, params, identity))
        sent = request_headers(era, method, params)
        if era is Era.HANDSHAKE and self.session_id and method != "initialize":
            sent.append(("Mcp-Session-Id", self.session_id))
        answer = self.send(body, headers=changed(sent, headers or {}), path=path, timeout_s=timeout_s)
        return read_reply(answer, era, method, identity, result_schema=result_schema)

    def tool(self, era: Era, name: str, arguments: Mapping[str, object], *, timeout_s: float | None = None) -> Reply:
        """Calls a tool in the manner of `era`."""
        return self.call(era, "tools/call", {"name": name, "arguments": arguments}, timeout_s=timeout_s)

    def notify(
        self,
        era: Era,
        method: str,
        params: Mapping[str, object] | None = None,
        *,
        headers: Mapping[str, str | list[str] | None] | None = None,
    ) -> Answer:
        """Sends a notification: a request without an id."""
        message = request_message(era, method, params, None)
        del message["id"]
        sent = request_headers(era, method, params)
        if era is Era.HANDSHAKE and self.session_id:
            sent.append(("Mcp-Session-Id", self.session_id))
        return self.send(encode(message), headers=changed(sent, headers or {}))

    def _excerpt(self, body: bytes) -> str:
        text = self.target.redact(body[:EXCERPT_BYTES].decode(errors="backslashreplace"))
        return text if len(body) <= EXCERPT_BYTES else f"{text}... ({len(body)} bytes in all)"

    def _curl(self, request: Request) -> str:
        secret_names = {name.lower(): name for name, _ in self.target.credentials}
        parts = ["curl", "-sS", "-i", "-X", request.method]
        for name, value in request.headers:
            if name.lower() in ("host", "content-length", "connection", "user-agent"):
                continue
            shown = "***" if name.lower() in secret_names else self.target.redact(value.strip())
            parts += ["-H", shlex.quote(f"{name}: {shown}")]
        if request.body:
            parts += ["--data-binary", shlex.quote(self._excerpt(request.body))]
        origin = replace(self.target.endpoint, path=request.path).url
        return " ".join([*parts, shlex.quote(origin)])


@dataclass(frozen=True, slots=True)
class Discovery:
    """What the endpoint says it is: asked once per worker, never assumed.

    `eras` maps an era to the result that introduced it (InitializeResult or DiscoverResult); `missing` to the reason.
    """

    eras: Mapping[Era, Mapping[str, object]]
    missing: Mapping[Era, str]
    tools: Mapping[str, Mapping[str, object]]
    session_id: str | None

    def capabilities(self, era: Era) -> Mapping[str, object]:
        """The capabilities declared in that era."""
        return cast(Mapping[str, object], self.eras[era].get("capabilities") or {})

    @property
    def call_era(self) -> Era:
        """An era in which a tool can be called, the older first because more clients speak it."""
        return Era.HANDSHAKE if Era.HANDSHAKE in self.eras else Era.MODERN


def initialize_params(version: str = Era.HANDSHAKE) -> dict[str, object]:
    """The params of an `initialize` request."""
    return {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "conformance", "version": "1"}}


def discover(client: Client) -> Discovery:
    """Finds out which eras the endpoint speaks and which tools it has. A fault on the way is kept as the reason.

    Raises:
        WireError: no answer at all.
    """
    eras: dict[Era, Mapping[str, object]] = {}
    missing: dict[Era, str] = {}
    session_id = None
    for era, method, params in (
        (Era.HANDSHAKE, "initialize", initialize_params()),
        (Era.MODERN, "server/discover", None),
    ):
        try:
            reply = client.call(era, method, params)
        except AssertionError as fault:
            # A malformed introduction is still an introduction: the checks about it must run and fail.
            eras[era] = _readable_result(client, fault)
            continue
        if reply.result is None:
            said = reply.error or f"HTTP {reply.answer.status}"
            missing[era] = f"{method} was answered with {json.dumps(said)[:200]}"
        else:
            eras[era] = reply.result
            if era is Era.HANDSHAKE:
                session_id = reply.answer.header("mcp-session-id")
    if session_id:
        client.session_id = session_id
        client.notify(Era.HANDSHAKE, "notifications/initialized")
    return Discovery(eras, missing, _tools(client, eras), session_id)


def _readable_result(client: Client, fault: AssertionError) -> Mapping[str, object]:
    got = getattr(fault, "got", None)
    result = got.get("result", got) if isinstance(got, dict) else None
    return result if isinstance(result, dict) else {}


def _tools(client: Client, eras: Mapping[Era, object]) -> dict[str, Mapping[str, object]]:
    for era in eras:
        try:
            reply = client.call(era, "tools/list")
        except AssertionError as fault:
            listed: object = _readable_result(client, fault).get("tools")
        else:
            listed = (reply.result or {}).get("tools")
        if isinstance(listed, list) and listed:
            return {str(tool["name"]): tool for tool in listed if isinstance(tool, dict) and "name" in tool}
    return {}
