"""Tells, while a run goes on, that it has failed already; counts as rows come and keeps none of them.

k6's abortOnFail with its delay. It stops nothing itself, and is slow to be sure: what is looked at again and again
shows an exceedance by chance sooner or later, so one has to be past three standard deviations, and one more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from load.gate import Threshold, ThresholdError, exceedance, parse_threshold
from load.plan import Abort
from load.rows import Row

LEAST: Final = 20
"""Answers before a share of them can stop a run."""


@dataclass(slots=True)
class Tally:
    """How many of a threshold's population there were, and how many were past its limit."""

    text: str
    is_past: Callable[[Row], bool | None]
    share: float | None  # that may be past the limit; None: `most` of them, however many there are
    most: float
    n: int = 0
    past: int = 0

    def see(self, row: Row) -> None:
        past = self.is_past(row)
        if past is not None:
            self.n += 1
            self.past += past

    @property
    def failed(self) -> bool:
        if self.share is None:
            return self.past > self.most
        expected = self.share * self.n
        return self.n >= LEAST and self.past > expected + 3 * (expected * (1 - self.share)) ** 0.5 + 1


def tallies(abort: Abort | None) -> list[Tally]:
    """One for each threshold of the plan's abort. Raises ThresholdError for one that later rows may still mend."""
    if abort is None:
        return []
    lines = list(abort.thresholds)
    if abort.error_share is not None:
        lines.append(f"rate(errors) <= {abort.error_share * 100:g}%")
    return [_tally(parse_threshold(line)) for line in lines]


def why_stop(counted: Sequence[Tally]) -> str:
    """The first threshold that has failed for good, as a sentence; empty while none has."""
    one = next((tally for tally in counted if tally.failed), None)
    if one is None:
        return ""
    return f"stopped early by the plan's abort: {one.text} failed, {one.past} of {one.n} were past it"


def _tally(threshold: Threshold) -> Tally:
    is_past = exceedance(threshold)
    if threshold.metric == "environments":
        raise _mendable(threshold)
    if threshold.aggregate == "count" and threshold.operator in ("<", "<=", "=="):
        most = threshold.limit - 1 if threshold.operator == "<" else threshold.limit
        return Tally(threshold.text, lambda row: True if is_past(row) else None, None, most)
    if threshold.operator not in ("<", "<="):
        raise _mendable(threshold)
    if threshold.aggregate == "max":
        return Tally(threshold.text, is_past, None, 0)
    if threshold.aggregate == "rate":
        return Tally(threshold.text, is_past, threshold.limit, 0)
    if threshold.quantile is not None:
        return Tally(threshold.text, is_past, 1 - threshold.quantile, 0)
    raise _mendable(threshold)


def _mendable(threshold: Threshold) -> ThresholdError:
    return ThresholdError(
        f"abort threshold {threshold.text!r}: what comes later may mend it; use pNN or max of a time below a limit, a "
        f"rate below one, or a count that must not be passed"
    )
