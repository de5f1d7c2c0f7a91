"""Log lines as Lambda writes them, and the way they take into CloudWatch Logs; it keeps no copy of its own.

The shapes are those of real lines (text since 2025-08, when INIT became billed; JSON of 2026-10). Times in log events
are milliseconds since the epoch; durations are milliseconds.
"""

import json
import math
import queue
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

RUNTIME_VERSION = f"python:{sys.version_info[0]}.{sys.version_info[1]}.local"  # environments run this Python
RUNTIME_ARN_SUFFIX = "0" * 64  # no such runtime at AWS: a reader can tell a local line from a real one
LOG_TAIL_BYTES = 4096  # what Invoke with LogType=Tail returns
FLUSH_S = 5.0  # how long anyone waits for what is queued; delivering takes milliseconds
GATHER_S = 0.01  # how long the writer lets events gather: waking it for each takes the GIL from the calls


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event of one stream of a log group; `timestamp_ms` since the epoch."""

    group: str
    stream: str
    timestamp_ms: int
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one invocation. `init_ms` and `restore_ms` only on the first of an environment."""

    request_id: str
    duration_ms: float
    memory_mb: int
    max_memory_mb: int
    init_ms: float | None = None
    restore_ms: float | None = None
    status: str = "success"  # success | error | timeout
    error_type: str | None = None
    trace: "Trace | None" = None
    produced_bytes: int = 0
    init_is_billed: bool = True  # not with provisioned concurrency, which is billed by the hour

    @property
    def billed_ms(self) -> int:
        """INIT is billed since 2025-08-01: real lines show ceil(init + duration) on a cold start, and of a restore."""
        init_ms = (self.init_ms or 0.0) if self.init_is_billed else 0.0
        return math.ceil(self.duration_ms + init_ms) + (self.billed_restore_ms or 0)

    @property
    def billed_restore_ms(self) -> int | None:
        return None if self.restore_ms is None else math.ceil(self.restore_ms)


@dataclass(frozen=True, slots=True)
class Trace:
    """What X-Ray knows an invocation by: the trace's root and the function's own segment, 16 hex digits."""

    root: str
    segment: str


@dataclass(frozen=True, slots=True)
class Platform:
    """Who speaks: the constant parts of an environment's platform lines."""

    log_format: str  # "JSON" or "Text"
    function_name: str
    function_arn: str
    region: str
    stream: str
    memory_mb: int
    initialization_type: str = "on-demand"
    version: str = "$LATEST"
    tenant: str | None = None
    system_level: str = "INFO"  # DEBUG | INFO | WARN; text has no levels


_LEVELS = {"DEBUG": 0, "INFO": 1, "WARN": 2}


def iso_time(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def init_start(platform: Platform, now_s: float) -> list[str]:
    if platform.log_format != "JSON":
        return [_text_start("INIT_START", platform)]
    record = {"initializationType": platform.initialization_type, "phase": "init", **_instance(platform)}
    return _record(platform, "INFO", now_s, "platform.initStart", record)


def init_report(
    platform: Platform, now_s: float, init_ms: float, status: str, error_type: str | None = None, phase: str = "init"
) -> list[str]:
    """A failed init, or the init of what is not on demand; a good one on demand has a line in JSON at DEBUG only.

    `phase` is `invoke` for the second try, which Lambda makes inside the invocation.
    """
    if platform.log_format != "JSON":
        if status == "success" and platform.initialization_type == "on-demand":
            return []
        line = f"INIT_REPORT Init Duration: {init_ms:.2f} ms\tPhase: {phase}\tStatus: {status}"
        return [line + (f"\tError Type: {error_type}" if error_type else "") + "\n"]
    level = "WARN" if status != "success" else "DEBUG" if platform.initialization_type == "on-demand" else "INFO"
    record: dict[str, Any] = {
        "initializationType": platform.initialization_type,
        "status": status,
        "phase": phase,
        "metrics": {"durationMs": round(init_ms, 3)},
    }
    if error_type:
        record["errorType"] = error_type
    return _record(platform, level, now_s, "platform.initReport", record)


def restore_start(platform: Platform, now_s: float) -> list[str]:
    if platform.log_format != "JSON":
        return [_text_start("RESTORE_START", platform)]
    return _record(platform, "INFO", now_s, "platform.restoreStart", _instance(platform))


def restore_report(
    platform: Platform, now_s: float, restore_ms: float, status: str = "success", error_type: str | None = None
) -> list[str]:
    if platform.log_format != "JSON":
        line = f"RESTORE_REPORT Restore Duration: {restore_ms:.2f} ms"
        if status != "success":
            line += f"\tStatus: {status}" + (f"\tError Type: {error_type}" if error_type else "")
        return [line + "\n"]
    record: dict[str, Any] = {"status": status, "metrics": {"durationMs": round(restore_ms, 3)}}
    if error_type:
        record["errorType"] = error_type
    level = "INFO" if status == "success" else "WARN"
    return _record(platform, level, now_s, "platform.restoreReport", record)


def start(platform: Platform, now_s: float, request_id: str) -> list[str]:
    if platform.log_format != "JSON":
        return [f"START RequestId: {request_id} Version: {platform.version}\n"]
    record = {"requestId": request_id, "functionArn": platform.function_arn, "version": platform.version}
    return _record(platform, "INFO", now_s, "platform.start", _of_tenant(platform, record))


def timed_out(platform: Platform, now_s: float, request_id: str, timeout_s: float) -> list[str]:
    """JSON says it in the report's status alone."""
    if platform.log_format == "JSON":
        return []
    return [f"{iso_time(now_s)} {request_id} Task timed out after {timeout_s:.2f} seconds\n\n"]


def exit_error(platform: Platform, request_id: str, cause: str, error_type: str) -> list[str]:
    """`cause`: `exit status 1` or `signal: killed`, or nothing for an exit with 0, which has no reason to give.

    JSON says it in the report's status alone.
    """
    if platform.log_format == "JSON":
        return []
    said = exit_message(cause)
    return [f"RequestId: {request_id} Error: {said}\n{error_type}\n"]


def exit_message(cause: str) -> str:
    return f"Runtime exited with error: {cause}" if cause else "Runtime exited without providing a reason"


def end_and_report(platform: Platform, now_s: float, report: Report) -> list[str]:
    if platform.log_format != "JSON":
        return [f"END RequestId: {report.request_id}\n", _text_report(report)]
    metrics: dict[str, Any] = {
        "durationMs": round(report.duration_ms, 3),
        "billedDurationMs": report.billed_ms,
        "memorySizeMB": report.memory_mb,
        "maxMemoryUsedMB": report.max_memory_mb,
    }
    if report.init_ms is not None:
        metrics["initDurationMs"] = round(report.init_ms, 3)
    if report.restore_ms is not None:
        metrics["restoreDurationMs"] = round(report.restore_ms, 3)
        metrics["billedRestoreDurationMs"] = report.billed_restore_ms
    record: dict[str, Any] = {"requestId": report.request_id, "metrics": metrics, "status": report.status}
    if report.error_type:
        record["errorType"] = report.error_type
    if report.trace:
        record["tracing"] = {
            "spanId": report.trace.segment,
            "type": "X-Amzn-Trace-Id",
            "value": f"Root={report.trace.root};Parent={report.trace.segment};Sampled=1",
        }
    level = "INFO" if report.status == "success" else "WARN"
    done = _record(platform, "DEBUG", now_s, "platform.runtimeDone", _runtime_done(report))
    return done + _record(platform, level, now_s, "platform.report", _of_tenant(platform, record))


def _runtime_done(report: Report) -> dict[str, Any]:
    record: dict[str, Any] = {
        "requestId": report.request_id,
        "status": report.status,
        "metrics": {"durationMs": round(report.duration_ms, 3), "producedBytes": report.produced_bytes},
    }
    return {**record, "errorType": report.error_type} if report.error_type else record


def _text_report(report: Report) -> str:
    fields = [
        f"REPORT RequestId: {report.request_id}",
        f"Duration: {report.duration_ms:.2f} ms",
        f"Billed Duration: {report.billed_ms} ms",
        f"Memory Size: {report.memory_mb} MB",
        f"Max Memory Used: {report.max_memory_mb} MB",
    ]
    if report.init_ms is not None:
        fields.append(f"Init Duration: {report.init_ms:.2f} ms")
    if report.restore_ms is not None:
        fields.append(f"Restore Duration: {report.restore_ms:.2f} ms")
        fields.append(f"Billed Restore Duration: {report.billed_restore_ms} ms")
    if report.status != "success":
        fields.append(f"Status: {report.status}")
        if report.error_type:
            fields.append(f"Error Type: {report.error_type}")
    line = "\t".join(fields) + ("\t\n" if report.status == "success" else "\n")
    if report.trace:
        line += f"XRAY TraceId: {report.trace.root}\tSegmentId: {report.trace.segment}\tSampled: true\t\n"
    return line


def runtime_arn(region: str) -> str:
    """The ARN of the runtime's version, as log lines and GetFunctionConfiguration tell it."""
    return f"arn:aws:lambda:{region}::runtime:{RUNTIME_ARN_SUFFIX}"


def _text_start(kind: str, platform: Platform) -> str:
    return f"{kind} Runtime Version: {RUNTIME_VERSION}\tRuntime Version ARN: {runtime_arn(platform.region)}\n"


def _instance(platform: Platform) -> dict[str, Any]:
    return {
        "runtimeVersion": RUNTIME_VERSION,
        "runtimeVersionArn": runtime_arn(platform.region),
        "functionName": platform.function_name,
        "functionVersion": platform.version,
        "instanceId": platform.stream,
        "instanceMaxMemory": platform.memory_mb * 1024 * 1024,
    }


def _of_tenant(platform: Platform, record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "tenantId": platform.tenant} if platform.tenant is not None else record


def _record(platform: Platform, level: str, now_s: float, kind: str, record: dict[str, Any]) -> list[str]:
    """The line, unless its level is below the function's system log level."""
    if _LEVELS[level] < _LEVELS.get(platform.system_level, 1):
        return []
    return [json.dumps({"time": iso_time(now_s), "type": kind, "record": record}, separators=(",", ":"))]


class Frames:
    """Splits what awslambdaric writes to _LAMBDA_TELEMETRY_LOG_FD into messages with their times.

    A frame is a 4-byte type, a 4-byte length and an 8-byte time in microseconds, big-endian, then the message.
    """

    header = struct.Struct(">IIQ")
    magic = 0xA55A0000
    longest = 64 * 1024 * 1024  # awslambdaric cuts nothing; a larger length is no frame's

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, str]]:
        """Yield (timestamp_ms, message) for every whole frame. Raises ValueError for bytes that are no frame."""
        self._buffer += data
        while len(self._buffer) >= self.header.size:
            kind, length, micros = self.header.unpack_from(self._buffer)
            if kind & 0xFFFF0000 != self.magic or length > self.longest:
                raise ValueError(f"not a telemetry frame: type {kind:#x}, {length} bytes")
            end = self.header.size + length
            if len(self._buffer) < end:
                return
            message = bytes(self._buffer[self.header.size : end])
            del self._buffer[:end]
            yield micros // 1000, message.decode("utf-8", "replace")


class Lines:
    """Splits stdout and stderr into lines; each line is one log event, as Lambda makes them."""

    longest = 256 * 1024  # CloudWatch Logs cuts an event at 256 KiB (1 MiB since 2025-04; the smaller is kept)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        whole = [line + b"\n" for line in lines]
        while len(self._rest) > self.longest:
            whole.append(self._rest[: self.longest])
            self._rest = self._rest[self.longest :]
        return [line.decode("utf-8", "replace") for line in whole]

    def flush(self) -> list[str]:
        rest, self._rest = self._rest, b""
        return [rest.decode("utf-8", "replace")] if rest else []


class LogWriter:
    """Takes events off the hot path: `put` only queues, one thread hands them on in batches, in order.

    `deliver` gets the events of one stream of one group, oldest first.
    """

    def __init__(self, deliver: Callable[[str, str, Sequence[LogEvent]], None]) -> None:
        self._deliver = deliver
        self._hurry = threading.Event()
        self._queue: queue.SimpleQueue[LogEvent | threading.Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, event: LogEvent) -> None:
        self._queue.put(event)

    def flush(self) -> None:
        """Return once everything put before has been delivered, or after FLUSH_S."""
        reached = threading.Event()
        self._queue.put(reached)
        self._hurry.set()
        reached.wait(FLUSH_S)

    def close(self) -> None:
        """Deliver what is queued, then end the thread."""
        self._queue.put(None)
        self._hurry.set()
        self._thread.join(timeout=FLUSH_S)

    def _run(self) -> None:
        while True:
            batch: dict[tuple[str, str], list[LogEvent]] = {}
            reached: list[threading.Event] = []
            item = self._queue.get()
            last = item is None
            if isinstance(item, LogEvent):
                self._hurry.wait(GATHER_S)
            self._hurry.clear()
            while True:
                if isinstance(item, LogEvent):
                    batch.setdefault((item.group, item.stream), []).append(item)
                elif item is not None:
                    reached.append(item)
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                last = last or item is None
            for (group, stream), events in batch.items():
                self._deliver(group, stream, sorted(events, key=lambda event: event.timestamp_ms))
            for event in reached:
                event.set()
            if last:
                return
