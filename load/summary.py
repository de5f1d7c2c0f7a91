"""What a run's rows add up to: counts, rates, percentiles by scenario and temperature, gate and verdict.

Computed from the raw files of a run directory and nothing else; `report` writes it down in its formats.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from load.executors.step import Step
from load.gate import Fitness, Judgement, RunVerdict, check_fitness, check_needs, decide, judge, parse_threshold
from load.percentiles import Distribution, distribution
from load.plan import Plan, parse_plan
from load.rows import CENSORED, Row, RunRecord, meant, read_rows, read_runs

type Temperature = Literal["cold", "warm", "unknown"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Group(_Part):
    """One population. Latency counts from the intended time, service from the sending; failed answers are left out of
    both, timeouts stay in as the time they took at least."""

    scenario: str
    temperature: Temperature | Literal["all"]
    requests: int
    errors: int
    latency_ms: Distribution | None
    service_ms: Distribution | None


class StageSummary(_Part):
    """A stage as it was meant and as it went. Rates are arrivals a second over the stage's own span."""

    stage: str
    requests: int
    errors: int
    cold: int
    latency_ms: Distribution | None


class ErrorKind(_Part):
    """Failures that say the same; `example_request_id` leads to the log lines of one of them."""

    outcome: str
    error: str
    count: int
    example_index: int
    example_request_id: str | None


class Counts(_Part):
    planned: int
    arrivals: int
    sent: int
    answered: int
    ok: int
    errors: int
    dropped: int
    in_flight: int
    cold: int
    warm: int
    unknown_temperature: int
    environments: int


class Rates(_Part):
    """Per second of the plan's length: arrivals meant, requests sent, good answers."""

    intended_per_s: float
    sent_per_s: float
    ok_per_s: float


class ColdStarts(_Part):
    """Cold answers by header (invocation 1). `init_ms` is the server's own word, in Server-Timing."""

    confirmed: int
    by_init_type: dict[str, int]
    init_ms: Distribution | None
    latency_ms: Distribution | None
    warm_latency_ms: Distribution | None


class Knee(_Part):
    """Where a staircase gave: the last plateau on which no threshold of time or share failed, and the first on which
    one did. None: not even the first held, or all did."""

    stage: str
    held_per_s: float | None
    broke_per_s: float | None
    by: str = Field(default="", description="The threshold that failed, and what was observed.")

    def __str__(self) -> str:
        held = "nothing" if self.held_per_s is None else f"{self.held_per_s:g}/s"
        if self.broke_per_s is None:
            return f"{self.stage}: held up to {held}, the last plateau that was sent"
        return f"{self.stage}: held {held}, gave at {self.broke_per_s:g}/s ({self.by})"


class Summary(_Part):
    """summary.json, schema load/1."""

    schema_: Literal["load/1"] = Field(default="load/1", alias="schema")
    verdict: RunVerdict
    exit_code: int
    reason: str
    profile: str
    endpoint: str
    started_at: datetime
    duration_s: float
    seed: int
    workers: int
    closed_loop: bool = Field(
        default=False, description="Users who wait for answers took part: a stall holds back the load that shows it."
    )
    versions: dict[str, str]
    counts: Counts
    outcomes: dict[str, int]
    rates: Rates
    send_lag_ms: Distribution | None
    cpu_share_max: float | None
    groups: list[Group]
    stages: list[StageSummary]
    knees: list[Knee] = Field(default_factory=list)
    cold_starts: ColdStarts
    errors: list[ErrorKind]
    gate: list[Judgement]
    fitness: list[Fitness]

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=1)


def summarize_directory(directory: Path) -> tuple[Summary, list[Row]]:
    """The summary of a run directory and its rows. Raises BadRecord, PlanError or ThresholdError."""
    records = read_runs(directory)
    rows = read_rows(directory)
    return summarize(rows, records), rows


def summarize(rows: Sequence[Row], records: Sequence[RunRecord]) -> Summary:
    """Adds up a run. The first record is the local or master process's, and its plan is the one judged by."""
    first = records[0]
    plan = parse_plan(first.plan, "the run's plan")
    judgements = [judge(parse_threshold(line), rows) for line in plan.thresholds]
    fitness = [*check_fitness(rows, records, plan.limits), *check_needs(rows, plan.needs)]
    interrupted = any(record.ended == "interrupted" for record in records)
    aborted = next((one.aborted_by or "stopped early" for one in records if one.ended == "aborted"), "")
    verdict, exit_code, reason = decide(rows, judgements, fitness, interrupted, aborted)
    return Summary(
        schema="load/1",
        verdict=verdict,
        exit_code=exit_code,
        reason=reason,
        profile=first.profile,
        endpoint=first.endpoint,
        started_at=datetime.fromtimestamp(first.anchor_unix_s, tz=UTC),
        duration_s=round(plan.duration_s, 3),
        seed=plan.seed,
        workers=first.workers_expected,
        closed_loop=plan.closed_loop,
        versions=first.versions,
        counts=_count(rows, meant(records)),
        outcomes=dict(Counter(row.outcome for row in rows).most_common()),
        rates=_rates(rows, plan, meant(records)),
        send_lag_ms=distribution([lag for row in rows if (lag := row.lag_ms) is not None]),
        cpu_share_max=max((max(record.cpu_share) for record in records if record.cpu_share), default=None),
        groups=_groups(rows),
        stages=_stages(rows),
        knees=[knee for stage in plan.stages if isinstance(stage, Step) and (knee := _knee(stage, plan, rows))],
        cold_starts=_cold_starts(rows),
        errors=_errors(rows),
        gate=judgements,
        fitness=fitness,
    )


def temperature(row: Row) -> Temperature:
    return "unknown" if row.cold is None else "cold" if row.cold else "warm"


def timed(rows: Sequence[Row], measure: Callable[[Row], float | None]) -> list[float]:
    """A measure of the good answers and of those that took at least as long as their row says."""
    chosen = (row for row in rows if row.outcome == "ok" or row.outcome in CENSORED)
    return [value for row in chosen if (value := measure(row)) is not None]


def _latency(row: Row) -> float | None:
    return row.latency_ms


def _service(row: Row) -> float | None:
    return row.service_ms


def _count(rows: Sequence[Row], planned: int) -> Counts:
    return Counts(
        planned=planned,
        arrivals=len(rows),
        sent=sum(row.sent_s is not None for row in rows),
        answered=sum(row.status is not None for row in rows),
        ok=sum(row.outcome == "ok" for row in rows),
        errors=sum(row.failed for row in rows),
        dropped=sum(row.outcome == "dropped" for row in rows),
        in_flight=sum(row.outcome == "in_flight" for row in rows),
        cold=sum(row.cold is True for row in rows),
        warm=sum(row.cold is False for row in rows),
        unknown_temperature=sum(row.cold is None for row in rows),
        environments=len({row.environment_id for row in rows if row.environment_id}),
    )


def _rates(rows: Sequence[Row], plan: Plan, planned: int) -> Rates:
    length_s = plan.duration_s
    return Rates(
        intended_per_s=round(planned / length_s, 3),
        sent_per_s=round(sum(row.sent_s is not None for row in rows) / length_s, 3),
        ok_per_s=round(sum(row.outcome == "ok" for row in rows) / length_s, 3),
    )


def _groups(rows: Sequence[Row]) -> list[Group]:
    """All scenarios together first, then each; within one: all, warm, cold, unknown, leaving out empty ones."""
    names = ["all", *sorted({row.scenario for row in rows})]
    groups = []
    for name in names:
        of_scenario = [row for row in rows if name in ("all", row.scenario)]
        for heat in ("all", "warm", "cold", "unknown"):
            chosen = [row for row in of_scenario if heat in ("all", temperature(row))]
            if chosen:
                groups.append(_group(name, heat, chosen))
    return groups


def _group(scenario: str, heat: Any, rows: Sequence[Row]) -> Group:
    return Group(
        scenario=scenario,
        temperature=heat,
        requests=len(rows),
        errors=sum(row.failed for row in rows),
        latency_ms=distribution(timed(rows, _latency)),
        service_ms=distribution(timed(rows, _service)),
    )


def _stages(rows: Sequence[Row]) -> list[StageSummary]:
    by_stage: dict[str, list[Row]] = {}
    for row in rows:
        by_stage.setdefault(row.stage, []).append(row)
    return [
        StageSummary(
            stage=stage,
            requests=len(chosen),
            errors=sum(row.failed for row in chosen),
            cold=sum(row.cold is True for row in chosen),
            latency_ms=distribution(timed(chosen, _latency)),
        )
        for stage, chosen in by_stage.items()
    ]


def _knee(stage: Step, plan: Plan, rows: Sequence[Row]) -> Knee | None:
    """Judged on each plateau alone, by the plan's thresholds that name no stage; None where it has none, or no rows."""
    lines = [parse_threshold(line) for line in plan.thresholds]
    lines = [one for one in lines if one.aggregate != "count" and "stage" not in dict(one.selectors)]
    name, held_per_s = stage.name or stage.kind, None
    for rate_per_s, label in stage.plateaus():
        chosen = [row for row in rows if row.stage == f"{name}@{label}"]
        if not chosen:
            break
        failed = next((found for one in lines if (found := judge(one, chosen)).verdict == "failed"), None)
        if failed is not None:
            seen = f"{failed.observed:.0f} ms" if failed.unit == "ms" else f"{failed.observed:.1%}"
            return Knee(stage=name, held_per_s=held_per_s, broke_per_s=rate_per_s, by=f"{failed.threshold}: {seen}")
        held_per_s = rate_per_s
    return Knee(stage=name, held_per_s=held_per_s, broke_per_s=None) if lines and held_per_s is not None else None


def _cold_starts(rows: Sequence[Row]) -> ColdStarts:
    cold = [row for row in rows if row.cold]
    return ColdStarts(
        confirmed=len(cold),
        by_init_type=dict(Counter(row.init_type or "unknown" for row in cold).most_common()),
        init_ms=distribution([value for row in cold if (value := row.timing("init")) is not None]),
        latency_ms=distribution(timed(cold, _latency)),
        warm_latency_ms=distribution(timed([row for row in rows if row.cold is False], _latency)),
    )


def _errors(rows: Sequence[Row], limit: int = 20) -> list[ErrorKind]:
    kinds: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.outcome != "ok":
            kinds.setdefault((row.outcome, row.error or ""), []).append(row)
    commonest = sorted(kinds.items(), key=lambda item: -len(item[1]))[:limit]
    return [
        ErrorKind(
            outcome=outcome,
            error=error,
            count=len(chosen),
            example_index=chosen[0].index,
            example_request_id=next((row.lambda_request_id for row in chosen if row.lambda_request_id), None),
        )
        for (outcome, error), chosen in commonest
    ]
