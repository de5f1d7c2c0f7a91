"""What every load shape has: a name, and times as offsets from the start of its stage."""

import math
from collections.abc import Iterator
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

type Offset = tuple[float, str]
"""Seconds from the start of the stage, and the label of the part of the stage it belongs to ("" for the whole)."""


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(default="", description="Names the stage in reports and selectors; its kind when empty.")


class OfOneRate(Shape):
    """A shape whose mean rate is the same throughout."""

    rate_per_s: PositiveFloat
    duration_s: PositiveFloat

    @property
    def peak_per_s(self) -> float:
        return self.rate_per_s

    def scaled(self, rate: float, time: float) -> Self:
        return self.model_copy(update={"rate_per_s": self.rate_per_s * rate, "duration_s": self.duration_s * time})


def evenly(rate_per_s: float, duration_s: float) -> Iterator[Offset]:
    """Offsets of one constant rate, the first at 0."""
    for i in range(count(rate_per_s * duration_s)):
        yield i / rate_per_s, ""


def count(expected: float) -> int:
    """Whole arrivals in `expected`; at least one, and 2.9999999996 counts as 3."""
    return max(1, math.ceil(expected - 1e-6))
