"""The Lambda Runtime API (2018-06-01) that one environment talks to; it knows nothing of processes or HTTP clients.

It behaves as AWS's own does where code under test could notice: `next` during an invocation answers with the same
event again, so a program that reaches this port can read the event, here as there.
"""

import asyncio
import json
import socket
import time
from dataclasses import dataclass, field

from aiohttp import web

PREFIX = "/2018-06-01/runtime/"
MAX_RESPONSE_BYTES = 6 * 1024 * 1024 + 100 * 1024  # Lambda takes a little over 6 MB; the message names 6291556
_NAMED_LIMIT = 6291556


@dataclass(frozen=True, slots=True)
class Answer:
    """What the runtime posted. `error_type` is set when it posted an error."""

    payload: bytes
    error_type: str | None = None


@dataclass(slots=True)
class Invocation:
    """One event on its way through an environment. `done` resolves once the runtime asks for the next event."""

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
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class RuntimeApi:
    """Serves one runtime from its start to its end, and the next one gets its own.

    `ready` resolves when the runtime first asks for an event, that is, when init is over; `restoring` when it waits for
    the restore of a SnapStart snapshot, which `release` lets happen. `init_error` holds what the runtime said when it
    could not start.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.restoring: asyncio.Future[None] = loop.create_future()
        self._released: asyncio.Future[None] = loop.create_future()
        self.init_error: Answer | None = None
        self._current: Invocation | None = None
        self._arrived = asyncio.Condition()
        self._closed = False
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=1.0)

    async def serve(self, listening: socket.socket) -> None:
        """Serve on a bound socket, wherever (and in whichever network namespace) it was made."""
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()

    async def close(self) -> None:
        """Let go of every program that still waits here, and of the port."""
        async with self._arrived:
            self._closed = True
            self._arrived.notify_all()
        self.release()
        await self._runner.cleanup()

    def release(self) -> None:
        """Let a runtime that waits for its restore go on."""
        if not self._released.done():
            self._released.set_result(None)

    async def offer(self, invocation: Invocation) -> None:
        """Hand the event to the runtime. The environment must be idle."""
        async with self._arrived:
            self._current = invocation
            self._arrived.notify_all()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if request.method == "GET" and path == PREFIX + "invocation/next":
            return await self._next()
        if request.method == "GET" and path == PREFIX + "restore/next":
            if not self.restoring.done():
                self.restoring.set_result(None)
            await asyncio.shield(self._released)
            return web.Response()
        if request.method == "POST" and path in (PREFIX + "init/error", PREFIX + "restore/error"):
            return await self._init_error(request)
        parts = path.removeprefix(PREFIX).split("/")
        if request.method == "POST" and len(parts) == 3 and parts[0] == "invocation":
            if parts[2] == "response":
                return await self._respond(request, parts[1], error_type=None)
            if parts[2] == "error":
                kind = request.headers.get("Lambda-Runtime-Function-Error-Type", "Runtime.UnknownReason")
                return await self._respond(request, parts[1], error_type=kind)
        return _refusal(404, "NotFound", f"{request.method} {path} is not part of the Runtime API")

    async def _next(self) -> web.Response:
        if not self.ready.done():
            self.ready.set_result(None)
        current = self._current
        if current is not None and current.answer is not None:
            self._current = None
            if not current.done.done():
                current.done.set_result(None)
        async with self._arrived:
            await self._arrived.wait_for(lambda: self._current is not None or self._closed)
            invocation = self._current
        if invocation is None:
            return _refusal(410, "Gone", "the environment has ended")
        if invocation.delivered_at is None:
            invocation.delivered_at = time.monotonic()
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(invocation.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": invocation.function_arn,
            "Lambda-Runtime-Trace-Id": invocation.trace_id,
        }
        if invocation.tenant:
            headers["Lambda-Runtime-Aws-Tenant-Id"] = invocation.tenant
        if invocation.client_context:
            headers["Lambda-Runtime-Client-Context"] = invocation.client_context
        return web.Response(body=invocation.payload, headers=headers)

    async def _respond(self, request: web.BaseRequest, request_id: str, error_type: str | None) -> web.Response:
        body = await request.content.read()
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
        return _accepted()

    async def _init_error(self, request: web.BaseRequest) -> web.Response:
        body = await request.content.read()
        kind = request.headers.get("Lambda-Runtime-Function-Error-Type", "Runtime.Unknown")
        self.init_error = Answer(body, kind)
        return _accepted()


def _error_type(body: bytes, named: str) -> str:
    """The exception class out of the error document, which is what Lambda reports; `named` when there is none."""
    try:
        document = json.loads(body)
    except ValueError:
        return named
    kind = document.get("errorType") if isinstance(document, dict) else None
    return kind if isinstance(kind, str) else named


def _accepted() -> web.Response:
    return web.Response(status=202, body=b'{"status":"OK"}\n', content_type="application/json")


def _refusal(status: int, kind: str, message: str) -> web.Response:
    body = json.dumps({"errorMessage": message, "errorType": kind}).encode()
    return web.Response(status=status, body=body, content_type="application/json")
