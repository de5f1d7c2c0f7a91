"""Unrelated callers."""

import random
from collections.abc import Iterator
from typing import Literal

from load.executors.shape import Offset, OfOneRate


class Poisson(OfOneRate):
    """Independent arrivals with exponential gaps, as unrelated callers would make. Repeatable by the plan's seed."""

    kind: Literal["poisson"] = "poisson"

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        at_s = rng.expovariate(self.rate_per_s)
        while at_s < self.duration_s:
            yield at_s, ""
            at_s += rng.expovariate(self.rate_per_s)
