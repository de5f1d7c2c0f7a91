"""Given two ranges, a difference is named when it is there, and not when it is not."""

import numpy as np
import pytest

from ops.comparison import median_ratio, share_difference


def lognormal(seed, n=1000, factor=1.0):
    return np.random.default_rng(seed).lognormal(4, 0.5, n) * factor


def verdict(before, after):
    return median_ratio("duration", "ms", before, after, np.random.default_rng(1)).verdict


def test_no_change_is_called_a_change_at_most_once_in_twenty():
    false_alarms = sum(verdict(lognormal(n), lognormal(1000 + n)) != "no difference shown" for n in range(40))
    assert false_alarms <= 2


def test_a_fifth_slower_is_seen_four_times_in_five():
    seen = sum(verdict(lognormal(n), lognormal(1000 + n, factor=1.2)) == "worse" for n in range(20))
    assert seen >= 16


def test_a_fifth_faster_is_better():
    assert verdict(lognormal(1), lognormal(2, factor=0.7)) == "better"


def test_few_samples_give_no_verdict():
    assert verdict(lognormal(1, n=19), lognormal(2)) == "too few"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param((1, 1000), (30, 1000), "worse", id="more"),
        pytest.param((30, 1000), (1, 1000), "better", id="fewer"),
        pytest.param((10, 1000), (13, 1000), "no difference shown", id="as-before"),
        pytest.param((0, 0), (1, 10), "too few", id="nothing-before"),
    ],
)
def test_shares(before, after, expected):
    assert share_difference("timeout", *before, *after).verdict == expected


def test_newcombes_own_example():
    # Newcombe 1998, table II, row (a), method 10: 56/70 against 48/80 is 0.2, from 0.0524 to 0.3339.
    change = share_difference("x", 48, 80, 56, 70)
    assert (change.change, change.low, change.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
