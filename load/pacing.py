"""Walks a schedule against a clock and launches each arrival when its time has come.

The clock, the sleep and the launch are given, so that the loop can be tested without time passing. It must never wait
for an answer: that would let a slow endpoint slow the load that is to measure it.
"""

from collections.abc import Callable, Iterable
from typing import Protocol


class Timed(Protocol):
    """Anything with an intended time, seconds from the start of the run."""

    @property
    def at_s(self) -> float: ...


def pace[T: Timed](
    arrivals: Iterable[T],
    *,
    now: Callable[[], float],
    sleep: Callable[[float], None],
    launch: Callable[[T], None],
) -> int:
    """Launches every arrival at its intended time, late ones at once; returns how many.

    `now` gives seconds since the start of the run. `launch` must only start the request. When the loop is behind it
    still sleeps for 0 s after each launch, so that requests already started get their turn and are not made late too.
    """
    launched = 0
    for arrival in arrivals:
        wait_s = arrival.at_s - now()
        if wait_s > 0:
            sleep(wait_s)
        launch(arrival)
        launched += 1
        if wait_s <= 0 and launched % 16 == 0:
            sleep(0)
    return launched
