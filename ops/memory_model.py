"""Predicts an invocation's duration at memory sizes that were not measured, and chooses a size by a strategy.

Pure. It must not extrapolate silently: a choice is a proposal until the chosen size has been measured too.
Model: T(m) = a + b / min(m, 1769), a wait that memory does not change and work that goes with the CPU share, which
grows with memory up to one vCPU at 1,769 MB (AWS docs, "Configure Lambda function memory").
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls  # type: ignore[import-untyped]

from ops.failures import Inconclusive
from ops.percentiles import Sample
from ops.pricing import Architecture, Gateway, Usage, cost

FULL_CORE_MB: Final = 1769.0
# aws-lambda-power-tuning 4.4.0's default sizes, and 2048 between its last two.
DEFAULT_SIZES: Final = (128, 256, 512, 1024, 1536, 2048, 3008)
_RESAMPLES = 400
# Sizes whose durations differ by less than this are the same to a caller: the smaller one is taken.
_SAME_SPEED = 0.02
# And dollars that differ by less are the same to a bill: code that only computes costs the same below one vCPU, and the
# faster size is a gift.
_SAME_COST = 0.02

type StrategyName = Literal["cost", "speed", "balanced"]


@dataclass(frozen=True, slots=True)
class Model:
    """T(m) = wait_ms + work_ms_mb / min(m, 1769); m in MB, T in ms."""

    wait_ms: float
    work_ms_mb: float

    def duration_ms(self, memory_mb: float) -> float:
        """The mean duration at `memory_mb`."""
        return self.wait_ms + self.work_ms_mb / min(memory_mb, FULL_CORE_MB)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one size does: mean and p95 duration in ms with a 95 % interval of the mean, dollars per invocation."""

    memory_mb: int
    measured: int
    mean_ms: float
    low_ms: float
    high_ms: float
    p95_ms: float
    dollars: float


@dataclass(frozen=True, slots=True)
class Pricing:
    """What the dollars of an invocation depend on beside its duration; `cold_share` of them pay `init_ms` more."""

    architecture: Architecture = "x86_64"
    gateway: Gateway = "rest"
    tmp_mb: float = 512.0
    cold_share: float = 0.0
    init_ms: Mapping[int, float] | None = None

    def dollars(self, duration_ms: float, memory_mb: float) -> float:
        """One invocation of this mean duration: billed to the next ms (half a ms on average), INIT by its share."""
        init = self.init_ms or {}
        nearest = min(init, key=lambda size: abs(size - memory_mb), default=None)
        billed_s = (duration_ms + 0.5 + self.cold_share * (init[nearest] if nearest is not None else 0.0)) / 1000
        usage = Usage(
            requests=1,
            gb_seconds=billed_s * memory_mb / 1024,
            tmp_gb_seconds=billed_s * max(0.0, self.tmp_mb - 512) / 1024,
        )
        return cost(usage, self.architecture, self.gateway).total


def fit(means_ms: Mapping[int, float]) -> Model:
    """The model nearest to the mean durations of two sizes or more, by relative error, with no negative part."""
    sizes = np.array(list(means_ms), dtype=float)
    means = np.array(list(means_ms.values()), dtype=float)
    terms = np.column_stack([np.ones_like(sizes), 1 / np.minimum(sizes, FULL_CORE_MB)]) / means[:, None]
    (wait, work), _ = nnls(terms, np.ones_like(means))
    return Model(float(wait), float(work))


def fit_from_cpu(mean_ms: float, cpu_ms: float, memory_mb: float) -> Model:
    """The model from one size, for code that reports its CPU time: what is not CPU at that share is waiting.

    Good to 3-8 % for code that mostly computes or mostly waits; code that alternates short bursts with waits refills
    its quota in the waits, and this can then be off by half.
    """
    share = min(1.0, memory_mb / FULL_CORE_MB)
    return Model(max(0.0, mean_ms - cpu_ms / share), cpu_ms * FULL_CORE_MB)


def sizes_to_measure(candidates: Sequence[int]) -> list[int]:
    """The three sizes that fix the model best: the two smallest, where 1/m changes most, and the largest.

    On the public curves of tests/data this choice predicts the others with a median error of 5.4 %; the smallest, the
    middle and the largest give 7.9 %.
    """
    ordered = sorted(set(candidates))
    return ordered if len(ordered) <= 3 else [ordered[0], ordered[1], ordered[-1]]


def estimates(
    samples: Mapping[int, Sample],
    candidates: Sequence[int],
    pricing: Pricing,
    payloads: Mapping[int, Sequence[str]] | None = None,
    seed: int = 20261124,
) -> list[Estimate]:
    """Every candidate size, measured or predicted, in the order of size; `samples` are warm durations in ms.

    `payloads` names what each was of: payloads took turns and were not drawn, so that the difference between them is no
    uncertainty of the mean, and each is resampled by itself (a stratified bootstrap).
    A measured size keeps its own figures. A predicted one has the interval that resampling the measurements gives; the
    model's own error (median 6 %) is not in it.
    """
    means = {size: float(np.mean(sample)) for size, sample in samples.items()}
    model = fit(means) if len(means) > 1 else None
    rng = np.random.default_rng(seed)
    strata = {size: _strata(sample, (payloads or {}).get(size)) for size, sample in samples.items()}
    resampled = [{size: _resampled_mean(parts, rng) for size, parts in strata.items()} for _ in range(_RESAMPLES)]
    models = [fit(each) for each in resampled] if model else []
    tail = max(float(np.quantile(s, 0.95)) / means[size] for size, s in samples.items())
    made = []
    for size in sorted({*candidates, *samples}):
        if size in samples:
            spread = np.array([each[size] for each in resampled])
            mean, p95 = means[size], float(np.quantile(samples[size], 0.95))
        elif model:
            spread = np.array([each.duration_ms(size) for each in models])
            mean, p95 = model.duration_ms(size), model.duration_ms(size) * tail
        else:
            continue
        low, high = (float(v) for v in np.quantile(spread, (0.025, 0.975)))
        count = len(samples[size]) if size in samples else 0
        made.append(Estimate(size, count, mean, low, high, p95, pricing.dollars(mean, size)))
    return made


def _strata(sample: Sample, names: Sequence[str] | None) -> list[Sample]:
    """The sample by payload; whole if one of them was measured once, which tells nothing of its spread."""
    parts = [sample[np.array(names) == name] for name in sorted(set(names))] if names else [sample]
    return parts if min(map(len, parts)) > 1 else [sample]


def _resampled_mean(parts: Sequence[Sample], rng: np.random.Generator) -> float:
    return float(np.concatenate([rng.choice(part, len(part)) for part in parts]).mean())


def choose(
    options: Sequence[Estimate], strategy: StrategyName = "cost", weight: float = 0.5, p95_below_ms: float | None = None
) -> Estimate:
    """The size that the strategy prefers; with `p95_below_ms`, among those only whose p95 is below it.

    `cost` takes the fastest of the sizes within 2 % of the cheapest, `speed` the smallest within 2 % of the fastest.
    `balanced` minimises weight * cost / dearest + (1 - weight) * duration / slowest, as aws-lambda-power-tuning does.
    Raises Inconclusive when no size keeps the constraint.
    """
    allowed = [o for o in options if p95_below_ms is None or o.p95_ms < p95_below_ms]
    if not allowed:
        best = min(options, key=lambda o: o.p95_ms)
        raise Inconclusive(
            f"No size keeps p95 below {p95_below_ms:g} ms; the best is {best.memory_mb} MB with {best.p95_ms:.0f} ms."
        )
    if strategy == "cost":
        cheapest = min(o.dollars for o in allowed)
        return min((o for o in allowed if o.dollars <= cheapest * (1 + _SAME_COST)), key=lambda o: o.mean_ms)
    if strategy == "speed":
        fastest = min(o.mean_ms for o in allowed)
        return min((o for o in allowed if o.mean_ms <= fastest * (1 + _SAME_SPEED)), key=lambda o: o.memory_mb)
    dearest, slowest = max(o.dollars for o in options), max(o.mean_ms for o in options)
    return min(allowed, key=lambda o: weight * o.dollars / dearest + (1 - weight) * o.mean_ms / slowest)


def memory_matters(options: Sequence[Estimate]) -> bool:
    """Whether any two measured sizes differ by more than their intervals."""
    measured = [o for o in options if o.measured]
    return any(one.low_ms > other.high_ms for one in measured for other in measured)


def visualization_link(options: Sequence[Estimate]) -> str:
    """The picture that aws-lambda-power-tuning's users know: sizes, mean ms and dollars in the URL's fragment."""
    columns: list[NDArray[np.generic]] = [
        np.array([o.memory_mb for o in options], "<i2"),
        np.array([o.mean_ms for o in options], "<f4"),
        np.array([o.dollars for o in options], "<f4"),
    ]
    return "https://lambda-power-tuning.show/#" + ";".join(base64.b64encode(c.tobytes()).decode() for c in columns)
