"""Turns folded invocations into the figures of a report, as one model that is also the schema of summary.json.

It must not read logs, print or draw: everything here is computed from a `Ledger` and a range.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ops import pricing
from ops.comparison import Change
from ops.invocations import FAILURES, Invocations, Ledger, ToolCalls
from ops.percentiles import Percentile, Sample, percentile, proportion_interval

SCHEMA = "ops-report/1"
QUANTILES = (0.5, 0.95, 0.99)
# Less than this share of the memory left at the peak is worth a warning: one larger input away from being killed.
SCARCE_HEADROOM = 0.10
TOP_CALLERS = 20
PREPARED: Final = "provisioned-concurrency"


type InitType = Literal["on-demand", "snap-start", "provisioned-concurrency"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Range(_Model):
    """What was asked for, [start, end), and the first and last event that were there."""

    start: datetime
    end: datetime
    first_event: datetime | None
    last_event: datetime | None


class Request(_Model):
    """What a run asked for: where, which log groups, and the range [start, end)."""

    source: str
    groups: list[str]
    start: datetime
    end: datetime

    def range_with(self, first_ms: float | None, last_ms: float | None) -> Range:
        """The range asked for with the moments of its first and last event, in epoch ms."""
        first, last = (
            None if ms is None else datetime.fromtimestamp(ms / 1000, self.start.tzinfo) for ms in (first_ms, last_ms)
        )
        return Range(start=self.start, end=self.end, first_event=first, last_event=last)


class Rate(_Model):
    """A count, its share of all invocations, and the 95 % Wilson interval of that share."""

    count: int
    share: float
    low: float
    high: float


class Quantile(_Model):
    """One percentile with its 95 % order-statistic interval; below `needed`, `value` is null and `refused` says why."""

    name: str
    needed: int
    value: float | None
    low: float | None
    high: float | None
    refused: str | None


class Distribution(_Model):
    """Percentiles of `n` measurements in ms, and the largest."""

    n: int
    quantiles: list[Quantile]
    max: float | None


class ColdRow(_Model):
    """Cold starts of one version at one memory size; `init_type` is what made the environment ready."""

    version: str
    memory_mb: float | None
    init_type: InitType
    cold: int
    invocations: int
    share: float


class Memory(_Model):
    """How much of one memory size was used: peaks in MB over its invocations, `headroom` what was left at the peak."""

    size_mb: float
    invocations: int
    max_used_mb: float
    p95_used_mb: float | None
    headroom_mb: float
    headroom_share: float


class ToolRow(_Model):
    """Calls of one tool as the function records them; `failed` are results that say so, not failed invocations."""

    tool: str
    calls: int
    failed: int


class CallerRow(_Model):
    """One API key id, null for calls without a key; `cpu_s` is the CPU time of its code in seconds."""

    api_key_id: str | None
    calls: int
    failed: int
    blocked: int
    cpu_s: float


class ToolCallSummary(_Model):
    """What the code in the calls did; the callers are the twenty with the most calls."""

    tools: list[ToolRow]
    failures: dict[str, int]
    callers: list[CallerRow]
    wall_ms: Distribution
    cpu_ms: Distribution


class Concurrency(_Model):
    """The most invocations under way at one moment, and how many environments (log streams) there were.

    `peak` is null in a report by Logs Insights, which sees no invocation beside another.
    """

    peak: int | None
    environments: int


class CostSummary(_Model):
    """Dollars at list prices; `init` is a part of `duration`; `left_out` is what the logs cannot show."""

    total: float
    per_million_invocations: float | None
    duration: float
    init: float
    requests: float
    tmp: float
    gateway: float
    snapstart: float
    provisioned: float = 0.0
    tenants: float = 0.0
    logs: float
    billed_gb_seconds: float
    architecture: str
    gateway_kind: str
    tmp_mb: float
    prices_as_of: str
    prices_region: str
    prices_source: str
    left_out: list[str]


class Summary(_Model):
    """The whole report; the `schema` field names its version."""

    schema_: Literal["ops-report/1"] = Field(default="ops-report/1", alias="schema")
    source: str
    groups: list[str]
    range: Range
    invocations: int
    failures: dict[str, Rate]
    unfinished: int
    failed_inits: int
    cold: Rate
    cold_by: list[ColdRow]
    duration_ms: dict[str, Distribution]
    init_ms: Distribution
    restore_ms: Distribution
    memory: list[Memory]
    concurrency: Concurrency
    calls: ToolCallSummary
    blocked_operations: dict[str, int]
    cost: CostSummary
    lines: dict[str, int]
    compared_with: Range | None = None
    comparison: list[Change] | None = None
    notes: list[str]


def summarise(ledger: Ledger, asked: Request, bill: pricing.Bill = pricing.NOTHING_TOLD) -> Summary:
    """The figures of `ledger`."""
    inv = ledger.invocations
    cold, memory = inv.is_cold, _memory_rows(inv)
    return Summary(
        source=asked.source,
        groups=asked.groups,
        range=asked.range_with(ledger.first_ms, ledger.last_ms),
        invocations=len(inv),
        failures={kind: rate(int((inv.outcomes == kind).sum()), len(inv)) for kind in FAILURES},
        unfinished=len(ledger.unfinished),
        failed_inits=sum(p.kind == "init" for p in ledger.problems),
        cold=rate(int(cold.sum()), len(inv)),
        cold_by=_cold_rows(inv),
        duration_ms={
            "all": distribution(inv.duration_ms),
            "warm": distribution(inv.duration_ms[~cold]),
            "cold": distribution(inv.duration_ms[cold]),
            "cold incl. init": distribution(inv.occupied_ms[cold]),
        },
        init_ms=distribution(_known(inv.init_ms)),
        restore_ms=distribution(_known(inv.restore_ms)),
        memory=memory,
        concurrency=Concurrency(peak=inv.peak_concurrency(), environments=ledger.environments),
        calls=_calls(ledger.calls),
        blocked_operations=dict(ledger.violations.most_common()),
        cost=cost_of(_used(ledger), len(inv), ledger.log_bytes, asked, bill, tells_tenants=bool(ledger.tenant_streams)),
        lines=dict(sorted(ledger.lines.items())),
        notes=[*scarce_notes(memory), *_notes(ledger)],
    )


def distribution(sample: Sample) -> Distribution:
    """The percentiles of `sample` that it is large enough for, and the largest value."""
    return Distribution(
        n=len(sample),
        quantiles=[_quantile(percentile(sample, q)) for q in QUANTILES],
        max=round(float(sample.max()), 3) if len(sample) else None,
    )


def _quantile(p: Percentile) -> Quantile:
    value, low, high = _round(p.value), _round(p.low), _round(p.high)
    return Quantile(name=p.name, needed=p.needed, value=value, low=low, high=high, refused=p.refusal)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def rate(count: int, n: int) -> Rate:
    """`count` of `n` as a share with its interval."""
    low, high = proportion_interval(count, n)
    return Rate(count=count, share=count / n if n else 0.0, low=low, high=high)


def _known(column: Sample) -> Sample:
    return column[~np.isnan(column)]


def _cold_rows(inv: Invocations) -> list[ColdRow]:
    restored = ~np.isnan(inv.restore_ms)
    provisioned = np.zeros(len(inv), dtype=bool) if inv.provisioned is None else inv.provisioned
    named = inv.versions
    versions = np.array(named, dtype=object)
    rows = []
    for version in sorted(set(named)):
        of_version = versions == version
        for size in _sizes(inv.memory_size_mb[of_version]):
            here = of_version & _same(inv.memory_size_mb, size)
            # A version that restores is a SnapStart version: it never initialises in front of a caller.
            unprepared: InitType = "snap-start" if restored[here].any() else "on-demand"
            rows += [
                _cold_row(version, size, init_type, inv.is_cold[those])
                for init_type, those in ((unprepared, here & ~provisioned), (PREPARED, here & provisioned))
                if those.any()
            ]
    return rows


def _cold_row(version: str, size: float | None, init_type: InitType, is_cold: NDArray[np.bool_]) -> ColdRow:
    cold, n = int(is_cold.sum()), len(is_cold)
    return ColdRow(version=version, memory_mb=size, init_type=init_type, cold=cold, invocations=n, share=cold / n)


def _sizes(column: Sample) -> list[float | None]:
    known: list[float | None] = [float(size) for size in np.unique(_known(column))]
    return known + ([None] if np.isnan(column).any() else [])


def _same(column: Sample, size: float | None) -> NDArray[np.bool_]:
    return np.isnan(column) if size is None else column == size


def _memory_rows(inv: Invocations) -> list[Memory]:
    rows = []
    for size in _sizes(inv.memory_size_mb):
        used = _known(inv.max_memory_used_mb[_same(inv.memory_size_mb, size)])
        if size is None or not len(used):
            continue
        peak = float(used.max())
        rows.append(memory_row(size, len(used), peak, percentile(used, 0.95).value))
    return rows


def memory_row(size_mb: float, invocations: int, max_used_mb: float, p95_used_mb: float | None) -> Memory:
    """The row of one size, with its headroom."""
    return Memory(
        size_mb=size_mb,
        invocations=invocations,
        max_used_mb=max_used_mb,
        p95_used_mb=p95_used_mb,
        headroom_mb=size_mb - max_used_mb,
        headroom_share=(size_mb - max_used_mb) / size_mb,
    )


def _calls(calls: ToolCalls) -> ToolCallSummary:
    tools = sorted({tool for tool, _ in calls.outcomes})
    total = {tool: sum(n for (name, _), n in calls.outcomes.items() if name == tool) for tool in tools}
    callers = sorted(calls.callers.items(), key=lambda item: -item[1].calls)[:TOP_CALLERS]
    return ToolCallSummary(
        tools=[ToolRow(tool=t, calls=total[t], failed=total[t] - calls.outcomes[t, "ok"]) for t in tools],
        failures=dict(calls.failures.most_common()),
        callers=[
            CallerRow(
                api_key_id=key, calls=c.calls, failed=c.failed, blocked=c.blocked, cpu_s=round(c.cpu_ms / 1000, 3)
            )
            for key, c in callers
        ],
        wall_ms=distribution(np.array(calls.wall_ms)),
        cpu_ms=distribution(np.array(calls.cpu_ms)),
    )


def _used(ledger: Ledger) -> list[pricing.Used]:
    """What was used at each memory size, on demand and on provisioned environments apart."""
    inv = ledger.invocations
    size_mb, billed_s = np.nan_to_num(inv.memory_size_mb), np.nan_to_num(inv.billed_ms) / 1000
    on_provisioned = np.zeros(len(inv), dtype=bool) if inv.provisioned is None else inv.provisioned
    # What of `Billed Duration` is INIT: logs from before 2025-08-01 did not bill it, and then nothing is left here.
    billed_init_s = np.clip(billed_s - np.ceil(inv.duration_ms) / 1000, 0, None) * ~np.isnan(inv.init_ms)
    restored, tenants = ~np.isnan(inv.restore_ms), _made_for_tenants(ledger)
    return [
        pricing.Used(
            memory_mb=float(size),
            billed_s=float(billed_s[here].sum()),
            billed_init_s=float(billed_init_s[here].sum()),
            restored=int(restored[here].sum()),
            tenants=int(tenants[here].sum()),
            on_provisioned=provisioned,
        )
        for size in np.unique(size_mb)
        for provisioned in (False, True)
        if (here := (size_mb == size) & (on_provisioned == provisioned)).any()
    ]


def _made_for_tenants(ledger: Ledger) -> NDArray[np.bool_]:
    """Which invocations were the first of an environment that serves one tenant."""
    inv = ledger.invocations
    first = ~np.isnan(inv.init_ms)
    for i in np.flatnonzero(first):
        first[i] = inv.streams[i] in ledger.tenant_streams
    return first


def cost_of(
    used: Collection[pricing.Used],
    requests: int,
    log_bytes: int,
    asked: Request,
    bill: pricing.Bill,
    *,
    tells_tenants: bool,
) -> CostSummary:
    """The dollars of what was used, part by part, with the prices they rest on.

    Logs that tell of no tenant may be in text, which never does: then what tenants cost is left out by name.
    """
    usage = pricing.usage_of(used, requests, log_bytes, (asked.end - asked.start).total_seconds(), bill)
    dollars = pricing.cost(usage, bill.architecture, bill.gateway)
    untold = [] if tells_tenants else ["tenants' environments"]
    return CostSummary(
        total=dollars.total,
        per_million_invocations=dollars.total / requests * 1e6 if requests else None,
        duration=dollars.duration,
        init=dollars.init,
        requests=dollars.requests,
        tmp=dollars.tmp,
        gateway=dollars.gateway,
        snapstart=dollars.snapstart,
        provisioned=dollars.provisioned,
        tenants=dollars.tenants,
        logs=dollars.logs,
        billed_gb_seconds=usage.gb_seconds + usage.provisioned_run_gb_seconds,
        architecture=bill.architecture,
        gateway_kind=bill.gateway,
        tmp_mb=bill.tmp_mb,
        prices_as_of=pricing.PRICES_AS_OF,
        prices_region=pricing.PRICES_REGION,
        prices_source=pricing.PRICES_SOURCE,
        left_out=["free tier", "savings plans", "data transfer", "log storage", *bill.kept.left_out, *untold],
    )


def scarce_notes(rows: Sequence[Memory]) -> list[str]:
    """A sentence for each size that left too little memory."""
    return [
        f"At {row.size_mb:g} MB an invocation used {row.max_used_mb:g} MB, which leaves {row.headroom_share:.0%}: "
        "give the function more memory before it is killed for it."
        for row in rows
        if row.headroom_share < SCARCE_HEADROOM
    ]


def _notes(ledger: Ledger) -> list[str]:
    inv = ledger.invocations
    timeouts = int((inv.outcomes == "timeout").sum())
    unbilled = int((np.isnan(inv.billed_ms) | np.isnan(inv.memory_size_mb)).sum())
    unknown = ledger.lines.get("Platform", 0)
    counted = (
        ("cut off by the timeout, so that the upper percentiles of duration are lower bounds", timeouts),
        ("started without a REPORT in this range, still running or cut by it", len(ledger.unfinished)),
        ("without a billed duration or a memory size, left out of the cost", unbilled),
        ("platform events of a type unknown to this version, counted only", unknown),
    )
    return [f"{what[0].upper()}{what[1:]}: {count}." for what, count in counted if count]
