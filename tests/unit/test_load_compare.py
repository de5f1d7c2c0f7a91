"""Comparison: an unchanged system is not called slower, a slower one is, and too little data is called neither."""

from typing import Any

import numpy as np
import pytest
from load_rows import record, row, rows

from load.ab import BASE, CANDIDATE, rounds_of
from load.compare import compare, why_unfit
from load.plan import load_plan
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


type Rounds = list[tuple[list[Row], list[Row]]]


def turns(
    rng: np.random.Generator, drift: float, factor: float = 1.0, rounds: int = 8, names: tuple[str, ...] = ("print",)
) -> Rounds:
    """A thousand calls of each scenario a side, in turns as `load ab` takes them, on an endpoint whose speed walks at
    random: `drift` is the standard deviation of each step, from one run to the next."""
    found: Rounds = []
    speed, order = 0.0, ("base", "candidate")
    for number in range(rounds):
        order = order[::-1] if number % 2 == 1 or rng.random() < 0.5 else order
        sides: dict[str, list[Row]] = {}
        for side in order:
            speed += rng.normal(0, drift)
            slower = float(np.exp(speed)) * (factor if side == "candidate" else 1.0)
            sides[side] = [one for name in names for one in run(rng, 1000 // rounds, slower, name)]
        found.append((sides["base"], sides["candidate"]))
    return found


def share_in_turns(verdicts: set[str], *, paired: bool = True, trials: int = 60, **of: Any) -> float:
    rng = np.random.default_rng(20261124)
    hits = 0
    for _ in range(trials):
        rounds = turns(rng, **of)
        base, candidate = ([row for one in rounds for row in one[side]] for side in (0, 1))
        hits += compare(base, candidate, rounds=rounds if paired else ()).verdict in verdicts
    return hits / trials


def test_an_endpoint_that_drifts_is_not_called_different_from_itself() -> None:
    """With the calls resampled as if there were no rounds, it is."""
    of = {"verdicts": {"slower", "faster"}, "drift": 0.08, "rounds": 4}
    assert share_in_turns(**of) <= 0.05
    assert share_in_turns(**of, paired=False) >= 0.15


def test_ten_percent_slower_is_seen_through_the_drift() -> None:
    assert share_in_turns({"slower"}, drift=0.03, factor=1.10) >= 0.80


def test_five_scenarios_give_no_five_chances_of_a_false_alarm() -> None:
    assert share_in_turns({"slower", "faster"}, drift=0.03, names=("a", "b", "c", "d", "e"), trials=25) <= 0.05


def test_rounds_too_few_to_show_their_spread_are_judged_by_calls_and_it_is_said() -> None:
    rounds = turns(np.random.default_rng(1), 0.0, rounds=3)
    base, candidate = ([row for one in rounds for row in one[side]] for side in (0, 1))
    assert {one.rounds for one in compare(base, candidate, rounds=rounds).scenarios} == {0}
    assert compare(base, candidate, rounds=rounds) == compare(base, candidate)


def test_a_population_that_rounds_are_too_short_for_is_inconclusive_whatever_its_calls_say() -> None:
    """Ten cold starts twice as slow in each of two rounds; the other six rounds saw none."""
    rng = np.random.default_rng(1)
    rounds = turns(rng, 0.0)
    for number in (0, 5):
        rounds[number][0].extend(row(i, latency_ms=800.0 + i, cold=True) for i in range(10))
        rounds[number][1].extend(row(i, latency_ms=1600.0 + i, cold=True) for i in range(10))
    warm_only = [([r for r in a if not r.cold], [r for r in b if not r.cold]) for a, b in turns(rng, 0.0)]
    rounds = [rounds[n] if n in (0, 5) else warm_only[n] for n in range(8)]
    base, candidate = ([row for one in rounds for row in one[side]] for side in (0, 1))
    cold = next(one for one in compare(base, candidate, rounds=rounds).overall if one.temperature == "cold")
    assert (cold.verdict, cold.reason) == (
        "inconclusive",
        "2 rounds have 3 good answers on both sides; 4 such rounds are needed",
    )
    assert compare(base, candidate).verdict == "slower"


def test_rounds_come_in_pairs_that_mirror_each_other() -> None:
    plan = load_plan("smoke")
    orders = set()
    for seed in range(20):
        sides = [side for side, _, _ in rounds_of(plan.model_copy(update={"seed": seed}), 4)]
        assert sides[:4] in ([BASE, CANDIDATE, CANDIDATE, BASE], [CANDIDATE, BASE, BASE, CANDIDATE])
        assert sides[4:] in ([BASE, CANDIDATE, CANDIDATE, BASE], [CANDIDATE, BASE, BASE, CANDIDATE])
        orders.add(tuple(sides))
    assert len(orders) == 4, "the order is drawn"
    shares = {number: share for _, number, share in rounds_of(plan, 4)}
    assert len({share.seed for share in shares.values()}) == 4
    assert sum(share.duration_s for share in shares.values()) == pytest.approx(plan.duration_s)


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


@pytest.mark.parametrize(
    ("base", "candidate", "verdict"),
    [
        pytest.param(0, 0, "same", id="none"),
        pytest.param(5, 5, "same", id="as-many"),
        pytest.param(2, 8, "same", id="by-chance"),
        pytest.param(0, 60, "inconclusive", id="the-candidate"),
        pytest.param(60, 0, "inconclusive", id="the-base"),
    ],
)
def test_good_answers_alone_do_not_compare_a_side_that_fails(base: int, candidate: int, verdict: str) -> None:
    """Otherwise an endpoint that fails a third of its calls is as fast as ever."""
    sides = [
        [row(i, outcome="http_error", status=500) if i < n else row(i) for i in range(200)] for n in (base, candidate)
    ]
    report = compare(*sides)
    assert (report.verdict, report.exit_code == 0) == (verdict, verdict == "same")
    assert (report.base_failed, report.candidate_failed, report.base_requests) == (base, candidate, 200)
    assert verdict == "same" or f"{candidate} of 200 requests of the candidate failed" in report.reason


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
