"""Comparison: an unchanged system is not called slower, a slower one is, and too little data is called neither."""

import numpy as np
import pytest
from load_rows import record, row, rows

from load.compare import compare, why_unfit
from load.rows import Row
from load.summary import summarize


def run(rng: np.random.Generator, n: int = 1000, factor: float = 1.0, scenario: str = "print") -> list[Row]:
    """Warm lognormal latencies with a median of 50 ms times `factor`, and 1 % cold starts of about 900 ms."""
    warm = rng.lognormal(np.log(50 * factor), 0.35, n)
    cold = rng.lognormal(np.log(900), 0.2, n)
    is_cold = rng.random(n) < 0.01
    return [
        row(i, latency_ms=float(cold[i] if is_cold[i] else warm[i]), cold=bool(is_cold[i]), scenario=scenario)
        for i in range(n)
    ]


def share_of(verdict: str, factor: float, trials: int = 60, jitter: float = 0.0) -> float:
    """How often `verdict` comes out for a candidate `factor` times as slow; `jitter` is between-run noise."""
    rng = np.random.default_rng(20261124)
    hits = 0
    for _ in range(trials):
        drift = float(np.exp(rng.normal(0, jitter)))
        hits += compare(run(rng), run(rng, factor=factor * drift), seed=1).verdict == verdict
    return hits / trials


def test_unchanged_is_not_called_slower() -> None:
    assert share_of("slower", 1.0) <= 0.05


def test_unchanged_with_three_percent_jitter_is_not_called_slower() -> None:
    assert share_of("slower", 1.0, jitter=0.03) <= 0.10


def test_ten_percent_slower_is_seen() -> None:
    assert share_of("slower", 1.10) >= 0.80


def test_ten_percent_faster_is_seen() -> None:
    assert share_of("faster", 1 / 1.12) >= 0.80


def test_the_same_run_twice_is_the_same() -> None:
    sample = run(np.random.default_rng(1), 2000)
    report = compare(sample, sample)
    assert (report.verdict, report.exit_code) == ("same", 0)
    assert report.overall[0].ratio == 1


def test_more_cold_starts_are_not_a_slower_warm_path() -> None:
    rng = np.random.default_rng(1)
    warm_a = [row(i, latency_ms=float(rng.lognormal(np.log(50), 0.3))) for i in range(2000)]
    warm_b = [row(i, latency_ms=float(rng.lognormal(np.log(50), 0.3))) for i in range(2000)]
    cold = [row(i, latency_ms=900.0 + i, cold=True) for i in range(200)]
    report = compare(warm_a, [*warm_b, *cold])
    warm = next(one for one in report.overall if one.temperature == "warm")
    assert warm.verdict == "same"
    assert report.verdict == "same"


def test_slower_cold_starts_are_seen_beside_an_unchanged_warm_path() -> None:
    rng = np.random.default_rng(1)
    warm = [row(i, latency_ms=float(rng.lognormal(np.log(50), 0.3))) for i in range(2000)]
    cold_a = [row(i, latency_ms=float(rng.lognormal(np.log(800), 0.1)), cold=True) for i in range(100)]
    cold_b = [row(i, latency_ms=float(rng.lognormal(np.log(1600), 0.1)), cold=True) for i in range(100)]
    report = compare([*warm, *cold_a], [*warm, *cold_b])
    assert (report.verdict, report.exit_code) == ("slower", 1)
    assert "cold" in report.reason


def test_a_changed_mix_is_not_a_changed_speed() -> None:
    rng = np.random.default_rng(1)
    quick = [float(rng.lognormal(np.log(10), 0.1)) for _ in range(600)]
    heavy = [float(rng.lognormal(np.log(200), 0.1)) for _ in range(600)]

    def mixed(quick_n: int, heavy_n: int) -> list[Row]:
        a = [row(i, latency_ms=quick[i]) for i in range(quick_n)]
        return a + [row(i, latency_ms=heavy[i], scenario="pandas") for i in range(heavy_n)]

    assert compare(mixed(600, 200), mixed(200, 600)).verdict == "same"


def test_one_slower_scenario_fails_among_many_that_are_not() -> None:
    rng = np.random.default_rng(1)
    names = ("a", "b", "c", "d", "e")
    base = [one for name in names for one in run(rng, 400, scenario=name)]
    other = [one for name in names for one in run(rng, 400, 1.3 if name == "c" else 1.0, scenario=name)]
    report = compare(base, other)
    assert (report.verdict, report.exit_code) == ("slower", 1)
    assert report.reason.startswith("c warm")


@pytest.mark.parametrize(
    ("base", "candidate"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param(rows(100), [], id="nothing-in-the-candidate"),
        pytest.param(rows(19), rows(100), id="too-few"),
        pytest.param(rows(100), rows(100, outcome="tool_error"), id="only-errors"),
        pytest.param(rows(100), rows(100, scenario="numpy"), id="different-scenarios"),
    ],
)
def test_too_little_is_inconclusive(base: list[Row], candidate: list[Row]) -> None:
    report = compare(base, candidate)
    assert (report.verdict, report.exit_code) == ("inconclusive", 4)
    assert report.reason


def test_an_unfit_run_cannot_be_compared() -> None:
    good = summarize(rows(100), [record()])
    late = summarize(rows(100, lag_ms=50), [record()])
    assert why_unfit([good], [good]) == ""
    assert why_unfit([good], [good, late]).startswith("the candidate run is unfit: requests left up to 50")
    report = compare(rows(100), rows(100), unfit=why_unfit([late], [good]))
    assert (report.verdict, report.exit_code) == ("inconclusive", 4)


def test_the_interval_is_the_bootstrap_of_the_median() -> None:
    """Against the plain bootstrap that draws every sample."""
    rng = np.random.default_rng(5)
    a, b = rng.lognormal(4, 0.5, 151), rng.lognormal(4.1, 0.5, 151)
    report = compare(
        [row(i, latency_ms=float(v)) for i, v in enumerate(a)], [row(i, latency_ms=float(v)) for i, v in enumerate(b)]
    )
    plain = [np.median(rng.choice(b, 151)) / np.median(rng.choice(a, 151)) for _ in range(4000)]
    one = report.scenarios[0]
    assert one.low == pytest.approx(float(np.quantile(plain, 0.025)), rel=0.03)
    assert one.high == pytest.approx(float(np.quantile(plain, 0.975)), rel=0.03)


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(5)
    a, b = run(rng, 100), run(rng, 100)
    assert compare(a, b, seed=3) == compare(a, b, seed=3)
    assert compare(a, b, seed=3).scenarios != compare(a, b, seed=4).scenarios


def test_a_large_ratio_from_noise_is_not_slower() -> None:
    """Twenty-five calls a side with a wide spread: the medians differ, the interval says that they may not."""
    base = [row(i, latency_ms=10.0 + 40 * i) for i in range(25)]
    candidate = [row(i, latency_ms=(10.0 + 40 * i) * 1.1) for i in range(25)]
    one = compare(base, candidate).scenarios[0]
    assert one.ratio == pytest.approx(1.1)
    assert one.low is not None
    assert one.low <= 1
    assert one.verdict == "inconclusive"
