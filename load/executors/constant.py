"""An even rate: the open loop that most profiles use."""

import random
from collections.abc import Iterator
from typing import Literal, Self

from pydantic import PositiveFloat

from load.executors.shape import Offset, Shape, evenly


class Constant(Shape):
    """`rate_per_s` evenly spaced arrivals a second, the first at 0."""

    kind: Literal["constant"] = "constant"
    rate_per_s: PositiveFloat
    duration_s: PositiveFloat

    @property
    def peak_per_s(self) -> float:
        return self.rate_per_s

    def scaled(self, rate: float, time: float) -> Self:
        return self.model_copy(update={"rate_per_s": self.rate_per_s * rate, "duration_s": self.duration_s * time})

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        return evenly(self.rate_per_s, self.duration_s)
