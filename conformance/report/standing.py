"""How each check stands for the gate, once for all writers: a record's own status, seen through the run's baseline."""

from collections.abc import Iterable
from typing import Literal

from conformance.records import CheckRecord, RunRecord

Standing = Literal["failed", "error", "known", "stale", "warning", "passed", "skipped"]
ORDER: tuple[Standing, ...] = ("failed", "error", "stale", "known", "warning", "passed", "skipped")
WORDS: dict[Standing, str] = {
    "failed": "failed",
    "error": "check broke",
    "known": "known failure",
    "stale": "stale in the baseline",
    "warning": "warning",
    "passed": "passed",
    "skipped": "skipped",
}


def standing(run: RunRecord, check: CheckRecord) -> Standing:
    """What a check means for the verdict."""
    if run.baseline and check.id in run.baseline.stale:
        return "stale"
    if run.baseline and check.id in run.baseline.expected:
        return "known"
    return "failed" if check.status == "warning" and run.strict else check.status


def by_standing(run: RunRecord, checks: Iterable[CheckRecord]) -> dict[Standing, list[CheckRecord]]:
    """The checks in the order a person should read them, every standing present."""
    found: dict[Standing, list[CheckRecord]] = {name: [] for name in ORDER}
    for check in checks:
        found[standing(run, check)].append(check)
    return found
