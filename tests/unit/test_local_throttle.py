"""Given a usage plan and a clock, these requests pass."""

from datetime import UTC, datetime

import pytest

from sam.local.throttle import Meter, TokenBucket, UsagePlan, period_of


class Clock:
    """Shows the time that it was set to."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def test_a_bucket_holds_its_burst_and_fills_at_its_rate():
    clock = Clock()
    bucket = TokenBucket(rate_per_s=10, burst=3, now=clock)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    clock.now_s = 0.1
    assert [bucket.take() for _ in range(2)] == [True, False]
    clock.now_s = 100
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_a_quota_ends_with_its_period_and_a_throttled_request_costs_none():
    clock = Clock(1_795_500_000.0)
    meter = Meter(UsagePlan(rate_per_s=1, burst=2, quota=3, quota_period="DAY"), clock)
    told = []
    for wait_s in (0, 0, 0, 1, 1, 24 * 3600):
        clock.now_s += wait_s
        told.append(meter.refusal())
    assert told == [None, None, "Too Many Requests", None, "Limit Exceeded", None]


def test_without_limits_everything_passes():
    meter = Meter(UsagePlan(), Clock())
    assert {meter.refusal() for _ in range(1000)} == {None}


@pytest.mark.parametrize(
    ("kind", "begins"),
    [
        pytest.param("DAY", datetime(2026, 11, 24, tzinfo=UTC), id="day"),
        pytest.param("WEEK", datetime(2026, 11, 22, tzinfo=UTC), id="week-from-sunday"),
        pytest.param("MONTH", datetime(2026, 11, 1, tzinfo=UTC), id="month"),
    ],
)
def test_a_period_begins_in_utc(kind: str, begins: datetime):
    assert period_of(kind, datetime(2026, 11, 24, 15, 30, tzinfo=UTC).timestamp()) == begins
