"""Percentiles with distribution-free confidence intervals, and the sample size below which they are refused.

It must not smooth or fit: what it returns are order statistics of what was measured.
Point estimate: Hyndman and Fan's definition 7 (numpy's "linear"). Interval: the binomial order-statistic interval,
Hahn & Meeker, "Statistical Intervals", §5.2.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrik, ndtri  # type: ignore[import-untyped]

type Sample = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Percentile:
    """The value below which a share `q` of the sample lies, in the sample's unit.

    `value` is None when `n` is too small (`needed` says how many it takes); `low` and `high` are the 95 % interval,
    None on a side that the sample cannot bound.
    """

    q: float
    n: int
    needed: int
    value: float | None
    low: float | None
    high: float | None

    @property
    def name(self) -> str:
        """`p50`, `p99.9`."""
        return f"p{self.q * 100:g}"

    @property
    def refusal(self) -> str | None:
        """Why there is no value, as a sentence part, or None."""
        return None if self.value is not None else f"needs {self.needed} invocations, has {self.n}"


def samples_needed(q: float) -> int:
    """How many samples put at least one expected observation beyond `q`: 2 for the median, 100 for p99."""
    return math.ceil(1 / (1 - q) - 1e-6)


def percentile(sample: Sample, q: float, confidence: float = 0.95) -> Percentile:
    """The percentile `q` (0 < q < 1) of `sample`, with its interval, or its refusal if the sample is too small."""
    n, needed = len(sample), samples_needed(q)
    if n < needed:
        return Percentile(q, n, needed, None, None, None)
    ordered = np.sort(sample)
    low, high = interval_ranks(n, q, confidence)
    return Percentile(
        q,
        n,
        needed,
        float(np.quantile(ordered, q)),
        float(ordered[low - 1]) if low is not None else None,
        float(ordered[high - 1]) if high is not None else None,
    )


def interval_ranks(n: int, q: float, confidence: float) -> tuple[int | None, int | None]:
    """The ranks (1 is the smallest) whose values enclose the percentile `q`, each tail holding (1-confidence)/2.

    None for a side on which no order statistic of `n` samples gives that much.
    """
    tail = (1 - confidence) / 2
    low = _binomial_quantile(tail, n, q)
    high = _binomial_quantile(1 - tail, n, q) + 1
    return (low if low >= 1 else None), (high if high <= n else None)


def upper_bound(sample: Sample, q: float, confidence: float = 0.95) -> float | None:
    """The smallest order statistic that is above the percentile `q` with `confidence`; None if the sample is too small.

    For p99.9 at 95 % it takes 2,995 samples: ln(0.05) / ln(0.999).
    """
    rank = _binomial_quantile(confidence, len(sample), q) + 1
    return float(np.sort(sample)[rank - 1]) if 0 < rank <= len(sample) else None


def _binomial_quantile(p: float, n: int, q: float) -> int:
    """The smallest k with P(Binomial(n, q) <= k) >= p; scipy.stats.binom.ppf without its second of importing."""
    if n == 0:
        return 0
    k: int = math.ceil(bdtrik(p, n, q))
    return k - 1 if k > 0 and bdtr(k - 1, n, q) >= p else k


def proportion_interval(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for a rate of `count` in `n` (Wilson 1927), as two shares between 0 and 1."""
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + confidence / 2))
    p = count / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
