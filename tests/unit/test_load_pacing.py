"""The dispatch loop keeps to the schedule, catches up when late, and waits for no answer."""

from dataclasses import dataclass, field

import pytest

from load.pacing import pace


@dataclass(frozen=True)
class At:
    at_s: float


@dataclass
class Clock:
    """Time that passes only by sleeping, or by what a launch is said to cost."""

    time_s: float = 0.0
    launch_costs_s: float = 0.0
    launched: list[tuple[float, float]] = field(default_factory=list)
    naps: int = 0

    def now(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.time_s += seconds
        self.naps += seconds == 0

    def launch(self, arrival: At) -> None:
        self.launched.append((arrival.at_s, self.time_s))
        self.time_s += self.launch_costs_s


def run(clock: Clock, times: list[float]) -> int:
    return pace([At(t) for t in times], now=clock.now, sleep=clock.sleep, launch=clock.launch)


def test_each_arrival_leaves_at_its_time() -> None:
    clock = Clock()
    assert run(clock, [0.5, 1.0, 1.0, 4.0]) == 4
    assert clock.launched == [(0.5, 0.5), (1.0, 1.0), (1.0, 1.0), (4.0, 4.0)]


def test_late_arrivals_are_sent_at_once_and_none_is_skipped() -> None:
    clock = Clock(time_s=2.0)
    run(clock, [0.5, 1.0, 1.5, 3.0])
    assert clock.launched == [(0.5, 2.0), (1.0, 2.0), (1.5, 2.0), (3.0, 3.0)]


def test_a_slow_generator_shows_as_lag_and_not_as_a_lower_rate() -> None:
    clock = Clock(launch_costs_s=0.02)
    run(clock, [i * 0.01 for i in range(100)])
    intended, sent = clock.launched[-1]
    assert len(clock.launched) == 100
    assert sent - intended == pytest.approx(0.99)


def test_a_loop_that_is_behind_lets_requests_run() -> None:
    clock = Clock(time_s=10.0)
    run(clock, [0.0] * 64)
    assert clock.naps == 4
