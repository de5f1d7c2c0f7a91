"""The second signal: what the function's own log says of each call of a run, joined by Lambda request id.

Headers call an answer cold that was its environment's first; the log calls it cold by an Init (or Restore) Duration in
its REPORT. Both are kept and their disagreement is told: an init that Lambda did ahead of the call has no Init
Duration, and a log line may come late. It reads CloudWatch Logs through boto3 and must not change the run's own files.
"""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.text import Text

from load import call_log
from load.call_log import events
from load.gate import EXIT_FAILED, EXIT_INCONCLUSIVE, EXIT_PASS
from load.percentiles import Distribution, distribution
from load.rows import Row, read_rows, read_runs

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

LATE_S: Final = 90.0
"""How long an event may take to show in FilterLogEvents: the careful public measurement saw 90 s (research §3)."""

AGREEMENT: Final = 0.99
"""The share of calls on which both signals must say the same."""


@dataclass(frozen=True, slots=True)
class ServerCall:
    """One REPORT line or `platform.report` event. Durations in ms; `init_ms` and `restore_ms` None on a warm call."""

    request_id: str
    duration_ms: float
    billed_ms: float | None
    init_ms: float | None
    restore_ms: float | None
    max_memory_mb: float | None

    @property
    def cold(self) -> bool:
        return self.init_ms is not None or self.restore_ms is not None


class ServerSide(BaseModel):
    """server.json, schema load-server/1. Counts are calls of the run that carried a Lambda request id.

    `header_only`: cold by header, no init in the log; `log_only` the reverse. `beyond_ms` is service time less the
    log's duration and init: gateway, network and queueing.
    """

    model_config = ConfigDict(extra="forbid")

    schema_: Literal["load-server/1"] = Field(default="load-server/1", alias="schema")
    verdict: Literal["agreed", "disagreed", "inconclusive"]
    exit_code: int
    reason: str
    log_group: str
    calls: int
    found: int
    missing: int
    cold_by_both: int
    header_only: list[str]
    log_only: list[str]
    duration_warm_ms: Distribution | None
    duration_cold_ms: Distribution | None
    init_ms: Distribution | None
    beyond_ms: Distribution | None
    max_memory_mb: float | None

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=1)


def join_directory(
    directory: Path, log_group: str, wait_s: float = LATE_S, client: "CloudWatchLogsClient | None" = None
) -> ServerSide:
    """Reads the log of a run's time, writes server.jsonl (the calls) and server.json beside its rows. Raises NoLog."""
    rows, runs = read_rows(directory), read_runs(directory)
    start_s = min(run.anchor_unix_s for run in runs)
    end_s = start_s + max((row.done_s or row.intended_s for row in rows), default=0.0)
    wanted = {row.lambda_request_id for row in rows if row.lambda_request_id}
    calls = fetch_calls(
        client or call_log.client(), log_group, int(start_s * 1000) - 5_000, int(end_s * 1000), wanted, wait_s
    )
    lines = (json.dumps(asdict(call)) + "\n" for call in calls.values())
    (directory / "server.jsonl").write_text("".join(lines), encoding="utf-8")
    report = join(rows, calls, log_group)
    (directory / "server.json").write_text(report.to_json() + "\n", encoding="utf-8")
    return report


def fetch_calls(
    client: "CloudWatchLogsClient",
    log_group: str,
    start_ms: int,
    end_ms: int,
    wanted: set[str],
    wait_s: float,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, ServerCall]:
    """The REPORTs of the wanted request ids, by id; looks again until all are there or `wait_s` have passed.

    Raises NoLog when CloudWatch cannot be read, SettingsError when there is no such group.
    """
    give_up_s = now() + wait_s
    found: dict[str, ServerCall] = {}
    while True:
        for _, message in events(client, log_group, start_ms, end_ms + int(wait_s * 1000)):
            call = parse_report(message)
            if call is not None and call.request_id in wanted:
                found[call.request_id] = call
        if len(found) == len(wanted) or now() >= give_up_s:
            return found
        sleep(min(5.0, max(0.1, give_up_s - now())))


_FIELD = re.compile(r"\t?([A-Z][A-Za-z ]*?): ([^\t\n]+)")


def parse_report(message: str) -> ServerCall | None:
    """A REPORT line, or a JSON `platform.report`; None for anything else."""
    if message.startswith("REPORT RequestId: "):
        fields = {name.strip(): value.strip() for name, value in _FIELD.findall(message.removeprefix("REPORT "))}
        return _call(fields.get("RequestId"), {name: _number(value) for name, value in fields.items()})
    if '"platform.report"' not in message:
        return None
    try:
        event = json.loads(message)
    except ValueError:
        return None
    if (
        not isinstance(event, dict)
        or event.get("type") != "platform.report"
        or not isinstance(event.get("record"), dict)
    ):
        return None
    metrics = event["record"].get("metrics") or {}
    named = {text: metrics.get(key) for text, key in _JSON_NAMES.items()}
    return _call(event["record"].get("requestId"), named)


_JSON_NAMES: Final = {
    "Duration": "durationMs",
    "Billed Duration": "billedDurationMs",
    "Init Duration": "initDurationMs",
    "Restore Duration": "restoreDurationMs",
    "Max Memory Used": "maxMemoryUsedMB",
}


def _call(request_id: str | None, numbers: Mapping[str, float | None]) -> ServerCall | None:
    duration_ms = numbers.get("Duration")
    if not request_id or duration_ms is None:
        return None
    return ServerCall(
        request_id=request_id,
        duration_ms=duration_ms,
        billed_ms=numbers.get("Billed Duration"),
        init_ms=numbers.get("Init Duration"),
        restore_ms=numbers.get("Restore Duration"),
        max_memory_mb=numbers.get("Max Memory Used"),
    )


def _number(text: str) -> float | None:
    """The number that `12.4 ms` or `97 MB` begins with."""
    try:
        return float(text.split()[0])
    except (ValueError, IndexError):
        return None


def join(rows: Sequence[Row], calls: Mapping[str, ServerCall], log_group: str) -> ServerSide:
    """Both signals side by side, for every row that carried a request id."""
    named = [row for row in rows if row.lambda_request_id]
    pairs = [(row, call) for row in named if (call := calls.get(row.lambda_request_id or "")) is not None]
    header_only = [call.request_id for row, call in pairs if row.cold and not call.cold]
    log_only = [call.request_id for row, call in pairs if not row.cold and call.cold]
    beyond = [
        row.service_ms - call.duration_ms - (call.init_ms or 0.0) - (call.restore_ms or 0.0)
        for row, call in pairs
        if row.service_ms is not None
    ]
    verdict, exit_code, reason = _decide(len(named), len(pairs), len(header_only), len(log_only))
    return ServerSide(
        schema="load-server/1",
        verdict=verdict,
        exit_code=exit_code,
        reason=reason,
        log_group=log_group,
        calls=len(named),
        found=len(pairs),
        missing=len(named) - len(pairs),
        cold_by_both=sum(bool(row.cold) and call.cold for row, call in pairs),
        header_only=header_only,
        log_only=log_only,
        duration_warm_ms=distribution([call.duration_ms for _, call in pairs if not call.cold]),
        duration_cold_ms=distribution([call.duration_ms for _, call in pairs if call.cold]),
        init_ms=distribution([call.init_ms for _, call in pairs if call.init_ms is not None]),
        beyond_ms=distribution(beyond),
        max_memory_mb=max((call.max_memory_mb for _, call in pairs if call.max_memory_mb is not None), default=None),
    )


def _decide(
    calls: int, found: int, header_only: int, log_only: int
) -> tuple[Literal["agreed", "disagreed", "inconclusive"], int, str]:
    if calls == 0:
        return "inconclusive", EXIT_INCONCLUSIVE, "no answer of the run carried X-Lambda-Request-Id"
    if found < calls:
        reason = f"{calls - found} of {calls} calls have no REPORT in the log yet; wait longer or look at its name"
        return "inconclusive", EXIT_INCONCLUSIVE, reason
    apart = header_only + log_only
    if apart > (1 - AGREEMENT) * calls:
        reason = (
            f"on {apart} of {calls} calls header and log differ: {header_only} cold by header only, {log_only} by log"
        )
        return "disagreed", EXIT_FAILED, reason
    return "agreed", EXIT_PASS, f"header and log agree on {calls - apart} of {calls} calls"


def print_server_side(report: ServerSide, console: Console) -> None:
    """The join for a person."""
    console.print(
        f"{report.found} of {report.calls} calls found in {report.log_group}; {report.cold_by_both} cold by both "
        f"signals, {len(report.header_only)} by header only, {len(report.log_only)} by log only",
        highlight=False,
        soft_wrap=True,
    )
    for name, values in (
        ("duration warm (log)", report.duration_warm_ms),
        ("duration cold (log)", report.duration_cold_ms),
        ("init (log)", report.init_ms),
        ("beyond the function", report.beyond_ms),
    ):
        if values is not None:
            spread = f"p50 {values.p50:.1f} ms, p95 {values.p95:.1f} ms, max {values.max:.1f} ms"
            console.print(f"{name}: {spread} (n={values.n})", highlight=False)
    style = {"agreed": "green", "disagreed": "red", "inconclusive": "yellow"}[report.verdict]
    console.print(Text(f"{report.verdict}: {report.reason}", style=f"bold {style}"))


def read_calls(directory: Path) -> dict[str, ServerCall] | None:
    """The REPORTs joined to a run, by request id; None when there was no join."""
    path = directory / "server.jsonl"
    if not path.is_file():
        return None
    calls = (ServerCall(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
    return {call.request_id: call for call in calls}


def read_server_side(directory: Path) -> ServerSide | None:
    """The join made earlier for a run, None when there was none."""
    path = directory / "server.json"
    return ServerSide.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None
