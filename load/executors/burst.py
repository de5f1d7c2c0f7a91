"""Many at one instant, to force cold starts."""

import random
from collections.abc import Iterator
from typing import Literal, Self

from pydantic import PositiveFloat, PositiveInt

from load.executors.shape import Offset, Shape


class Burst(Shape):
    """`size` arrivals at the same instant, `repeats` times, `every_s` seconds apart."""

    kind: Literal["burst"] = "burst"
    size: PositiveInt
    every_s: PositiveFloat = 1.0
    repeats: PositiveInt = 1

    @property
    def duration_s(self) -> float:
        return self.every_s * self.repeats

    @property
    def peak_per_s(self) -> float:
        return self.size / self.every_s

    def scaled(self, rate: float, time: float) -> Self:
        """The size follows the rate asked for once the spacing is stretched by `time`; at least one arrival stays."""
        size = max(1, round(self.size * rate * time))
        return self.model_copy(update={"size": size, "every_s": self.every_s * time})

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        for k in range(self.repeats):
            for _ in range(self.size):
                yield k * self.every_s, ""
