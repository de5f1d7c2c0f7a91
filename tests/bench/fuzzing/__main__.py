"""`python -m tests.bench.fuzzing request|pipe ARGUMENT...`: one fuzzing process; the arguments are libFuzzer's.

Started by `tests.bench.fuzz`, as a user without rights where that is root.
"""

from __future__ import annotations

import importlib
import random
import sys

import atheris  # type: ignore[import-untyped]

TREE_SHARE = 0.6  # of the inputs are varied by their tree, the others by their bytes


def main(surface: str, arguments: list[str]) -> None:
    module = importlib.import_module(f"tests.bench.fuzzing.{surface}")
    with atheris.instrument_imports(include=module.INSTRUMENTED):
        held = module.Surface()

    def varied(data: bytes, most: int, seed: int) -> bytes:
        source = random.Random(seed)
        if source.random() < TREE_SHARE:
            return bytes(held.varied(data, source)[:most])
        return bytes(atheris.Mutate(data, most))

    atheris.Setup([sys.argv[0], *arguments], held.one, custom_mutator=varied)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
