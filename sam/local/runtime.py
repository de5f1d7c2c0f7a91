"""The Lambda Runtime API (2018-06-01) that one environment talks to; it knows nothing of processes or HTTP clients.

It behaves as AWS's own does where code under test could notice: `next` during an invocation answers with the same
event again, so a program that reaches this port can read the event, here as there.

Two of a call's three HTTP requests come here, so aiohttp's parser is used without its server: a task and a dozen
objects for each request took a third of a warm call.
"""

import asyncio
import json
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser, RawRequestMessage

PREFIX = "/2018-06-01/runtime/"
MAX_RESPONSE_BYTES = 6 * 1024 * 1024 + 100 * 1024  # Lambda takes a little over 6 MB; the message names 6291556
_NAMED_LIMIT = 6291556
_READ_BYTES = 64 * 1024  # what the parser would pause at; bodies are taken as they come, so it has nothing to hold


@dataclass(frozen=True, slots=True)
class Answer:
    """What the runtime posted. `error_type` is set when it posted an error."""

    payload: bytes
    error_type: str | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """Why an invocation was cut off: its `status`, and for an error its type and cause."""

    status: str
    kind: str
    cause: str = ""


@dataclass(slots=True)
class Invocation:
    """One event on its way through an environment.

    `done` resolves to None once the runtime asks for the next event; whoever watches the environment may resolve it to
    the Loss that it saw before.
    """

    request_id: str
    payload: bytes
    deadline_ms: int
    function_arn: str
    trace_id: str
    client_context: str = ""
    tenant: str = ""
    answer: Answer | None = None
    answered_at: float | None = None
    delivered_at: float | None = None
    done: asyncio.Future[Loss | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer of the Runtime API."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class RuntimeApi:
    """Serves one runtime from its start to its end, and the next one gets its own.

    `ready` resolves when the runtime first asks for an event, that is, when init is over; `restoring` when it waits for
    the restore of a SnapStart snapshot, which `release` lets happen. `init_error` holds what the runtime said when it
    could not start.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.restoring: asyncio.Future[None] = self._loop.create_future()
        self.init_error: Answer | None = None
        self._current: Invocation | None = None
        self._released = False
        self._closed = False
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._want_event: list[_Connection] = []
        self._want_restore: list[_Connection] = []

    async def serve(self, listening: socket.socket) -> None:
        """Serve on a bound socket, wherever (and in whichever network namespace) it was made."""
        self._server = await self._loop.create_server(lambda: _Connection(self, self._loop), sock=listening)

    async def close(self) -> None:
        """Let go of every program that still waits here, and of the port."""
        self._closed = True
        self.release()
        self._hand_out(lambda: _refusal(410, "Gone", "the environment has ended"))
        for connection in list(self._connections):
            connection.close()
        if self._server is not None:
            self._server.close()
            self._server = None

    def release(self) -> None:
        """Let a runtime that waits for its restore go on."""
        self._released = True
        waiting, self._want_restore = self._want_restore, []
        for connection in waiting:
            connection.reply(Reply(200, b""))

    def offer(self, invocation: Invocation) -> None:
        """Hand the event to the runtime. The environment must be idle."""
        self._current = invocation
        self._hand_out(lambda: _event(invocation))

    def _hand_out(self, reply: Callable[[], Reply]) -> None:
        waiting, self._want_event = self._want_event, []
        for connection in waiting:
            connection.reply(reply())

    # -- what connections ask ------------------------------------------------------------------------------------

    def opened(self, connection: "_Connection") -> None:
        self._connections.add(connection)

    def gone(self, connection: "_Connection") -> None:
        self._connections.discard(connection)
        for waiting in (self._want_event, self._want_restore):
            if connection in waiting:
                waiting.remove(connection)

    def handle(self, connection: "_Connection", request: RawRequestMessage, body: bytes) -> Reply | None:
        """The reply, or None when the connection is to wait for one."""
        path = request.path.partition("?")[0]
        if request.method == "GET" and path == PREFIX + "invocation/next":
            return self._next(connection)
        if request.method == "GET" and path == PREFIX + "restore/next":
            return self._restore(connection)
        if request.method == "POST":
            kind = request.headers.get("Lambda-Runtime-Function-Error-Type")
            if path in (PREFIX + "init/error", PREFIX + "restore/error"):
                self.init_error = Answer(body, kind or "Runtime.Unknown")
                return _ACCEPTED
            match path.removeprefix(PREFIX).split("/"):
                case ["invocation", request_id, "response"]:
                    return self._respond(request_id, body, None)
                case ["invocation", request_id, "error"]:
                    return self._respond(request_id, body, kind or "Runtime.UnknownReason")
        return _refusal(404, "NotFound", f"{request.method} {path} is not part of the Runtime API")

    def _next(self, connection: "_Connection") -> Reply | None:
        if not self.ready.done():
            self.ready.set_result(None)
        current = self._current
        if current is not None and current.answer is not None:
            self._current = None
            if not current.done.done():
                current.done.set_result(None)
        if self._closed:
            return _refusal(410, "Gone", "the environment has ended")
        if self._current is not None:
            return _event(self._current)
        self._want_event.append(connection)
        return None

    def _restore(self, connection: "_Connection") -> Reply | None:
        if not self.restoring.done():
            self.restoring.set_result(None)
        if self._released:
            return Reply(200, b"")
        self._want_restore.append(connection)
        return None

    def _respond(self, request_id: str, body: bytes, error_type: str | None) -> Reply:
        current = self._current
        if current is None or current.request_id != request_id:
            return _refusal(400, "InvalidRequestID", f"no invocation {request_id} is running")
        if current.answer is not None:
            return _refusal(403, "InvalidStateTransition", f"invocation {request_id} has been answered")
        current.answered_at = time.monotonic()
        if len(body) > MAX_RESPONSE_BYTES:
            message = f"Response payload size exceeded maximum allowed payload size ({_NAMED_LIMIT} bytes)."
            kind = "Function.ResponseSizeTooLarge"
            current.answer = Answer(json.dumps({"errorMessage": message, "errorType": kind}).encode(), kind)
            return _refusal(413, "RequestEntityTooLarge", message)
        current.answer = Answer(body, error_type and _error_type(body, error_type))
        return _ACCEPTED


class _Connection(BaseProtocol):
    """One client's connection: its requests one after another, each answered before the next is looked at."""

    def __init__(self, api: RuntimeApi, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._api = api
        self._requests = HttpRequestParser(self, loop, _READ_BYTES, auto_decompress=False)
        self._asked: deque[tuple[RawRequestMessage, StreamReader]] = deque()
        self._body = bytearray()
        self._now: RawRequestMessage | None = None  # the one that waits for its reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._api.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._api.gone(self)
        super().connection_lost(exc)

    def pause_reading(self) -> None:
        """Not needed, see _READ_BYTES."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Not needed, see _READ_BYTES."""

    def data_received(self, data: bytes) -> None:
        try:
            messages, _, _ = self._requests.feed_data(data)
        except HttpProcessingError as error:
            self._write(_refusal(400, "BadRequest", str(error.message)), close=True)
            return
        self._asked.extend(messages)
        self._go_on()

    def _go_on(self) -> None:
        while self._asked and self._now is None and self.transport is not None:
            request, payload = self._asked[0]
            if payload.exception() is not None:
                self.close()
                return
            more = payload.read_nowait()
            if len(self._body) <= MAX_RESPONSE_BYTES:  # what is too long is read to its end, but not kept
                self._body += more
            if not payload.is_eof():
                if not self._body and request.headers.get("Expect", "").lower() == "100-continue":
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body = bytes(self._body)
            self._body.clear()
            self._asked.popleft()
            self._now = request
            reply = self._api.handle(self, request, body)
            if reply is not None:
                self.reply(reply)

    def reply(self, reply: Reply) -> None:
        """Answer the request that waits, and go on with what came after it."""
        assert self._now is not None
        close, self._now = self._now.should_close, None
        self._write(reply, close)
        if self._asked:
            self._loop.call_soon(self._go_on)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def _write(self, reply: Reply, close: bool) -> None:
        if self.transport is None:
            return
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in reply.headers]
        if close:
            lines.append("Connection: close")
        lines.append(f"Content-Length: {len(reply.body)}\r\n\r\n")
        self.transport.write("\r\n".join(lines).encode("utf-8", "replace") + reply.body)
        if close:
            self.transport.close()


def _event(invocation: Invocation) -> Reply:
    if invocation.delivered_at is None:
        invocation.delivered_at = time.monotonic()
    headers = [
        ("Lambda-Runtime-Aws-Request-Id", invocation.request_id),
        ("Lambda-Runtime-Deadline-Ms", str(invocation.deadline_ms)),
        ("Lambda-Runtime-Invoked-Function-Arn", invocation.function_arn),
        ("Lambda-Runtime-Trace-Id", invocation.trace_id),
    ]
    if invocation.tenant:
        headers.append(("Lambda-Runtime-Aws-Tenant-Id", invocation.tenant))
    if invocation.client_context:
        headers.append(("Lambda-Runtime-Client-Context", invocation.client_context))
    return Reply(200, invocation.payload, tuple(headers))


def _error_type(body: bytes, named: str) -> str:
    """The exception class out of the error document, which is what Lambda reports; `named` when there is none."""
    try:
        document = json.loads(body)
    except ValueError:
        return named
    kind = document.get("errorType") if isinstance(document, dict) else None
    return kind if isinstance(kind, str) else named


_ACCEPTED = Reply(202, b'{"status":"OK"}\n')


def _refusal(status: int, kind: str, message: str) -> Reply:
    return Reply(status, json.dumps({"errorMessage": message, "errorType": kind}).encode())
