"""Folds a range of log events into invocations and environments: columns for the many, lists for the few.

It must not judge or print. What it could not place (an invocation without its REPORT, a line of no known shape) is
counted, so that a report can say how much it rests on.
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops import records
from ops.logs import LogEvent
from ops.percentiles import Sample

# What an invocation can fail by, the gravest first.
FAILURES = ("timeout", "oom", "error")
_FINE = {None, "success", "ok"}
_REPORTS = ("REPORT ", '{"time"')
_CHUNK = 10_000
_PROVISIONED = "provisioned-concurrency"
_INIT_BILLED_SINCE_MS = 1_754_006_400_000  # 2025-08-01T00:00Z
_NAN = float("nan")
_NANS = np.full(_CHUNK, _NAN)
_VERSION_IN_STREAM = re.compile(r"\[([^\]]+)\]")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that went wrong, with the line that says so.

    `kind` is timeout, oom or error (the invocation failed), init (an environment did not come up) or logged (the code
    wrote at level ERROR and went on), or call (the tool's answer said that the caller's code failed).
    """

    kind: str
    at_ms: int
    group: str
    stream: str
    request_id: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Invocations:
    """Reported invocations as columns of one length; times in epoch ms, durations in ms, memory in MB.

    NaN is what a REPORT did not say. `outcomes` holds ok, timeout, oom or error. `provisioned` tells which ran in an
    environment of provisioned concurrency, whose INIT nobody waited for; None says that the logs show none.
    """

    request_ids: list[str]
    ended_ms: Sample
    streams: list[str]
    duration_ms: Sample
    billed_ms: Sample
    memory_size_mb: Sample
    max_memory_used_mb: Sample
    init_ms: Sample
    restore_ms: Sample
    billed_restore_ms: Sample
    outcomes: NDArray[np.str_]
    provisioned: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.request_ids)

    @property
    def is_cold(self) -> NDArray[np.bool_]:
        """Which invocations waited for an environment to initialise or to be restored."""
        return ~(np.isnan(self.waited_init_ms) & np.isnan(self.restore_ms))

    @property
    def waited_init_ms(self) -> Sample:
        """INIT that a caller waited for; NaN where there was none, or it was over before anybody called."""
        return self.init_ms if self.provisioned is None else np.where(self.provisioned, _NAN, self.init_ms)

    @property
    def occupied_ms(self) -> Sample:
        """How long each invocation held its environment: init or restore, and duration."""
        return self.duration_ms + np.nan_to_num(self.waited_init_ms) + np.nan_to_num(self.restore_ms)

    @property
    def versions(self) -> list[str]:
        """The function version of each invocation, as the name of its log stream tells it."""
        known: dict[str, str] = {}
        return [known.get(s) or known.setdefault(s, version_of_stream(s)) for s in self.streams]

    def peak_concurrency(self) -> int:
        """The largest number of invocations that were under way at one moment."""
        if not len(self):
            return 0
        starts = np.sort(self.ended_ms - self.occupied_ms)
        ends = np.sort(self.ended_ms)
        under_way = np.arange(1, len(starts) + 1) - np.searchsorted(ends, starts, side="right")
        return int(under_way.max())


@dataclass(slots=True)
class Caller:
    """What one API key's holder did; `cpu_ms` is the CPU time of its code."""

    calls: int = 0
    failed: int = 0
    blocked: int = 0
    cpu_ms: float = 0.0


@dataclass(slots=True)
class ToolCalls:
    """The function's own records of tool calls: what the code in them did, which a REPORT cannot tell.

    `outcomes` counts (tool, ok or error), `failures` the error types of execute_python; `callers` is by API key id,
    None for calls without one; `wall_ms` and `cpu_ms` are of the code alone.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    callers: dict[str | None, Caller] = field(default_factory=dict)
    wall_ms: array[float] = field(default_factory=lambda: array("d"))
    cpu_ms: array[float] = field(default_factory=lambda: array("d"))

    def add(self, fields: Mapping[str, Any]) -> None:
        """Counts one record."""
        outcome, error_type = str(fields["outcome"]), fields.get("error_type")
        self.outcomes[str(fields["tool"]), outcome] += 1
        if error_type:
            self.failures[str(error_type)] += 1
        caller = self.callers.setdefault(fields.get("api_key_id"), Caller())
        caller.calls += 1
        caller.failed += outcome != "ok"
        caller.blocked += bool(fields.get("violations"))
        wall, cpu = fields.get("wall_ms"), fields.get("cpu_ms")
        if isinstance(wall, int | float):
            self.wall_ms.append(wall)
        if isinstance(cpu, int | float):
            self.cpu_ms.append(cpu)
            caller.cpu_ms += cpu


@dataclass(slots=True)
class Ledger:
    """What a range of events held: the invocations, what went wrong, and how many lines of each kind.

    `tenant_streams` are those of environments that serve one tenant each, which JSON logs tell.
    """

    invocations: Invocations
    calls: ToolCalls
    problems: list[Problem]
    lines: Counter[str]
    violations: Counter[str]
    unfinished: list[str]
    environments: int
    log_bytes: int
    first_ms: int | None
    last_ms: int | None
    init_types: Counter[str]
    tenant_streams: frozenset[str]


def version_of_stream(stream: str) -> str:
    """The function version in a Lambda log stream's name, `2026/11/24/[7]0123...`; `?` if it is not named so."""
    match = _VERSION_IN_STREAM.search(stream)
    return match[1] if match else "?"


def fold(events: Iterable[LogEvent]) -> Ledger:
    """Reads `events` once, in the order of their streams, and keeps of each REPORT its numbers only."""
    folding = _Folding()
    for event in events:
        folding.add(event)
    return folding.ledger()


class _Folding:
    """The state of one pass: raw REPORT fields in columns, and what is under way on each stream."""

    def __init__(self) -> None:
        self.request_ids: list[str] = []
        self.streams: list[str] = []
        self.waiting: list[tuple[Any, ...]] = []
        self.columns = tuple(array("d") for _ in range(8))  # Report's numbers, in its order, and when it was written
        self.current: dict[str, str] = {}
        self.started: dict[str, int] = {}
        self.calls = ToolCalls()
        self.problems: list[Problem] = []
        self.lines: Counter[str] = Counter()
        self.violations: Counter[str] = Counter()
        self.init_types: Counter[str] = Counter()
        self.provisioned: set[str] = set()
        self.tenant_streams: set[str] = set()
        self.stream_names: dict[str, str] = {}
        self.log_bytes = 0
        self.first: int | None = None
        self.last: int | None = None

    def add(self, event: LogEvent) -> None:
        at, _, _, _, _, message = event
        self.log_bytes += len(message) + 26  # CloudWatch adds 26 bytes an event to what it bills
        if self.first is None or self.last is None:
            self.first = self.last = at
        elif at > self.last:
            self.last = at
        elif at < self.first:
            self.first = at
        if fields := records.report_fields(message):
            self._report(event, fields)
        else:
            self._other(event, records.parse(message))

    def _report(self, event: LogEvent, fields: records.ReportFields) -> None:
        self.waiting.append((*fields[1:8], event[0]))
        self.request_ids.append(fields[0])
        self.streams.append(self.stream_names.setdefault(event.stream, event.stream))
        if fields[8] not in _FINE:
            self._status(event, fields[0], fields[8], fields[9])
        if len(self.waiting) >= _CHUNK:
            self._convert()

    def _convert(self) -> None:
        """Turns the waiting rows into columns of numbers: a column at a time takes half the time of a row at a time."""
        for column, values in zip(self.columns, zip(*self.waiting, strict=True), strict=False):
            if values.count(None) == len(values):
                column.frombytes(_NANS[: len(values)].tobytes())
            else:
                column.extend([_NAN if value is None else float(value) for value in values])
        self.waiting.clear()

    def _status(self, event: LogEvent, request_id: str, status: str | None, error_type: str | None) -> None:
        kind = "timeout" if status == "timeout" else "oom" if "OutOfMemory" in (error_type or "") else "error"
        self._problem(kind, event, request_id)

    def _problem(self, kind: str, event: LogEvent, request_id: str | None, message: str | None = None) -> None:
        text = event.message if message is None else message
        self.problems.append(Problem(kind, event.timestamp_ms, event.group, event.stream, request_id, text.strip()))

    def _other(self, event: LogEvent, record: records.Record) -> None:
        if isinstance(record, records.Report):
            self._report(event, astuple(record))
            return
        self.lines[type(record).__name__] += 1
        match record:
            case records.Start():
                self.started[record.request_id] = event.timestamp_ms
                self.current[event.stream] = record.request_id
                if record.tenant is not None:
                    self.tenant_streams.add(event.stream)
            case records.InitStart():
                self.init_types[record.initialization_type or "unsaid"] += 1
                self.current.pop(event.stream, None)
                if record.initialization_type == _PROVISIONED:
                    self.provisioned.add(event.stream)
            case records.RestoreStart():
                self.provisioned.discard(event.stream)
            case records.TimedOut():
                self._problem("timeout", event, record.request_id)
            case records.ExitError():
                self._problem("killed" if "signal: killed" in record.cause else "error", event, record.request_id)
            case records.InitReport() | records.RestoreReport() if record.status not in _FINE:
                self._problem("init", event, None)
            case records.InitReport(phase="init", initialization_type=None | "provisioned-concurrency"):
                # In text, which names no type, a good INIT of an environment on demand has no line of its own.
                self.provisioned.add(event.stream)
            case records.Text(level="ERROR" | "CRITICAL"):
                # With an id it came from a logger; without one it is awslambdaric's uncaught exception.
                kind = "logged" if record.request_id else "error"
                self._problem(kind, event, record.request_id or self.current.get(event.stream))
            case records.Logged():
                self._logged(event, record)
            case _:
                pass

    def _logged(self, event: LogEvent, record: records.Logged) -> None:
        if records.is_call(record.fields):
            self.calls.add(record.fields)
            if record.fields["outcome"] != "ok":
                self._problem("call", event, record.request_id, records.call_words(record.fields))
        violations = record.fields.get("violations")
        if isinstance(violations, list):
            self.violations.update(str(name) for name in violations)
        if (record.level or "").upper() not in {"ERROR", "CRITICAL", "FATAL"}:
            return
        # awslambdaric writes an uncaught exception with errorMessage and no message.
        kind = "error" if "errorMessage" in record.fields and "message" not in record.fields else "logged"
        message = f"{record.error_type}: {record.message}" if record.error_type else record.message
        self._problem(kind, event, record.request_id or self.current.get(event.stream), message)

    def ledger(self) -> Ledger:
        self._convert()
        duration, billed, size, used, init, restore, billed_restore, ended = map(_frozen, self.columns)
        out_of_memory = self._ids_at_their_limit(used, size)
        problems = _one_per_invocation(
            replace(p, kind="oom" if p.request_id in out_of_memory else "error") if p.kind == "killed" else p
            for p in self.problems
        )
        return Ledger(
            invocations=Invocations(
                request_ids=self.request_ids,
                ended_ms=ended,
                streams=self.streams,
                duration_ms=duration,
                billed_ms=billed,
                memory_size_mb=size,
                max_memory_used_mb=used,
                init_ms=init,
                restore_ms=restore,
                billed_restore_ms=billed_restore,
                outcomes=self._outcomes(problems),
                provisioned=self._provisioned(duration, billed, init, ended),
            ),
            calls=self.calls,
            problems=problems,
            lines=self.lines + Counter(Report=len(self.request_ids)),
            violations=self.violations,
            unfinished=self._unfinished(),
            environments=len(self.stream_names),
            log_bytes=self.log_bytes,
            first_ms=self.first,
            last_ms=self.last,
            init_types=self.init_types,
            tenant_streams=frozenset(self.tenant_streams),
        )

    def _unfinished(self) -> list[str]:
        reported = set(self.request_ids) if self.started else set()
        return [request_id for request_id in self.started if request_id not in reported]

    def _provisioned(self, duration: Sample, billed: Sample, init: Sample, ended: Sample) -> NDArray[np.bool_] | None:
        """By INIT lines, else by the bill: on demand INIT is billed since 2025-08-01, provisioned it never is."""
        unbilled = (billed == np.ceil(duration)) & (np.floor(init) >= 1) & (ended >= _INIT_BILLED_SINCE_MS)
        streams = self.provisioned | {self.streams[i] for i in np.flatnonzero(unbilled)}
        return np.fromiter((s in streams for s in self.streams), bool, len(self.streams)) if streams else None

    def _ids_at_their_limit(self, used: Sample, size: Sample) -> set[str]:
        """Invocations whose memory was used up: before `Error Type` was written, the only sign of lack of memory."""
        return {self.request_ids[i] for i in np.flatnonzero(used >= size * 0.97)}

    def _outcomes(self, problems: list[Problem]) -> NDArray[np.str_]:
        kinds = {p.request_id: p.kind for p in problems if p.kind in FAILURES}
        outcomes = np.full(len(self.request_ids), "ok", dtype="U7")
        if kinds:
            for i, request_id in enumerate(self.request_ids):
                if request_id in kinds:
                    outcomes[i] = kinds[request_id]
        return outcomes


def _frozen(column: array[float]) -> Sample:
    return np.frombuffer(column) if column else np.empty(0)


def _one_per_invocation(problems: Iterable[Problem]) -> list[Problem]:
    """A timeout or a death shows in two or three lines: the gravest kind stays, with the line that says most."""
    kept: dict[tuple[str, object], Problem] = {}
    for number, problem in enumerate(problems):
        is_failure = problem.kind in FAILURES and problem.request_id is not None
        key = ("invocation", problem.request_id) if is_failure else ("line", number)
        kept[key] = _graver(kept[key], problem) if key in kept else problem
    return list(kept.values())


def _graver(one: Problem, other: Problem) -> Problem:
    kind = min(one.kind, other.kind, key=FAILURES.index)
    return replace(other if one.message.startswith(_REPORTS) else one, kind=kind)
