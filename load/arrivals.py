"""When requests are meant to be sent: the arrivals of a plan's stages, one after another.

Pure arithmetic, as the shapes in `executors` are. It must not read a clock, sleep, or import gevent: `locustfile` does
the sending, and latency is measured from the times made here, so a slow server cannot slow the schedule that judges it.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from load.executors.burst import Burst
from load.executors.constant import Constant
from load.executors.poisson import Poisson
from load.executors.ramp import Ramp
from load.executors.replay import Replay
from load.executors.spike import Spike
from load.executors.step import Step
from load.executors.users import Users

type Stage = Annotated[Constant | Ramp | Step | Spike | Burst | Poisson | Replay | Users, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One intended request. `at_s` counts from the start of the run; `stage` is the stage's name, or `name@part`."""

    index: int
    at_s: float
    stage: str


def schedule(stages: Sequence[Stage], seed: int) -> Iterator[Arrival]:
    """Every arrival of the stages one after another, in order of intended time.

    The same stages and seed give the same arrivals in every process, so that workers can each take their share of one
    schedule by index. Each stage draws from a generator of its own: changing one stage leaves the others' times alone.
    """
    index, start_s = 0, 0.0
    for position, stage in enumerate(stages):
        name = stage.name or stage.kind
        for at_s, part in stage.offsets(random.Random(f"{seed}/{position}")):
            yield Arrival(index, start_s + at_s, f"{name}@{part}" if part else name)
            index += 1
        start_s += stage.duration_s


def total_s(stages: Sequence[Stage]) -> float:
    """Seconds from the first stage's start to the last one's end."""
    return sum(stage.duration_s for stage in stages)
