"""The figures of a report by CloudWatch Logs Insights, for ranges too large to pull: AWS reads the lines, we the rows.

It must not judge a line itself: the lines that tell of failure are few, and `fold` reads them as it reads all others.
Every figure comes from the same fields as the pulled report's; text logs are read by the fields that Insights discovers
in them (`@duration`, `@memorySize` in bytes of 1,000,000 to the MB, ...), JSON logs by `record.metrics.*`
(CloudWatch Logs user guide, "Supported logs and discovered fields").
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import botocore.exceptions

from ops import pricing, records
from ops.aws import THROTTLED, error_code
from ops.failures import Inconclusive, OpsError, UsageError
from ops.invocations import FAILURES, Problem, fold
from ops.logs import LogEvent, Pace
from ops.percentiles import samples_needed
from ops.summary import (
    PREPARED,
    QUANTILES,
    TOP_CALLERS,
    CallerRow,
    ColdRow,
    Concurrency,
    Distribution,
    InitType,
    Memory,
    Quantile,
    Request,
    Summary,
    ToolCallSummary,
    ToolRow,
    cost_of,
    memory_row,
    rate,
    scarce_notes,
)

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

ROWS: Final = "insights.jsonl"
MOST_ROWS: Final = 10_000
"""What one query returns at the most (CloudWatch Logs quotas)."""
DOLLARS_PER_GB: Final = 0.005
_POLL_S = 1.0
_MOST_POLLS = 3600  # a query is ended by AWS after 60 minutes
_ATTEMPTS = 6
_REPORTED_WITHIN_MS = 100  # a REPORT is stamped when it is written, which on a busy machine is after the end

type Row = Mapping[str, str]

_REPORTS = """
| filter @type = "REPORT" or type = "platform.report"
| parse @message /Restore Duration: (?<restoreText>[0-9.]+) ms/
| parse @logStream /\\[(?<version>[^\\]]+)\\]/
| fields coalesce(@duration, record.metrics.durationMs) as duration,
    coalesce(@billedDuration, record.metrics.billedDurationMs, 0) as billed,
    coalesce(@memorySize / 1000000, record.metrics.memorySizeMB) as size,
    coalesce(@maxMemoryUsed / 1000000, record.metrics.maxMemoryUsedMB) as used,
    coalesce(@initDuration, record.metrics.initDurationMs) as init,
    coalesce(restoreText * 1, record.metrics.restoreDurationMs) as restore
| fields least(1, floor(toMillis(@timestamp) / 1754006400000)) as initIsBilled,
    least(1, billed) * greatest(0, 1 - abs(billed - ceil(duration))) * coalesce(least(1, floor(init)), 0) as initIsFree
| fields initIsBilled * initIsFree as kept
| fields coalesce(init * 0 + 1, restore * 0 + 1, 0) * (1 - kept) as cold,
    duration + coalesce(init, 0) + coalesce(restore, 0) as occupied,
    coalesce(init * 0 + 1, 0) * greatest(billed - ceil(duration), 0) as billedInit,
    coalesce(init * 0 + strlen(record.tenantId) * 0 + 1, 0) as tenant
"""
_CALLS = "\n| filter ispresent(tool) and ispresent(outcome)\n"


def _distribution(name: str, field: str) -> str:
    quantiles = ", ".join(f"pct({field}, {q * 100:g}) as {name}{q * 100:g}" for q in QUANTILES)
    return f"count({field}) as {name}N, {quantiles}, max({field}) as {name}Max"


QUERIES: Final[Mapping[str, str]] = {
    "events": """
| stats count(*) as n, count_distinct(@logStream) as streams, sum(strlen(@message) + 26) as bytes,
    min(toMillis(@timestamp)) as first, max(toMillis(@timestamp)) as last""",
    "starts": """
| filter @type = "START" or type = "platform.start"
| stats count(*) as n""",
    "all": _REPORTS + f"| stats {_distribution('duration', 'duration')}, {_distribution('init', 'init')},\n"
    f"    {_distribution('restore', 'restore')}",
    "by-cold": _REPORTS + f"| stats {_distribution('duration', 'duration')},\n"
    f"    {_distribution('occupied', 'occupied')} by cold",
    # An environment is told as provisioned by its first invocation, so that its others are found by its stream.
    "by-environment": _REPORTS
    + """| stats count(*) as calls, sum(cold) as colds, count(restore) as restores,
    sum(billed) as ms, sum(billedInit) as initMs, sum(tenant) as made, count(record.tenantId) as told,
    max(kept) as provisioned by version, size, @logStream
| stats sum(calls) as n, sum(colds) as cold, sum(restores) as restored, sum(ms) as billed,
    sum(initMs) as billedInit, sum(made) as tenants, sum(told) as ofTenants by version, size, provisioned""",
    "by-size": _REPORTS + "| stats count(used) as n, max(used) as most, pct(used, 95) as p95 by size",
    "signs": """
| fields coalesce(@maxMemoryUsed / @memorySize, record.metrics.maxMemoryUsedMB / record.metrics.memorySizeMB, 0) as full
| filter full >= 0.97 or @message like /Task timed out after|Runtime exited|^\\[(ERROR|CRITICAL)\\]/
    or @message like /Status: (error|timeout|failure)|"status": ?"(error|timeout|failure)"/
    or @message like /"level": ?"(ERROR|CRITICAL|FATAL)"/
| fields toMillis(@timestamp) as at, @logStream as stream, @message as message
| sort @timestamp asc
| limit 10000""",
    "tools": _CALLS + "| stats count(*) as n by tool, outcome, error_type",
    "callers": _CALLS + "| stats count(*) as n, count(violations.0) as blocked, sum(coalesce(cpu_ms, 0)) as cpu\n"
    "    by api_key_id, outcome",
    "code": _CALLS + f"| stats {_distribution('wall', 'wall_ms')}, {_distribution('cpu', 'cpu_ms')}",
    "violations": """
| filter ispresent(violations.0)
| stats count(*) as n by violations.0, violations.1, violations.2""",
}
"""Each query's text after its range; `violations` tells the first three of a call."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of one query and the bytes that AWS read, and bills, for it."""

    rows: Sequence[Row]
    scanned_bytes: float


def text_of(name: str, start_ms: int, end_ms: int) -> str:
    """The whole query. Insights takes whole seconds of a range; the milliseconds are a filter."""
    return f"filter toMillis(@timestamp) >= {start_ms} and toMillis(@timestamp) < {end_ms}{QUERIES[name]}"


def ask(
    client: "CloudWatchLogsClient", groups: Sequence[str], start_ms: int, end_ms: int, name: str, pace: Pace
) -> Answer:
    """One query, waited for and, on Ctrl-C, stopped. Raises OpsError when it fails, Inconclusive when rows are cut."""
    request: dict[str, Any] = {
        "logGroupNames": list(groups),
        "startTime": start_ms // 1000,
        "endTime": -(-end_ms // 1000),
        "queryString": text_of(name, start_ms, end_ms),
        "limit": MOST_ROWS,
    }
    query_id = str(_patiently(client.start_query, request, pace)["queryId"])
    try:
        return _result(client, query_id, name, pace)
    except KeyboardInterrupt:
        client.stop_query(queryId=query_id)
        raise


def _result(client: "CloudWatchLogsClient", query_id: str, name: str, pace: Pace) -> Answer:
    for _ in range(_MOST_POLLS):
        told = _patiently(client.get_query_results, {"queryId": query_id}, pace)
        if told["status"] == "Complete":
            rows = [{cell["field"]: cell["value"] for cell in row if "value" in cell} for row in told["results"]]
            if len(rows) >= MOST_ROWS:
                raise Inconclusive(
                    f"Insights cut the answer to {name!r} at {MOST_ROWS:,} rows; ask for a shorter range with --since."
                )
            return Answer(rows, float(told.get("statistics", {}).get("bytesScanned", 0.0)))
        if told["status"] not in {"Scheduled", "Running", "Unknown"}:
            raise OpsError(f"The Insights query {name!r} ended as {told['status']}; try again or a shorter --since.")
        pace.sleep(_POLL_S)
    raise OpsError(f"The Insights query {name!r} has not ended within an hour; try a shorter --since.")


def _patiently(call: Callable[..., Any], request: Mapping[str, Any], pace: Pace) -> dict[str, Any]:
    """The answer to one call, again after a throttle: thirty queries at once is the account's limit."""
    for attempt in range(_ATTEMPTS):
        pace.wait()
        try:
            return dict(call(**request))
        except botocore.exceptions.ClientError as problem:
            if error_code(problem) == "UnknownOperationException":
                raise UsageError("There is no Logs Insights at this endpoint; leave out --insights.") from None
            if error_code(problem) not in THROTTLED or attempt == _ATTEMPTS - 1:
                raise
        pace.throttled(attempt)
    raise AssertionError("the last attempt returns or raises")


def write_rows(
    client: "CloudWatchLogsClient", groups: Sequence[str], start_ms: int, end_ms: int, pace: Pace, path: Path
) -> Iterator[int]:
    """Asks every query and writes its rows to `path`, one query after another; yields how many were asked."""
    with path.open("w", encoding="utf-8") as file:
        for asked, name in enumerate(QUERIES, start=1):
            answer = ask(client, groups, start_ms, end_ms, name, pace)
            line = {"query": name, "scanned_bytes": answer.scanned_bytes, "rows": answer.rows}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            yield asked


def read_rows(path: Path) -> dict[str, Answer]:
    """The answers in a run's `insights.jsonl`. Raises UsageError if one of them is missing."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # cut short by an interruption
        told = json.loads(line)
        found[told["query"]] = Answer(told["rows"], told["scanned_bytes"])
    if missing := set(QUERIES) - set(found):
        raise UsageError(f"{path} lacks the queries {', '.join(sorted(missing))}: it was cut short; ask again.")
    return found


def summarise(answers: Mapping[str, Answer], asked: Request, bill: pricing.Bill = pricing.NOTHING_TOLD) -> Summary:
    """The report's figures from the answers. Without intervals and peak concurrency, which take every invocation."""
    events, every = _only(answers["events"]), _only(answers["all"])
    by_cold = {float(row["cold"]): row for row in answers["by-cold"].rows}
    warm, cold = by_cold.get(0.0, {}), by_cold.get(1.0, {})
    n, cold_n = _count(every, "durationN"), _count(cold, "durationN")
    problems = problems_of(answers["signs"].rows)
    failed = Counter(p.kind for p in problems)
    by_size = answers["by-size"].rows
    memory = sorted((m for row in by_size if (m := _memory(row))), key=lambda m: m.size_mb)
    by_environment = answers["by-environment"].rows
    tells_tenants = any(_count(row, "ofTenants") for row in by_environment)
    used = [_used(row) for row in by_environment]
    cost = cost_of(used, n, _count(events, "bytes"), asked, bill, tells_tenants=tells_tenants)
    return Summary(
        source=asked.source,
        groups=asked.groups,
        range=asked.range_with(_number(events, "first"), _number(events, "last")),
        invocations=n,
        failures={kind: rate(failed[kind], n) for kind in FAILURES},
        unfinished=max(0, _count(_only(answers["starts"]), "n") - n),
        failed_inits=failed["init"],
        cold=rate(cold_n, n),
        cold_by=_cold_rows(by_environment),
        duration_ms={
            "all": _told(every, "duration"),
            "warm": _told(warm, "duration"),
            "cold": _told(cold, "duration"),
            "cold incl. init": _told(cold, "occupied"),
        },
        init_ms=_told(every, "init"),
        restore_ms=_told(every, "restore"),
        memory=memory,
        concurrency=Concurrency(peak=None, environments=_count(events, "streams")),
        calls=_calls(answers),
        blocked_operations=_violations(answers["violations"].rows),
        cost=cost,
        lines={"Report": n, "all": _count(events, "n")},
        notes=[*scarce_notes(memory), *_notes(answers, failed["timeout"])],
    )


def problems_of(rows: Iterable[Row]) -> list[Problem]:
    """What went wrong, by `fold`, from the lines that tell of it.

    An uncaught exception's text line has no id. If the next failed REPORT of its stream is of the time it was written
    in, it is that invocation's: it is put after a START of that id, and counted once.
    """
    streams: dict[str, list[LogEvent]] = defaultdict(list)
    for n, row in enumerate(rows):
        at = int(float(row["at"]))
        streams[row["stream"]].append(LogEvent(at, at, "", row["stream"], f"{n}", row["message"]))
    return fold(event for events in streams.values() for event in _with_starts(events)).problems


def _with_starts(events: Sequence[LogEvent]) -> Iterator[LogEvent]:
    for n, event in enumerate(events):
        if event.message.startswith("[") and (request_id := _failed_around(event, events[n + 1 :])):
            yield event._replace(message=f"START RequestId: {request_id} Version: $LATEST")
        yield event


def _failed_around(event: LogEvent, later: Iterable[LogEvent]) -> str | None:
    """The request id of the next REPORT, if it says that it failed and that it began before `event`."""
    for other in later:
        if isinstance(report := records.parse(other.message), records.Report):
            began_ms = other.timestamp_ms - report.duration_ms - (report.init_ms or 0.0) - _REPORTED_WITHIN_MS
            failed = report.status not in {None, "success"}
            return report.request_id if failed and event.timestamp_ms >= began_ms else None
    return None


def _only(answer: Answer) -> Row:
    return answer.rows[0] if answer.rows else {}


def _count(row: Row, name: str) -> int:
    return int(float(row.get(name) or 0))


def _number(row: Row, name: str) -> float | None:
    return float(row[name]) if row.get(name) else None


def _told(row: Row, name: str) -> Distribution:
    n = _count(row, f"{name}N")
    most = _number(row, f"{name}Max")
    quantiles = [_quantile(q, n, _number(row, f"{name}{q * 100:g}")) for q in QUANTILES]
    return Distribution(n=n, quantiles=quantiles, max=None if most is None else round(most, 3))


def _quantile(q: float, n: int, value: float | None) -> Quantile:
    """Refused where the pulled report refuses it too."""
    needed = samples_needed(q)
    refused = None if n >= needed else f"needs {needed} invocations, has {n}"
    given = None if refused or value is None else round(value, 3)
    return Quantile(name=f"p{q * 100:g}", needed=needed, value=given, low=None, high=None, refused=refused)


def _cold_rows(rows: Iterable[Row]) -> list[ColdRow]:
    made = [
        ColdRow(
            version=row.get("version") or "?",
            memory_mb=_number(row, "size"),
            init_type=_init_type(row),
            cold=_count(row, "cold"),
            invocations=_count(row, "n"),
            share=_count(row, "cold") / _count(row, "n"),
        )
        for row in rows
    ]
    return sorted(
        made,
        key=lambda row: (row.version, row.memory_mb is None, row.memory_mb or 0.0, row.init_type == PREPARED),
    )


def _init_type(row: Row) -> InitType:
    if _count(row, "provisioned"):
        return PREPARED
    return "snap-start" if _count(row, "restored") else "on-demand"


def _memory(row: Row) -> Memory | None:
    size, n, most = _number(row, "size"), _count(row, "n"), _number(row, "most")
    if size is None or most is None:
        return None
    p95 = _number(row, "p95") if n >= samples_needed(0.95) else None
    return memory_row(size, n, most, p95)


def _used(row: Row) -> pricing.Used:
    return pricing.Used(
        memory_mb=_number(row, "size") or 0.0,
        billed_s=(_number(row, "billed") or 0.0) / 1000,
        billed_init_s=(_number(row, "billedInit") or 0.0) / 1000,
        restored=_count(row, "restored"),
        tenants=_count(row, "tenants"),
        on_provisioned=_count(row, "provisioned") == 1,
    )


def _calls(answers: Mapping[str, Answer]) -> ToolCallSummary:
    calls, failed, failures = Counter[str](), Counter[str](), Counter[str]()
    for row in answers["tools"].rows:
        n = _count(row, "n")
        calls[row["tool"]] += n
        failed[row["tool"]] += n * (row["outcome"] != "ok")
        if row.get("error_type"):
            failures[row["error_type"]] += n
    code = _only(answers["code"])
    return ToolCallSummary(
        tools=[ToolRow(tool=tool, calls=calls[tool], failed=failed[tool]) for tool in sorted(calls)],
        failures=dict(failures.most_common()),
        callers=_callers(answers["callers"].rows),
        wall_ms=_told(code, "wall"),
        cpu_ms=_told(code, "cpu"),
    )


def _callers(rows: Iterable[Row]) -> list[CallerRow]:
    of_key: dict[str | None, list[Row]] = defaultdict(list)
    for row in rows:
        of_key[row.get("api_key_id") or None].append(row)
    made = [
        CallerRow(
            api_key_id=key,
            calls=sum(_count(row, "n") for row in of),
            failed=sum(_count(row, "n") for row in of if row["outcome"] != "ok"),
            blocked=sum(_count(row, "blocked") for row in of),
            cpu_s=round(sum(_number(row, "cpu") or 0.0 for row in of) / 1000, 3),
        )
        for key, of in of_key.items()
    ]
    return sorted(made, key=lambda row: -row.calls)[:TOP_CALLERS]


def _violations(rows: Iterable[Row]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for row in rows:
        for place in range(3):
            if name := row.get(f"violations.{place}"):
                counts[name] += _count(row, "n")
    return dict(counts.most_common())


def _notes(answers: Mapping[str, Answer], timeouts: int) -> list[str]:
    scanned_gb = sum(answer.scanned_bytes for answer in answers.values()) / 1e9
    notes = [
        "Made by Logs Insights: percentiles without intervals, no peak concurrency, three blocked operations a call.",
        "A provisioned environment is told by its INIT, which is not billed: one first called before the range is not.",
        f"Insights read {scanned_gb:.3f} GB for it, ${scanned_gb * DOLLARS_PER_GB:.4f}.",
    ]
    cut_off = "Cut off by the timeout, so that the upper percentiles of duration are lower bounds"
    return [f"{cut_off}: {timeouts}.", *notes] if timeouts else notes
