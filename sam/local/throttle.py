"""Rates and quotas: the token bucket of API Gateway and of Lambda's scaling. Time is given; nothing is waited for."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


class TokenBucket:
    """Holds up to `burst` tokens and gains `rate_per_s`. `now` is a clock in seconds."""

    def __init__(self, rate_per_s: float, burst: float, now: Callable[[], float]) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._now = now
        self._tokens = burst
        self._since_s = now()

    def take(self) -> bool:
        """Take one token, if there is one."""
        now_s = self._now()
        self._tokens = min(self._burst, self._tokens + (now_s - self._since_s) * self._rate_per_s)
        self._since_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(frozen=True, slots=True)
class UsagePlan:
    """What a usage plan allows one API key; None is no limit. `quota_period` is DAY, WEEK or MONTH."""

    rate_per_s: float | None = None
    burst: float | None = None
    quota: int | None = None
    quota_period: str = "DAY"


UNLIMITED = UsagePlan()


class Meter:
    """One API key's use of its plan. `now` is a clock in seconds since the epoch."""

    def __init__(self, plan: UsagePlan, now: Callable[[], float]) -> None:
        self._plan = plan
        self._now = now
        self._bucket: TokenBucket | None = None
        if plan.rate_per_s is not None:
            self._bucket = TokenBucket(plan.rate_per_s, plan.burst or plan.rate_per_s, now)
        self._period = period_of(plan.quota_period, now())
        self._used = 0

    def refusal(self) -> str | None:
        """Count one request. None when it may pass, else API Gateway's message for the refusal."""
        period = period_of(self._plan.quota_period, self._now())
        if period != self._period:
            self._period, self._used = period, 0
        if self._plan.quota is not None and self._used >= self._plan.quota:
            return "Limit Exceeded"
        if self._bucket is not None and not self._bucket.take():
            return "Too Many Requests"
        self._used += 1
        return None


def period_of(kind: str, now_s: float) -> datetime:
    """The first moment, in UTC, of the day, week (from Sunday) or month that `now_s` lies in."""
    day = datetime.fromtimestamp(now_s, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if kind == "WEEK":
        return day - timedelta(days=(day.weekday() + 1) % 7)
    return day.replace(day=1) if kind == "MONTH" else day
