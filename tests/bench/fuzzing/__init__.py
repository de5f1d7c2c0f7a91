"""What `tests.bench.fuzz` runs: one module for each surface, and how their inputs are varied. It starts no process."""

from __future__ import annotations


class Fault(AssertionError):
    """A property that did not hold."""


def expect(holds: object, what: str, got: object) -> None:
    """Raise Fault, with what was got, unless `holds`."""
    if not holds:
        raise Fault(f"{what}: {str(got)[:600]!r}")
