"""Writes report.json: the whole run for machines, under a versioned schema name."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from conformance.records import CheckRecord, RunRecord, Status, count, read_checks

SCHEMA = "conformance/1"
SCHEMA_FILE = Path(__file__).parent / "report.schema.json"


class Report(RunRecord):
    """report.json. Members may be added under the same schema name; none changes its meaning or goes."""

    model_config = ConfigDict(populate_by_name=True)

    schema_name: Literal["conformance/1"] = Field(alias="schema")
    counts: dict[Status, int]
    levels: dict[str, dict[Status, int]]
    parts: dict[str, dict[Status, int]]
    security: dict[str, Any]
    checks: tuple[CheckRecord, ...]


def json_schema() -> dict[str, Any]:
    """The published schema of report.json, as report.schema.json beside this file holds it.

    The summary that --json prints is the same without `checks`.
    """
    schema = Report.model_json_schema(by_alias=True, mode="serialization")
    schema["required"].remove("checks")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA} | schema


def read_run(out: Path) -> RunRecord:
    """The run's own record."""
    return RunRecord.model_validate_json((out / "run.json").read_text(encoding="utf-8"))


def security_summary(checks: Iterable[CheckRecord]) -> dict[str, object]:
    """Per class of attack how many programs met each verdict, and the benign programs that were refused."""
    classes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    leaked, refused, benign = [], [], 0
    for check in checks:
        if check.security is None:
            continue
        if check.security.kind == "benign":
            benign += 1
            if check.security.verdict not in ("OK", "UNSUPPORTED"):
                refused.append(check.id)
            continue
        classes[check.security.group][check.security.verdict.lower()] += 1
        if check.security.verdict == "LEAKED":
            leaked.append(check.id)
    return {
        "classes": {name: dict(verdicts) for name, verdicts in sorted(classes.items())},
        "leaked": leaked,
        "benign": {"programs": benign, "false_positives": refused},
    }


def build(out: Path) -> dict[str, object]:
    """The report as a JSON-ready dict, from the run's files alone."""
    run, checks = read_run(out), list(read_checks(out / "checks.jsonl"))
    levels = {level: count(c for c in checks if c.level == level) for level in ("MUST", "SHOULD", "derived")}
    parts = {part: count(c for c in checks if c.part == part) for part in sorted({c.part for c in checks})}
    return {
        "schema": SCHEMA,
        **run.model_dump(mode="json"),
        "counts": count(checks),
        "levels": levels,
        "parts": parts,
        "security": security_summary(checks),
        "checks": [check.model_dump(mode="json") for check in checks],
    }


def write(out: Path) -> Path:
    """Writes `out`/report.json and returns its path."""
    path = out / "report.json"
    path.write_text(json.dumps(build(out), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path
