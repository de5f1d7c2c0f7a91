"""The rows of `make bench`: a figure of ours against a named peer, measured in turns in one run."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `ours` and `peer` are medians in `unit`; `samples` and `peer_samples` what they are medians of.

    `goal` is the most that `judged` may be: the ratio, ours alone, or the difference.
    """

    name: str
    ours: float
    peer: float | None
    peer_name: str
    ratio: float | None
    interval: tuple[float, float] | None  # 95 % of what is judged, by bootstrap
    goal: float | None
    judged: str
    n: int
    verdict: str  # pass | short | told
    unit: str = "ms"
    samples: Sequence[float] = ()
    peer_samples: Sequence[float] = ()


def in_turns(pairs: Mapping[str, Callable[[], float]], n: int) -> dict[str, list[float]]:
    """`n` measurements of each, A B A B ..., so that a drift of the machine falls on all alike. One warm-up each."""
    for measure in pairs.values():
        measure()
    found: dict[str, list[float]] = {name: [] for name in pairs}
    for _ in range(n):
        for name, measure in pairs.items():
            found[name].append(measure())
    return found


def interval(statistic: Callable[[random.Random], float], rounds: int = 1000, seed: int = 1) -> tuple[float, float]:
    """The middle 95 % of a resampled statistic (percentile bootstrap; Efron and Tibshirani 1993, chapter 13)."""
    source = random.Random(seed)
    drawn = sorted(statistic(source) for _ in range(rounds))
    return round(drawn[int(rounds * 0.025)], 4), round(drawn[int(rounds * 0.975)], 4)


def row(
    name: str,
    ours: Sequence[float],
    peer: Sequence[float] | None = None,
    peer_name: str = "",
    *,
    goal: float | None = None,
    judged: str = "ratio",
    unit: str = "ms",
) -> Row:
    """A row from samples; it passes when what is judged is at most `goal`."""

    def value(a: Sequence[float], b: Sequence[float] | None) -> float:
        median = statistics.median(a)
        if b is None or judged == "ours":
            return median
        return median / statistics.median(b) if judged == "ratio" else median - statistics.median(b)

    def resampled(source: random.Random) -> float:
        return value(source.choices(ours, k=len(ours)), source.choices(peer, k=len(peer)) if peer else None)

    judged_value = value(ours, peer)
    return Row(
        name=name,
        ours=round(statistics.median(ours), 3),
        peer=round(statistics.median(peer), 3) if peer else None,
        peer_name=peer_name,
        ratio=round(statistics.median(ours) / statistics.median(peer), 4) if peer else None,
        interval=interval(resampled) if len(ours) > 1 else None,
        goal=goal,
        judged=judged,
        n=len(ours),
        verdict="told" if goal is None else "pass" if judged_value <= goal else "short",
        unit=unit,
        samples=[round(one, 4) for one in ours],
        peer_samples=[round(one, 4) for one in peer or ()],
    )


def append(path: Path | None, made: Row) -> None:
    """Write a row to the run's file as soon as it is measured."""
    print(
        f"  {made.name}: {made.ours:g} {made.unit}"
        + (f" against {made.peer:g} ({made.peer_name})" if made.peer else ""),
        flush=True,
    )
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(asdict(made)) + "\n")
