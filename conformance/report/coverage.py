"""Prints which catalogued requirements have checks, from the catalogue and the imported check modules alone."""

import importlib
from collections import Counter
from pathlib import Path

from conformance.catalogue import load
from conformance.finding import SERVED_BY

PACKAGE = Path(__file__).parents[1]


def import_checks() -> dict[str, list[str]]:
    """Imports every check module; returns requirement id -> names of the checks that serve it."""
    for path in sorted(PACKAGE.glob("*/test_*.py")):
        importlib.import_module(f"conformance.{path.parent.name}.{path.stem}")
    return SERVED_BY


def render() -> str:
    """The coverage table: one line per requirement, then the counts per catalogue."""
    served = import_checks()
    lines = []
    totals: Counter[str] = Counter()
    checked: Counter[str] = Counter()
    for one in load().values():
        names = sorted({name.rpartition(".")[2].removeprefix("test_") for name in served.get(one.id, [])})
        told = ", ".join(names) if names else f"unchecked: {one.unchecked or 'no check yet'}"
        lines.append(f"{one.id:<7} {one.level:<8}{one.text[:88]:<90}{told}")
        totals[one.catalogue] += 1
        checked[one.catalogue] += bool(names)
    lines.append("")
    lines += [f"{name}: {checked[name]} of {total} requirements have checks" for name, total in totals.items()]
    return "\n".join(lines)
