"""Cold starts by a burst wider than the warm pool, told by the answers' own headers, and what a first call costs.

Every call of a burst holds its environment longer than the burst takes to arrive, so n calls need n environments. A
second burst of the same width then meets those environments warm: the difference is what a first call costs. It plans
and reports; sending is `launch`'s, as for any other run, or `forced`'s, on versions that nobody has called.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from load.percentiles import Distribution, distribution, median_interval
from load.plan import Plan, parse_plan
from load.rows import Row
from load.scenarios import HOLD_S
from load.server_side import ServerCall, read_calls
from load.summary import timed

COLD_STAGE, WARM_STAGE = "cold", "again"

WARM_POOL = (
    "the environments were warm already, which is no fault of the endpoint; for a cold pool give an -n above the "
    "number of warm environments, wait until Lambda has let the idle ones go, or force them on a version of their "
    "own with --function NAME"
)
NARROW = "calls came one after another to the same environment; give a smaller -n, or run nearer to the endpoint"


AGREED_SHARE: Final = 0.99
"""Of the calls that were meant to be cold, those that must have been."""


class ColdGroup(BaseModel):
    """The cold calls of one memory size and init type. `memory` is the stage's part that names it, "" when none does.

    The interval holds the true median cold latency at 95 % (null below six calls); `restore_ms` is SnapStart's, by
    the log.
    """

    model_config = ConfigDict(extra="forbid")

    memory: str
    init_type: str
    confirmed: int
    confirmed_by_both: int | None = Field(description="Cold by header and by REPORT; null when no log was joined.")
    init_ms: Distribution | None
    restore_ms: Distribution | None
    cold_latency_ms: Distribution | None
    cold_p50_low_ms: float | None
    cold_p50_high_ms: float | None
    warm_latency_ms: Distribution | None
    first_call_penalty_ms: float | None


class ColdStartReport(BaseModel):
    """coldstart.json, schema coldstart/1. `burst` is its width, `confirmed` the cold answers of the first burst.

    `already_warm` calls of it met an environment that had served before; `silent` ones carried no X-Lambda-Invocation.
    `shared` is how many calls had to share an environment with another of the same burst: above 0, the burst was
    narrower than meant. `first_call_penalty_ms` is the difference of the two bursts' medians, latency from the intended
    time; null without both.
    """

    model_config = ConfigDict(extra="forbid")

    schema_: Literal["coldstart/1"] = Field(default="coldstart/1", alias="schema")
    burst: int
    confirmed: int
    already_warm: int
    silent: int
    failed: int
    environments: int
    shared: int
    by_init_type: dict[str, int]
    init_ms: Distribution | None
    cold_latency_ms: Distribution | None
    warm_latency_ms: Distribution | None
    first_call_penalty_ms: float | None
    groups: list[ColdGroup] = Field(default_factory=list)

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=1)


def cold_start_plan(burst: int, gap_s: float, min_cold: int, era: str) -> Plan:
    """Two bursts of `burst` calls, `gap_s` apart, each call holding its environment for HOLD_S. Raises PlanError."""
    document = cold_start_document(burst, gap_s, era)
    document["needs"] = [
        {"threshold": f"count(cold{{stage:{COLD_STAGE}}}) >= {min_cold}", "otherwise": WARM_POOL},
        {"threshold": f"count(environments{{stage:{COLD_STAGE}}}) >= {burst}", "otherwise": NARROW},
    ]
    return parse_plan(document, "coldstart")


def cold_start_document(burst: int, gap_s: float, era: str) -> dict[str, Any]:
    """What every cold-start plan has in common."""
    return {
        "profile": "coldstart",
        "description": f"{burst} simultaneous calls of {HOLD_S} s, twice, {gap_s:g} s apart",
        "stages": [
            {"kind": "burst", "name": COLD_STAGE, "size": burst, "every_s": gap_s},
            {"kind": "burst", "name": WARM_STAGE, "size": burst, "every_s": HOLD_S + 1},
        ],
        "scenarios": {"hold": 1},
        "eras": {era: 1},
        "request_timeout_s": 60,
        "drain_s": 60,
        "max_in_flight": max(1000, 4 * burst),
        # A burst is one instant: the last call leaves a little after the first, 0.4 ms a call measured. It matters only
        # against how long a call holds its environment.
        "limits": {"send_lag_p99_ms": HOLD_S * 1000 / 2},
        "thresholds": ["count(errors) == 0"],
    }


def cold_start_report(rows: Sequence[Row], calls: Mapping[str, ServerCall] | None = None) -> ColdStartReport:
    """What the rows of a cold-start run say, and the log's REPORTs by request id where they were joined."""
    first = [row for row in rows if _part(row)[0] == COLD_STAGE]
    cold = [row for row in first if row.cold]
    named = [row.environment_id for row in first if row.environment_id]
    warm = [row for row in rows if _part(row)[0] == WARM_STAGE and row.cold is False]
    cold_latency = distribution(timed(cold, lambda row: row.latency_ms))
    warm_latency = distribution(timed(warm, lambda row: row.latency_ms))
    return ColdStartReport(
        schema="coldstart/1",
        burst=len(first),
        confirmed=len(cold),
        already_warm=sum(row.cold is False for row in first),
        silent=sum(row.cold is None and row.outcome == "ok" for row in first),
        failed=sum(row.outcome != "ok" for row in first),
        environments=len(set(named)),
        shared=len(named) - len(set(named)),
        by_init_type=_by_init_type(cold),
        init_ms=distribution([value for row in cold if (value := row.timing("init")) is not None]),
        cold_latency_ms=cold_latency,
        warm_latency_ms=warm_latency,
        first_call_penalty_ms=_penalty(cold_latency, warm_latency),
        groups=_groups(cold, warm, calls),
    )


def _part(row: Row) -> tuple[str, str]:
    """Which burst a row belongs to, and the memory size its stage names."""
    part, _, memory = row.stage.partition("@")
    return part, memory


def _penalty(cold: Distribution | None, warm: Distribution | None) -> float | None:
    return None if cold is None or warm is None else round(cold.p50 - warm.p50, 3)


def _groups(cold: Sequence[Row], warm: Sequence[Row], calls: Mapping[str, ServerCall] | None) -> list[ColdGroup]:
    keys = dict.fromkeys((_part(row)[1], row.init_type or "unknown") for row in cold)
    return [_group(memory, kind, cold, warm, calls) for memory, kind in keys]


def _group(
    memory: str, kind: str, cold: Sequence[Row], warm: Sequence[Row], calls: Mapping[str, ServerCall] | None
) -> ColdGroup:
    chosen = [row for row in cold if (_part(row)[1], row.init_type or "unknown") == (memory, kind)]
    again = [row for row in warm if (_part(row)[1], row.init_type or "unknown") == (memory, kind)]
    reports = [call for row in chosen if (call := (calls or {}).get(row.lambda_request_id or "")) is not None]
    latencies = timed(chosen, lambda row: row.latency_ms)
    cold_latency, warm_latency = distribution(latencies), distribution(timed(again, lambda row: row.latency_ms))
    low, high = median_interval(latencies) or (None, None)
    return ColdGroup(
        memory=memory,
        init_type=kind,
        confirmed=len(chosen),
        confirmed_by_both=None if calls is None else sum(call.cold for call in reports),
        init_ms=distribution([value for row in chosen if (value := row.timing("init")) is not None]),
        restore_ms=distribution([call.restore_ms for call in reports if call.restore_ms is not None]),
        cold_latency_ms=cold_latency,
        cold_p50_low_ms=low,
        cold_p50_high_ms=high,
        warm_latency_ms=warm_latency,
        first_call_penalty_ms=_penalty(cold_latency, warm_latency),
    )


def write_cold_start_report(directory: Path, rows: Sequence[Row]) -> ColdStartReport:
    report = cold_start_report(rows, read_calls(directory))
    (directory / "coldstart.json").write_text(report.to_json() + "\n", encoding="utf-8")
    return report


def print_cold_starts(report: ColdStartReport, console: Console) -> None:
    """Three or four lines for a person."""
    console.print(
        f"{report.confirmed} of {report.burst} simultaneous calls were cold, {report.already_warm} met a warm "
        f"environment, {report.failed} failed; {report.environments} environments",
        highlight=False,
        soft_wrap=True,
    )
    if report.shared:
        sentence = f"{report.shared} calls shared an environment with another: the burst was narrower than meant"
        console.print(Text(sentence, style="yellow"))
    if report.silent:
        sentence = f"{report.silent} answers carried no X-Lambda-Invocation: cold and warm cannot be told apart"
        console.print(Text(sentence, style="yellow"))
    for name, values in (
        ("init", report.init_ms),
        (f"cold call of {HOLD_S} s", report.cold_latency_ms),
        (f"warm call of {HOLD_S} s", report.warm_latency_ms),
    ):
        if values is not None:
            spread = f"p50 {values.p50:.0f} ms, p95 {values.p95:.0f} ms, max {values.max:.0f} ms"
            console.print(f"{name}: {spread} (n={values.n})", highlight=False)
    if len(report.groups) > 1 or any(group.confirmed_by_both is not None for group in report.groups):
        console.print(_group_table(report.groups))
    if report.first_call_penalty_ms is not None:
        console.print(f"first call costs {report.first_call_penalty_ms:.0f} ms more than a warm one", highlight=False)


def _group_table(groups: Sequence[ColdGroup]) -> Table:
    table = Table(box=None, pad_edge=False, caption="ms; the interval holds the median at 95 %")
    for heading in ("memory", "init type"):
        table.add_column(heading)
    for heading in ("cold", "by both", "init p50", "restore p50", "cold p50", "interval", "p95", "max", "first call"):
        table.add_column(heading, justify="right")
    for one in groups:
        cold = one.cold_latency_ms
        interval = "–" if one.cold_p50_low_ms is None else f"{one.cold_p50_low_ms:.0f}–{one.cold_p50_high_ms:.0f}"
        table.add_row(
            one.memory or "as it is",
            one.init_type,
            str(one.confirmed),
            "–" if one.confirmed_by_both is None else str(one.confirmed_by_both),
            "–" if one.init_ms is None else f"{one.init_ms.p50:.0f}",
            "–" if one.restore_ms is None else f"{one.restore_ms.p50:.0f}",
            "–" if cold is None else f"{cold.p50:.0f}",
            interval,
            "–" if cold is None else f"{cold.p95:.0f}",
            "–" if cold is None else f"{cold.max:.0f}",
            "–" if one.first_call_penalty_ms is None else f"+{one.first_call_penalty_ms:.0f}",
        )
    return table


def _by_init_type(rows: Sequence[Row]) -> dict[str, int]:
    kinds = sorted({row.init_type or "unknown" for row in rows})
    return {kind: sum((row.init_type or "unknown") == kind for row in rows) for kind in kinds}
