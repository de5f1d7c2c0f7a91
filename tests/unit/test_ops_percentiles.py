"""Given a sample, a percentile comes with an interval that covers, or is refused when there are too few."""

import numpy as np
import pytest
from scipy.stats import binom

from ops.percentiles import interval_ranks, percentile, proportion_interval, samples_needed, upper_bound


@pytest.mark.parametrize(
    ("q", "needed"),
    [pytest.param(0.5, 2, id="p50"), pytest.param(0.95, 20, id="p95"), pytest.param(0.99, 100, id="p99"),
     pytest.param(0.999, 1000, id="p99.9")],
)  # fmt: skip
def test_a_percentile_takes_so_many_samples(q, needed):
    assert samples_needed(q) == needed
    assert percentile(np.arange(needed - 1.0), q).value is None
    assert percentile(np.arange(needed - 1.0), q).refusal == f"needs {needed} invocations, has {needed - 1}"
    assert percentile(np.arange(float(needed)), q).value is not None


@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("n", [20, 100, 1000, 5000])
def test_the_interval_covers_at_least_as_often_as_it_says(q, n):
    low, high = interval_ranks(n, q, 0.95)
    below = binom.cdf(low - 1, n, q) if low else 0.0  # the percentile lies below the low order statistic
    above = 1 - binom.cdf(high - 1, n, q) if high else 0.0
    assert below <= 0.025 + 1e-12
    assert above <= 0.025 + 1e-12


def test_a_p999_bound_is_refused_below_2995_samples_and_given_from_there():
    assert upper_bound(np.arange(2994.0), 0.999) is None
    assert upper_bound(np.arange(2995.0), 0.999) == 2994.0


@pytest.mark.parametrize("n", [3000, 5000])
def test_the_p999_bound_covers_in_19_of_20_samples(n):
    rng = np.random.default_rng(3)
    truth = float(np.exp(4 + 0.5 * 3.090232306167813))
    bounds = [upper_bound(rng.lognormal(4, 0.5, n), 0.999) for _ in range(400)]
    assert sum(bound >= truth for bound in bounds) >= 0.93 * 400  # 95 % less two standard errors


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        pytest.param(0, 10, 0.0, 0.2775, id="none"),
        pytest.param(15, 148, 0.0624, 0.1605, id="newcombe-1998-table-1"),
        pytest.param(0, 0, 0.0, 1.0, id="nothing-known"),
    ],
)
def test_wilsons_interval(count, n, low, high):
    assert proportion_interval(count, n) == pytest.approx((low, high), abs=6e-5)
