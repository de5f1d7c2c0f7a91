"""The records a run leaves: one per check, written to checks.jsonl as it ends. Reports are made from these alone."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from conformance import exits

Status = Literal["passed", "failed", "warning", "error", "skipped"]
# What a program of the corpus is, what it did, and what a refusal told its caller.
Kind = Literal["attack", "persistence", "benign", "resource"]
Verdict = Literal["BLOCKED", "CONTAINED", "LEAKED", "CRASHED", "LATE", "UNSUPPORTED", "OK", "REFUSED"]
Explains = Literal["", "operation and line", "operation", "line", "nothing"]  # "" where nothing was refused


class SecurityVerdict(BaseModel):
    """What one program of the corpus did."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    group: str
    verdict: Verdict
    evidence: str = ""
    why: str = ""
    program: str = ""
    claim: str = ""
    cwe: str = ""
    explains: Explains = ""
    elapsed_ms: float = 0.0
    # Whether the call went unanswered, and whether the next one found a new environment in its place.
    lost: bool = False
    cold_after: bool = False


class CheckRecord(BaseModel):
    """One check's outcome. `status` error means the check itself broke, which fails a run like a failure."""

    model_config = ConfigDict(frozen=True)

    id: str
    part: str
    requirements: tuple[str, ...] = ()
    level: str = "MUST"
    sources: tuple[str, ...] = ()
    status: Status
    message: str = ""
    expected: str = ""
    got: str = ""
    duration_ms: float = 0.0
    exchanges: tuple[dict[str, Any], ...] = ()
    retries: int = 0
    security: SecurityVerdict | None = None


class Misfit(BaseModel):
    """A result that misses the schema of its method; told once per run, however many checks met it."""

    model_config = ConfigDict(frozen=True)

    revision: str
    method: str
    message: str
    got: str = ""
    exchange: dict[str, Any] = {}

    def __hash__(self) -> int:
        return hash((self.revision, self.method, self.message))

    def __eq__(self, other: object) -> bool:
        """Two misfits are the same fault when they read the same, whatever request brought them out."""
        return isinstance(other, Misfit) and hash(self) == hash(other)


class Baseline(BaseModel):
    """How a run stands to its list of expected failures. Ids only; the reasons are in the file."""

    file: str
    expected: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()


class RunRecord(BaseModel):
    """What a run was: the first line of run.json, everything a report needs that no check knows."""

    endpoint: str
    profile: str
    started: str
    duration_s: float
    exit_code: int
    verdict: str
    strict: bool
    selection: str
    eras: dict[str, str] = {}
    retries: int = 0
    baseline: Baseline | None = None


def read_checks(path: Path) -> Iterator[CheckRecord]:
    """The records of a checks.jsonl; a last line cut by an interruption is left out."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                yield CheckRecord.model_validate_json(line)
            except ValidationError:
                continue


def count(checks: Iterable[CheckRecord]) -> dict[str, int]:
    """How many checks per status, every status present."""
    counted = Counter(check.status for check in checks)
    statuses: tuple[Status, ...] = ("passed", "failed", "error", "warning", "skipped")
    return {status: counted[status] for status in statuses}


def exit_code(counts: dict[str, int], *, strict: bool) -> int:
    """The gate: a failed or broken check fails, a warning only when strict; a run that judged nothing is not a pass."""
    if counts["failed"] or counts["error"] or (strict and counts["warning"]):
        return exits.GATE_FAILED
    if counts["passed"] + counts["warning"] == 0:
        return exits.INCONCLUSIVE
    return exits.PASS


VERDICTS = {
    exits.PASS: "pass",
    exits.GATE_FAILED: "fail",
    exits.USAGE: "usage",
    exits.UNREACHABLE: "unreachable",
    exits.INCONCLUSIVE: "inconclusive: nothing was judged",
    exits.STALE_BASELINE: "stale baseline",
    exits.INTERRUPTED: "interrupted",
}
