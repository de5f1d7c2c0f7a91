"""The list of failures a team knows of and accepts for now: read, compared with a run, and written anew.

It must not change a record: what failed is shown as failed; only the gate looks here.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from conformance import exits
from conformance.records import Baseline, CheckRecord
from conformance.target import UsageFault

HEADER = """\
# Failures that are known and accepted for now. A failure that is not here fails the run (exit 1); an entry whose check
# passes is stale and fails it too (exit 5). `why` is for the reader. Written anew by --baseline-update.
"""
UNEXPLAINED = "not explained yet"


class Entry(BaseModel):
    """One accepted failure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    why: str = UNEXPLAINED


class Document(BaseModel):
    """The file: `expected` is a list of entries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    expected: tuple[Entry, ...]


def read(path: Path) -> dict[str, str]:
    """Check id -> why, of a baseline file.

    Raises:
        UsageFault: it cannot be read, is not of this form, or lists a check twice.
    """
    try:
        document = Document.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageFault(
            f"The baseline {path} cannot be read: {error.strerror}; make it with --baseline-update."
        ) from None
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        told = str(error).replace("\n", " ")[:200]
        raise UsageFault(f"The baseline {path} is not `expected:` with a list of `id` and `why`: {told}") from None
    entries = {entry.id: entry.why for entry in document.expected}
    if len(entries) != len(document.expected):
        raise UsageFault(f"The baseline {path} lists a check twice; remove one of the entries.")
    return entries


def failing(check: CheckRecord, *, strict: bool) -> bool:
    """Whether a check is one that a baseline may accept. A check that broke never is."""
    return check.status == "failed" or (strict and check.status == "warning")


def compare(
    path: Path, entries: Mapping[str, str], checks: Iterable[CheckRecord], *, strict: bool, whole: bool
) -> Baseline:
    """Sorts failures into expected and unexpected, and finds entries that are stale.

    An entry is stale when its check passed, or when a `whole` run has no check of that name any more. A check that was
    skipped, or not selected, says nothing about its entry.
    """
    by_id = {check.id: check for check in checks}
    failed = [name for name, check in by_id.items() if failing(check, strict=strict)]
    stale = [name for name in entries if (by_id[name].status == "passed" if name in by_id else whole)]
    return Baseline(
        file=str(path),
        expected=tuple(name for name in failed if name in entries),
        unexpected=tuple(name for name in failed if name not in entries),
        stale=tuple(stale),
    )


def gate(baseline: Baseline, counts: Mapping[str, int]) -> int:
    """The exit code of a run with a baseline: a new failure before a stale entry, and neither on a run of nothing."""
    if baseline.unexpected or counts["error"]:
        return exits.GATE_FAILED
    if counts["passed"] + counts["warning"] + len(baseline.expected) == 0:
        return exits.INCONCLUSIVE
    return exits.STALE_BASELINE if baseline.stale else exits.PASS


def updated(
    entries: Mapping[str, str], checks: Iterable[CheckRecord], *, strict: bool, stale: Iterable[str]
) -> dict[str, str]:
    """The entries after a run: what fails now, with the reasons already written, and what the run did not judge."""
    gone = set(stale)
    kept = {name: why for name, why in entries.items() if name not in gone}
    new = {check.id: UNEXPLAINED for check in checks if failing(check, strict=strict) and check.id not in kept}
    return dict(sorted((kept | new).items()))


def write(path: Path, entries: Mapping[str, str]) -> None:
    """Writes a baseline file."""
    document = {"expected": [{"id": name, "why": why} for name, why in entries.items()]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8")
