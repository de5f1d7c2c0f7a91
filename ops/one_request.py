"""Finds everything that belongs to one invocation: its lines from INIT_START or START to REPORT, and the client's row.

It must not show another invocation's lines: what stands between this one's START and REPORT on its stream is its own,
because an environment serves one invocation at a time.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops import records
from ops.failures import UsageError
from ops.logs import LogEvent

# An environment has ten seconds to initialise, and its first START comes right after.
INIT_REACH_MS = 15_000
# What is written after the REPORT about the same request (exit errors) comes at once.
AFTER_MS = 2_000


@dataclass(frozen=True, slots=True)
class ClientRow:
    """A row of a client's record file that names the request."""

    file: str
    row: dict[str, Any]


def request_ids(events: Iterable[LogEvent], wanted: str) -> list[str]:
    """The ids beginning with `wanted` that these events' records carry, in the order of their first appearance."""
    found = (getattr(records.parse(event.message), "request_id", None) for event in events)
    return list(dict.fromkeys(i for i in found if i and i.startswith(wanted)))


def lines_of(events: Sequence[LogEvent], request_id: str) -> list[LogEvent]:
    """Of one stream's events in their order, those of `request_id`, with the initialisation in front of it."""
    kept: list[LogEvent] = []
    waiting: list[LogEvent] = []  # what an environment wrote before its first START
    inside = False
    for event in events:
        record = records.parse(event.message)
        if isinstance(record, records.InitStart | records.RestoreStart):
            waiting, inside = [event], False
        elif isinstance(record, records.Start):
            inside = record.request_id == request_id
            if inside:
                kept += [*waiting, event]
            waiting = []
        elif inside or getattr(record, "request_id", None) == request_id:
            kept.append(event)
            inside = inside and not isinstance(record, records.Report)
        elif waiting:
            waiting.append(event)
    return kept


def client_rows(run: Path, request_id: str) -> Iterator[ClientRow]:
    """The rows of a load or conformance run's JSON Lines files that name the request in any field."""
    files = [run] if run.is_file() else sorted(run.rglob("*.jsonl"))
    if not files:
        raise UsageError(f"{run} holds no .jsonl file; name a run's folder with --run, for example out/load-<time>.")
    for file in files:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if request_id in line and (row := _row(line)) is not None:
                    yield ClientRow(str(file), row)


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
