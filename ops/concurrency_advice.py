"""Replays an arrival history against on-demand, provisioned and SnapStart environments: cold starts, p99 and dollars.

Pure. It must not promise: how long AWS keeps an idle environment is not documented, so that it is an argument, and what
the history does not hold (a busier day) the replay cannot know.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ops.failures import Inconclusive
from ops.invocations import Invocations
from ops.percentiles import Sample, percentile
from ops.pricing import Architecture, Usage, cost

IDLE_MINUTES = 10.0
_FEWEST = 100
_CACHE_LEAST_S = 3 * 3600.0  # SnapStart's cache is billed three hours at least


@dataclass(frozen=True, slots=True)
class History:
    """Arrivals in epoch ms and handler durations in ms, both in the order of arrival; memory in MB, INIT in ms."""

    arrivals_ms: Sample
    durations_ms: Sample
    memory_mb: float
    init_ms: float
    restore_ms: float

    @property
    def span_s(self) -> float:
        """From the first arrival to the last end, in seconds."""
        return float(max(self.arrivals_ms + self.durations_ms) - self.arrivals_ms[0]) / 1000


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of every arrival: latency in ms (NaN if throttled), and how long environments of each sort ran."""

    latency_ms: Sample
    cold: int
    throttled: int
    provisioned_run_s: float
    on_demand_run_s: float


class Choice(BaseModel):
    """One way to run the same history; dollars are for the history's span, requests included."""

    model_config = ConfigDict(frozen=True)

    name: str
    cold_share: float
    p50_ms: float | None
    p99_ms: float | None
    dollars: float


class ConcurrencyAdvice(BaseModel):
    """Every choice, the chosen one, and what each reserved concurrency would have throttled."""

    model_config = ConfigDict(frozen=True)

    schema_: Literal["ops-tune-concurrency/1"] = Field(default="ops-tune-concurrency/1", alias="schema")
    invocations: int
    span_s: float
    peak: int
    chosen: str
    choices: list[Choice]
    throttled_at_reserved: dict[int, int]
    assumptions: list[str]


def history_of(inv: Invocations, restore_ms: float | None = None) -> History:
    """The history that a range of invocations tells. Raises Inconclusive below 100 invocations, or without an INIT."""
    if len(inv) < _FEWEST:
        raise Inconclusive(f"A replay takes {_FEWEST} invocations and the range has {len(inv)}; widen --since.")
    inits = inv.init_ms[~np.isnan(inv.init_ms)]
    restores = inv.restore_ms[~np.isnan(inv.restore_ms)]
    if not len(inits):
        raise Inconclusive("The range holds no INIT to learn its length from; widen --since.")
    arrivals = inv.ended_ms - inv.occupied_ms
    order = np.argsort(arrivals, kind="stable")
    init = float(np.median(inits))
    restore = restore_ms if restore_ms is not None else float(np.median(restores)) if len(restores) else init
    return History(arrivals[order], inv.duration_ms[order], float(inv.memory_size_mb[-1]), init, min(restore, init))


def replay(
    h: History, start_ms: float, provisioned: int = 0, reserved: int | None = None, idle_ms: float = 6e5
) -> Replay:
    """Serves the history: a provisioned environment if one is free, else the idle one used last, else a new one.

    A new one takes `start_ms` first. An idle one is lost after `idle_ms`. With `reserved`, an arrival that finds so
    many environments busy is throttled. Provisioned ones take one invocation at a time too, and never start cold.
    """
    busy: list[tuple[float, bool]] = []
    idle: deque[float] = deque()
    free, cold, throttled, run_provisioned, run_on_demand = provisioned, 0, 0, 0.0, 0.0
    latency = np.empty(len(h.arrivals_ms))
    for n, (now, duration) in enumerate(zip(h.arrivals_ms.tolist(), h.durations_ms.tolist(), strict=True)):
        while busy and busy[0][0] <= now:
            ended, was_provisioned = heapq.heappop(busy)
            if was_provisioned:
                free += 1
            else:
                idle.append(ended)
        while idle and now - idle[0] > idle_ms:
            idle.popleft()
        if reserved is not None and len(busy) >= reserved:
            throttled += 1
            latency[n] = np.nan
            continue
        took = duration
        if free:
            free -= 1
            run_provisioned += took
            heapq.heappush(busy, (now + took, True))
        else:
            if idle:
                idle.pop()
            else:
                cold += 1
                took += start_ms
            run_on_demand += took
            heapq.heappush(busy, (now + took, False))
        latency[n] = took
    return Replay(latency, cold, throttled, run_provisioned / 1000, run_on_demand / 1000)


def advise(
    h: History,
    *,
    architecture: Architecture = "x86_64",
    idle_minutes: float = IDLE_MINUTES,
    p99_below_ms: float | None = None,
) -> ConcurrencyAdvice:
    """Replays on-demand, SnapStart and several provisioned sizes; chooses the cheapest whose p99 keeps the constraint.

    Raises Inconclusive when none does.
    """
    idle_ms = idle_minutes * 60_000
    peak = peak_of(h)
    on_demand = replay(h, h.init_ms, idle_ms=idle_ms)
    snapstart = replay(h, h.restore_ms, idle_ms=idle_ms)
    choices = [
        _choice("on demand", on_demand, dollars_on_demand(h, on_demand, architecture)),
        _choice("SnapStart", snapstart, dollars_snapstart(h, snapstart, architecture)),
    ]
    for size in provisioned_sizes(h, peak):
        made = replay(h, h.init_ms, provisioned=size, idle_ms=idle_ms)
        choices.append(_choice(f"provisioned {size}", made, dollars_provisioned(h, made, size, architecture)))
    kept = [c for c in choices if p99_below_ms is None or (c.p99_ms is not None and c.p99_ms < p99_below_ms)]
    if not kept:
        best = min(choices, key=lambda c: c.p99_ms if c.p99_ms is not None else float("inf"))
        raise Inconclusive(
            f"No choice keeps p99 below {p99_below_ms:g} ms; {best.name} comes nearest, {best.p99_ms:.0f} ms."
        )
    reserved = sorted({max(1, peak // 2), max(1, round(peak * 0.9)), peak, round(peak * 1.5)})
    return ConcurrencyAdvice(
        invocations=len(h.arrivals_ms),
        span_s=h.span_s,
        peak=peak,
        chosen=min(kept, key=lambda c: c.dollars).name,
        choices=choices,
        throttled_at_reserved={r: replay(h, h.init_ms, reserved=r, idle_ms=idle_ms).throttled for r in reserved},
        assumptions=[
            f"AWS keeps an idle environment {idle_minutes:g} minutes (not documented; --idle-minutes)",
            f"an environment initialises in {h.init_ms:.0f} ms (median) and restores in {h.restore_ms:.0f} ms",
            "the history repeats itself; a throttled call does not come again",
        ],
    )


def peak_of(h: History) -> int:
    """The most invocations under way at one moment."""
    ends = np.sort(h.arrivals_ms + h.durations_ms)
    under_way = np.arange(1, len(ends) + 1) - np.searchsorted(ends, h.arrivals_ms, side="right")
    return int(under_way.max())


def provisioned_sizes(h: History, peak: int) -> Sequence[int]:
    """Sizes worth replaying: the time-weighted median, p90 and p99 of concurrency, and its peak."""
    moments = np.linspace(h.arrivals_ms[0], h.arrivals_ms[-1], 2001)
    begun = np.searchsorted(h.arrivals_ms, moments, side="right")
    ended = np.searchsorted(np.sort(h.arrivals_ms + h.durations_ms), moments, side="right")
    levels = np.quantile(begun - ended, (0.5, 0.9, 0.99))
    return sorted({max(1, int(np.ceil(level))) for level in levels} | {peak})


def _choice(name: str, made: Replay, dollars: float) -> Choice:
    served = made.latency_ms[~np.isnan(made.latency_ms)]
    p50, p99 = (percentile(served, q).value for q in (0.5, 0.99))
    return Choice(name=name, cold_share=made.cold / len(made.latency_ms), p50_ms=p50, p99_ms=p99, dollars=dollars)


def dollars_on_demand(h: History, made: Replay, architecture: Architecture) -> float:
    """Duration with its INIT, and requests."""
    usage = Usage(len(made.latency_ms), gb_seconds=made.on_demand_run_s * h.memory_mb / 1024)
    return cost(usage, architecture, "none").total


def dollars_snapstart(h: History, made: Replay, architecture: Architecture) -> float:
    """Duration, a restore for each cold start, and the cache of one version for the span, three hours at least."""
    gb = h.memory_mb / 1024
    usage = Usage(
        len(made.latency_ms),
        gb_seconds=(made.on_demand_run_s - made.cold * h.restore_ms / 1000) * gb,
        restored_gb=made.cold * gb,
        snapstart_cache_gb_seconds=max(h.span_s, _CACHE_LEAST_S) * gb,
    )
    return cost(usage, architecture, "none").total


def dollars_provisioned(h: History, made: Replay, size: int, architecture: Architecture) -> float:
    """The provisioned environments for the whole span, what ran on them, and the overflow at on-demand prices."""
    gb = h.memory_mb / 1024
    usage = Usage(
        len(made.latency_ms),
        gb_seconds=made.on_demand_run_s * gb,
        provisioned_idle_gb_seconds=size * max(h.span_s, 300.0) * gb,
        provisioned_run_gb_seconds=made.provisioned_run_s * gb,
    )
    return cost(usage, architecture, "none").total
