"""Closed-loop users: each sends, waits for the answer, thinks, and sends again until its stage is over.

What a person or an agent at work does, and no measure of a stalled endpoint: users who wait send nothing, so a stall
also holds back the load that would show it. Pure bookkeeping: it must not read a clock or send.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from load.arrivals import Stage
from load.decks import deck
from load.executors.users import Users

AFTER_REFUSED_S = 1.0
"""How long a user waits, at least, after a connection that failed: without it a dead endpoint is dialled in a loop."""


@dataclass(frozen=True, slots=True)
class User:
    """One user of a stage. Times in seconds from the start of the run."""

    number: int
    stage: str
    start_s: float
    end_s: float
    think_s: float

    def pause_s(self, refused: bool) -> float:
        """From an answer to the next request."""
        return max(self.think_s, AFTER_REFUSED_S) if refused else self.think_s

    def questions(self, seed: int, scenarios: Mapping[str, int], eras: Mapping[str, int]) -> Iterator[tuple[str, str]]:
        """Endless scenarios and eras in the plan's proportions, for this user the same in every run of a seed."""
        asked = deck(scenarios, random.Random(f"{seed}/user {self.number}/scenarios"))
        spoken = deck(eras, random.Random(f"{seed}/user {self.number}/eras"))
        return zip(asked, spoken, strict=False)


def users_of(stages: Sequence[Stage]) -> list[User]:
    """Every user of a plan, numbered through its stages; those of one stage start evenly over its `ramp_s`."""
    found: list[User] = []
    start_s = 0.0
    for stage in stages:
        end_s = start_s + stage.duration_s
        if isinstance(stage, Users):
            for i in range(stage.users):
                first_s = start_s + stage.ramp_s * i / stage.users
                found.append(User(len(found), stage.name or stage.kind, first_s, end_s, stage.think_s))
        start_s = end_s
    return found
