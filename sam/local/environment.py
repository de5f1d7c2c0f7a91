"""One execution environment: a real awslambdaric process behind its own Runtime API, with Lambda's limits and lines.

It runs one invocation at a time and never serves HTTP clients; the pool decides when it starts and when it ends.
What the runtime does when it fails: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
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
from .cpu import Share
from .host import Host, Launched, LaunchError, Layout, launch, layout
from .runtime import Answer, Invocation, Loss, RuntimeApi
from .stack import Stack

POLL_S = 0.01  # how often memory is looked at: a fast allocator overshot a 512 MB limit by 8 MB at 5 ms
INIT_LIMIT_S = 10.0
LONG_INIT_LIMIT_S = 130.0  # provisioned concurrency and SnapStart: this or the function's timeout, the longer one
REAP_S = 5.0
MB = 1024 * 1024
ON_DEMAND, PROVISIONED, SNAP_START = "on-demand", "provisioned-concurrency", "snap-start"
_PIPE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Site:
    """How environments are made on this machine, the same for all of one stack."""

    host: Host
    layer: Path | None
    scratch: Path  # where each makes a directory of its own
    write_log: Callable[[logs.LogEvent], None]
    new_share: Callable[[int], Share] | None = None  # of memory in MB; None gives every environment the whole machine
    freezes: bool = True
    init_limit_s: float = INIT_LIMIT_S


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an invocation ended. `function_error` is None or `Unhandled`, as the Invoke API says it."""

    payload: bytes
    function_error: str | None
    log_tail: bytes
    duration_ms: float = 0.0
    version: str = "$LATEST"


@dataclass(frozen=True, slots=True)
class InitFailure:
    """Why a runtime did not come up: `status` is error or timeout; `answer` is what a caller is told."""

    status: str
    error_type: str | None
    answer: Answer


class Environment:
    """Lives from `start` to `stop`. A runtime that fails is started again, in the next invocation and with the same
    /tmp, as Lambda does; `lost` is true once there is nothing left to start it in.
    """

    def __init__(self, stack: Stack, site: Site, kind: str = ON_DEMAND, tenant: str | None = None) -> None:
        self.stack = stack
        self.kind = kind
        self.tenant = tenant
        self.lost = False
        self.init_failure: InitFailure | None = None  # of `start`; an invocation may have mended it since
        self.stream = f"{time.strftime('%Y/%m/%d', time.gmtime())}/[{stack.version}]{uuid.uuid4().hex}"
        self._site = site
        self._platform = logs.Platform(
            log_format=stack.log_format,
            function_name=stack.function_name,
            function_arn=stack.function_arn,
            region=stack.region,
            stream=self.stream,
            memory_mb=stack.memory_mb,
            initialization_type=kind,
            version=stack.version,
            tenant=tenant,
            system_level=stack.system_log_level,
        )
        self._tail = bytearray()
        self._init_ms: float | None = None
        self._restore_ms: float | None = None
        self._max_memory = 0
        self._peak_resident = 0
        self._looked_s = 0.0
        self._launched: Launched | None = None
        self._gone: asyncio.Task[int] | None = None
        self._exited: asyncio.Future[int] | None = None
        self._readers: list[_Reader] = []
        self._lines = logs.Lines()
        self._frames = logs.Frames()
        self._api = RuntimeApi()
        self._share: Share | None = None
        self._frozen: list[int] = []
        self._making = asyncio.Lock()  # held while there may be a process that nobody knows of yet
        self._scratch = Path(tempfile.mkdtemp(prefix="environment-", dir=site.scratch))

    # -- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Run the init phase. Its failure is no error here: the first invocation tries once more. Raises LaunchError.

        With SnapStart it ends where the snapshot would be taken, and `restore` goes on from there.
        """
        self._say(logs.init_start(self._platform, time.time()))
        async with self._making:
            if self.lost:
                raise LaunchError("the stack is ending")
            await self._make()
        began = time.monotonic()  # Lambda's init begins with the runtime; making the environment is not in it
        failure = await self._run_init(began + self._init_limit_s)
        self._init_ms = (time.monotonic() - began) * 1000
        self.init_failure = failure
        if failure is None:
            self._say(logs.init_report(self._platform, time.time(), self._init_ms, "success"))
        else:
            status, kind = failure.status, failure.error_type
            self._say(logs.init_report(self._platform, time.time(), self._init_ms, status, kind))
        if self.kind == SNAP_START:
            self._init_ms = None  # it was when the version was published
        if self._share is not None and self._launched is not None:
            self._share.limit(self._launched.top)

    async def restore(self) -> None:
        """Go on from the snapshot; the invocation's report tells how long it took."""
        self.thaw()
        self._say(logs.restore_start(self._platform, time.time()))
        began = time.monotonic()
        self._api.release()
        failure = await self._until_ready(began + INIT_LIMIT_S) if self._runs else None
        self._restore_ms = (time.monotonic() - began) * 1000
        status, kind = ("success", None) if failure is None else (failure.status, failure.error_type)
        self._say(logs.restore_report(self._platform, time.time(), self._restore_ms, status, kind))

    async def stop(self) -> None:
        """End every process of this environment and remove what it left. May be called twice."""
        self.lost = True
        if self._share is not None:
            self._share.rest()
        async with self._making:
            if self._launched is not None and self._gone is not None:
                if not self._gone.done():
                    processes.kill_below(self._launched.process.pid)
                    await _first_of(self._gone, timeout_s=REAP_S)
                if not self._gone.done():
                    processes.kill_tree(self._launched.process.pid)
                await self._gone
                self._launched.close()
        await self._api.close()
        for reader in self._readers:
            reader.close()
        if self._share is not None:
            self._share.close()
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)

    def freeze(self) -> None:
        """Stop every process, as Lambda does between invocations."""
        if self._site.freezes and self._runs and not self._frozen and self._launched is not None:
            if self._share is not None:
                self._share.rest()
            self._frozen = processes.stop_below(self._launched.top)

    def thaw(self) -> None:
        """Let the processes go on. Nothing happens when they do."""
        if self._frozen:
            processes.send(self._frozen, signal.SIGCONT)
            self._frozen = []
        if self._share is not None and self._runs:
            self._share.wake()

    @property
    def _runs(self) -> bool:
        return self._exited is not None and not self._exited.done()

    @property
    def _init_limit_s(self) -> float:
        if self.kind == ON_DEMAND:
            return self._site.init_limit_s
        return max(LONG_INIT_LIMIT_S, self.stack.timeout_s)

    # -- one invocation -----------------------------------------------------------------------------------------

    async def invoke(
        self, payload: bytes, trace_id: str, request_id: str, client_context: str = "", arn: str = ""
    ) -> Outcome:
        """Run one event to its end, whatever end that is, and write its log lines. Never raises for the function."""
        self._tail.clear()
        self.thaw()
        timeout_s = self.stack.timeout_s
        invocation = Invocation(
            request_id=request_id,
            payload=payload,
            deadline_ms=int((time.time() + timeout_s) * 1000),
            function_arn=arn or self.stack.function_arn,
            trace_id=trace_id,
            client_context=client_context,
            tenant=self.tenant or "",
        )
        began = time.monotonic()
        failure = None if self._runs else await self._init_again(began, timeout_s)
        self._say(logs.start(self._platform, time.time(), request_id))
        if failure is not None:
            return self._report_failed_init(invocation, began, failure)
        self._api.offer(invocation)
        loss = await self._wait(invocation, began + timeout_s)
        duration_ms = ((invocation.answered_at or time.monotonic()) - began) * 1000
        if loss is None:
            if time.monotonic() - self._looked_s >= POLL_S:  # at many short calls a second, not after each
                self._look_at_memory()
            return self._report_done(invocation, duration_ms)
        return await self._report_lost(invocation, duration_ms, loss)

    async def _wait(self, invocation: Invocation, deadline: float) -> Loss | None:
        """Until done (None), process gone, deadline, or memory past the limit."""
        exited, done, loop = self._exited, invocation.done, asyncio.get_running_loop()
        assert exited is not None
        timer: asyncio.TimerHandle

        def look() -> None:
            """Again and again while it runs; most calls are over before the first time."""
            nonlocal timer
            left = deadline - time.monotonic()
            if done.done():
                return
            if left <= 0:
                done.set_result(Loss("timeout", "Sandbox.Timedout"))
            elif self._is_out_of_memory():
                done.set_result(Loss("error", "Runtime.OutOfMemory", "signal: killed"))
            else:
                timer = loop.call_later(min(POLL_S, left), look)

        def gone(of: asyncio.Future[int]) -> None:
            if not done.done():
                done.set_result(Loss("error", "Runtime.ExitError", _cause(of.result())))

        timer = loop.call_later(min(POLL_S, max(0.0, deadline - time.monotonic())), look)
        exited.add_done_callback(gone)
        try:
            return await done
        finally:
            timer.cancel()
            exited.remove_done_callback(gone)

    def _is_out_of_memory(self) -> bool:
        return self._look_at_memory() > self.stack.memory_mb * MB

    def _look_at_memory(self) -> int:
        """The most memory seen so far, in bytes.

        The quick figure counts pages shared by fork once per process; only a new high of it is worth the exact one,
        which costs milliseconds, and only the exact one is reported or kills.
        """
        assert self._launched is not None
        self._looked_s = time.monotonic()
        pids = processes.descendants(self._launched.top)
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
        self._say_report(invocation, duration_ms, status, answer.error_type)
        error = None if answer.error_type is None else "Unhandled"
        return self._outcome(answer.payload, error, duration_ms)

    async def _report_lost(self, invocation: Invocation, duration_ms: float, loss: Loss) -> Outcome:
        await self._end_runtime()
        self._drain()
        request_id, now_s = invocation.request_id, time.time()
        if loss.kind == "Runtime.OutOfMemory":
            self._max_memory = self.stack.memory_mb * MB  # what Lambda shows; the overshoot is our polling
        if loss.status == "timeout":
            duration_ms = self.stack.timeout_s * 1000.0
            message = f"RequestId: {request_id} Error: Task timed out after {self.stack.timeout_s:.2f} seconds"
            self._say(logs.timed_out(self._platform, now_s, request_id, self.stack.timeout_s))
        else:
            message = f"RequestId: {request_id} Error: {logs.exit_message(loss.cause)}"
            self._say(logs.exit_error(self._platform, request_id, loss.cause, loss.kind))
        self._say_report(invocation, duration_ms, loss.status, None if loss.status == "timeout" else loss.kind)
        if invocation.answer is not None and invocation.answer.error_type is None:
            return self._outcome(invocation.answer.payload, None, duration_ms)  # it had answered before it went
        return self._outcome(_error(loss.kind, message), "Unhandled", duration_ms)

    def _say_report(self, invocation: Invocation, duration_ms: float, status: str, error_type: str | None) -> None:
        init_ms, self._init_ms = self._init_ms, None
        restore_ms, self._restore_ms = self._restore_ms, None
        report = logs.Report(
            request_id=invocation.request_id,
            duration_ms=duration_ms,
            memory_mb=self.stack.memory_mb,
            max_memory_mb=min(-(-self._max_memory // MB), self.stack.memory_mb),
            init_ms=init_ms,
            restore_ms=restore_ms,
            status=status,
            error_type=error_type,
            trace=self._trace(invocation.trace_id),
            produced_bytes=len(invocation.answer.payload) if invocation.answer else 0,
            init_is_billed=self.kind != PROVISIONED,
        )
        self._say(logs.end_and_report(self._platform, time.time(), report))

    def _trace(self, trace_id: str) -> logs.Trace | None:
        parts = dict(part.split("=", 1) for part in trace_id.split(";") if "=" in part)
        if not self.stack.tracing or "Root" not in parts or parts.get("Sampled") == "0":
            return None
        return logs.Trace(parts["Root"], secrets.token_hex(8))

    def _outcome(self, payload: bytes, error: str | None, duration_ms: float) -> Outcome:
        return Outcome(payload, error, bytes(self._tail), duration_ms, self.stack.version)

    # -- init ---------------------------------------------------------------------------------------------------

    async def _run_init(self, deadline: float) -> InitFailure | None:
        """Start a runtime and wait until it is ready (None), failed, took too long, or took too much memory."""
        assert self._launched is not None
        self._max_memory = self._peak_resident = 0  # of the runtime before
        await self._api.close()
        self._api = RuntimeApi()
        await self._api.serve(self._launched.listening.dup())
        self._exited = await self._launched.run()
        return await self._until_ready(deadline)

    async def _until_ready(self, deadline: float) -> InitFailure | None:
        api, exited = self._api, self._exited
        assert exited is not None
        # A snapshot is waited for once; after its release the runtime asks for its first event like any other.
        reached = [api.ready] if api.restoring.done() else [api.ready, api.restoring]
        while not any(future.done() for future in reached):
            if exited.done():
                return await self._init_failed("error", "Runtime.ExitError", _cause(exited.result()))
            left = deadline - time.monotonic()
            if left <= 0:
                return await self._init_failed("timeout", "Sandbox.Timedout", "init timed out")
            await _first_of(*reached, exited, timeout_s=min(POLL_S, left))
            if not any(future.done() for future in reached) and self._is_out_of_memory():
                return await self._init_failed("error", "Runtime.OutOfMemory", "signal: killed")
        return None

    async def _init_failed(self, status: str, kind: str, cause: str) -> InitFailure:
        said = self._api.init_error
        await self._end_runtime()
        self._drain()
        if said is not None:
            return InitFailure("error", said.error_type, said)
        error_type = kind if status == "error" else None
        return InitFailure(status, error_type, Answer(_error(kind, f"Error: {logs.exit_message(cause)}"), kind))

    async def _init_again(self, began: float, timeout_s: float) -> InitFailure | None:
        """The init that Lambda runs inside an invocation, after one that failed or a runtime that was lost.

        It counts as the invocation's duration and against its timeout, and has a line only when it fails.
        """
        self._init_ms = None
        failure = await self._run_init(began + timeout_s)
        if failure is None and self.kind == SNAP_START:
            self._api.release()
            failure = await self._until_ready(began + timeout_s)
        if failure is not None:
            init_ms = (time.monotonic() - began) * 1000
            self._say(
                logs.init_report(
                    self._platform, time.time(), init_ms, failure.status, failure.error_type, phase="invoke"
                )
            )
        return failure

    def _report_failed_init(self, invocation: Invocation, began: float, failure: InitFailure) -> Outcome:
        duration_ms = (time.monotonic() - began) * 1000
        answer = failure.answer
        if failure.status == "timeout":
            duration_ms = self.stack.timeout_s * 1000.0
            request_id = invocation.request_id
            self._say(logs.timed_out(self._platform, time.time(), request_id, self.stack.timeout_s))
            message = f"RequestId: {request_id} Error: Task timed out after {self.stack.timeout_s:.2f} seconds"
            answer = Answer(_error("Sandbox.Timedout", message), "Sandbox.Timedout")
        self._say_report(invocation, duration_ms, failure.status, failure.error_type)
        return self._outcome(answer.payload, "Unhandled", duration_ms)

    async def _end_runtime(self) -> None:
        """Kill the runtime and all it started, and wait until that is reaped; what surrounds it stays."""
        if self._launched is None or self._exited is None:
            return
        if self._share is not None:
            self._share.rest()
        processes.kill_below(self._launched.top)
        await _first_of(self._exited, timeout_s=REAP_S)
        if not self._exited.done():
            processes.kill_tree(self._launched.process.pid)
            await self._exited

    # -- the process --------------------------------------------------------------------------------------------

    async def _make(self) -> None:
        output, telemetry = _Reader(self._on_output), _Reader(self._on_telemetry)
        self._readers = [output, telemetry]
        site = self._site
        if site.new_share is not None:
            self._share = site.new_share(self.stack.memory_mb)
        place = layout(site.host, self.stack.code_dir, site.layer, self._scratch)
        self._launched = await launch(
            site.host,
            place,
            ["-m", "awslambdaric", self.stack.handler],
            {**self._variables(place), "_LAMBDA_TELEMETRY_LOG_FD": str(telemetry.child_fd)},
            self._scratch,
            output=output.child_fd,
            pass_fds=(telemetry.child_fd,),
            tmp_mb=self.stack.ephemeral_mb,
            share=self._share,
        )
        self._gone = asyncio.create_task(self._launched.process.wait())
        self._gone.add_done_callback(self._on_gone)
        for reader in self._readers:
            reader.begin()

    def _on_gone(self, _: object) -> None:
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
            "AWS_LAMBDA_FUNCTION_VERSION": stack.version,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(stack.memory_mb),
            "AWS_LAMBDA_INITIALIZATION_TYPE": self.kind,
            # A snapshot is taken before anyone knows its stream.
            **({} if self.kind == SNAP_START else {"AWS_LAMBDA_LOG_GROUP_NAME": stack.log_group}),
            **({} if self.kind == SNAP_START else {"AWS_LAMBDA_LOG_STREAM_NAME": self.stream}),
            "AWS_LAMBDA_LOG_FORMAT": stack.log_format,
            **({"AWS_LAMBDA_LOG_LEVEL": stack.application_log_level} if stack.application_log_level else {}),
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
        self._site.write_log(logs.LogEvent(self.stack.log_group, self.stream, timestamp_ms, message))
        self._tail += message.encode("utf-8", "replace") + (b"" if message.endswith("\n") else b"\n")
        del self._tail[: -logs.LOG_TAIL_BYTES]

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
    """How Lambda names an exit; an exit with 0 has no reason to give."""
    if returncode == 0:
        return ""
    number = returncode - 128 if returncode > 128 else -returncode
    if number <= 0 or number not in set(signal.Signals):
        return f"exit status {returncode}"
    return f"signal: {signal.strsignal(number)}".lower()


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()
