"""Given a few measured sizes, the model predicts the rest; judged on public power-tuning curves and on made ones."""

import base64
import itertools
from pathlib import Path

import numpy as np
import pytest

from ops import memory_model
from ops.failures import Inconclusive
from ops.memory_model import Estimate, Model, Pricing, choose, estimates, fit, fit_from_cpu, sizes_to_measure

CURVES = Path(__file__).parents[1] / "data" / "power-tuning-curves.txt"
FREE = Pricing(gateway="none")


def curves():
    """{name: {size in MB: mean ms}} of the public curves, those with five sizes or more."""
    found = {}
    for line in CURVES.read_text().splitlines():
        name, hashed = line.split()
        sizes, times = (base64.b64decode(part + "=" * (-len(part) % 4)) for part in hashed[1:].split(";"))
        curve = dict(zip(np.frombuffer(sizes, "<i2").tolist(), np.frombuffer(times, "<f4").tolist(), strict=True))
        if len(curve) >= 5:
            found[name] = curve
    return found


def is_monotone(curve):
    """Never more than 10 % slower with more memory."""
    times = list(curve.values())
    return all(later <= 1.1 * earlier for earlier, later in itertools.pairwise(times))


def duration_cost(curve, size):
    return curve[size] * size


def as_options(times):
    return [Estimate(s, 1, t, t, t, t, t * s) for s, t in times.items()]


def test_three_sizes_predict_the_others_of_monotone_public_curves():
    errors = []
    for curve in filter(is_monotone, curves().values()):
        measured = sizes_to_measure(list(curve))
        model = fit({size: curve[size] for size in measured})
        errors += [abs(model.duration_ms(s) - t) / t for s, t in curve.items() if s not in measured]
    assert len(errors) >= 50
    assert np.median(errors) <= 0.065


def test_the_confirmed_choice_costs_at_most_3_percent_more_than_the_best():
    regrets = []
    for curve in curves().values():
        measured = sizes_to_measure(list(curve))
        model = fit({size: curve[size] for size in measured})
        known = {s: curve[s] if s in measured else model.duration_ms(s) for s in curve}
        confirmed = {*measured, choose(as_options(known)).memory_mb}
        chosen = choose(as_options({s: curve[s] for s in confirmed})).memory_mb
        regrets.append(duration_cost(curve, chosen) / min(duration_cost(curve, s) for s in curve) - 1)
    assert np.mean(regrets) <= 0.03


@pytest.mark.parametrize(
    ("wait", "work"),
    [
        pytest.param(0.0, 2e5, id="cpu-bound"),
        pytest.param(80.0, 0.0, id="wait-bound"),
        pytest.param(30.0, 1e5, id="mixed"),
    ],
)
def test_a_curve_of_the_models_own_shape_is_found_exactly(wait, work):
    truth = Model(wait, work)
    found = fit({size: truth.duration_ms(size) for size in (128, 256, 3008)})
    assert (found.wait_ms, found.work_ms_mb) == pytest.approx((wait, work), abs=1e-6, rel=1e-6)


def test_past_one_core_more_memory_changes_nothing():
    model = Model(10, 1e5)
    assert model.duration_ms(1769) == model.duration_ms(10240)


def test_one_size_with_cpu_time_is_enough_for_code_that_computes_or_waits():
    truth = Model(40, 300 * 1769)  # 300 ms of CPU, 40 ms of waiting
    assert fit_from_cpu(truth.duration_ms(512), 300, 512) == pytest.approx(truth)


def estimate(size, mean, dollars, p95=None):
    return Estimate(size, 10, mean, mean, mean, p95 or mean, dollars)


OPTIONS = [estimate(128, 1000, 2.0), estimate(512, 300, 1.5), estimate(1024, 200, 2.5), estimate(2048, 198, 5.0)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param({"strategy": "cost"}, 512, id="cost"),
        pytest.param({"strategy": "speed"}, 1024, id="speed-takes-the-smaller-of-equals"),
        pytest.param({"strategy": "balanced"}, 512, id="balanced"),
        pytest.param({"strategy": "balanced", "weight": 0.0}, 2048, id="balanced-for-speed"),
        pytest.param({"strategy": "balanced", "weight": 1.0}, 512, id="balanced-for-cost"),
        pytest.param({"strategy": "cost", "p95_below_ms": 250.0}, 1024, id="constraint"),
    ],
)
def test_strategies(arguments, expected):
    assert choose(OPTIONS, **arguments).memory_mb == expected


def test_a_constraint_that_no_size_keeps_is_told_with_the_best_there_is():
    with pytest.raises(Inconclusive, match="best is 2048 MB with 198 ms"):
        choose(OPTIONS, p95_below_ms=100.0)


def noisy(mean, n=10, seed=0):
    return np.random.default_rng(seed).normal(mean, mean * 0.05, n)


def test_measured_sizes_keep_their_own_figures_and_the_others_are_predicted_with_an_interval():
    truth = Model(30, 1e5)
    samples = {s: noisy(truth.duration_ms(s), seed=s) for s in (128, 256, 3008)}
    made = {e.memory_mb: e for e in estimates(samples, memory_model.DEFAULT_SIZES, FREE)}
    assert made[128].mean_ms == pytest.approx(samples[128].mean())
    assert made[128].measured == 10
    assert made[1024].measured == 0
    assert made[1024].low_ms < truth.duration_ms(1024) < made[1024].high_ms


def test_payloads_that_differ_do_not_hide_what_memory_does():
    light, heavy = Model(10, 2e4), Model(100, 2e5)
    samples = {
        s: np.concatenate([noisy(m.duration_ms(s), seed=s + k) for k, m in enumerate((light, heavy))])
        for s in (1024, 1769)
    }
    names = {s: ["light"] * 10 + ["heavy"] * 10 for s in samples}
    assert memory_model.memory_matters(estimates(samples, (), FREE, names))
    assert not memory_model.memory_matters(estimates(samples, (), FREE))
    once = {s: ["heavy"] * 19 + ["light"] for s in samples}  # one of a payload tells nothing of its spread
    assert estimates(samples, (), FREE, once) == estimates(samples, (), FREE)


@pytest.mark.parametrize(
    ("truth", "cheapest"),
    [
        pytest.param(Model(0, 3e5), 1536, id="cpu-bound-costs-the-same-below-one-core"),
        pytest.param(Model(100, 1), 128, id="wait-bound"),
        pytest.param(Model(100, 3e4), 128, id="between"),
    ],
)
def test_the_known_optimum_is_chosen(truth, cheapest):
    samples = {s: np.full(10, truth.duration_ms(s)) for s in (128, 256, 3008)}
    assert choose(estimates(samples, memory_model.DEFAULT_SIZES, FREE)).memory_mb == cheapest


def test_flat_measurements_are_called_flat():
    flat = {s: noisy(100, seed=s) for s in (128, 256, 3008)}
    steep = {s: noisy(Model(0, 1e5).duration_ms(s), seed=s) for s in (128, 256, 3008)}
    assert not memory_model.memory_matters(estimates(flat, (512,), FREE))
    assert memory_model.memory_matters(estimates(steep, (512,), FREE))


def test_cold_starts_are_paid_by_their_share():
    pays = Pricing(gateway="none", cold_share=0.1, init_ms={512: 1000.0})
    difference = pays.dollars(100, 512) - FREE.dollars(100, 512)
    assert difference == pytest.approx(0.1 * 0.5 * 0.0000166667)


def test_the_link_is_the_one_power_tuning_makes():
    link = memory_model.visualization_link([estimate(128, 2.5, 0.5), estimate(1024, 1.5, 0.25)])
    sizes, times, dollars = (base64.b64decode(p) for p in link.partition("#")[2].split(";"))
    assert np.frombuffer(sizes, "<i2").tolist() == [128, 1024]
    assert np.frombuffer(times, "<f4").tolist() == [2.5, 1.5]
    assert np.frombuffer(dollars, "<f4").tolist() == [0.5, 0.25]
