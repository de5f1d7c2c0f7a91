"""Draws in given proportions: a deck of cards is shuffled and dealt, again and again."""

import random
from collections.abc import Iterator, Mapping


def deck(weights: Mapping[str, int], rng: random.Random) -> Iterator[str]:
    """Endless draws; each run of sum(weights) draws holds every name exactly as often as its weight says."""
    cards = [name for name, weight in sorted(weights.items()) for _ in range(weight)]
    while True:
        rng.shuffle(cards)
        yield from cards
