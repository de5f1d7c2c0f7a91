"""Inside the forked child: confine this process, execute the code, report once as JSON, and end.

Everything after `_execute` begins may have been tampered with by the code, so what reports is bound beforehand and
the host treats the report as hostile input.
"""

from __future__ import annotations

import ast
import contextlib
import faulthandler
import fcntl
import json
import linecache
import os
import random
import resource
import signal
import socket
import struct
import sys
import threading
import traceback
import types
import warnings
from typing import Any

from interpreter import audit, kernel, outputs
from interpreter.confinement import Limits, limit_call, set_limits
from interpreter.judges import Policy
from interpreter.pipes import CHANNEL, FILENAME, REPORT, TRACE

NO_RESULT = "Code executed successfully"
MAX_WARNINGS_BYTES = 64 * 1024
MAX_TRACEBACK_BYTES = 16 * 1024
_FUTURES = 0x1FE0000  # PyCF_MASK: what `from __future__` switches on (CPython compile.h)

_dumps, _write, _exit = json.dumps, os.write, os._exit


def main(channel_fd: int, stdout_fd: int, stderr_fd: int, report_fd: int, trace_fd: int) -> None:
    """Be a fresh program, wait for a request, run it, and never return. Descriptors are ends of the host's.

    All that does not need the request is done before it comes, for the host forks the next child when a call has
    ended (`engine`). What must not be known or equal beforehand, the seeds of random numbers, comes after it.
    """
    try:
        os.setsid()
        _arrange_descriptors([stdout_fd, stderr_fd, report_fd, trace_fd, channel_fd])
        setting, _ = _read_framed(CHANNEL)
        limits = Limits(**setting["limits"])
        _enter(setting)
        set_limits(limits)
        policy = _policy(setting)
        available = kernel.Available(**setting["kernel"])
        if available.whole:
            kernel.apply(available, readable=policy.readable, writable=policy.writable, network=policy.network)
        if setting["hook"]:
            audit.install(policy, TRACE)
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        _dumps(_execute("0", {}))  # so that the pages a run writes to are this process's own by then
        request, _ = _read_framed(CHANNEL)
        in_session = request["session"]
        if not in_session:
            os.close(CHANNEL)
        limit_call(limits, None if in_session else request["timeout_s"], request["tasks_now"])
        _reseed()
        _send(REPORT, _execute(request["code"], module.__dict__))
        while in_session:
            request = _next_request()
            _send(REPORT, _execute(request["code"], module.__dict__))
    except BaseException as error:  # our own failure, or the code's tampering: say so on stderr, report nothing
        _write(2, f"interpreter: {type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        _exit(70)
    _exit(0)


def _arrange_descriptors(fds: list[int]) -> None:
    """Lay `fds` from 1 on, with nothing at 0, and close every other: the template's are not for the code."""
    _lay(fds)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.closerange(len(fds) + 1, 4096)


def _lay(fds: list[int]) -> None:
    """Move `fds` to the numbers from 1 on. By way of numbers above all of these, since some may be among them."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in fds]
    for fd in fds:
        os.close(fd)
    for target, fd in enumerate(high, start=1):
        os.dup2(fd, target, inheritable=target < REPORT)
        os.close(fd)


def _next_request() -> dict[str, Any]:
    """Tell the host that this run is over, and wait (stopped, as it goes) for the next and its descriptors."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")  # they have been shown
    os.close(REPORT)
    request, fds = _read_framed(CHANNEL)
    _lay(fds)
    return request


def _read_framed(fd: int) -> tuple[dict[str, Any], list[int]]:
    """A request and the descriptors that came with it: four bytes of length, then JSON."""
    channel = socket.socket(fileno=fd)
    try:
        size, fds, _flags, _address = socket.recv_fds(channel, 4, 4)
        if len(size) < 4:
            _exit(0)  # the host wants no more of this child
        (left,) = struct.unpack("<I", size)
        data = bytearray()
        while len(data) < left:
            data += channel.recv(left - len(data)) or _exit(0)
    finally:
        channel.detach()
    request: dict[str, Any] = json.loads(data)
    return request, fds


def _enter(setting: dict[str, Any]) -> None:
    """Working directory, environment, streams and paths of a fresh program."""
    run_dir = setting["run_dir"]
    os.chdir(run_dir)
    os.environ.update(HOME=run_dir, TMPDIR=run_dir)
    os.environ.pop("PYTHONHOME", None)
    sys.path[:0] = [run_dir, *setting["paths"]]
    sys.argv = [FILENAME]
    sys.dont_write_bytecode = True
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    import tempfile

    tempfile.tempdir = None
    # The host asks with SIGUSR2 where the code is stuck. In C, so that it answers in a tight loop too.
    faulthandler.register(signal.SIGUSR2, file=TRACE, all_threads=False, chain=False)


def _reseed() -> None:
    """Every fork would draw the same numbers, and so would every environment made from one snapshot."""
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def _policy(setting: dict[str, Any]) -> Policy:
    given = setting["policy"]
    return Policy(
        writable=(setting["run_dir"],),
        readable=(*given["readable"], *setting["paths"], setting["run_dir"]),
        hidden=tuple(given["hidden"]),
        network=given["network"],
    )


class _Warnings:
    """Collects what `warnings` would print, up to a cap."""

    def __init__(self) -> None:
        self.text = ""
        self.cut = False

    def show(self, message: Any, category: type, filename: str, lineno: int, *_: Any) -> None:
        where = f"line {lineno}: " if filename == FILENAME else ""
        text, cut = outputs.cut(self.text + f"{where}{category.__name__}: {message}\n", MAX_WARNINGS_BYTES)
        self.text, self.cut = text, self.cut or cut


def _execute(code: str, namespace: dict[str, Any]) -> dict[str, Any]:
    collected = _Warnings()
    warnings.showwarning = collected.show  # type: ignore[assignment]
    # Figures are collected after the run, so showing one is not a mistake worth a warning.
    warnings.filterwarnings("ignore", message=".*non-interactive, and thus cannot be shown")
    lines = [line + "\n" for line in code.splitlines()]
    linecache.cache[FILENAME] = (len(code), None, lines, FILENAME)  # no mtime: checkcache leaves it alone
    truncated: list[str] = []
    rich: list[dict[str, Any]] = []
    error: dict[str, Any] | None = None
    result = NO_RESULT
    try:
        value = _run(code, namespace)
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()
        if value is not None:
            result, cut = outputs.cut(outputs.describe(value), outputs.MAX_TEXT_BYTES)
            if cut:
                truncated.append("result")
            rich += outputs.rich_forms(value)
    except BaseException as caught:
        error = _describe_error(caught)
        result = _one_line(error)
    try:
        figures, cut = outputs.figures(outputs.MAX_RICH_BYTES - sum(len(one["data"]) for one in rich) * 3 // 4)
        rich += figures
        if cut:
            truncated.append("outputs")
    except BaseException as caught:
        error = error or _describe_error(caught)
        result = _one_line(error)
    for stream in (sys.__stdout__, sys.__stderr__, sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):  # a stream may be of the code's own making
            stream.flush()  # type: ignore[union-attr]
    if collected.cut:
        truncated.append("warnings")
    return {
        "result": result,
        "error": error,
        "warnings": collected.text,
        "outputs": rich,
        "truncated": truncated,
    }


class _ResultNone:
    """`result = None` is a value the code chose; an absent value is not."""

    def __str__(self) -> str:
        return "None"


def _run(code: str, namespace: dict[str, Any]) -> Any:
    """Execute `code`; its value is that of the variable `result`, else of a last expression, else None."""
    namespace.pop("result", None)  # of a session's call before this one
    tree = ast.parse(code, FILENAME)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    body = compile(tree, FILENAME, "exec", dont_inherit=True)
    exec(body, namespace)
    value = None
    if isinstance(last, ast.Expr):
        tail = compile(ast.Expression(last.value), FILENAME, "eval", flags=body.co_flags & _FUTURES, dont_inherit=True)
        value = eval(tail, namespace)
    if "result" in namespace:
        return _ResultNone() if namespace["result"] is None else namespace["result"]
    return value


def _describe_error(error: BaseException) -> dict[str, Any] | None:
    kind, name = "runtime", type(error).__name__
    refused = _security_error(error)
    if refused is not None:
        kind, name, message = "security", "SecurityError", str(refused)
    else:
        message = outputs.describe(error)
    if isinstance(error, SystemExit):
        return _describe_exit(error)
    if isinstance(error, MemoryError):
        kind = "memory"
        message = message or "the memory limit of this run was reached"
    elif isinstance(error, SyntaxError) and error.filename == FILENAME:
        kind, message = "syntax", outputs.describe(error.msg)
    elif kind == "runtime" and isinstance(error, OSError) and error.errno in (27, 28, 122):  # EFBIG ENOSPC EDQUOT
        kind = "disk"
    # Source lines are looked up when formatting, by when only the code's own frames are left.
    formatted = traceback.TracebackException.from_exception(error, lookup_lines=False)
    line = error.lineno if kind == "syntax" and isinstance(error, SyntaxError) else _last_line(formatted)
    _keep_user_frames(formatted)
    text, _cut = outputs.cut("".join(formatted.format()), MAX_TRACEBACK_BYTES)
    message, _cut = outputs.cut(message, 4096)
    return {"type": kind, "name": name, "message": message, "line": line, "traceback": text}


def _describe_exit(error: SystemExit) -> dict[str, Any] | None:
    """`sys.exit()` and `sys.exit(0)` are success, as for a program; a text goes to stderr."""
    if error.code is None or error.code == 0:
        return None
    if not isinstance(error.code, int):
        print(outputs.describe(error.code), file=sys.__stderr__)
    message = f"exit status {error.code if isinstance(error.code, int) else 1}"
    line = _last_line(traceback.TracebackException.from_exception(error, lookup_lines=False))
    return {"type": "exit", "name": "SystemExit", "message": message, "line": line, "traceback": ""}


def _security_error(error: BaseException | None) -> audit.SecurityError | None:
    """The refusal behind an exception: libraries wrap it (requests in a ConnectionError)."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, audit.SecurityError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _last_line(formatted: traceback.TracebackException) -> int | None:
    return next((frame.lineno for frame in reversed(formatted.stack) if frame.filename == FILENAME), None)


def _keep_user_frames(formatted: traceback.TracebackException) -> None:
    """Leave the frames of the submitted code: ours and the libraries' say little to who wrote it."""
    pending: list[traceback.TracebackException | None] = [formatted]
    while pending:
        one = pending.pop()
        if one is None:
            continue
        one.stack[:] = [frame for frame in one.stack if frame.filename == FILENAME]
        pending += [one.__cause__, one.__context__, *(one.exceptions or [])]


def _one_line(error: dict[str, Any] | None) -> str:
    if error is None:
        return NO_RESULT
    if error["type"] == "security":
        return f"Security Error: {error['message']}"
    return f"{error['name']}: {error['message']}" if error["message"] else error["name"]


def _send(fd: int, report: dict[str, Any]) -> None:
    # The report may be larger than what the code left of its address space.
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (min(hard, soft), hard))
    data = memoryview(_dumps(report).encode("ascii"))
    while data:
        data = data[_write(fd, data) :]
