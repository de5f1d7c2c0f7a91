"""A sudden peak over a base, and the recovery."""

import random
from collections.abc import Iterator
from typing import Literal, Self

from pydantic import PositiveFloat, model_validator

from load.executors.shape import Offset, Shape, evenly


class Spike(Shape):
    """A base rate, a sudden peak, and the base rate again to watch the recovery."""

    kind: Literal["spike"] = "spike"
    base_per_s: PositiveFloat
    peak_per_s: PositiveFloat
    before_s: PositiveFloat
    peak_s: PositiveFloat
    after_s: PositiveFloat

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.peak_per_s <= self.base_per_s:
            raise ValueError(f"a spike's peak ({self.peak_per_s:g}/s) must be above its base ({self.base_per_s:g}/s)")
        return self

    @property
    def duration_s(self) -> float:
        return self.before_s + self.peak_s + self.after_s

    def scaled(self, rate: float, time: float) -> Self:
        update = {"base_per_s": self.base_per_s * rate, "peak_per_s": self.peak_per_s * rate}
        spans = {"before_s": self.before_s * time, "peak_s": self.peak_s * time, "after_s": self.after_s * time}
        return self.model_copy(update=update | spans)

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        start = 0.0
        parts = (
            (self.base_per_s, self.before_s, "before"),
            (self.peak_per_s, self.peak_s, "peak"),
            (self.base_per_s, self.after_s, "after"),
        )
        for rate, span_s, label in parts:
            for at_s, _ in evenly(rate, span_s):
                yield start + at_s, label
            start += span_s
