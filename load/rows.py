"""The raw record of a load run: one row per arrival in `requests*.jsonl`, one `run*.json` beside it.

Everything reported is computed from these files. This module reads and writes them and judges nothing.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from pathlib import Path
from typing import IO, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from load import COMMAND

type Outcome = Literal[
    "ok",
    "http_error",  # any status but 200
    "rpc_error",  # a JSON-RPC error, or a body that is no JSON-RPC answer
    "tool_error",  # a 200 whose tool result says it failed
    "wrong_answer",  # a success that is not the answer to the question
    "connect_error",  # no complete HTTP response: refused, reset, TLS, cut short
    "timeout",  # longer than the plan's request_timeout_s
    "in_flight",  # unanswered when the run ended and the drain was over
    "dropped",  # not sent: max_in_flight requests were already open
]
OUTCOMES: tuple[str, ...] = get_args(Outcome.__value__)

NOT_JUDGED = frozenset({"in_flight", "dropped"})
"""Outcomes that say something of the generator, not of the endpoint: they make a run inconclusive, not failed."""

CENSORED = frozenset({"timeout", "in_flight"})
"""Outcomes whose latency is only known to be at least what the row says."""


@dataclass(frozen=True, slots=True)
class Row:
    """One arrival. Times named `_s` are seconds since the run's anchor (see `RunRecord`), those named `_ms` durations.

    `latency_ms` runs from the intended time, `service_ms` from the moment the request was handed to the HTTP client
    (connecting included). `cold` is None when the answer did not say which invocation of its environment it was.
    """

    index: int
    stage: str
    scenario: str
    era: str
    intended_s: float
    sent_s: float | None
    first_byte_s: float | None
    done_s: float | None
    latency_ms: float | None
    service_ms: float | None
    status: int | None
    outcome: Outcome
    error: str | None = None
    lambda_request_id: str | None = None
    environment_id: str | None = None
    invocation: int | None = None
    init_type: str | None = None
    cold: bool | None = None
    server_timing: dict[str, float] | None = None
    bytes: int | None = None

    @property
    def lag_ms(self) -> float | None:
        """How late the generator sent it, ms."""
        return None if self.sent_s is None else (self.sent_s - self.intended_s) * 1000

    @property
    def failed(self) -> bool:
        """The endpoint's failure: neither a good answer nor something the generator lost."""
        return self.outcome != "ok" and self.outcome not in NOT_JUDGED

    def timing(self, name: str) -> float | None:
        """A Server-Timing duration in ms (init, install, exec), or None."""
        return None if self.server_timing is None else self.server_timing.get(name)


class RunRecord(BaseModel):
    """What one generator process knew of its run: written when it starts and again when it ends."""

    model_config = ConfigDict(extra="forbid")

    schema_: Literal["load-run/1"] = Field(default="load-run/1", alias="schema")
    role: Literal["local", "master", "worker"] = "local"
    worker_index: int = 0
    workers_expected: int = 1
    workers_seen: int = 1
    profile: str
    endpoint: str
    plan: dict[str, Any]
    versions: dict[str, str] = Field(default_factory=dict)
    anchor_unix_s: float = Field(description="Wall clock at offset 0; every `_s` in the rows is relative to it.")
    planned: int = Field(description="Arrivals this process was to send.")
    dispatched: int = Field(default=0, description="Arrivals it got to: sent or dropped.")
    by_users: int = Field(
        default=0, description="Requests of closed-loop users, who have no schedule to be counted in."
    )
    clocks_apart_s: float = Field(default=0.0, description="The most that a worker's clock was off the master's.")
    ended: Literal["running", "complete", "stopped", "aborted", "interrupted"] = "running"
    ended_s: float | None = None
    aborted_by: str = Field(default="", description="Why the plan's abort ended it.")
    cpu_share: list[float] = Field(default_factory=list, description="CPU of this process per second, 1.0 = one core.")

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=1)


class RowWriter:
    """Appends rows to a JSON Lines file as they happen, so that an interrupted run keeps what it saw."""

    def __init__(self, path: Path) -> None:
        # Half of a surrogate pair, which an endpoint may say in JSON, is written as the escape that JSON has for it.
        self._file: IO[str] = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1 << 16)

    def write(self, row: Row) -> None:
        self._file.write(row_line(row))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class BadRecord(ValueError):
    """A run directory that cannot be read; the message says which file and why."""


def meant(records: Sequence[RunRecord]) -> int:
    """How many requests a run was to make: the schedule of its first record, and what users asked in every process."""
    return records[0].planned + sum(record.by_users for record in records if record.role != "master")


def read_rows(directory: Path) -> list[Row]:
    """Every row of a run, all workers together, ordered by arrival index.

    Raises BadRecord for a directory without rows files or a line that is not a row. A last line cut short by a killed
    process is left out: everything before it is still true.
    """
    files = sorted(directory.glob("requests*.jsonl"))
    if not files:
        if any(run.role == "master" for run in map(_read_run, directory.glob("run.json"))):
            raise BadRecord(
                f"the rows of this run are where its workers ran; copy their requests-w*.jsonl and run-w*.json into "
                f"{directory}, then {COMMAND} report {directory}"
            )
        raise BadRecord(f"{directory} holds no requests*.jsonl; give the directory that a load run wrote")
    rows = [row for file in files for row in _read_file(file)]
    return sorted(rows, key=lambda row: row.index)


def run_directories(directory: Path) -> list[Path]:
    """The runs in a directory: itself, or those right below it, in order. Raises BadRecord for none."""
    found = sorted(path.parent for pattern in ("run.json", "*/run.json") for path in directory.glob(pattern))
    if not found:
        raise BadRecord(f"{directory} holds no run.json; give the directory that a load run wrote")
    return found


def read_runs(directory: Path) -> list[RunRecord]:
    """The run records of a directory: the master or local process first, then workers by index."""
    records = [_read_run(file) for file in sorted(directory.glob("run*.json"))]
    if not records:
        raise BadRecord(f"{directory} holds no run.json; give the directory that a load run wrote")
    return sorted(records, key=lambda record: (record.role == "worker", record.worker_index))


def write_run(path: Path, record: RunRecord) -> None:
    """Replaces the record in one step, so that a reader never sees half of one."""
    draft = path.with_suffix(".tmp")
    draft.write_text(record.to_json(), encoding="utf-8")
    draft.replace(path)


def _read_run(path: Path) -> RunRecord:
    try:
        return RunRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadRecord(f"{path} is not a run record: {str(error).splitlines()[0]}") from error


def _read_file(path: Path) -> Iterable[Row]:
    lines: Sequence[str] = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            yield Row(**json.loads(line))
        except (ValueError, TypeError) as error:
            if number == len(lines):
                return
            raise BadRecord(f"{path}, line {number}, is not a row of a load run: {error}") from error


def row_line(row: Row) -> str:
    """A row as one line of JSON: what json.dumps makes of its fields, for less: a generator that writes a thousand a
    second pays for each."""
    cold = "null" if row.cold is None else "true" if row.cold else "false"
    timing = "null"
    if row.server_timing is not None:
        timing = "{" + ",".join([f"{encode_basestring(name)}:{ms!r}" for name, ms in row.server_timing.items()]) + "}"
    return (
        f'{{"index":{row.index},"stage":{_text(row.stage)},"scenario":{_text(row.scenario)},"era":{_text(row.era)},'
        f'"intended_s":{row.intended_s!r},"sent_s":{_number(row.sent_s)},"first_byte_s":{_number(row.first_byte_s)},'
        f'"done_s":{_number(row.done_s)},"latency_ms":{_number(row.latency_ms)},"service_ms":{_number(row.service_ms)},'
        f'"status":{_number(row.status)},"outcome":"{row.outcome}","error":{_text(row.error)},'
        f'"lambda_request_id":{_text(row.lambda_request_id)},"environment_id":{_text(row.environment_id)},'
        f'"invocation":{_number(row.invocation)},"init_type":{_text(row.init_type)},"cold":{cold},'
        f'"server_timing":{timing},"bytes":{_number(row.bytes)}}}\n'
    )


def _text(value: str | None) -> str:
    return "null" if value is None else encode_basestring(value)


def _number(value: float | None) -> str:
    return "null" if value is None else repr(value)
