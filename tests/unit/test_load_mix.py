"""A profile made from call records has their proportions and times, and can be run."""

import json
from typing import Any

import pytest
import yaml

from load.mix import NoCalls, profile_of, read_calls
from load.plan import Plan, parse_plan


def record(tool: str = "execute_python", outcome: str = "ok", **other: Any) -> str:
    return json.dumps({"message": "tool call", "requestId": "r", "tool": tool, "outcome": outcome, **other})


def made(*messages: str, every_ms: int = 500, **other: Any) -> Plan:
    calls = read_calls([(1_795_500_000_000 + i * every_ms, message) for i, message in enumerate(messages)])
    return parse_plan(yaml.safe_load(profile_of(calls, "/aws/lambda/f", **other)), "made")


@pytest.mark.parametrize(
    ("message", "scenario"),
    [
        pytest.param(record("list_preinstalled_packages"), "packages", id="packages"),
        pytest.param(record("get_environment_info"), "info", id="info"),
        pytest.param(record(requirements=["rich"]), "install", id="install"),
        pytest.param(record(outcome="error", error_type="security"), "blocked", id="blocked"),
        pytest.param(record(outcome="error", error_type="timeout"), "timeout", id="timeout"),
        pytest.param(
            record(outcome="error", error_type="package", requirements=["x"]), "no-package", id="refused-package"
        ),
        pytest.param(record(outcome="error", error_type="memory"), "error", id="any-other-error"),
    ],
)
def test_what_a_record_stands_for(message: str, scenario: str) -> None:
    assert made(message).scenarios == {scenario: 1}


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("REPORT RequestId: r\tDuration: 3 ms", id="text"),
        pytest.param('{"type": "platform.report"}', id="another-record"),
        pytest.param('["tool call"]', id="no-object"),
        pytest.param(record("some_other_tool"), id="a-tool-that-is-not-ours"),
    ],
)
def test_other_events_are_passed_over_and_nothing_is_no_profile(message: str) -> None:
    assert read_calls([(1, message)]) == []
    with pytest.raises(NoCalls, match="holds no call records"):
        profile_of([], "/aws/lambda/f")


def test_plain_calls_are_spread_and_the_rest_keeps_its_share() -> None:
    plan = made(*[record()] * 6, *[record(outcome="error", error_type="security")] * 3)
    assert plan.scenarios == {"blocked": 9, "figure": 2, "numpy": 4, "pandas": 4, "print": 8}
    assert plan.request_timeout_s == 30


def test_a_rare_call_is_not_rounded_away() -> None:
    plan = made(*[record()] * 4999, record("get_environment_info"), every_ms=1)
    assert plan.scenarios["info"] == 1
    assert 990 <= sum(plan.scenarios.values()) <= 1010


def test_calls_come_when_they_came() -> None:
    events = [(5_000, record()), (1_000, record()), (2_500, record())]
    plan = parse_plan(yaml.safe_load(profile_of(read_calls(events), "g")), "made")
    assert [arrival.at_s for arrival, _, _ in plan.arrivals()] == [0, 1.5, 4]


def test_the_mean_rate_alone() -> None:
    stage = made(*[record()] * 100, poisson=True).stages[0]
    assert (stage.kind, stage.peak_per_s, stage.duration_s) == ("poisson", 2, 50)


def test_a_busy_time_is_kept_as_its_rate() -> None:
    assert made(*[record()] * 20_001, every_ms=1).stages[0].kind == "poisson"


def test_timeouts_are_given_time() -> None:
    assert made(record(outcome="error", error_type="timeout")).request_timeout_s == 60
