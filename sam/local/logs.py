"""Log lines as Lambda writes them, and the way they take into CloudWatch Logs; it keeps no copy of its own.

The shapes are those of real lines (text since 2025-08, when INIT became billed; JSON of 2026-10). Times in log events
are milliseconds since the epoch; durations are milliseconds.
"""

import json
import math
import queue
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

RUNTIME_VERSION = "python:3.12.local"
RUNTIME_ARN_SUFFIX = "0" * 64  # no such runtime at AWS: a reader can tell a local line from a real one
LOG_TAIL_BYTES = 4096  # what Invoke with LogType=Tail returns


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event of one stream; `timestamp_ms` since the epoch."""

    stream: str
    timestamp_ms: int
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one invocation. `init_ms` only on the first of an environment."""

    request_id: str
    duration_ms: float
    memory_mb: int
    max_memory_mb: int
    init_ms: float | None = None
    status: str = "success"  # success | error | timeout
    error_type: str | None = None

    @property
    def billed_ms(self) -> int:
        """INIT is billed since 2025-08-01: real lines show ceil(init + duration) on a cold start."""
        return math.ceil(self.duration_ms + (self.init_ms or 0.0))


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


def iso_time(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def init_start(platform: Platform, now_s: float) -> list[str]:
    arn = f"arn:aws:lambda:{platform.region}::runtime:{RUNTIME_ARN_SUFFIX}"
    if platform.log_format != "JSON":
        return [f"INIT_START Runtime Version: {RUNTIME_VERSION}\tRuntime Version ARN: {arn}\n"]
    record = {
        "initializationType": platform.initialization_type,
        "phase": "init",
        "runtimeVersion": RUNTIME_VERSION,
        "runtimeVersionArn": arn,
        "functionName": platform.function_name,
        "functionVersion": "$LATEST",
        "instanceId": platform.stream,
        "instanceMaxMemory": platform.memory_mb * 1024 * 1024,
    }
    return [_record(now_s, "platform.initStart", record)]


def init_report(platform: Platform, now_s: float, init_ms: float, status: str, error_type: str | None) -> list[str]:
    """Written for a failed init only: at the default level Lambda shows no initReport of a good one."""
    if platform.log_format != "JSON":
        line = f"INIT_REPORT Init Duration: {init_ms:.2f} ms\tPhase: init\tStatus: {status}"
        return [line + (f"\tError Type: {error_type}" if error_type else "") + "\n"]
    record: dict[str, Any] = {
        "initializationType": platform.initialization_type,
        "status": status,
        "phase": "init",
        "metrics": {"durationMs": round(init_ms, 3)},
    }
    if error_type:
        record["errorType"] = error_type
    return [_record(now_s, "platform.initReport", record)]


def start(platform: Platform, now_s: float, request_id: str) -> list[str]:
    if platform.log_format != "JSON":
        return [f"START RequestId: {request_id} Version: $LATEST\n"]
    record = {"requestId": request_id, "functionArn": platform.function_arn, "version": "$LATEST"}
    return [_record(now_s, "platform.start", record)]


def timed_out(platform: Platform, now_s: float, request_id: str, timeout_s: float) -> list[str]:
    """JSON says it in the report's status alone."""
    if platform.log_format == "JSON":
        return []
    return [f"{iso_time(now_s)} {request_id} Task timed out after {timeout_s:.2f} seconds\n\n"]


def exit_error(platform: Platform, request_id: str, cause: str, error_type: str) -> list[str]:
    """`cause`: `exit status 1` or `signal: killed`. JSON says it in the report's status alone."""
    if platform.log_format == "JSON":
        return []
    return [f"RequestId: {request_id} Error: Runtime exited with error: {cause}\n{error_type}\n"]


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
    record: dict[str, Any] = {"requestId": report.request_id, "metrics": metrics, "status": report.status}
    if report.error_type:
        record["errorType"] = report.error_type
    return [_record(now_s, "platform.report", record)]


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
    if report.status == "success":
        return "\t".join(fields) + "\t\n"
    fields.append(f"Status: {report.status}")
    if report.error_type:
        fields.append(f"Error Type: {report.error_type}")
    return "\t".join(fields) + "\n"


def _record(now_s: float, kind: str, record: dict[str, Any]) -> str:
    return json.dumps({"time": iso_time(now_s), "type": kind, "record": record}, separators=(",", ":"))


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

    `deliver` gets events of one stream, oldest first.
    """

    def __init__(self, deliver: Callable[[str, Sequence[LogEvent]], None]) -> None:
        self._deliver = deliver
        self._queue: queue.SimpleQueue[LogEvent | threading.Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, event: LogEvent) -> None:
        self._queue.put(event)

    def flush(self, timeout_s: float = 5.0) -> None:
        """Return once everything put before has been delivered, or after `timeout_s`."""
        reached = threading.Event()
        self._queue.put(reached)
        reached.wait(timeout_s)

    def close(self) -> None:
        """Deliver what is queued, then end the thread."""
        self._queue.put(None)
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while True:
            batch: dict[str, list[LogEvent]] = {}
            reached: list[threading.Event] = []
            item = self._queue.get()
            last = item is None
            while True:
                if isinstance(item, LogEvent):
                    batch.setdefault(item.stream, []).append(item)
                elif item is not None:
                    reached.append(item)
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                last = last or item is None
            for stream, events in batch.items():
                self._deliver(stream, sorted(events, key=lambda event: event.timestamp_ms))
            for event in reached:
                event.set()
            if last:
                return
