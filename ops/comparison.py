"""Compares two ranges of invocations: medians by bootstrap, shares by Newcombe's interval, each with a verdict.

It must not call a difference what the intervals do not show: a gate on p99 alone fails 4 times in 10 with no change at
all, the bootstrap of the median ratio with a 5 % tolerance 0 to 3 times in 100.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from ops.invocations import FAILURES, Invocations
from ops.percentiles import Sample, proportion_interval

TOLERANCE = 0.05
_RESAMPLES = 2000
_LARGEST = 5000  # above this a sample is thinned: the interval gets wider, never narrower than it should be
_FEWEST = 20

type Verdict = Literal["worse", "better", "no difference shown", "too few"]


class Change(BaseModel):
    """One figure before and after; `change` is their ratio, or for shares their difference, with its 95 % interval."""

    model_config = ConfigDict(frozen=True)

    name: str
    unit: Literal["ms", "MB", "share"]
    before: float | None
    after: float | None
    change: float | None
    low: float | None
    high: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class _Measure:
    name: str
    unit: Literal["ms", "MB"]
    of: Callable[[Invocations], Sample]


_MEASURES = (
    _Measure("median duration, warm", "ms", lambda inv: inv.duration_ms[~inv.is_cold]),
    _Measure("median duration, cold", "ms", lambda inv: inv.duration_ms[inv.is_cold]),
    _Measure("median init", "ms", lambda inv: inv.init_ms[~np.isnan(inv.init_ms)]),
    _Measure("median memory used", "MB", lambda inv: inv.max_memory_used_mb[~np.isnan(inv.max_memory_used_mb)]),
)


def compare(before: Invocations, after: Invocations, seed: int = 20261124) -> list[Change]:
    """Every figure of the two ranges side by side; `seed` makes the bootstrap repeatable."""
    rng = np.random.default_rng(seed)
    changes = [median_ratio(m.name, m.unit, m.of(before), m.of(after), rng) for m in _MEASURES]
    changes.append(
        share_difference("cold", int(before.is_cold.sum()), len(before), int(after.is_cold.sum()), len(after))
    )
    for kind in FAILURES:
        counts = int((before.outcomes == kind).sum()), int((after.outcomes == kind).sum())
        changes.append(share_difference(kind, counts[0], len(before), counts[1], len(after)))
    return changes


def median_ratio(
    name: str, unit: Literal["ms", "MB"], before: Sample, after: Sample, rng: np.random.Generator
) -> Change:
    """after/before of the medians; worse or better only if the whole interval lies beyond the tolerance of 5 %."""
    if min(len(before), len(after)) < _FEWEST:
        first, second = (float(np.median(s)) if len(s) else None for s in (before, after))
        return _unjudged(name, unit, first, second)
    ratios = _medians(after, rng) / _medians(before, rng)
    low, high = (float(v) for v in np.quantile(ratios, (0.025, 0.975)))
    first, second = float(np.median(before)), float(np.median(after))
    verdict: Verdict = "no difference shown"
    if low > 1 + TOLERANCE:
        verdict = "worse"
    elif high < 1 - TOLERANCE:
        verdict = "better"
    return Change(
        name=name, unit=unit, before=first, after=second, change=second / first, low=low, high=high, verdict=verdict
    )


def _medians(sample: Sample, rng: np.random.Generator) -> Sample:
    if len(sample) > _LARGEST:
        sample = rng.choice(sample, _LARGEST, replace=False)
    # In blocks, so that two thousand resamples of five thousand values stay small.
    blocks = [np.median(rng.choice(sample, (100, len(sample))), axis=1) for _ in range(_RESAMPLES // 100)]
    return np.concatenate(blocks)


def share_difference(name: str, before: int, n_before: int, after: int, n_after: int) -> Change:
    """after-before of two shares with Newcombe's hybrid score interval (Newcombe 1998, method 10)."""
    if not n_before or not n_after:
        return _unjudged(name, "share", None, None)
    p, q = before / n_before, after / n_after
    (p_low, p_high), (q_low, q_high) = proportion_interval(before, n_before), proportion_interval(after, n_after)
    change = q - p
    low = change - float(np.hypot(q - q_low, p_high - p))
    high = change + float(np.hypot(q_high - q, p - p_low))
    verdict: Verdict = "worse" if low > 0 else "better" if high < 0 else "no difference shown"
    return Change(name=name, unit="share", before=p, after=q, change=change, low=low, high=high, verdict=verdict)


def _unjudged(name: str, unit: Literal["ms", "MB", "share"], before: float | None, after: float | None) -> Change:
    nothing = {"change": None, "low": None, "high": None}
    return Change(name=name, unit=unit, before=before, after=after, verdict="too few", **nothing)
