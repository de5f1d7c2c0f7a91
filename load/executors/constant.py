"""An even rate: the open loop that most profiles use."""

import random
from collections.abc import Iterator
from typing import Literal

from load.executors.shape import Offset, OfOneRate, evenly


class Constant(OfOneRate):
    """`rate_per_s` evenly spaced arrivals a second, the first at 0."""

    kind: Literal["constant"] = "constant"

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        return evenly(self.rate_per_s, self.duration_s)
