"""Watches one child from fork to its last byte, and ends it where it passes a limit. It does not judge the outcome."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from interpreter.confinement import Limits
from interpreter.execution import ErrorType
from interpreter.outputs import cut
from interpreter.template import Template, TemplateLost

REPORT_BYTES = 8 << 20
POLL_S = 0.05  # how often limits are looked at while the code says nothing
DRAIN_S = 0.25  # how long a pipe may stay open after the child has ended and its strays are dead
REAP_S = 2.0  # how long a killed child may take to be reported
LOST = -1  # status of a child whose template died: nobody can say how it ended


@dataclass(slots=True)
class Stream:
    """What was read from one pipe: the first `keep` bytes kept, the rest counted."""

    keep: int
    data: bytearray = field(default_factory=bytearray)
    seen: int = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take what was read; returns the part of it that is kept."""
        self.seen += len(chunk)
        kept = chunk[: max(self.keep - len(self.data), 0)]
        self.data += kept
        return kept

    def text(self) -> str:
        return cut(self.data.decode("utf-8", "replace"), self.keep)[0]


@dataclass(slots=True)
class Watched:
    """One child as the host sees it. `status` is wait(2)'s, or LOST."""

    stdout: Stream
    stderr: Stream
    report: Stream
    trace: Stream
    pid: int | None = None
    status: int | None = None
    cpu_ms: float = 0.0
    max_rss_kb: float = 0.0
    killed_for: tuple[ErrorType, str, str] | None = None
    wall_ms: float = 0.0


def watch(
    template: Template,
    request: dict[str, Any],
    limits: Limits,
    timeout_s: float,
    *,
    disk: str | None,
    kill_strays: Callable[[], None],
    on_stdout: Callable[[str], None] | None = None,
) -> Watched:
    """Fork a child of `template`, give it `request`, and see it through.

    `disk`: a path whose file system is this run's alone, so that its quota can be watched; None where it is not.
    `kill_strays` ends what outlives the child and holds its pipes. `on_stdout` gets text as it is printed.
    Raises TemplateLost where no child was made.
    """
    watched = Watched(
        stdout=Stream(limits.stdout_kb << 10),
        stderr=Stream(limits.stdout_kb << 10),
        report=Stream(REPORT_BYTES),
        trace=Stream(64 << 10),
    )
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        pipes = _open_pipes(stack, template)
        _send_request(pipes.pop("request"), request)
        _Watch(watched, pipes, template, limits, started + timeout_s, disk, kill_strays, on_stdout).until_ended()
    watched.wall_ms = (time.monotonic() - started) * 1000
    return watched


def _open_pipes(stack: contextlib.ExitStack, template: Template) -> dict[str, int]:
    """Fork a child with a pipe for each of its descriptors; returns our ends, which `stack` closes, by name.

    The request's end is the caller's own to close: closing is how the child learns that the request is whole.
    """
    ours: dict[str, int] = {}
    theirs: list[int] = []
    try:
        for name in ("request", "stdout", "stderr", "report", "trace", "status"):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            mine, other = (writer, reader) if name == "request" else (reader, writer)
            ours[name] = mine
            theirs.append(other)
        template.fork(theirs)
    except BaseException:
        for fd in ours.values():
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    for name, fd in ours.items():
        if name != "request":
            stack.callback(os.close, fd)
    return ours


def _send_request(fd: int, request: dict[str, Any]) -> None:
    data = memoryview(json.dumps(request).encode())
    try:
        while data:
            data = data[os.write(fd, data) :]
    except BrokenPipeError as error:
        raise TemplateLost("it closed the request unread") from error
    finally:
        os.close(fd)


class _Watch:
    """Reads the pipes of one child until it has ended, and holds it to the limits."""

    def __init__(
        self,
        watched: Watched,
        pipes: dict[str, int],
        template: Template,
        limits: Limits,
        deadline: float,
        disk: str | None,
        kill_strays: Callable[[], None],
        on_stdout: Callable[[str], None] | None,
    ) -> None:
        self.watched, self.template, self.limits, self.deadline = watched, template, limits, deadline
        self.disk = disk
        self.free_at_start = _free_bytes(disk) if disk else 0
        self.kill_strays = kill_strays
        self.on_stdout = on_stdout
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.partial_status = b""
        self.killed_at = 0.0
        self.selector = selectors.DefaultSelector()
        for name, fd in pipes.items():
            os.set_blocking(fd, False)
            self.selector.register(fd, selectors.EVENT_READ, name)

    def until_ended(self) -> None:
        try:
            while self.watched.status is None:
                self._read(min(POLL_S, max(0.0, self.deadline - time.monotonic())))
                self._enforce()
            self._end()  # what still shares the child's process group
            if self._any_open():
                self.kill_strays()
            end = time.monotonic() + DRAIN_S
            while self._any_open() and time.monotonic() < end:
                self._read(0.01)
        finally:
            if self.watched.status is None:
                self._end()
            self.selector.close()

    def _any_open(self) -> bool:
        return bool(self.selector.get_map())

    def _read(self, timeout: float) -> None:
        for key, _events in self.selector.select(timeout):
            try:
                chunk = os.read(key.fd, 1 << 16)
            except BlockingIOError:
                continue
            if chunk:
                self._take(key.data, chunk)
                continue
            self.selector.unregister(key.fd)
            if key.data == "status" and self.watched.status is None:
                self._template_died()

    def _take(self, name: str, chunk: bytes) -> None:
        if name == "status":
            *lines, self.partial_status = (self.partial_status + chunk).split(b"\n")
            for line in lines:
                self._take_status(json.loads(line))
            return
        stream: Stream = getattr(self.watched, name)
        kept = stream.feed(chunk)
        if name == "stdout" and kept and self.on_stdout is not None:
            self.on_stdout(self.decoder.decode(kept))

    def _take_status(self, message: dict[str, Any]) -> None:
        if "pid" in message:
            self.watched.pid = message["pid"]
        else:
            self.watched.status = message["status"]
            self.watched.cpu_ms = message["cpu_ms"]
            self.watched.max_rss_kb = message["max_rss_kb"]

    def _template_died(self) -> None:
        if self.watched.pid is None:
            raise TemplateLost("it died before it forked")
        # The code may have run in part, so running it again is not for us to decide.
        self._end()
        self.watched.status = LOST

    def _enforce(self) -> None:
        watched, limits = self.watched, self.limits
        if watched.status is not None:
            return
        if watched.killed_for is not None:
            if time.monotonic() >= self.killed_at + REAP_S:
                self._give_template_up("did not report the end of a child")
        elif watched.pid is None:
            if time.monotonic() >= self.deadline:
                watched.killed_for = ("timeout", "TimeoutError", "the interpreter was not ready within the time limit")
                self._give_template_up("did not fork")
        elif time.monotonic() >= self.deadline:
            self._ask_where()
            self._kill("timeout", "TimeoutError", "the time limit of this run was reached")
        elif max(watched.stdout.seen, watched.stderr.seen) > limits.flood_mb << 20:
            self._kill("output_limit", "OutputLimitError", f"more than {limits.flood_mb} MB were printed")
        elif watched.report.seen > REPORT_BYTES:
            self._kill("output_limit", "OutputLimitError", f"the result is larger than {REPORT_BYTES >> 20} MB")
        elif self.disk and self.free_at_start - _free_bytes(self.disk) > limits.disk_mb << 20:
            self._kill("disk", "DiskLimitError", f"more than {limits.disk_mb} MB of files were written")

    def _give_template_up(self, why: str) -> None:
        """It helps no later call either; the next one gets another."""
        print(f"interpreter: template {self.template.process.pid} {why} and is replaced", file=sys.stderr)
        self.template.process.kill()
        self.watched.status = LOST

    def _ask_where(self) -> None:
        """SIGUSR2 makes faulthandler write the line the code is at; a code that blocks signals stays silent."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.watched.pid or 0, signal.SIGUSR2)
        end, before, trace = time.monotonic() + 0.1, -1, self.watched.trace
        # It is written piece by piece: complete once something has come and then nothing more.
        while (before <= 0 or before != trace.seen) and self.watched.status is None and time.monotonic() < end:
            before = trace.seen
            self._read(0.01)

    def _kill(self, kind: ErrorType, name: str, message: str) -> None:
        if self.watched.status is None:
            self.watched.killed_for = (kind, name, message)
            self.killed_at = time.monotonic()
            self._end()

    def _end(self) -> None:
        """Kill the child and what shares its process group (it leads one, by setsid)."""
        pid = self.watched.pid
        if pid is None:
            return
        if self.watched.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def _free_bytes(path: str) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
