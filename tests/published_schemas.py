"""The JSON schemas that are installed with the commands, each made from the model that writes the document.

`python -m tests.published_schemas` writes them anew; a test compares. Under one name members may be added, so the
published form forbids no further ones; a member that changes its meaning or goes takes a new name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
from pydantic import TypeAdapter, create_model

from check.gate import GateRecord
from check.verdict import Verdict
from conformance.records import CheckRecord
from conformance.report.results import SCHEMA as CONFORMANCE
from conformance.report.results import SCHEMA_FILE, json_schema
from conformance.report.scorecard import Scorecard
from load.coldstart import ColdStartReport
from load.compare import CompareReport
from load.fresh_version import Journal
from load.rows import Row, RunRecord
from load.server_side import ServerSide
from load.summary import Summary as LoadSummary
from ops.concurrency_advice import ConcurrencyAdvice
from ops.diagnosis import Finding
from ops.error_groups import ErrorReport
from ops.logs import LogEvent
from ops.summary import Summary as LogSummary
from ops.timeout_advice import TimeoutAdvice
from ops.tune import MemoryAdvice, Prediction

_EVENT_FIELDS: dict[str, Any] = {name: (kind, ...) for name, kind in LogEvent.__annotations__.items()}
EVENT = create_model(
    "LogEvent",
    __doc__="One line of events.jsonl; times are epoch milliseconds, `message` is as it was written.",
    **_EVENT_FIELDS,
)
ROOT = Path(__file__).resolve().parents[1]
# The name that a document has in `schema`, and what it is made from.
MODELS: dict[str, tuple[str, Any]] = {
    "check/1": ("check/schemas/check-1.json", Verdict),
    "deploy-gate/1": ("check/schemas/deploy-gate-1.json", GateRecord),
    "conformance-check/1": ("conformance/report/check.schema.json", CheckRecord),
    "security-scorecard/1": ("conformance/report/scorecard.schema.json", Scorecard),
    "load/1": ("load/schemas/load-1.json", LoadSummary),
    "load-row/1": ("load/schemas/load-row-1.json", Row),
    "load-run/1": ("load/schemas/load-run-1.json", RunRecord),
    "load-server/1": ("load/schemas/load-server-1.json", ServerSide),
    "load-restore/1": ("load/schemas/load-restore-1.json", Journal),
    "coldstart/1": ("load/schemas/coldstart-1.json", ColdStartReport),
    "compare/1": ("load/schemas/compare-1.json", CompareReport),
    "ops-event/1": ("ops/schemas/ops-event-1.json", EVENT),
    "ops-report/1": ("ops/schemas/ops-report-1.json", LogSummary),
    "ops-finding/1": ("ops/schemas/ops-finding-1.json", Finding),
    "ops-errors/1": ("ops/schemas/ops-errors-1.json", ErrorReport),
    "ops-tune-prediction/1": ("ops/schemas/ops-tune-prediction-1.json", Prediction),
    "ops-tune-memory/1": ("ops/schemas/ops-tune-memory-1.json", MemoryAdvice),
    "ops-tune-timeout/1": ("ops/schemas/ops-tune-timeout-1.json", TimeoutAdvice),
    "ops-tune-concurrency/1": ("ops/schemas/ops-tune-concurrency-1.json", ConcurrencyAdvice),
}
# Lines of a JSON Lines file; the run beside them says which version they have.
UNNAMED = ("conformance-check/1", "load-row/1", "ops-event/1")


def schemas() -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Name, file and schema of each, as the models have it now."""
    yield CONFORMANCE, SCHEMA_FILE, json_schema()
    for name, (path, model) in MODELS.items():
        yield name, ROOT / path, schema_of(name, model)


def schema_of(name: str, model: Any) -> dict[str, Any]:
    found = TypeAdapter(model).json_schema(by_alias=True, mode="serialization")
    _open(found)
    if name not in UNNAMED:
        # A dataclass is written with its name put in front.
        found["properties"] = {"schema": {"const": name, "type": "string"}} | found["properties"]
        found["required"] = sorted({"schema", *found.get("required", [])})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": name} | found


def _open(node: Any) -> None:
    if isinstance(node, dict):
        if node.get("additionalProperties") is False:
            del node["additionalProperties"]
        for value in node.values():
            _open(value)
    elif isinstance(node, list):
        for value in node:
            _open(value)


def published(name: str) -> dict[str, Any]:
    """The committed schema of that name."""
    (path,) = (path for named, path, _ in schemas() if named == name)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def validated(document: dict[str, Any], name: str | None = None) -> str:
    """Raises jsonschema.ValidationError when a document misses the published schema it names; returns that name."""
    named = name or str(document["schema"])
    jsonschema.validate(document, published(named))
    return named


def main() -> None:
    """Writes all of them."""
    for _, path, schema in schemas():
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
