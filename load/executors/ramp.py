"""A rate that climbs or falls without steps."""

import math
import random
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from load.executors.shape import Offset, Shape, count


class Ramp(Shape):
    """A rate that moves in a straight line from `from_per_s` to `to_per_s`.

    Arrival i is where the integral of the rate reaches i, so the ramp has no steps and no drift.
    """

    kind: Literal["ramp"] = "ramp"
    from_per_s: Annotated[float, Field(ge=0)]
    to_per_s: Annotated[float, Field(ge=0)]
    duration_s: PositiveFloat

    @model_validator(mode="after")
    def _moves(self) -> Self:
        if self.from_per_s == 0 and self.to_per_s == 0:
            raise ValueError("a ramp from 0/s to 0/s sends nothing; give from_per_s or to_per_s a rate")
        return self

    @property
    def peak_per_s(self) -> float:
        return max(self.from_per_s, self.to_per_s)

    def scaled(self, rate: float, time: float) -> Self:
        update = {"from_per_s": self.from_per_s * rate, "to_per_s": self.to_per_s * rate}
        return self.model_copy(update=update | {"duration_s": self.duration_s * time})

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        start, slope = self.from_per_s, (self.to_per_s - self.from_per_s) / self.duration_s
        total = (self.from_per_s + self.to_per_s) / 2 * self.duration_s
        for i in range(count(total)):
            if abs(slope) < 1e-12:
                yield i / start, ""
                continue
            # i = start*t + slope*t^2/2, solved for t; the clamp is for rounding at the very end of a falling ramp
            root = math.sqrt(max(0.0, start * start + 2 * slope * i))
            yield min(self.duration_s, (root - start) / slope), ""
