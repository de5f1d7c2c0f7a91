"""Forks a child, gives it a request, and watches it to its last byte, ending it where it passes a limit.

It does not judge the outcome.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import select
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from interpreter.confinement import Limits
from interpreter.execution import ErrorType
from interpreter.outputs import cut
from interpreter.pipes import MAX_NAME, REFUSED, STREAMS
from interpreter.template import Template, TemplateLost

REPORT_BYTES = 8 << 20
MAX_REFUSED = 100  # names kept
PIPE_LINE = 4096  # bytes; what the audit layer and faulthandler write is shorter
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
    """One child as the host sees it. `status` is wait(2)'s, or LOST; `refused` names what the audit layer refused."""

    stdout: Stream
    stderr: Stream
    report: Stream
    trace: Stream
    pid: int | None = None
    refused: list[str] = field(default_factory=list)
    status: int | None = None
    cpu_ms: float = 0.0
    max_rss_kb: float = 0.0
    killed_for: tuple[ErrorType, str, str] | None = None
    wall_ms: float = 0.0
    held: Held | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A child that was kept for a further call (a session): stopped, with the socket it takes that call on.

    The pipe its refusals are told on is the same for all its calls, for that is how the audit layer knows it.
    """

    pid: int
    channel: socket.socket
    status_fd: int
    trace_fd: int

    def end(self) -> None:
        """Kill it and forget it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.channel.close()
        _close((self.status_fd, self.trace_fd))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a child is held to, and what happens around it.

    `disk`: a path whose file system is this run's alone, so that its quota can be watched; None where it is not.
    `kill_strays` ends what outlives the child and holds its pipes. `on_stdout` gets text as it is printed.
    """

    limits: Limits
    timeout_s: float
    disk: str | None
    kill_strays: Callable[[], None]
    on_stdout: Callable[[str], None] | None = None


class Child:
    """A child that has been forked, or will be as soon as its template gets to it, and has no request yet."""

    def __init__(self, template: Template, kind: str, setting: dict[str, Any]) -> None:
        """Have `template` fork it. `setting` is what the child can be told before its request. Raises TemplateLost."""
        self.template, self.kind = template, kind
        self.run_dir: str = setting["run_dir"]
        self.pid: int | None = None
        self.channel, far = socket.socketpair()
        self.pipes: dict[str, int] = {}
        self.told = b""  # by its template, after its pid
        self.waited = False  # for longer than its own call
        theirs = [far.detach()]
        try:
            _open_pipes(self.pipes, theirs, (*STREAMS, "status"))
            template.fork(theirs)
            _send_framed(self.channel, setting, [])
        except BaseException as error:
            self.forget()
            if isinstance(error, OSError):
                raise TemplateLost(str(error)) from error
            raise
        finally:
            _close(theirs)

    def forked(self, deadline: float) -> bool:
        """Wait until it is there, or until `deadline` (of time.monotonic). Raises TemplateLost if it never will."""
        if self.pid is None:
            if not self._something_told(max(deadline - time.monotonic(), 0.0)):
                return False
            line, _, self.told = os.read(self.pipes["status"], 1 << 10).partition(b"\n")  # each is written at once
            if not line:
                raise TemplateLost("it died before it forked")
            self.pid = json.loads(line)["pid"]
        return True

    def is_lost(self) -> bool:
        """Whether it has ended while it waited, or its template has, which would tell."""
        if self.template.process.poll() is not None:
            return True
        try:
            return self.forked(0.0) and (bool(self.told) or self._something_told(0.0))
        except TemplateLost:
            return True

    def _something_told(self, timeout_s: float) -> bool:
        return bool(select.select([self.pipes["status"]], [], [], timeout_s)[0])

    def forget(self) -> None:
        """Close what is ours of it. One that waits for its request ends by that."""
        self.channel.close()
        _close(self.pipes.values())
        self.pipes.clear()


def watch(child: Child, request: Callable[[], dict[str, Any]], bounds: Bounds) -> Watched:
    """Give `child` its request, made once it is there, and see it through. Raises TemplateLost where nothing was run.

    With `session` in the request a child that ends its run in order is kept: `held` is set.
    """
    started = time.monotonic()
    deadline = started + bounds.timeout_s
    try:
        if not child.forked(deadline):
            return _not_ready(child.template, bounds, started)
        given = request()
        try:
            child.channel.settimeout(max(deadline - time.monotonic(), 0.001))
            _send_framed(child.channel, given, [])
            child.channel.settimeout(None)
        except OSError as error:  # it is gone, which its status will tell
            if child.waited:
                raise TemplateLost("it ended while it waited") from error
        watching = _Watch(
            child.template, child.pipes, bounds, started, child.pid, keep=given["session"], told=child.told
        )
        watched = watching.see_through()
        if given["session"] and watched.status is None and child.pid is not None:
            status, trace = (os.dup(child.pipes[name]) for name in ("status", "trace"))
            watched.held = Held(child.pid, child.channel.dup(), status, trace)
        return watched
    finally:
        child.forget()


def resume(held: Held, template: Template, request: dict[str, Any], bounds: Bounds) -> Watched:
    """Give a kept child a further `request` and see that through; `held` is set again where it is kept again."""
    before = _usage(held.pid)
    started = time.monotonic()
    pipes: dict[str, int] = {}
    theirs: list[int] = []
    try:
        _open_pipes(pipes, theirs, STREAMS[:-1])
        with contextlib.suppress(OSError):  # it is gone, which its status will tell
            os.killpg(held.pid, signal.SIGCONT)
            _send_framed(held.channel, request, theirs)
        _close(theirs)
        theirs.clear()
        lasting = {"status": held.status_fd, "trace": held.trace_fd}
        watched = _Watch(template, pipes | lasting, bounds, started, held.pid, keep=True).see_through()
    finally:
        _close([*theirs, *pipes.values()])
    watched.cpu_ms = max(watched.cpu_ms - before[0], 0.0)
    if watched.status is None:
        watched.held = held
    else:
        held.end()
    return watched


def _open_pipes(ours: dict[str, int], theirs: list[int], names: Sequence[str]) -> None:
    """A pipe for each name: our reading end into `ours`, the writing end into `theirs`."""
    for name in names:
        ours[name], writer = os.pipe2(os.O_CLOEXEC)
        theirs.append(writer)


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _not_ready(template: Template, bounds: Bounds, started: float) -> Watched:
    watched = _nothing_yet(bounds, None)
    watched.killed_for = ("timeout", "TimeoutError", "the interpreter was not ready within the time limit")
    _give_up(template, "did not fork")
    watched.status = LOST
    watched.wall_ms = (time.monotonic() - started) * 1000
    return watched


def _nothing_yet(bounds: Bounds, pid: int | None) -> Watched:
    kept = bounds.limits.stdout_kb << 10
    return Watched(Stream(kept), Stream(kept), Stream(REPORT_BYTES), Stream(64 << 10), pid)


def _give_up(template: Template, why: str) -> None:
    """A template that does not do its part helps no later call either; the next one gets another."""
    print(f"interpreter: template {template.process.pid} {why} and is replaced", file=sys.stderr)
    template.process.kill()


def _send_framed(channel: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
    data = json.dumps(request).encode()
    socket.send_fds(channel, [struct.pack("<I", len(data))], fds)
    channel.sendall(data)


def _usage(pid: int) -> tuple[float, float]:
    """CPU time in ms and peak resident set in kB of a live process (proc(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        with open(f"/proc/{pid}/status", "rb") as file:
            peak = next((line for line in file if line.startswith(b"VmHWM")), b"VmHWM: 0 kB")
    except OSError:
        return 0.0, 0.0
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK"), float(peak.split()[1])


class _Watch:
    """Reads the pipes of one child until it has ended, and holds it to the limits.

    `keep`: for a session, whose child is stopped and not ended. `told`: what was read from its status pipe before.
    """

    def __init__(
        self,
        template: Template,
        pipes: dict[str, int],
        bounds: Bounds,
        started: float,
        pid: int | None,
        *,
        keep: bool,
        told: bytes = b"",
    ) -> None:
        self.watched = _nothing_yet(bounds, pid)
        self.template, self.bounds, self.keep, self.limits = template, bounds, keep, bounds.limits
        self.started, self.deadline = started, started + bounds.timeout_s
        self.free_at_start = _free_bytes(bounds.disk) if bounds.disk else 0
        self.report_closed = False
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.partial_status = self.partial_trace = b""
        self.trace_bytes = 0
        self.killed_at = 0.0
        self.selector = selectors.DefaultSelector()
        for name, fd in pipes.items():
            os.set_blocking(fd, False)
            self.selector.register(fd, selectors.EVENT_READ, name)
        self._take("status", told)

    def see_through(self) -> Watched:
        """Until the child is gone, or, where it is to be kept, has closed its report."""
        self._until_ended()
        self.watched.wall_ms = (time.monotonic() - self.started) * 1000
        return self.watched

    def _until_ended(self) -> None:
        try:
            while self.watched.status is None and not self._run_is_over():
                self._read(min(POLL_S, max(0.0, self.deadline - time.monotonic())))
                self._enforce()
            if self.watched.status is None:
                self._stop()
                return
            self._end()  # what still shares the child's process group
            if self._any_open():
                self.bounds.kill_strays()
            end = time.monotonic() + DRAIN_S
            while self._any_open() and time.monotonic() < end:
                self._read(0.01)
        except BaseException:
            self._end()
            raise
        finally:
            self.selector.close()

    def _run_is_over(self) -> bool:
        """Whether a child that is to be kept has reported; one that closes an empty report is dying, or shall."""
        watched = self.watched
        return self.keep and self.report_closed and watched.report.seen > 0 and watched.killed_for is None

    def _stop(self) -> None:
        """Nothing of a kept child runs until its next call. Then read what it had printed."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.watched.pid or 0, signal.SIGSTOP)
        seen = -1
        while seen != (seen := self.watched.stdout.seen + self.watched.stderr.seen + self.trace_bytes):
            self._read(0)
        self.watched.cpu_ms, self.watched.max_rss_kb = _usage(self.watched.pid or 0)

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
            self.report_closed |= key.data == "report"
            if key.data == "status" and self.watched.status is None:
                self._template_died()

    def _take(self, name: str, chunk: bytes) -> None:
        if name == "status":
            *lines, self.partial_status = (self.partial_status + chunk).split(b"\n")
            for line in lines:
                self._take_status(json.loads(line))
            return
        if name == "trace":
            self.trace_bytes += len(chunk)
            *lines, self.partial_trace = (self.partial_trace + chunk).split(b"\n")
            for line in lines:
                self._take_trace(line)
            self.partial_trace = self.partial_trace[:PIPE_LINE]  # what is longer is nothing of ours
            return
        stream: Stream = getattr(self.watched, name)
        kept = stream.feed(chunk)
        if name == "stdout" and kept and self.bounds.on_stdout is not None:
            self.bounds.on_stdout(self.decoder.decode(kept))

    def _take_trace(self, line: bytes) -> None:
        if not line:
            return
        if not line.startswith(REFUSED):
            self.watched.trace.feed(line + b"\n")
        elif len(self.watched.refused) < MAX_REFUSED:
            self.watched.refused.append(cut(line[len(REFUSED) :].decode("utf-8", "replace"), MAX_NAME)[0])

    def _take_status(self, message: dict[str, Any]) -> None:
        self.watched.status = message["status"]
        self.watched.cpu_ms = message["cpu_ms"]
        self.watched.max_rss_kb = message["max_rss_kb"]

    def _template_died(self) -> None:
        # The code may have run in part, so running it again is not for us to decide.
        self._end()
        self.watched.status = LOST

    def _enforce(self) -> None:
        watched, limits = self.watched, self.limits
        if watched.status is not None:
            return
        if watched.killed_for is not None:
            if time.monotonic() >= self.killed_at + REAP_S:
                _give_up(self.template, "did not report the end of a child")
                watched.status = LOST
        elif time.monotonic() >= self.deadline:
            self._ask_where()
            self._kill("timeout", "TimeoutError", "the time limit of this run was reached")
        elif max(watched.stdout.seen, watched.stderr.seen) > limits.flood_mb << 20:
            self._kill("output_limit", "OutputLimitError", f"more than {limits.flood_mb} MB were printed")
        elif watched.report.seen > REPORT_BYTES:
            self._kill("output_limit", "OutputLimitError", f"the result is larger than {REPORT_BYTES >> 20} MB")
        elif self.bounds.disk and self.free_at_start - _free_bytes(self.bounds.disk) > limits.disk_mb << 20:
            self._kill("disk", "DiskLimitError", f"more than {limits.disk_mb} MB of files were written")

    def _ask_where(self) -> None:
        """SIGUSR2 makes faulthandler write the line the code is at; a code that blocks signals stays silent."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.watched.pid or 0, signal.SIGUSR2)
        end, before = time.monotonic() + 0.1, -1
        # It is written piece by piece: complete once something has come and then nothing more.
        while (before <= 0 or before != self.trace_bytes) and self.watched.status is None and time.monotonic() < end:
            before = self.trace_bytes
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
