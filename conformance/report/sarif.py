"""Writes report.sarif (SARIF 2.1.0), so that code scanning shows findings beside code: one rule per requirement.

A finding is of an endpoint and not of a file, so its place is the endpoint's URL and the check is its logical location.
"""

import hashlib
import json
from pathlib import Path

from conformance.catalogue import Level, load
from conformance.records import CheckRecord, RunRecord, read_checks
from conformance.report.results import read_run
from conformance.report.standing import Standing, standing

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
SPECIFICATION = "https://github.com/modelcontextprotocol/modelcontextprotocol/blob/main/"
LEVELS: dict[Standing, str] = {"failed": "error", "error": "error", "known": "note", "stale": "warning",
                               "warning": "warning"}  # fmt: skip
RULE_LEVELS = {Level.MUST: "error", Level.SHOULD: "warning", Level.DERIVED: "warning"}
UNTIED = "suite"


def write(out: Path) -> Path:
    """Writes `out`/report.sarif and returns its path."""
    path = out / "report.sarif"
    document = build(read_run(out), list(read_checks(out / "checks.jsonl")))
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path


def build(run: RunRecord, checks: list[CheckRecord]) -> dict[str, object]:
    """The SARIF log: findings only, since SARIF has no use for what passed."""
    found = [check for check in checks if standing(run, check) in LEVELS]
    rules = sorted({_rule(check) for check in found})
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "conformance",
                        "informationUri": "https://modelcontextprotocol.io/specification",
                        "rules": [_describe(rule) for rule in rules],
                    }
                },
                "invocations": [
                    {
                        "executionSuccessful": not any(check.status == "error" for check in checks),
                        "startTimeUtc": run.started.replace("+00:00", "Z"),
                        "exitCode": run.exit_code,
                    }
                ],
                "results": [_result(run, check, rules.index(_rule(check))) for check in found],
            }
        ],
    }


def _rule(check: CheckRecord) -> str:
    return check.requirements[0] if check.requirements else UNTIED


def _describe(rule: str) -> dict[str, object]:
    requirement = load().get(rule)
    if requirement is None:
        return {"id": rule, "shortDescription": {"text": "A check of the suite without a requirement of its own."}}
    described: dict[str, object] = {
        "id": rule,
        "shortDescription": {"text": requirement.text},
        "fullDescription": {"text": f"{requirement.level}: {requirement.text} ({requirement.source})"},
        "defaultConfiguration": {"level": RULE_LEVELS[requirement.level]},
    }
    file = requirement.source.split()[0]
    return described | ({"helpUri": SPECIFICATION + file} if file.startswith("docs/") else {})


def _result(run: RunRecord, check: CheckRecord, index: int) -> dict[str, object]:
    how = standing(run, check)
    lines = [
        check.message,
        *(f"{one}: {source}" for one, source in zip(check.requirements, check.sources, strict=True)),
    ]
    lines += [f"{word}: {value}" for word, value in (("expected", check.expected), ("got", check.got)) if value]
    lines += [f"$ {exchange.get('request')}" for exchange in check.exchanges[-1:]]
    return {
        "ruleId": _rule(check),
        "ruleIndex": index,
        "level": LEVELS[how],
        "message": {"text": "\n".join(filter(None, lines)) or check.id},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": run.endpoint}},
                "logicalLocations": [{"fullyQualifiedName": check.id, "kind": "function"}],
            }
        ],
        # The same finding keeps its fingerprint from run to run, whatever the message says of ids and times.
        "partialFingerprints": {"check/v1": hashlib.sha256(check.id.encode()).hexdigest()[:32]},
        **({"suppressions": [{"kind": "external", "justification": "in the baseline"}]} if how == "known" else {}),
    }
