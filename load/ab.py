"""Runs one plan on two endpoints in turns, so that what drifts during the day drifts for both, and compares them.

Measured on AWS over months, performance is stable within a day and shifts between days (Eismann et al., arXiv
2107.13320): two runs of different days compare the days. It only orders the rounds; `launch` sends, `compare` judges.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from load.launch import launch
from load.plan import Plan

BASE, CANDIDATE, WARM_UP = "base", "candidate", "warm-up"


def rounds_of(plan: Plan, rounds: int) -> Iterator[tuple[str, int, Plan]]:
    """Which side runs when, and what. Rounds come in pairs, ABBA or BAAB as the plan's seed draws: a steady drift
    falls on both sides alike, and nothing that recurs can keep step with one of them.

    Both sides of a round send the same requests at the same times; each round has its own seed and its share of the
    length.
    """
    draw = random.Random(f"{plan.seed}/turns")
    order = (BASE, CANDIDATE)
    for number in range(rounds):
        share = plan.scaled(duration_s=plan.duration_s / rounds).model_copy(update={"seed": plan.seed + number})
        turn = number % 2 == 1 or draw.random() < 0.5
        order = order[::-1] if turn else order
        for side in order:
            yield side, number, share


def run_in_turns(plan: Plan, base_url: str, candidate_url: str, rounds: int, out: Path) -> bool:
    """Sends every round to `out/base/round-N` or `out/candidate/round-N`. Returns whether it was interrupted.

    A round to each side goes before, to `out/warm-up`, and is not compared: the first to call meets cold environments,
    and whoever waits behind them is as late on warm ones (measured: 20 times the other rounds' median).
    """
    urls = {BASE: base_url, CANDIDATE: candidate_url}
    turns = list(rounds_of(plan, rounds))
    for side in (BASE, CANDIDATE):
        if launch(turns[0][2], urls[side], out / WARM_UP / side):
            return True
    return any(launch(share, urls[side], out / side / f"round-{number}") for side, number, share in turns)
