"""Closed-loop users: who starts when, what each asks, and how long each waits before asking again."""

from collections import Counter
from itertools import islice

import pytest
from pydantic import TypeAdapter, ValidationError

from load.arrivals import Stage
from load.executors.constant import Constant
from load.executors.users import Users
from load.users import User, users_of


def test_users_start_evenly_over_their_ramp_and_end_with_their_stage() -> None:
    first = Users(name="few", users=2, duration_s=10, think_s=0, ramp_s=4)
    later = Users(users=1, duration_s=5, think_s=2)
    assert users_of([first, Constant(rate_per_s=1, duration_s=3), later]) == [
        User(0, "few", 0.0, 10.0, 0.0),
        User(1, "few", 2.0, 10.0, 0.0),
        User(2, "users", 13.0, 18.0, 2.0),
    ]


def test_each_user_asks_in_the_plans_proportions_and_the_same_in_every_run() -> None:
    one, other = users_of([Users(users=2, duration_s=1)])
    scenarios, eras = {"print": 3, "numpy": 1}, {"2025-11-25": 1}
    asked = list(islice(one.questions(7, scenarios, eras), 40))
    assert Counter(name for name, _ in asked[:4]) == Counter(name for name, _ in asked[4:8]) == scenarios
    assert asked == list(islice(one.questions(7, scenarios, eras), 40))
    assert asked != list(islice(other.questions(7, scenarios, eras), 40))


@pytest.mark.parametrize(
    ("think_s", "refused", "pause_s"),
    [
        pytest.param(3, False, 3, id="thinks"),
        pytest.param(0, False, 0, id="asks-at-once"),
        pytest.param(0, True, 1, id="does-not-hammer-a-dead-endpoint"),
        pytest.param(3, True, 3, id="thinks-longer-anyway"),
    ],
)
def test_pause(think_s: float, refused: bool, pause_s: float) -> None:
    assert User(0, "users", 0, 10, think_s).pause_s(refused) == pause_s


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"users": 0}, id="nobody"),
        pytest.param({"think_s": -1}, id="negative-thought"),
        pytest.param({"ramp_s": 10}, id="the-last-would-start-at-the-end"),
    ],
)
def test_mistakes(other: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Stage).validate_python({"kind": "users", "users": 2, "duration_s": 10, **other})
