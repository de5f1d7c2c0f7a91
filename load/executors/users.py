"""Closed-loop users: no schedule, each waits for its answer."""

import random
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from load.executors.shape import Offset, Shape


class Users(Shape):
    """`users` who each wait for an answer and think `think_s` before the next question: a closed loop, no schedule.

    They start evenly over the first `ramp_s`. What each of them does is in `users`.
    """

    kind: Literal["users"] = "users"
    users: PositiveInt
    duration_s: PositiveFloat
    think_s: Annotated[float, Field(ge=0)] = 1.0
    ramp_s: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _all_start(self) -> Self:
        if self.ramp_s >= self.duration_s:
            raise ValueError(f"the last user would start at {self.ramp_s:g} s, when the stage is over")
        return self

    @property
    def peak_per_s(self) -> float:
        """None that can be known: users make their own rate."""
        return 0.0

    def scaled(self, rate: float, time: float) -> Self:
        """Only by time. Raises ValueError."""
        if rate != 1:
            raise ValueError("users make their own rate; set users and think_s")
        return self.model_copy(update={"duration_s": self.duration_s * time, "ramp_s": self.ramp_s * time})

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        return iter(())
