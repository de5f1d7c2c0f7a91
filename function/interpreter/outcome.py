"""Judges what a watched child left: its report, or, where there is none, why there is none."""

from __future__ import annotations

import base64
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from interpreter.execution import ChildReport, ErrorType, Execution, ExecutionError, File, Output, Usage
from interpreter.files import FileError, Left, Returned
from interpreter.packages import PackageError
from interpreter.pipes import FILENAME, UNTOLD
from interpreter.sessions import SessionError
from interpreter.watch import LOST, REPORT_BYTES, Stream, Watched


@dataclass(frozen=True, slots=True)
class Rich:
    """One rich output of the code, in the order of `Execution.outputs`."""

    mime_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished call: the execution, and the bytes that travel beside it."""

    execution: Execution
    rich: list[Rich] = field(default_factory=list)
    files: list[Returned] = field(default_factory=list)


def complete(
    watched: Watched, timeout_s: float, install_ms: float, left: Sequence[Left] = (), returned: Sequence[Returned] = ()
) -> Completed:
    """The result of a child that was seen through; `timeout_s` is what it was held to."""
    usage = Usage(
        wall_ms=round(watched.wall_ms, 2),
        cpu_ms=round(watched.cpu_ms, 2),
        max_rss_mb=round(watched.max_rss_kb / 1024, 1),
        install_ms=round(install_ms, 2),
    )
    truncated = [name for name in ("stdout", "stderr") if getattr(watched, name).seen > getattr(watched, name).keep]
    report = None if watched.killed_for else _parse_report(watched)
    rich: list[Rich] = []
    if report is None:
        error = _explain_end(watched, timeout_s)
        named = "Security Error" if error.type == "security" else error.name
        result = f"{named}: {error.message}"
        execution = Execution(success=False, result=result, stdout="", stderr="", warnings="", error=error, usage=usage)
    else:
        rich = [Rich(output.mime_type, base64.b64decode(output.data)) for output in report.outputs]
        execution = Execution(
            success=report.error is None,
            result=report.result,
            stdout="",
            stderr="",
            warnings=report.warnings,
            error=report.error,
            outputs=[
                Output(mime_type=output.mime_type, bytes=len(one.data), width=output.width, height=output.height)
                for output, one in zip(report.outputs, rich, strict=True)
            ],
            usage=usage,
        )
        truncated += report.truncated
    execution.stdout, execution.stderr = watched.stdout.text(), watched.stderr.text()
    execution.truncated = truncated
    execution.violations = watched.refused
    execution.files = [File(name=one.name, bytes=one.bytes) for one in left]
    return Completed(execution, rich, list(returned))


def refused(error: PackageError | FileError | SessionError, install_ms: float = 0.0) -> Completed:
    """The result of a call whose code was not run, because what it asked for beside it could not be had."""
    name = error.name if isinstance(error, PackageError) else type(error).__name__
    kind: ErrorType = "package" if isinstance(error, PackageError) else "runtime"
    execution = Execution(
        success=False,
        result=f"{name}: {error}",
        stdout="",
        stderr="",
        warnings="",
        error=ExecutionError(type=kind, name=name, message=str(error)),
        usage=Usage(wall_ms=0.0, cpu_ms=0.0, max_rss_mb=0.0, install_ms=round(install_ms, 2)),
    )
    return Completed(execution)


def _parse_report(watched: Watched) -> ChildReport | None:
    if watched.report.seen > REPORT_BYTES:
        return None
    try:
        report = ChildReport.model_validate_json(bytes(watched.report.data))
        for output in report.outputs:
            base64.b64decode(output.data, validate=True)
    except (ValidationError, ValueError):
        return None
    return report


def _explain_end(watched: Watched, timeout_s: float) -> ExecutionError:
    """Why there is no report: a limit of ours, a signal, or an exit that left nothing."""
    line = _stuck_line(watched.trace.text())
    if watched.killed_for is not None:
        kind, name, message = watched.killed_for
        if kind == "timeout" and watched.pid is not None:
            message = f"the code was stopped after {timeout_s:g} seconds"
            message += f", at line {line}" if line else ""
        return ExecutionError(type=kind, name=name, message=message, line=line, traceback=_user_frames(watched.trace))
    status = watched.status or 0
    if status == LOST:
        message = "the interpreter's template process ended while the code ran"
        return ExecutionError(type="crashed", name="TemplateLost", message=message)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        if number == signal.SIGXCPU:
            return ExecutionError(type="timeout", name=name, message="the CPU time limit of this run was reached")
        return ExecutionError(type="crashed", name=name, message=f"the code's process was ended by {name}", line=line)
    code = os.waitstatus_to_exitcode(status)
    if code == UNTOLD:
        message = "the code closed the descriptor that refusals are told on, and was refused an operation"
        return ExecutionError(type="security", name="SecurityError", message=message)
    return ExecutionError(type="exit", name="SystemExit", message=f"the code ended its process with status {code}")


def _stuck_line(trace: str) -> int | None:
    match = re.search(rf'File "{re.escape(FILENAME)}", line (\d+)', trace)
    return int(match[1]) if match else None


def _user_frames(trace: Stream) -> str:
    """The lines of the submitted code in what faulthandler wrote, innermost first as it writes them."""
    return "".join(line + "\n" for line in trace.text().splitlines() if f'File "{FILENAME}"' in line)
