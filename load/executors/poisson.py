"""Unrelated callers."""

import random
from collections.abc import Iterator
from typing import Literal, Self

from pydantic import PositiveFloat

from load.executors.shape import Offset, Shape


class Poisson(Shape):
    """Independent arrivals with exponential gaps, as unrelated callers would make. Repeatable by the plan's seed."""

    kind: Literal["poisson"] = "poisson"
    rate_per_s: PositiveFloat
    duration_s: PositiveFloat

    @property
    def peak_per_s(self) -> float:
        return self.rate_per_s

    def scaled(self, rate: float, time: float) -> Self:
        return self.model_copy(update={"rate_per_s": self.rate_per_s * rate, "duration_s": self.duration_s * time})

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        at_s = rng.expovariate(self.rate_per_s)
        while at_s < self.duration_s:
            yield at_s, ""
            at_s += rng.expovariate(self.rate_per_s)
