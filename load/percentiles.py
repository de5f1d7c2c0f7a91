"""Percentiles of raw values, and how many values a percentile or a share needs before it means anything.

Never from histogram buckets. It must import without gevent: reports are made by processes that send nothing.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

REPORTED: Final = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
CONFIDENCE: Final = 0.95


class Distribution(BaseModel):
    """Values in ms. `carried` names the percentiles the sample is large enough for; the rest is only what was seen."""

    model_config = ConfigDict(extra="forbid")

    n: int
    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    p99_9: float
    max: float
    mean: float
    carried: list[str]


def distribution(values: Sequence[float]) -> Distribution | None:
    """The distribution of values in ms, None when there are none."""
    if not values:
        return None
    array = np.asarray(values, dtype=float)
    points = {name: quantile(array, q) for name, q in REPORTED.items()}
    return Distribution(
        n=len(values),
        min=round(float(array.min()), 3),
        max=round(float(array.max()), 3),
        mean=round(float(array.mean()), 3),
        carried=[name for name, q in REPORTED.items() if len(values) >= needed_for_quantile(q)],
        **points,
    )


def quantile(values: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]], q: float) -> float:
    """The smallest value that at least the share `q` of all values do not exceed: always one that was observed."""
    return round(float(np.quantile(np.asarray(values, dtype=float), q, method="inverted_cdf")), 3)


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """A 95 % interval of the median from order statistics: no assumption on the shape. None below six values.

    The j-th smallest lies below the median unless fewer than j of n values do, and that number is binomial(n, 1/2);
    the same from above (Conover, Practical Nonparametric Statistics, §3.2).
    """
    n, ordered = len(values), sorted(values)
    tail, j = 0.0, 0
    while (tail := tail + math.comb(n, j) * 0.5**n) <= (1 - CONFIDENCE) / 2:
        j += 1
    return None if j == 0 else (round(ordered[j - 1], 3), round(ordered[n - j], 3))


def needed_for_quantile(q: float) -> int:
    """How many values an upper 95 % bound on the quantile needs: ln 0.05 / ln q, the order-statistics bound.

    With fewer, even the largest may well lie below the true quantile. p50 5, p90 29, p95 59, p99 299, p99.9 2,995.
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(q))


def needed_for_share(limit: float) -> int:
    """How many requests, none of them failing, show a share below `limit` at 95 %: the same bound, (1 - limit)^n."""
    return needed_for_quantile(1 - limit)


def chance_of_at_least(k: int, n: int, p: float) -> float:
    """P(X >= k) for X binomial(n, p): how surprising k exceedances of n would be if the limit were just kept."""
    if k <= 0:
        return 1.0
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
