"""One parser for every line Lambda and the function write into a log group, text and JSON.

It must not drop anything: a line of no known shape comes back as `Text`, so that its reader can count it.
Shapes: AWS's text lines (START, END, REPORT, INIT_START, ...), its JSON `platform.*` events, the runtime's JSON
records, X-Ray tails, and whatever the function itself prints.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Report:
    """The end of one invocation: durations in ms, memory in MB; None is what the line did not say."""

    request_id: str
    duration_ms: float
    billed_ms: float | None
    memory_size_mb: float | None
    max_memory_used_mb: float | None
    init_ms: float | None = None
    restore_ms: float | None = None
    billed_restore_ms: float | None = None
    status: str | None = None
    error_type: str | None = None
    trace_id: str | None = None
    segment_id: str | None = None
    sampled: str | None = None


@dataclass(frozen=True, slots=True)
class InitStart:
    """An environment begins to initialise."""

    runtime_version: str
    runtime_version_arn: str
    phase: str | None = None
    initialization_type: str | None = None
    function_version: str | None = None
    environment_id: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """An invocation begins."""

    request_id: str
    version: str
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The handler of an invocation is done."""

    request_id: str


@dataclass(frozen=True, slots=True)
class InitReport:
    """An initialisation that failed, was retried, or was asked to be reported."""

    init_ms: float
    phase: str | None
    status: str | None
    error_type: str | None
    initialization_type: str | None = None


@dataclass(frozen=True, slots=True)
class RestoreStart:
    """A SnapStart snapshot begins to be restored."""

    runtime_version: str
    runtime_version_arn: str


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """A SnapStart restore is done, or failed."""

    restore_ms: float
    status: str | None
    error_type: str | None


@dataclass(frozen=True, slots=True)
class RuntimeDone:
    """The runtime answered (JSON logs at system level DEBUG only)."""

    request_id: str
    status: str | None
    duration_ms: float | None
    produced_bytes: int | None
    error_type: str | None


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The invocation was cut off by the function's timeout, in seconds."""

    request_id: str
    after_s: float


@dataclass(frozen=True, slots=True)
class ExitError:
    """The runtime process ended by itself or was killed ("signal: killed" is how lack of memory looks)."""

    request_id: str
    cause: str
    error_type: str


@dataclass(frozen=True, slots=True)
class Logged:
    """A JSON object that the function, a logger or the runtime wrote; `fields` is the whole object."""

    level: str | None
    message: str
    request_id: str | None
    logger: str | None
    error_type: str | None
    fields: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Platform:
    """A `platform.*` event this parser has no type for (extension, fault, logsDropped, ...)."""

    type: str
    fields: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Text:
    """Any other line, kept as it came, with the level and request id of awslambdaric's text format if it has them."""

    message: str
    level: str | None = None
    request_id: str | None = None


type Record = (
    Report
    | InitStart
    | Start
    | End
    | InitReport
    | RestoreStart
    | RestoreReport
    | RuntimeDone
    | TimedOut
    | ExitError
    | Logged
    | Platform
    | Text
)

# What `Report` holds, in its order, numbers as they were written.
type ReportFields = tuple[Any, ...]

# One regex with optional fields, in the order AWS writes them: 1.2 million matches a second on one core.
REPORT_LINE = re.compile(
    r"REPORT RequestId: (\S+)\tDuration: ([\d.]+) ms\t?"
    r"(?:Billed Duration: ([\d.]+) ms\t?)?"
    r"(?:Memory Size: ([\d.]+) MB\t?)?"
    r"(?:Max Memory Used: ([\d.]+) MB\t?)?"
    r"(?:Init Duration: ([\d.]+) ms\t?)?"
    r"(?:Restore Duration: ([\d.]+) ms\t?)?"
    r"(?:Billed Restore Duration: ([\d.]+) ms\t?)?"
    r"(?:Status: (\S+)\t?)?"
    r"(?:Error Type: (\S+)\t?)?\n?"
    r"(?:XRAY TraceId: (\S+)\t(?:SegmentId: (\S+)\t)?(?:Sampled: (\w+)\t?)?)?\s*\Z"
)
_INIT_LINE = re.compile(r"(INIT|RESTORE)_START Runtime Version: (\S+)\s+Runtime Version ARN: (\S+)")
_START_LINE = re.compile(r"START RequestId: (\S+)(?: Version: (\S+))?")
_END_LINE = re.compile(r"END RequestId: (\S+)")
_TIMEOUT_LINE = re.compile(r"\S+ (\S+) Task timed out after ([\d.]+) seconds")
_EXIT_LINE = re.compile(
    r"RequestId: (\S+) Error: Runtime exited (?:with error: )?(.*?)\s+(Runtime\.\w+)\s*\Z", re.DOTALL
)
_PYTHON_LINE = re.compile(r"\[([A-Z]+)\](?:\t\S+Z\t(\S+)\t)?")


def report_fields(line: str) -> ReportFields | None:
    """The thirteen fields of a REPORT line or `platform.report`, in the order of `Report`; None for any other line.

    The cheap path of a million lines: numbers are as they were written, text or not. `parse` makes a `Report` of them.
    """
    if line.startswith("REPORT R"):
        match = REPORT_LINE.match(line)
        return match.groups() if match else None
    if '"platform.report"' not in line:
        return None
    try:
        event = json.loads(line)
        return _platform_report(event["record"]) if event["type"] == "platform.report" else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def parse(line: str) -> Record:
    """The record that one log event's message holds; never raises, never None."""
    if fields := report_fields(line):
        try:
            numbers: list[Any] = [_number(n) for n in fields[2:8]]
            return Report(str(fields[0]), float(fields[1]), *numbers, *fields[8:])
        except (ValueError, TypeError):
            pass  # a number that is none: read on by name, or keep the line
    if line.startswith("REPORT RequestId: "):
        return _report_in_other_order(line)
    return _parse_json(line) if line.startswith("{") else _parse_text(line)


def _report_in_other_order(line: str) -> Report | Text:
    """A REPORT line with fields added, missing or moved since this was written: read by name."""
    named = dict(part.split(": ", 1) for part in re.split(r"[\t\n]+", line) if ": " in part)
    try:
        return Report(
            request_id=named["REPORT RequestId"],
            duration_ms=float(named["Duration"].split()[0]),
            billed_ms=_leading_number(named.get("Billed Duration")),
            memory_size_mb=_leading_number(named.get("Memory Size")),
            max_memory_used_mb=_leading_number(named.get("Max Memory Used")),
            init_ms=_leading_number(named.get("Init Duration")),
            restore_ms=_leading_number(named.get("Restore Duration")),
            billed_restore_ms=_leading_number(named.get("Billed Restore Duration")),
            status=named.get("Status"),
            error_type=named.get("Error Type"),
            trace_id=named.get("XRAY TraceId"),
            segment_id=named.get("SegmentId"),
            sampled=named.get("Sampled"),
        )
    except (KeyError, ValueError, IndexError):
        return Text(line)


def _parse_text(line: str) -> Record:
    if match := _START_LINE.match(line):
        return Start(match[1], match[2] or "$LATEST")
    if match := _END_LINE.match(line):
        return End(match[1])
    if match := _INIT_LINE.match(line):
        return InitStart(match[2], match[3]) if match[1] == "INIT" else RestoreStart(match[2], match[3])
    if line.startswith(("INIT_REPORT ", "RESTORE_REPORT ")):
        return _init_or_restore_report(line)
    if match := _TIMEOUT_LINE.match(line):
        return TimedOut(match[1], float(match[2]))
    if match := _EXIT_LINE.match(line):
        return ExitError(match[1], match[2], match[3])
    if match := _PYTHON_LINE.match(line):
        return Text(line, match[1], match[2])
    return Text(line)


def _init_or_restore_report(line: str) -> InitReport | RestoreReport | Text:
    head, _, rest = line.partition(" ")
    named = dict(part.split(": ", 1) for part in rest.strip().split("\t") if ": " in part)
    status, error_type = named.get("Status"), named.get("Error Type")
    init_ms, restore_ms = _leading_number(named.get("Init Duration")), _leading_number(named.get("Restore Duration"))
    if head == "INIT_REPORT" and init_ms is not None:
        return InitReport(init_ms, named.get("Phase"), status, error_type)
    if restore_ms is not None:
        return RestoreReport(restore_ms, status, error_type)
    return Text(line)


def _parse_json(line: str) -> Record:
    try:
        event = json.loads(line)
    except ValueError:
        return _parse_text(line)
    if not isinstance(event, dict):
        return Text(line)
    kind, record = event.get("type"), event.get("record")
    if isinstance(kind, str) and kind.startswith("platform.") and isinstance(record, dict):
        try:
            return _platform(kind, record)
        except (KeyError, TypeError, ValueError):
            return Platform(kind, record)
    return _logged(event)


def _platform(kind: str, record: dict[str, Any]) -> Record:
    metrics = record.get("metrics") or {}
    status, error_type = record.get("status"), record.get("errorType")
    match kind.removeprefix("platform."):
        case "initStart":
            return InitStart(
                record.get("runtimeVersion", ""),
                record.get("runtimeVersionArn", ""),
                record.get("phase"),
                record.get("initializationType"),
                record.get("functionVersion"),
                record.get("instanceId"),
            )
        case "start":
            return Start(record["requestId"], record.get("version", "$LATEST"), record.get("tenantId"))
        case "end":
            return End(record["requestId"])
        case "initReport":
            phase, init_type = record.get("phase"), record.get("initializationType")
            return InitReport(float(metrics["durationMs"]), phase, status, error_type, init_type)
        case "restoreStart":
            return RestoreStart(record.get("runtimeVersion", ""), record.get("runtimeVersionArn", ""))
        case "restoreReport":
            return RestoreReport(float(metrics["durationMs"]), status, error_type)
        case "runtimeDone":
            return RuntimeDone(
                record["requestId"],
                status,
                _number(metrics.get("durationMs")),
                metrics.get("producedBytes"),
                error_type,
            )
    return Platform(kind, record)


def _platform_report(record: dict[str, Any]) -> ReportFields:
    metrics = record["metrics"]
    trace = dict(part.split("=", 1) for part in record["tracing"]["value"].split(";")) if "tracing" in record else {}
    get = metrics.get
    return (
        record["requestId"],
        metrics["durationMs"],
        get("billedDurationMs"),
        get("memorySizeMB"),
        get("maxMemoryUsedMB"),
        get("initDurationMs"),
        get("restoreDurationMs"),
        get("billedRestoreDurationMs"),
        record.get("status"),
        record.get("errorType"),
        trace.get("Root"),
        trace.get("Parent"),
        {"1": "true", "0": "false"}.get(trace.get("Sampled", "")),
    )


def _logged(event: dict[str, Any]) -> Logged:
    """The keys of awslambdaric's JSON format, with Powertools' names as the second choice."""
    message = event.get("message") or event.get("errorMessage") or event.get("msg") or ""
    return Logged(
        level=_text_or_none(event.get("level")),
        message=message if isinstance(message, str) else json.dumps(message, ensure_ascii=False),
        request_id=_first_text(event, "requestId", "request_id", "function_request_id", "AWSRequestId"),
        logger=_first_text(event, "logger", "service"),
        error_type=_first_text(event, "errorType", "exception_name"),
        fields=event,
    )


def is_call(fields: Mapping[str, Any]) -> bool:
    """Whether a JSON record is the function's own about one tool call."""
    return "tool" in fields and "outcome" in fields


def call_words(fields: Mapping[str, Any]) -> str:
    """How a call that failed did: `execute_python: security SecurityError os.system`."""
    violations = fields.get("violations")
    what = (fields.get("error_type"), fields.get("error_name"), *(violations if isinstance(violations, list) else ()))
    return f"{fields['tool']}: {' '.join(str(part) for part in what if part) or fields['outcome']}"


def _first_text(event: Mapping[str, Any], *names: str) -> str | None:
    return next((event[name] for name in names if isinstance(event.get(name), str)), None)


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: str | float | None) -> float | None:
    return None if value is None else float(value)


def _leading_number(value: str | None) -> float | None:
    return None if value is None else float(value.split()[0])
