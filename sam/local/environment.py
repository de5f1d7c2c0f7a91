"""One execution environment: a real awslambdaric process behind its own Runtime API, with Lambda's limits and lines.

It runs one invocation at a time and never serves HTTP clients; the pool decides when it starts and when it ends.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import logs, processes
from .host import Host, LaunchError, Layout, launch, layout
from .runtime import Answer, Invocation, RuntimeApi
from .stack import Stack

POLL_S = 0.01  # how often memory is looked at: a fast allocator overshot a 512 MB limit by 8 MB at 5 ms
INIT_LIMIT_S = 10.0
REAP_S = 5.0
MB = 1024 * 1024
_PIPE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an invocation ended. `function_error` is None or `Unhandled`, as the Invoke API says it."""

    payload: bytes
    function_error: str | None
    log_tail: bytes


class Environment:
    """Lives from `start` to `stop`; `lost` is true once it cannot take another invocation."""

    def __init__(
        self, stack: Stack, host: Host, layer: Path | None, write_log: Callable[[logs.LogEvent], None]
    ) -> None:
        self.stack = stack
        self.lost = False
        self.stream = f"{time.strftime('%Y/%m/%d', time.gmtime())}/[$LATEST]{uuid.uuid4().hex}"
        self._host = host
        self._layer = layer
        self._write_log = write_log
        self._platform = logs.Platform(
            log_format=stack.log_format,
            function_name=stack.function_name,
            function_arn=stack.function_arn,
            region=stack.region,
            stream=self.stream,
            memory_mb=stack.memory_mb,
        )
        self._tail = bytearray()
        self._init_ms: float | None = None
        self._max_memory = 0
        self._peak_resident = 0
        self._process: asyncio.subprocess.Process | None = None
        self._exited: asyncio.Task[int] | None = None
        self._readers: list[_Reader] = []
        self._lines = logs.Lines()
        self._frames = logs.Frames()
        self._api = RuntimeApi()
        self._making = asyncio.Lock()  # held while there may be a process that nobody knows of yet
        self._scratch = Path(tempfile.mkdtemp(prefix="sam-local-"))

    # -- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Run the init phase: start the process and wait until it asks for its first event, ends, or times out."""
        self._say(logs.init_start(self._platform, time.time()))
        async with self._making:
            if self.lost:
                raise LaunchError("the stack is ending")
            await self._spawn()
        began = time.monotonic()  # Lambda's init begins with the runtime; making the environment is not in it
        assert self._exited is not None
        # Lambda cuts init at 10 s and tries once more inside the invocation, with the function's timeout; here it is
        # one try with the longer of the two.
        await _first_of(self._api.ready, self._exited, timeout_s=max(INIT_LIMIT_S, self.stack.timeout_s))
        self._init_ms = (time.monotonic() - began) * 1000
        if not self._api.ready.done():
            await self._fail_init()

    async def stop(self) -> None:
        """End every process of this environment and remove what it left. May be called twice."""
        self.lost = True
        async with self._making:
            await self._end_processes()
        await self._api.close()
        for reader in self._readers:
            reader.close()
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)

    async def invoke(self, payload: bytes, trace_id: str, request_id: str, client_context: str = "") -> Outcome:
        """Run one event to its end, whatever end that is, and write its log lines. Never raises for the function."""
        self._tail.clear()
        if self._api.init_error is not None:
            return self._report_failed_init(request_id, self._api.init_error)
        timeout_s = self.stack.timeout_s
        invocation = Invocation(
            request_id=request_id,
            payload=payload,
            deadline_ms=int((time.time() + timeout_s) * 1000),
            function_arn=self.stack.function_arn,
            trace_id=trace_id,
            client_context=client_context,
        )
        self._say(logs.start(self._platform, time.time(), request_id))
        began = time.monotonic()
        await self._api.offer(invocation)
        out_of_memory = await self._wait(invocation, began + timeout_s)
        duration_ms = ((invocation.answered_at or time.monotonic()) - began) * 1000
        if invocation.done.done():
            self._look_at_memory()
            return self._report_done(invocation, duration_ms)
        return await self._report_lost(invocation, duration_ms, out_of_memory)

    # -- one invocation -----------------------------------------------------------------------------------------

    async def _wait(self, invocation: Invocation, deadline: float) -> bool:
        """Until done, process gone, deadline, or memory past the limit; returns whether it was memory."""
        assert self._exited is not None
        limit = self.stack.memory_mb * MB
        while not invocation.done.done() and not self._exited.done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await _first_of(invocation.done, self._exited, timeout_s=min(POLL_S, left))
            if invocation.done.done():
                return False
            if self._look_at_memory() > limit:
                return True
        return False

    def _look_at_memory(self) -> int:
        """The most memory seen so far, in bytes.

        The quick figure counts pages shared by fork once per process; only a new high of it is worth the exact one,
        which costs milliseconds, and only the exact one is reported or kills.
        """
        assert self._process is not None
        pids = processes.descendants(self._process.pid)
        if self._host.isolated:
            del pids[:1]  # its init is ours, as the one of Lambda is AWS's
        resident = processes.resident_bytes(pids)
        if resident > min(self._peak_resident + MB, self.stack.memory_mb * MB):
            self._peak_resident = resident
            self._max_memory = max(self._max_memory, processes.proportional_bytes(pids))
        return self._max_memory

    def _report_done(self, invocation: Invocation, duration_ms: float) -> Outcome:
        answer = invocation.answer
        assert answer is not None
        self._drain()
        status = "success" if answer.error_type is None else "error"
        self._say(
            logs.end_and_report(
                self._platform, time.time(), self._figures(invocation, duration_ms, status, answer.error_type)
            )
        )
        return Outcome(answer.payload, None if answer.error_type is None else "Unhandled", self._log_tail())

    async def _report_lost(self, invocation: Invocation, duration_ms: float, out_of_memory: bool) -> Outcome:
        assert self._exited is not None
        exited_by_itself = self._exited.done()
        await self._end_processes()
        self._drain()
        request_id = invocation.request_id
        limit_mb = self.stack.memory_mb
        if out_of_memory:
            self._max_memory = limit_mb * MB  # what Lambda shows; the overshoot is our polling
            kind, cause, status = "Runtime.OutOfMemory", "signal: killed", "error"
        elif exited_by_itself:
            kind, cause, status = "Runtime.ExitError", _cause(self._exited.result()), "error"
        else:
            kind, cause, status = "Sandbox.Timedout", "", "timeout"
        if status == "timeout":
            duration_ms = self.stack.timeout_s * 1000.0
            message = f"RequestId: {request_id} Error: Task timed out after {self.stack.timeout_s:.2f} seconds"
            self._say(logs.timed_out(self._platform, time.time(), request_id, self.stack.timeout_s))
        else:
            message = f"RequestId: {request_id} Error: Runtime exited with error: {cause}"
            self._say(logs.exit_error(self._platform, request_id, cause, kind))
        named = None if status == "timeout" else kind
        self._say(
            logs.end_and_report(self._platform, time.time(), self._figures(invocation, duration_ms, status, named))
        )
        if invocation.answer is not None and invocation.answer.error_type is None:
            return Outcome(invocation.answer.payload, None, self._log_tail())  # it had answered before it went
        return Outcome(_error(kind, message), "Unhandled", self._log_tail())

    def _figures(self, invocation: Invocation, duration_ms: float, status: str, error_type: str | None) -> logs.Report:
        init_ms, self._init_ms = self._init_ms, None
        return logs.Report(
            request_id=invocation.request_id,
            duration_ms=duration_ms,
            memory_mb=self.stack.memory_mb,
            max_memory_mb=min(-(-self._max_memory // MB), self.stack.memory_mb),
            init_ms=init_ms,
            status=status,
            error_type=error_type,
        )

    # -- a failed init ------------------------------------------------------------------------------------------

    async def _fail_init(self) -> None:
        assert self._exited is not None
        exited = self._exited.done()
        await self._end_processes()
        self._drain()
        if self._api.init_error is None:
            kind = "Runtime.ExitError" if exited else "Sandbox.Timedout"
            cause = _cause(self._exited.result()) if exited else "init timed out"
            self._api.init_error = Answer(_error(kind, f"Error: Runtime exited with error: {cause}"), kind)
        status = "error" if exited else "timeout"
        error_type = self._api.init_error.error_type if exited else None
        self._say(logs.init_report(self._platform, time.time(), self._init_ms or 0.0, status, error_type))

    def _report_failed_init(self, request_id: str, error: Answer) -> Outcome:
        self._say(logs.start(self._platform, time.time(), request_id))
        report = logs.Report(
            request_id=request_id,
            duration_ms=0.0,
            memory_mb=self.stack.memory_mb,
            max_memory_mb=min(-(-self._max_memory // MB), self.stack.memory_mb),
            init_ms=self._init_ms,
            status="error",
            error_type=error.error_type,
        )
        self._say(logs.end_and_report(self._platform, time.time(), report))
        return Outcome(error.payload, "Unhandled", self._log_tail())

    async def _end_processes(self) -> None:
        """Kill what the launcher started and let it reap that; a launcher that does not end by then is killed too."""
        self.lost = True
        if self._process is None or self._exited is None:
            return
        if not self._exited.done():
            processes.kill_below(self._process.pid)
            await _first_of(self._exited, timeout_s=REAP_S)
        if not self._exited.done():
            processes.kill_tree(self._process.pid)
        await self._exited

    # -- the process --------------------------------------------------------------------------------------------

    async def _spawn(self) -> None:
        output, telemetry = _Reader(self._on_output), _Reader(self._on_telemetry)
        self._readers = [output, telemetry]
        place = layout(self._host, self.stack.code_dir, self._layer, self._scratch)
        launched = await launch(
            self._host,
            place,
            ["-m", "awslambdaric", self.stack.handler],
            {**self._variables(place), "_LAMBDA_TELEMETRY_LOG_FD": str(telemetry.child_fd)},
            self._scratch,
            output=output.child_fd,
            pass_fds=(telemetry.child_fd,),
        )
        self._process = launched.process
        self._exited = asyncio.create_task(self._process.wait())
        self._exited.add_done_callback(self._on_exit)
        for reader in self._readers:
            reader.begin()
        await self._api.serve(launched.listening)

    def _on_exit(self, _: object) -> None:
        self.lost = True

    def _variables(self, place: Layout) -> dict[str, str]:
        """The template's variables and Lambda's own. The credentials are random: they open nothing, and a program that
        tells them has told something it could only have found here.
        """
        stack = self.stack
        return {
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            **stack.environment,
            **place.variables,
            "_HANDLER": stack.handler,
            "LAMBDA_TASK_ROOT": place.task_root,
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "AWS_REGION": stack.region,
            "AWS_DEFAULT_REGION": stack.region,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{stack.runtime}",
            "AWS_LAMBDA_FUNCTION_NAME": stack.function_name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(stack.memory_mb),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": stack.log_group,
            "AWS_LAMBDA_LOG_STREAM_NAME": self.stream,
            "AWS_LAMBDA_LOG_FORMAT": stack.log_format,
            "AWS_ACCESS_KEY_ID": "ASIA" + secrets.token_hex(8).upper(),
            "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30),
            "AWS_SESSION_TOKEN": secrets.token_urlsafe(120),
        }

    # -- logs ---------------------------------------------------------------------------------------------------

    def _say(self, lines: list[str]) -> None:
        now_ms = int(time.time() * 1000)
        for line in lines:
            self._log(now_ms, line)

    def _log(self, timestamp_ms: int, message: str) -> None:
        self._write_log(logs.LogEvent(self.stream, timestamp_ms, message))
        self._tail += message.encode("utf-8", "replace") + (b"" if message.endswith("\n") else b"\n")
        del self._tail[: -logs.LOG_TAIL_BYTES]

    def _log_tail(self) -> bytes:
        return bytes(self._tail)

    def _on_output(self, data: bytes) -> None:
        now_ms = int(time.time() * 1000)
        for line in self._lines.feed(data):
            self._log(now_ms, line)

    def _on_telemetry(self, data: bytes) -> None:
        try:
            for timestamp_ms, message in self._frames.feed(data):
                self._log(timestamp_ms, message)
        except ValueError:  # some program found the descriptor and wrote to it
            self._frames = logs.Frames()
            self._on_output(data)

    def _drain(self) -> None:
        """Take what the processes wrote before now, so that END comes after it."""
        for reader in self._readers:
            reader.drain()
        now_ms = int(time.time() * 1000)
        for line in self._lines.flush():
            self._log(now_ms, line)


class _Reader:
    """The reading end of a pipe, in the event loop; `drain` reads at once what is there."""

    def __init__(self, receive: Callable[[bytes], None]) -> None:
        self._receive = receive
        self._fd, self.child_fd = os.pipe()
        os.set_blocking(self._fd, False)
        with contextlib.suppress(OSError):  # over the user's pipe quota: the default size does
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._loop = asyncio.get_running_loop()
        self._open = True

    def begin(self) -> None:
        """Call once the child has its end."""
        os.close(self.child_fd)
        self.child_fd = -1
        self._loop.add_reader(self._fd, self._ready)

    def _ready(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        if data:
            self._receive(data)
        else:
            self.close()

    def drain(self) -> None:
        while self._open:
            try:
                data = os.read(self._fd, 65536)
            except BlockingIOError:
                return
            if not data:
                return
            self._receive(data)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
        if self.child_fd >= 0:
            os.close(self.child_fd)
            self.child_fd = -1


async def _first_of(*futures: asyncio.Future[Any], timeout_s: float) -> None:
    await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


def _cause(returncode: int) -> str:
    """How Lambda names an exit."""
    number = returncode - 128 if returncode > 128 else -returncode
    if number <= 0 or number not in set(signal.Signals):
        return f"exit status {returncode}"
    return f"signal: {signal.strsignal(number)}".lower()


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()
