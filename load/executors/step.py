"""A staircase of rates, to find the knee."""

import random
from collections.abc import Iterator
from typing import Literal, Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from load.executors.shape import Offset, Shape, evenly


class Step(Shape):
    """A staircase: `steps` plateaus of `step_s` seconds each, to find the knee. Every plateau is a stage of its own."""

    kind: Literal["step"] = "step"
    start_per_s: PositiveFloat
    step_per_s: float
    steps: PositiveInt
    step_s: PositiveFloat

    @model_validator(mode="after")
    def _stays_above_zero(self) -> Self:
        last = self.start_per_s + self.step_per_s * (self.steps - 1)
        if last <= 0:
            raise ValueError(f"the last of {self.steps} steps would run at {last:g}/s; every step needs a rate above 0")
        return self

    @property
    def duration_s(self) -> float:
        return self.step_s * self.steps

    @property
    def peak_per_s(self) -> float:
        return max(self.start_per_s, self.start_per_s + self.step_per_s * (self.steps - 1))

    def scaled(self, rate: float, time: float) -> Self:
        update = {"start_per_s": self.start_per_s * rate, "step_per_s": self.step_per_s * rate}
        return self.model_copy(update=update | {"step_s": self.step_s * time})

    def plateaus(self) -> Iterator[tuple[float, str]]:
        """Each one's rate, and the label of its arrivals."""
        for k in range(self.steps):
            rate = self.start_per_s + self.step_per_s * k
            yield rate, f"{rate:g}/s"

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        for k, (rate, label) in enumerate(self.plateaus()):
            for at_s, _ in evenly(rate, self.step_s):
                yield k * self.step_s + at_s, label
