"""Profiles and thresholds in the repository are sound; mistakes in one's own are one sentence."""

from collections import Counter
from pathlib import Path

import pytest
from load_rows import plan

from load.abort import tallies
from load.gate import check_lines
from load.plan import PlanError, load_plan, parse_plan, profile_names


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_loads_and_can_be_judged(name: str) -> None:
    found = load_plan(name)
    assert 0 < found.expected() <= found.budget.requests
    assert found.estimated_dollars(found.expected()) <= found.budget.dollars
    assert len(found.thresholds) > 1
    check_lines(found)
    tallies(found.abort)


def test_the_mix_holds_exactly_in_every_deck() -> None:
    drawn = [scenario for _, scenario, _ in plan(scenarios={"print": 3, "numpy": 2}).arrivals()]
    assert Counter(drawn[:5]) == Counter(drawn[5:10]) == {"print": 3, "numpy": 2}
    assert drawn[:5] != drawn[5:10] or drawn[5:10] != drawn[10:15]


def test_the_same_seed_sends_the_same() -> None:
    mixed = {"scenarios": {"print": 3, "numpy": 2}}
    assert list(plan(**mixed).arrivals()) == list(plan(**mixed).arrivals())
    assert list(plan(**mixed).arrivals()) != list(plan(**mixed, seed=2).arrivals())


USERS = {"kind": "users", "users": 4, "think_s": 1.5, "duration_s": 20}


def test_a_plan_with_users_is_budgeted_by_what_they_manage() -> None:
    """Four users, each 20 s of half a second's answer and 1.5 s of thought: forty requests beside the schedule."""
    mixed = plan(stages=[USERS, {"kind": "burst", "size": 3}])
    assert (mixed.planned(), mixed.expected(), mixed.closed_loop) == (3, 43, True)
    assert not plan().closed_loop


def test_users_make_their_own_rate() -> None:
    for stages in ([USERS], [USERS, {"kind": "burst", "size": 3}]):
        with pytest.raises(PlanError, match="users make their own rate"):
            plan(stages=stages).scaled(rate_per_s=5)
        assert plan(stages=stages).scaled(duration_s=5).duration_s == pytest.approx(5)


def test_more_users_than_connections_are_refused() -> None:
    with pytest.raises(PlanError, match="raise max_in_flight above 3"):
        plan(stages=[USERS], max_in_flight=3)


def test_scaling_keeps_the_shape() -> None:
    spike = load_plan("spike").scaled(rate_per_s=20, duration_s=9)
    assert spike.duration_s == pytest.approx(9)
    assert max(stage.peak_per_s for stage in spike.stages) == pytest.approx(20)


def test_own_profile_file_and_own_thresholds(tmp_path: Path) -> None:
    profile, thresholds = tmp_path / "mine.yaml", tmp_path / "thresholds.yaml"
    stages = "stages: [{kind: burst, size: 3}]\nscenarios: {print: 1}\neras: {'2025-11-25': 1}\n"
    profile.write_text(stages + "thresholds: ['count(errors) == 0']\n")
    thresholds.write_text("every: ['count(requests) > 0']\nmine: ['p50(latency) < 1s']\nsmoke: ['max(latency) < 1s']\n")
    found = load_plan(str(profile), thresholds)
    assert found.thresholds == ["count(errors) == 0", "count(requests) > 0", "p50(latency) < 1s"]
    assert found.planned() == 3


BURST = "stages: [{kind: burst, size: 1}]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("[1, 2]", "must hold a mapping", id="a-list"),
        pytest.param("stages: {", "is not YAML: .* in line 1", id="broken-yaml"),
        pytest.param("scenarios: {print: 1}\neras: {'2025-11-25': 1}", "stages: Field required", id="no-stages"),
        pytest.param("stages: [{kind: constant, rate_per_s: .inf, duration_s: 1}]", "finite", id="endless-rate"),
        pytest.param(
            BURST.replace("1", "10000000001") + "scenarios: {print: 1}\neras: {'2025-11-25': 1}",
            "1e.10 requests are more",
            id="more-than-a-disk-holds",
        ),
        pytest.param(BURST + "scenarios: {prnt: 1}\neras: {'2025-11-25': 1}", "no scenario 'prnt'", id="scenario"),
        pytest.param(BURST + "scenarios: {print: 1}\neras: {2025: 1}", "eras", id="era-is-a-number"),
        pytest.param(BURST + "scenarios: {print: 1}\neras: {'2020-01-01': 1}", "no era", id="unknown-era"),
        pytest.param(BURST + "scenarios: {print: 0}\neras: {'2025-11-25': 1}", "greater than 0", id="zero-weight"),
        pytest.param(BURST + "scenarios: {print: 1}\neras: {'2025-11-25': 1}\nrps: 3", "rps", id="unknown-key"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(PlanError, match=says) as caught:
        load_plan(str(path))
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match=r"mine.yaml is not text"):
        load_plan(str(path))


def test_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(PlanError, match=r"smok.*breakpoint, coldburst"):
        load_plan("smok")


def test_a_plan_survives_its_own_json() -> None:
    first = load_plan("spike")
    assert parse_plan(first.model_dump(mode="json"), "again") == first
