"""How far a run has come: what one process has done so far, what several have together, and the line that tells it.

It counts and prints; whether a run goes on is `abort`'s to say.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts since the run began, of one process or of several together."""

    dispatched: int = 0
    by_users: int = 0  # of those, the ones of closed-loop users, who have no schedule
    open: int = 0
    ok: int = 0
    not_ok: int = 0
    cold: int = 0
    tallies: tuple[tuple[int, int], ...] = ()  # for each threshold of the plan's abort: how many, and how many past it


def read_progress(data: Mapping[str, Any]) -> Progress:
    """A worker's message as it was sent, whose tuples have become lists on the way."""
    return Progress(**{**data, "tallies": tuple((n, past) for n, past in data["tallies"])})


def together(shares: Iterable[Progress]) -> Progress:
    """The sum of what several workers have done."""
    shares = list(shares)
    return Progress(
        dispatched=sum(one.dispatched for one in shares),
        by_users=sum(one.by_users for one in shares),
        open=sum(one.open for one in shares),
        ok=sum(one.ok for one in shares),
        not_ok=sum(one.not_ok for one in shares),
        cold=sum(one.cold for one in shares),
        tallies=tuple(
            (sum(n for n, _ in of_one), sum(past for _, past in of_one))
            for of_one in zip(*(one.tallies for one in shares), strict=True)
        ),
    )


def progress_line(done: Progress, at_s: float, length_s: float, scheduled: int) -> str:
    """`at_s` of the plan's `length_s` are over; `scheduled` arrivals have a time."""
    return (
        f"load: {min(max(0.0, at_s), length_s):.0f}/{length_s:.0f} s · "
        f"{done.dispatched}/{scheduled + done.by_users} sent · {done.open} open · "
        f"{done.ok} ok · {done.not_ok} not ok · {done.cold} cold"
    )


def show(line: str, second: int) -> None:
    """To the person waiting: in place on a terminal, elsewhere a line every five seconds."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
    elif second % 5 == 0:
        print(line, file=sys.stderr, flush=True)
