"""Speaks to the target for the checks: adds credentials, records every exchange redacted, and judges every message.

It must not retry and must not decide whether a check passes.
"""

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from conformance.messages import (
    JSON_HEADERS,
    OLDER,
    Era,
    Reply,
    SchemaCheck,
    changed,
    encode,
    next_id,
    read_reply,
    request_headers,
    request_message,
)
from conformance.records import Misfit
from conformance.target import OUR_INTERPRETER, Interpreter, Target
from conformance.wire import Answer, Header, Request, Unreachable, WireError, exchange, standard_headers

EXCERPT_BYTES = 2000
CONNECT_ATTEMPTS = 3
CONNECT_PAUSE_S = 0.2


@dataclass(slots=True)
class Client:
    """One check's way to the endpoint; `exchanges` is what a failed check shows."""

    target: Target
    session_id: str | None = None
    exchanges: list[dict[str, object]] = field(default_factory=list)
    seen: dict[tuple[str, str], Misfit | None] = field(default_factory=dict)
    retries: int = 0

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
        session: bool = True,
    ) -> Answer:
        """Sends one HTTP request and returns its answer. `exact` is written as it is, without any added header;
        `credentials` stand in for the target's own. What names a version of the handshake era goes into our session,
        where the endpoint has sessions, unless `session` is false or the headers name one.

        Raises:
            WireError
        """
        endpoint = self.target.endpoint
        if exact is None:
            named = self._session_header(headers) if session else []
            extra = [*headers, *named, *(self.target.credentials if credentials is None else credentials)]
            exact = Request(method, path or endpoint.path, standard_headers(endpoint, body, extra), body)
        record: dict[str, object] = {"request": self._curl(exact)}
        self.exchanges.append(record)
        try:
            answer = self._exchange(
                exact, timeout_s or self.target.timeout_s, allow_partial=allow_partial, half_close=half_close
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

    def _session_header(self, headers: Sequence[Header]) -> list[Header]:
        given = {name.lower(): value for name, value in headers}
        version = given.get("mcp-protocol-version")
        belongs = version in (*OLDER, Era.HANDSHAKE) and "mcp-session-id" not in given
        return [("Mcp-Session-Id", self.session_id)] if belongs and self.session_id else []

    def _exchange(self, request: Request, timeout_s: float, *, allow_partial: bool, half_close: bool) -> Answer:
        """One exchange. Only a connection that was never made is tried again: nothing can have run by it."""
        for attempt in range(CONNECT_ATTEMPTS):
            try:
                return exchange(
                    self.target.endpoint,
                    request,
                    timeout_s=timeout_s,
                    allow_partial=allow_partial,
                    half_close=half_close,
                )
            except Unreachable:
                if attempt == CONNECT_ATTEMPTS - 1:
                    raise
                self.retries += 1
                time.sleep(CONNECT_PAUSE_S)
        raise AssertionError("the last attempt returns or raises")

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
        if era is not Era.MODERN and self.session_id and method != "initialize":
            sent.append(("Mcp-Session-Id", self.session_id))
        answer = self.send(body, headers=changed(sent, headers or {}), path=path, timeout_s=timeout_s)
        reply = read_reply(answer, era, method, identity, result_schema=result_schema)
        for check in reply.schema_checks:
            self._note(check)
        return reply

    def _note(self, check: SchemaCheck) -> None:
        """Keeps what a message was held against, and the first way in which it missed that."""
        key = (check.revision, check.method)
        if check.fault is None or self.seen.get(key):
            self.seen.setdefault(key, None)
            return
        self.seen[key] = Misfit(
            revision=check.revision,
            method=check.method,
            message=self.target.redact(check.fault),
            got=self.target.redact(json.dumps(check.got, ensure_ascii=False)[:1500]),
            exchange=self.exchanges[-1],
        )

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
        if era is not Era.MODERN and self.session_id:
            sent.append(("Mcp-Session-Id", self.session_id))
        return self.send(encode(message), headers=changed(sent, headers or {}))

    def _excerpt(self, body: bytes) -> str:
        text = self.target.redact(body[:EXCERPT_BYTES].decode(errors="backslashreplace"))
        return text if len(body) <= EXCERPT_BYTES else f"{text}... ({len(body)} bytes in all)"

    def _quoted(self, body: bytes) -> str:
        """A body as a word of a shell command; bytes that are no UTF-8 in bash's $'...', which alone can hold them."""
        try:
            body.decode()
        except UnicodeDecodeError:
            text = self._excerpt(body.replace(b"\\", b"\\\\").replace(b"'", b"\\'"))
            return f"$'{text}'"
        return shlex.quote(self._excerpt(body))

    def _curl(self, request: Request) -> str:
        secret_names = {name.lower() for name, _ in (*self.target.credentials, *self.target.refused)}
        parts = ["curl", "-sS", "-i", "-X", request.method]
        for name, value in request.headers:
            if name.lower() in ("host", "content-length", "connection", "user-agent"):
                continue
            shown = "***" if name.lower() in secret_names else self.target.redact(value.strip())
            parts += ["-H", shlex.quote(f"{name}: {shown}")]
        if request.body:
            parts += ["--data-binary", self._quoted(request.body)]
        origin = replace(self.target.endpoint, path=request.path).url
        return " ".join([*parts, shlex.quote(self.target.redact(origin))])


@dataclass(frozen=True, slots=True)
class Discovery:
    """What the endpoint says it is: asked once per worker, never assumed.

    `eras` maps an era to the result that introduced it (InitializeResult or DiscoverResult); `missing` to the reason.
    """

    eras: Mapping[Era, Mapping[str, object]]
    missing: Mapping[Era, str]
    tools: Mapping[str, Mapping[str, object]]
    session_id: str | None
    retries: int = 0
    interpreter: Interpreter = OUR_INTERPRETER

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
            eras[era] = _readable_result(fault)
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
    return Discovery(eras, missing, _tools(client, eras), session_id, interpreter=client.target.interpreter)


@dataclass(frozen=True, slots=True)
class Agreement:
    """An older revision the endpoint agreed to: its InitializeResult and the session it minted for it, if any."""

    result: Mapping[str, object]
    session_id: str | None


def agree(client: Client, revision: Era) -> Agreement | str:
    """Offers a revision in a handshake of its own; returns the agreement, or what the endpoint said instead.

    Raises:
        WireError, Malformed
    """
    client.session_id = None
    reply = client.call(revision, "initialize", initialize_params(str(revision)))
    if reply.result is None:
        return f"initialize was answered with {json.dumps(reply.error or reply.answer.status)[:200]}"
    if reply.result.get("protocolVersion") != revision:
        return f"it offers {reply.result.get('protocolVersion')}"
    session_id = reply.answer.header("mcp-session-id")
    if session_id:
        client.session_id = session_id
        client.notify(revision, "notifications/initialized")
    return Agreement(reply.result, session_id)


def _readable_result(fault: AssertionError) -> Mapping[str, object]:
    got = getattr(fault, "got", None)
    result = got.get("result", got) if isinstance(got, dict) else None
    return result if isinstance(result, dict) else {}


def _tools(client: Client, eras: Mapping[Era, object]) -> dict[str, Mapping[str, object]]:
    for era in eras:
        try:
            reply = client.call(era, "tools/list")
        except AssertionError as fault:
            listed: object = _readable_result(fault).get("tools")
        else:
            listed = (reply.result or {}).get("tools")
        if isinstance(listed, list) and listed:
            return {str(tool["name"]): tool for tool in listed if isinstance(tool, dict) and "name" in tool}
    return {}
