"""`Interpreter.run`: one request in, one `Completed` out, whatever the code does. Runs on the host's side.

The code itself never runs in this process: it runs in a child forked by a template process (`zygote`), which this
module starts, replaces when lost, watches against the limits, and cleans up after.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import importlib.util
import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from interpreter import confinement, kernel
from interpreter.child import FILENAME
from interpreter.confinement import Limits
from interpreter.execution import ChildReport, ErrorType, Execution, ExecutionError, Output, Usage
from interpreter.outputs import cut
from interpreter.packages import Overlay, PackageError, PackageInstaller

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("numpy", "numpy.random", "pandas", "matplotlib", "matplotlib.pyplot")
REPORT_BYTES = 8 << 20
POLL_S = 0.05  # how often limits are looked at while the code says nothing
DRAIN_S = 0.25  # how long a pipe may stay open after the child has ended and its strays are dead


class TemplateLost(Exception):
    """The template process died; a new one takes its place."""


@dataclass(frozen=True, slots=True)
class Image:
    mime_type: str
    data: str  # base64


@dataclass(frozen=True, slots=True)
class Completed:
    execution: Execution
    images: list[Image] = field(default_factory=list)


@dataclass(slots=True)
class _Stream:
    """What was read from one pipe: the first `keep` bytes kept, the rest counted."""

    keep: int
    data: bytearray = field(default_factory=bytearray)
    seen: int = 0

    def feed(self, chunk: bytes) -> None:
        self.seen += len(chunk)
        room = self.keep - len(self.data)
        if room > 0:
            self.data += chunk[:room]

    def text(self) -> str:
        return cut(self.data.decode("utf-8", "replace"), self.keep)[0]


@dataclass(slots=True)
class _Watched:
    """One child as the host sees it, from fork to the last byte."""

    stdout: _Stream
    stderr: _Stream
    report: _Stream
    trace: _Stream
    pid: int | None = None
    status: int | None = None
    cpu_ms: float = 0.0
    max_rss_kb: float = 0.0
    killed_for: tuple[ErrorType, str, str] | None = None
    wall_ms: float = 0.0


class Template:
    """A running template process (`zygote`) and the socket it takes requests on."""

    def __init__(self, preload: Sequence[str], matplotlib: Path) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        config = {"root": str(ROOT), "sys_path": template_path(), "preload": tuple(preload)}
        with theirs:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    str(ROOT / "interpreter" / "zygote.py"),
                    str(theirs.fileno()),
                    json.dumps(config),
                ],
                env=template_environment(matplotlib),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
            )
        self.socket = ours

    def fork(self, fds: list[int]) -> None:
        try:
            socket.send_fds(self.socket, [b"!"], fds)
        except OSError as error:
            raise TemplateLost(str(error)) from error

    def close(self) -> None:
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


def template_path() -> list[str]:
    """sys.path of the templates: ours without the directory of the function's own code."""
    own = {str(ROOT), os.getcwd(), ""}
    return [entry for entry in sys.path if entry not in own]


def template_environment(matplotlib: Path) -> dict[str, str]:
    """The whole environment of the templates, and so of the code: nothing of the handler's but what Python needs."""
    kept = ("LD_LIBRARY_PATH", "PYTHONHOME", "TZ", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": str(matplotlib),
        "OPENBLAS_NUM_THREADS": "1",  # a template must be free of threads when it forks
        "MALLOC_ARENA_MAX": "2",  # each arena reserves 64 MB of address space, which RLIMIT_AS counts
    }


def readable_directories(matplotlib: Path) -> tuple[str, ...]:
    """What any program needs to read: Python, its libraries, time zones, fonts, and facts about the machine."""
    paths = sysconfig.get_paths()
    libraries = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")} | set(template_path())
    system = (
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/etc/ld.so.cache",
        "/usr/share/zoneinfo",
        "/usr/share/fonts",
        "/etc/localtime",
        "/etc/mime.types",
        "/etc/fonts",
        "/etc/ssl/certs",
        "/dev/null",
        "/dev/zero",
        "/dev/urandom",
        "/dev/random",
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/self/status",
        "/proc/self/statm",
        "/proc/self/stat",
        "/sys/fs/cgroup",
        "/sys/devices/system/cpu",
    )
    loader = tuple(filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":")))
    venv = (sys.prefix + "/lib", sys.base_prefix + "/lib", sys.prefix + "/pyvenv.cfg")
    return tuple(sorted({*libraries, *loader, *venv, *system, str(matplotlib)}))


def shipped_font_lists() -> list[Path]:
    """The font lists that `sam/dependencies/fontcache.py` left in matplotlib's data, found without importing it."""
    spec = importlib.util.find_spec("matplotlib")
    return list(Path(spec.origin).parent.glob("mpl-data/fontlist-*.json")) if spec and spec.origin else []


class Interpreter:
    """The templates of one environment, and `run`.

    `limits` bound each run; `preload` names the modules of the heavy template; `scratch` is where runs have their
    directories. Thread-safe: each run has a child and pipes of its own.
    """

    def __init__(
        self, limits: Limits, *, preload: Sequence[str] = HEAVY, network: bool = False, scratch: Path | None = None
    ) -> None:
        self.limits = limits
        self.network = network
        self.scratch = scratch or Path(tempfile.gettempdir())
        self.alone = confinement.alone()
        self._ancestors = confinement.ancestors()
        self.kernel = kernel.probe()
        self._preload = tuple(preload)
        self._lock = threading.Lock()
        self._templates: dict[str, Template] = {}
        self.packages = PackageInstaller(self.scratch / ".packages")
        if self.alone:
            confinement.wipe(str(self.scratch))
        self.matplotlib = self.scratch / ".matplotlib"
        self.matplotlib.mkdir(exist_ok=True)
        for fonts in shipped_font_lists():  # matplotlib wants a directory it can write to, and its list in it
            shutil.copy(fonts, self.matplotlib)
        self._readable = readable_directories(self.matplotlib)
        for kind in ("bare", "heavy"):
            self._template(kind)

    def close(self) -> None:
        """End the templates. The runs under way end with them."""
        for template in self._templates.values():
            template.close()
        self._templates.clear()
        self.packages.close()

    def run(self, code: str, requirements: Sequence[str] = (), *, deadline_s: float | None = None) -> Completed:
        """Run `code` after installing `requirements`; never raises for what the code does.

        `deadline_s`: seconds until an answer is due (what Lambda has left, less a margin); the configured limit
        holds where it is smaller.
        """
        begun = time.monotonic()
        budget = self.limits.timeout_s if deadline_s is None else min(self.limits.timeout_s, deadline_s)
        overlay = Overlay()
        if requirements:
            try:
                overlay = self.packages.install(requirements, timeout_s=min(30.0, max(budget, 0.1)))
            except PackageError as error:
                return _package_failure(error, (time.monotonic() - begun) * 1000)
        install_ms = (time.monotonic() - begun) * 1000 if requirements else 0.0
        kind = "heavy" if self._wants_libraries(code, overlay) else "bare"
        remaining = budget if deadline_s is None else min(budget, deadline_s - install_ms / 1000)
        watched = self._run_in_child(kind, code, overlay, max(remaining, 0.1))
        return _complete(watched, self.limits, max(remaining, 0.1), install_ms)

    def _wants_libraries(self, code: str, overlay: Overlay) -> bool:
        """Whether the heavy template pays: the code imports one of its libraries, in the version it has loaded."""
        preloaded = {name.partition(".")[0] for name in self._preload}
        if overlay.modules & preloaded:
            return False
        wanted = set(imported_modules(code))
        return bool(wanted & (preloaded | {"seaborn", "sklearn", "scipy"}))

    def _template(self, kind: str) -> Template:
        with self._lock:
            template = self._templates.get(kind)
            if template is None or template.process.poll() is not None:
                if template is not None:
                    template.close()
                template = Template(self._preload if kind == "heavy" else (), self.matplotlib)
                self._templates[kind] = template
            return template

    def _run_in_child(self, kind: str, code: str, overlay: Overlay, timeout_s: float) -> _Watched:
        run_dir = tempfile.mkdtemp(prefix="run-", dir=self.scratch)
        try:
            for attempt in (1, 2):
                try:
                    return self._watch(self._template(kind), run_dir, code, overlay, timeout_s)
                except TemplateLost:
                    if attempt == 2:
                        raise
            raise AssertionError("unreachable")
        finally:
            self._clean(run_dir)

    def _clean(self, run_dir: str) -> None:
        self.kill_strays()
        confinement.remove(run_dir)
        if self.alone:
            confinement.wipe(str(self.scratch), keep=(".matplotlib", ".packages"))

    def kill_strays(self) -> None:
        """Where the environment is ours alone, end all that is not us. Elsewhere the templates end their orphans."""
        if self.alone:
            templates = [template.process.pid for template in self._templates.values()]
            confinement.sweep({*self._ancestors, *templates})

    def layers(self) -> list[tuple[str, bool, str]]:
        """Each confinement layer: name, whether it is active here, and what it does or why it is not."""
        return confinement.layers(self.alone, self.kernel, network=self.network)

    def _watch(self, template: Template, run_dir: str, code: str, overlay: Overlay, timeout_s: float) -> _Watched:
        limits = self.limits
        watched = _Watched(
            stdout=_Stream(limits.stdout_kb << 10),
            stderr=_Stream(limits.stdout_kb << 10),
            report=_Stream(REPORT_BYTES),
            trace=_Stream(64 << 10),
        )
        request = {
            "code": code,
            "run_dir": run_dir,
            "paths": overlay.paths,
            "limits": asdict(limits) | {"timeout_s": timeout_s},
            "tasks_now": sum(task.threads for task in confinement.own_tasks()) if self.alone else None,
            "kernel": asdict(self.kernel),
            "policy": {"readable": self._readable, "hidden": [str(ROOT)], "network": self.network},
        }
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            pipes = _open_pipes(stack, template)
            _send_request(pipes.pop("request"), request)
            _Watch(self, watched, pipes, started + timeout_s, run_dir).until_ended()
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
    """Reads the pipes of one child until it has ended, and ends it where it passes a limit."""

    def __init__(
        self, interpreter: Interpreter, watched: _Watched, pipes: dict[str, int], deadline: float, run_dir: str
    ) -> None:
        self.interpreter = interpreter
        self.watched = watched
        self.deadline = deadline
        self.free_at_start = _free_bytes(run_dir) if interpreter.alone else None
        self.run_dir = run_dir
        self.selector = selectors.DefaultSelector()
        self.partial_status = b""
        for name, fd in pipes.items():
            os.set_blocking(fd, False)
            self.selector.register(fd, selectors.EVENT_READ, name)

    def until_ended(self) -> None:
        try:
            while self.watched.status is None:
                wait = min(POLL_S, max(0.0, self.deadline - time.monotonic()))
                self._read(wait)
                self._enforce()
            self._leave_group()
            if self._open_pipes():
                self.interpreter.kill_strays()  # somebody else holds the pipes
            end = time.monotonic() + DRAIN_S
            while self._open_pipes() and time.monotonic() < end:
                self._read(0.01)
        finally:
            if self.watched.status is None:
                self._leave_group()
            self.selector.close()

    def _open_pipes(self) -> bool:
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
                raise TemplateLost("the template died with a run under way")

    def _take(self, name: str, chunk: bytes) -> None:
        if name != "status":
            getattr(self.watched, name).feed(chunk)
            return
        *lines, self.partial_status = (self.partial_status + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "pid" in message:
                self.watched.pid = message["pid"]
            else:
                self.watched.status = message["status"]
                self.watched.cpu_ms = message["cpu_ms"]
                self.watched.max_rss_kb = message["max_rss_kb"]

    def _enforce(self) -> None:
        watched, limits = self.watched, self.interpreter.limits
        if watched.status is not None or watched.killed_for is not None or watched.pid is None:
            return
        if time.monotonic() >= self.deadline:
            self._ask_where()
            self._kill("timeout", "TimeoutError", "the time limit of this run was reached")
        elif max(watched.stdout.seen, watched.stderr.seen) > limits.flood_mb << 20:
            message = f"more than {limits.flood_mb} MB were printed"
            self._kill("output_limit", "OutputLimitError", message)
        elif watched.report.seen > REPORT_BYTES:
            self._kill("output_limit", "OutputLimitError", f"the result is larger than {REPORT_BYTES >> 20} MB")
        elif self.free_at_start is not None:
            used = self.free_at_start - _free_bytes(self.run_dir)
            if used > limits.disk_mb << 20:
                self._kill("disk", "DiskLimitError", f"more than {limits.disk_mb} MB of files were written")

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
            self._leave_group()

    def _leave_group(self) -> None:
        """End the child and what still shares its process group (the child leads one, by setsid)."""
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


def imported_modules(code: str) -> Iterator[str]:
    """Top-level names of the modules `code` imports; nothing for code that does not parse. A hint, never a check."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _complete(watched: _Watched, limits: Limits, timeout_s: float, install_ms: float) -> Completed:
    usage = Usage(
        wall_ms=round(watched.wall_ms, 2),
        cpu_ms=round(watched.cpu_ms, 2),
        max_rss_mb=round(watched.max_rss_kb / 1024, 1),
        install_ms=round(install_ms, 2),
    )
    truncated = [name for name in ("stdout", "stderr") if getattr(watched, name).seen > getattr(watched, name).keep]
    report = None if watched.killed_for else _parse_report(watched)
    stdout, stderr = watched.stdout.text(), watched.stderr.text()
    if report is None:
        error = _explain_end(watched, timeout_s)
        failed = Execution(
            success=False,
            result=f"{error.name}: {error.message}",
            warnings="",
            error=error,
            truncated=truncated,
            stdout=stdout,
            stderr=stderr,
            usage=usage,
        )
        return Completed(failed)
    images = [Image(output.mime_type, output.data) for output in report.outputs]
    execution = Execution(
        success=report.error is None,
        result=report.result,
        warnings=report.warnings,
        error=report.error,
        violations=report.violations,
        outputs=[
            Output(
                mime_type=output.mime_type,
                bytes=len(output.data) * 3 // 4 - output.data[-2:].count("="),
                width=output.width,
                height=output.height,
            )
            for output in report.outputs
        ],
        truncated=[*truncated, *report.truncated],
        stdout=stdout,
        stderr=stderr,
        usage=usage,
    )
    return Completed(execution, images)


def _parse_report(watched: _Watched) -> ChildReport | None:
    if watched.report.seen > REPORT_BYTES:
        return None
    try:
        report = ChildReport.model_validate_json(bytes(watched.report.data))
        for output in report.outputs:
            base64.b64decode(output.data, validate=True)
    except (ValidationError, ValueError):
        return None
    return report


def _explain_end(watched: _Watched, timeout_s: float) -> ExecutionError:
    """Why there is no report: a limit of ours, a signal, or an exit that left nothing."""
    line = _stuck_line(watched.trace.text())
    if watched.killed_for is not None:
        kind, name, message = watched.killed_for
        if kind == "timeout":
            message = f"the code was stopped after {timeout_s:g} seconds"
            message += f", at line {line}" if line else ""
        return ExecutionError(type=kind, name=name, message=message, line=line, traceback=_user_frames(watched.trace))
    status = watched.status or 0
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        if number == signal.SIGXCPU:
            return ExecutionError(type="timeout", name=name, message="the CPU time limit of this run was reached")
        return ExecutionError(type="crashed", name=name, message=f"the code's process was ended by {name}", line=line)
    code = os.waitstatus_to_exitcode(status)
    return ExecutionError(type="exit", name="SystemExit", message=f"the code ended its process with status {code}")


def _stuck_line(trace: str) -> int | None:
    match = re.search(rf'File "{re.escape(FILENAME)}", line (\d+)', trace)
    return int(match[1]) if match else None


def _user_frames(trace: _Stream) -> str:
    """The lines of the submitted code in what faulthandler wrote, innermost first as it writes them."""
    return "".join(line + "\n" for line in trace.text().splitlines() if f'File "{FILENAME}"' in line)


def _package_failure(error: PackageError, install_ms: float) -> Completed:
    described = ExecutionError(type="package", name=error.name, message=str(error))
    usage = Usage(wall_ms=0.0, cpu_ms=0.0, max_rss_mb=0.0, install_ms=round(install_ms, 2))
    failed = Execution(
        success=False,
        result=f"{error.name}: {error}",
        stdout="",
        stderr="",
        warnings="",
        error=described,
        usage=usage,
    )
    return Completed(failed)
