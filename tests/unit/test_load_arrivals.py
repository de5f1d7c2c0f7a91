"""Load shapes give the intended times they say, with no clock involved."""

import random
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from load.arrivals import Stage, schedule, total_s
from load.executors.burst import Burst
from load.executors.constant import Constant
from load.executors.poisson import Poisson
from load.executors.ramp import Ramp
from load.executors.replay import Replay
from load.executors.spike import Spike
from load.executors.step import Step


def offsets(stage: Stage) -> list[float]:
    return [at_s for at_s, _ in stage.offsets(random.Random(1))]


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        pytest.param(Constant(rate_per_s=2, duration_s=2), [0, 0.5, 1.0, 1.5], id="constant"),
        pytest.param(Constant(rate_per_s=0.1, duration_s=2), [0], id="constant-sends-at-least-one"),
        pytest.param(Constant(rate_per_s=3, duration_s=1), [0, 1 / 3, 2 / 3], id="constant-no-fourth-by-rounding"),
        pytest.param(Ramp(from_per_s=2, to_per_s=2, duration_s=1), [0, 0.5], id="ramp-level"),
        # the integral of 2t is t^2: arrival i at sqrt(i)
        pytest.param(Ramp(from_per_s=0, to_per_s=4, duration_s=2), [0, 1, 2**0.5, 3**0.5], id="ramp-up"),
        # the integral of 4 - 2t is 4t - t^2: arrival i at 2 - sqrt(4 - i)
        pytest.param(Ramp(from_per_s=4, to_per_s=0, duration_s=2), [0, 2 - 3**0.5, 2 - 2**0.5, 1], id="ramp-down"),
        pytest.param(Step(start_per_s=1, step_per_s=1, steps=2, step_s=2), [0, 1, 2, 2.5, 3, 3.5], id="step"),
        pytest.param(
            Spike(base_per_s=1, peak_per_s=4, before_s=2, peak_s=0.5, after_s=1), [0, 1, 2, 2.25, 2.5], id="spike"
        ),
        pytest.param(Burst(size=2, every_s=3, repeats=2), [0, 0, 3, 3], id="burst"),
    ],
)
def test_intended_times(stage: Stage, expected: list[float]) -> None:
    assert offsets(stage) == pytest.approx(expected)


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(Constant(rate_per_s=37, duration_s=11), id="constant"),
        pytest.param(Ramp(from_per_s=1, to_per_s=90, duration_s=7), id="ramp-up"),
        pytest.param(Ramp(from_per_s=90, to_per_s=0, duration_s=7), id="ramp-down"),
        pytest.param(Step(start_per_s=50, step_per_s=-10, steps=4, step_s=3), id="step-down"),
        pytest.param(Spike(base_per_s=5, peak_per_s=70, before_s=3, peak_s=2, after_s=3), id="spike"),
        pytest.param(Burst(size=7, every_s=0.5, repeats=9), id="burst"),
        pytest.param(Poisson(rate_per_s=60, duration_s=9), id="poisson"),
    ],
)
def test_times_are_in_order_and_inside_the_stage(stage: Stage) -> None:
    times = offsets(stage)
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= stage.duration_s


def test_ramp_has_as_many_arrivals_as_the_area_under_it() -> None:
    assert len(offsets(Ramp(from_per_s=10, to_per_s=90, duration_s=20))) == 1000


def test_poisson_is_repeatable_and_near_its_rate() -> None:
    stages = [Poisson(rate_per_s=100, duration_s=100)]
    first = [arrival.at_s for arrival in schedule(stages, 7)]
    assert first == [arrival.at_s for arrival in schedule(stages, 7)]
    assert first != [arrival.at_s for arrival in schedule(stages, 8)]
    # 10,000 expected, standard deviation 100
    assert 9_500 < len(first) < 10_500


def test_poisson_gaps_are_exponential() -> None:
    times = offsets(Poisson(rate_per_s=50, duration_s=400))
    gaps = [b - a for a, b in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    # an exponential's standard deviation is its mean; evenly spaced arrivals would have 0
    assert variance**0.5 == pytest.approx(mean, rel=0.05)


def test_stages_follow_each_other_and_parts_are_named() -> None:
    stages: list[Stage] = [
        Constant(name="warm", rate_per_s=1, duration_s=2),
        Step(start_per_s=1, step_per_s=1, steps=2, step_s=1),
    ]
    arrivals = list(schedule(stages, 1))
    assert [arrival.index for arrival in arrivals] == [0, 1, 2, 3, 4]
    assert [arrival.at_s for arrival in arrivals] == pytest.approx([0, 1, 2, 3, 3.5])
    assert [arrival.stage for arrival in arrivals] == ["warm", "warm", "step@1/s", "step@2/s", "step@2/s"]
    assert total_s(stages) == 4


def test_a_changed_stage_leaves_the_draws_of_others_alone() -> None:
    tail = Poisson(rate_per_s=20, duration_s=5)
    one = [a.at_s for a in schedule([Poisson(rate_per_s=5, duration_s=5), tail], 3) if a.at_s >= 5]
    two = [a.at_s for a in schedule([Constant(rate_per_s=9, duration_s=5), tail], 3) if a.at_s >= 5]
    assert one == two


def test_two_equal_poisson_stages_do_not_repeat_each_other() -> None:
    one = Poisson(rate_per_s=20, duration_s=5)
    times = [arrival.at_s for arrival in schedule([one, one], 3)]
    assert [t for t in times if t < 5] != pytest.approx([t - 5 for t in times if t >= 5])


def test_replay_plays_a_log(tmp_path: Path) -> None:
    path = tmp_path / "times.txt"
    path.write_text('1795500001.5\n{"timestamp_ms": 1795500000000}\n\n1795500004\n')
    stage = Replay.model_validate({"path": str(path), "speed": 2})
    assert offsets(stage) == [0, 0.75, 2]
    assert stage.peak_per_s == 2
    assert offsets(stage.scaled(1, 2)) == [0, 1.5, 4]
    assert Replay.model_validate(stage.model_dump()) == stage, "the times travel with the plan"
    with pytest.raises(ValueError, match="own rate"):
        stage.scaled(2, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("yesterday\n", "line 1: 'yesterday' is no time", id="words"),
        pytest.param('1\n{"time": 3}\n', "line 2", id="json-without-a-time"),
        pytest.param("", "at least 1", id="empty"),
        pytest.param(None, "cannot read", id="no-file"),
    ],
)
def test_bad_replays_are_refused(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "times.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValidationError, match=says):
        Replay.model_validate({"path": str(path)})


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(Constant(rate_per_s=10, duration_s=10), id="constant"),
        pytest.param(Ramp(from_per_s=1, to_per_s=10, duration_s=10), id="ramp"),
        pytest.param(Step(start_per_s=2, step_per_s=4, steps=3, step_s=5), id="step"),
        pytest.param(Spike(base_per_s=2, peak_per_s=10, before_s=3, peak_s=3, after_s=3), id="spike"),
        pytest.param(Burst(size=10, every_s=1, repeats=5), id="burst"),
        pytest.param(Poisson(rate_per_s=10, duration_s=10), id="poisson"),
    ],
)
def test_scaling_moves_peak_and_length(stage: Stage) -> None:
    scaled = stage.scaled(3, 0.5)
    assert scaled.peak_per_s == pytest.approx(stage.peak_per_s * 3)
    assert scaled.duration_s == pytest.approx(stage.duration_s * 0.5)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        pytest.param({"kind": "constant", "rate_per_s": 0, "duration_s": 1}, "greater than 0", id="no-rate"),
        pytest.param(
            {"kind": "ramp", "from_per_s": 0, "to_per_s": 0, "duration_s": 1}, "sends nothing", id="flat-ramp"
        ),
        pytest.param(
            {"kind": "step", "start_per_s": 5, "step_per_s": -5, "steps": 2, "step_s": 1}, "above 0", id="step-to-zero"
        ),
        pytest.param(
            {"kind": "spike", "base_per_s": 5, "peak_per_s": 5, "before_s": 1, "peak_s": 1, "after_s": 1},
            "must be above its base",
            id="spike-that-is-none",
        ),
        pytest.param({"kind": "burst", "size": 0}, "greater than 0", id="empty-burst"),
        pytest.param(
            {"kind": "constant", "rate_per_s": 1, "duration_s": 1, "rps": 2}, "Extra inputs", id="unknown-key"
        ),
        pytest.param({"kind": "sine", "rate_per_s": 1}, "does not match any of the expected tags", id="unknown-kind"),
    ],
)
def test_bad_shapes_are_refused(document: dict[str, object], says: str) -> None:
    adapter: TypeAdapter[Stage] = TypeAdapter(Stage)
    with pytest.raises(ValidationError, match=says):
        adapter.validate_python(document)
