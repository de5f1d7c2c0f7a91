"""Groups what went wrong by message with the particulars taken out, so that a thousand lines read as five.

Pure. It must not hide: every problem is in exactly one group, and each group keeps one sample to look up.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ops import records
from ops.invocations import Problem
from ops.reading import readable

_PARTICULARS = (
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "<hex>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12,}\b", re.IGNORECASE), "<hex>"),
    (re.compile(r"/tmp/[\w./-]+"), "<path>"),
    (re.compile(r"(?<![\w<])\d+(?:\.\d+)?(?![\w>])"), "<n>"),
)
_LOGGER_HEAD = re.compile(r"^\[[A-Z]+\]\t\S+Z\t\S+\t")
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Problems of one kind and one normalised message; times in epoch ms, the sample is the latest one."""

    kind: str
    message: str
    count: int
    first_ms: int
    last_ms: int
    sample: Problem


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """What `ops logs errors --json` prints, schema ops-errors/1."""

    groups: list[ErrorGroup]


def group(problems: Iterable[Problem]) -> list[ErrorGroup]:
    """The groups, the most frequent first, then the latest; what callers' own code did comes after all others."""
    groups: dict[tuple[str, str], ErrorGroup] = {}
    for problem in problems:
        key = (problem.kind, normalise(problem.message))
        if known := groups.get(key):
            groups[key] = replace(
                known,
                count=known.count + 1,
                first_ms=min(known.first_ms, problem.at_ms),
                last_ms=max(known.last_ms, problem.at_ms),
                sample=problem if problem.at_ms >= known.last_ms else known.sample,
            )
        else:
            groups[key] = ErrorGroup(*key, 1, problem.at_ms, problem.at_ms, problem)
    return sorted(groups.values(), key=lambda g: (g.kind == "call", -g.count, -g.last_ms))


def normalise(message: str) -> str:
    """The message's first line without ids, times, addresses, run paths and numbers; of a REPORT, its status only."""
    record = records.parse(message)
    if isinstance(record, records.Report):
        return " ".join(filter(None, ("REPORT", record.status, record.error_type)))
    line = re.split(r"[\r\n]", _LOGGER_HEAD.sub("", readable(message).strip()), maxsplit=1)[0]
    for pattern, name in _PARTICULARS:
        line = pattern.sub(name, line)
    return line[:_LONGEST]
