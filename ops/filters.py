"""Chooses log events by regular expressions and by the fields of their records, such as `duration_ms>1000`.

Pure. A name that a record does not have never matches, so `!=` too holds only for records that have the field.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from ops import records
from ops.failures import UsageError
from ops.logs import LogEvent

_CONDITION = re.compile(r"\s*([\w.]+)\s*(!=|>=|<=|=|>|<|~)\s*(.*)", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """`name operator value`; the operator `~` searches the value as a regular expression."""

    name: str
    operator: str
    value: str

    def holds(self, record: records.Record) -> bool:
        """Whether the field is there and compares so: as numbers if both are, else as text."""
        found = field_of(record, self.name)
        if found is None:
            return False
        if self.operator == "~":
            return re.search(self.value, str(found)) is not None
        numbers = _both_numbers(found, self.value)
        return _COMPARE[self.operator](*numbers) if numbers else _COMPARE[self.operator](_text(found), self.value)


@dataclass(frozen=True, slots=True)
class Filter:
    """All of `wanted` are found in the message, none of `unwanted`, and every condition holds for its record."""

    wanted: tuple[re.Pattern[str], ...] = ()
    unwanted: tuple[re.Pattern[str], ...] = ()
    conditions: tuple[Condition, ...] = ()

    def chooses(self, event: LogEvent) -> bool:
        """Whether this event is one of those asked for."""
        message = event.message
        if not all(p.search(message) for p in self.wanted) or any(p.search(message) for p in self.unwanted):
            return False
        if not self.conditions:
            return True
        record = records.parse(message)
        return all(condition.holds(record) for condition in self.conditions)


def make_filter(wanted: Iterable[str], unwanted: Iterable[str], conditions: Iterable[str]) -> Filter:
    """The filter that these flags describe. Raises UsageError for a pattern or condition that cannot be read."""
    return Filter(
        tuple(_pattern(text) for text in wanted),
        tuple(_pattern(text) for text in unwanted),
        tuple(parse_condition(text) for text in conditions),
    )


def parse_condition(text: str) -> Condition:
    """`duration_ms>1000`, `kind=Report`, `level=ERROR`, `http.status>=500`, `message~Memory`."""
    match = _CONDITION.fullmatch(text)
    if not match:
        raise UsageError(f"Cannot read the condition {text!r}; write it like duration_ms>1000 or level=ERROR.")
    if match[2] == "~":
        _pattern(match[3])
    return Condition(match[1], match[2], match[3])


def field_of(record: records.Record, name: str) -> object:
    """The field `name` of a record, or of the JSON it came from by dotted path; `kind` is the record's type."""
    if name == "kind":
        return type(record).__name__
    if is_dataclass(record) and name in {f.name for f in fields(record)} and name != "fields":
        return getattr(record, name)
    found: object = getattr(record, "fields", None)
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as problem:
        raise UsageError(f"{text!r} is not a regular expression ({problem}).") from None


def _both_numbers(one: object, other: str) -> tuple[float, float] | None:
    if isinstance(one, bool):
        return None
    try:
        return float(str(one)), float(other)
    except ValueError:
        return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
