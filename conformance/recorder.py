"""The controller's side of a run: writes each check's record as it ends, then the run's own record and the reports.

It must not know how a check is run; what it needs of the options is in `Run`.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conformance import baseline, exits
from conformance.catalogue import load
from conformance.finding import SERVED_BY
from conformance.records import (
    VERDICTS,
    Baseline,
    CheckRecord,
    Misfit,
    RunRecord,
    count,
    exit_code,
    read_checks,
)
from conformance.report import formats
from conformance.target import Target

# What a worker hands over with each report: the check's record, and the schemas that its messages were held against.
PROPERTY = "conformance"
SEEN_PROPERTY = "conformance-schema"
# The one check that is no function: every result that any check receives is held against its schema.
SCHEMA_CHECK = "conformance.protocol.schema.results_fit_their_schema"
SCHEMA_IDS = {
    "2024-11-05": "Z24-01",
    "2025-03-26": "Z03-01",
    "2025-06-18": "Z06-01",
    "2025-11-25": "Z25-01",
    "2026-07-28": "Z26-01",
}
for _id in SCHEMA_IDS.values():
    SERVED_BY.setdefault(_id, []).append(SCHEMA_CHECK)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run was asked for and what it met first. `parts` is empty for all; `every_check`: none was left out of
    them by name. `accepted` are the entries of the `baseline`."""

    out: Path
    started: datetime
    target: Target
    selection: str
    parts: tuple[str, ...]
    every_check: bool
    strict: bool
    eras: dict[str, str]
    retries: int
    baseline: Path | None
    accepted: dict[str, str]
    update_baseline: bool


class Recorder:
    """Writes each record the moment its check ends, in the controller only, wherever the check ran."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.stream = (run.out / "checks.jsonl").open("w", encoding="utf-8")
        self.seen: dict[tuple[str, str], set[Misfit]] = defaultdict(set)
        self.interrupted = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == PROPERTY:
                self._write(value)
            elif name == SEEN_PROPERTY and isinstance(value, list):
                for revision, method, misfit in value:
                    self.seen[revision, method] |= {Misfit.model_validate(misfit)} if misfit else set()

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self.interrupted = isinstance(excinfo.value, KeyboardInterrupt)

    def finish(self, exitstatus: int) -> int:
        """Writes what only the end knows, and the reports; returns the exit code. `exitstatus` is pytest's."""
        run = self.run
        self._write_schema_records(passes=run.every_check and (not run.parts or "protocol" in run.parts))
        self.stream.close()
        checks = list(read_checks(run.out / "checks.jsonl"))
        compared = None
        if run.baseline is not None and not self.interrupted:
            compared = _compared(run, run.baseline, checks)
        code = self._code(exitstatus, compared, count(checks))
        record = RunRecord(
            endpoint=run.target.endpoint.url,
            profile=run.target.profile.name,
            started=run.started.isoformat(timespec="seconds"),
            duration_s=round((datetime.now(UTC) - run.started).total_seconds(), 2),
            exit_code=code,
            verdict=VERDICTS[code],
            strict=run.strict,
            selection=run.selection,
            eras=run.eras,
            retries=run.retries + sum(check.retries for check in checks),
            baseline=compared,
        )
        (run.out / "run.json").write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        formats.write_all(run.out)
        return code

    def _write(self, record: object) -> None:
        self.stream.write(json.dumps(record, ensure_ascii=False) + "\n")
        self.stream.flush()

    def _write_schema_records(self, *, passes: bool) -> None:
        """One record per method and revision: what misses its schema is told here, once, and nowhere else."""
        for (revision, method), misfits in sorted(self.seen.items()):
            if misfits or passes:
                record = _schema_record(revision, method, sorted(misfits, key=lambda one: one.message))
                self._write(record.model_dump(mode="json"))

    def _code(self, exitstatus: int, compared: Baseline | None, counts: dict[str, int]) -> int:
        if self.interrupted:
            return exits.INTERRUPTED
        if exitstatus == pytest.ExitCode.INTERNAL_ERROR:
            return exits.INCONCLUSIVE
        if exitstatus in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED):
            return exits.USAGE
        return baseline.gate(compared, counts) if compared else exit_code(counts, strict=self.run.strict)


def _schema_record(revision: str, method: str, misfits: list[Misfit]) -> CheckRecord:
    requirement = load()[SCHEMA_IDS[revision]]
    others = f" ({len(misfits) - 1} more ways were seen)" if len(misfits) > 1 else ""
    return CheckRecord(
        id=f"{SCHEMA_CHECK.removeprefix('conformance.')}[{revision}-{method}]",
        part="protocol",
        requirements=(requirement.id,),
        level=requirement.level,
        sources=(requirement.source,),
        status="failed" if misfits else "passed",
        message=misfits[0].message + others if misfits else "",
        expected=f"what {method} of {revision} prescribes" if misfits else "",
        got=misfits[0].got if misfits else "",
        exchanges=tuple(one.exchange for one in misfits[:3]),
    )


def _compared(run: Run, path: Path, checks: list[CheckRecord]) -> Baseline:
    """How the run stands to its baseline, which is written anew first when that was asked for."""
    whole, entries = run.every_check and not run.parts, run.accepted
    found = baseline.compare(path, entries, checks, strict=run.strict, whole=whole)
    if run.update_baseline:
        entries = baseline.updated(entries, checks, strict=run.strict, stale=found.stale)
        baseline.write(path, entries)
        found = baseline.compare(path, entries, checks, strict=run.strict, whole=whole)
    return found
