"""Writes log events as text, JSON Lines or CSV, one writer for each format.

It must not choose or reorder: what it is given comes out, all of it, in that order.
"""

import csv
from collections.abc import Callable, Iterable
from datetime import tzinfo
from typing import TextIO

from ops.logs import LogEvent, event_line
from ops.reading import printable, readable
from ops.times import of_ms

type Writer = Callable[[Iterable[LogEvent], TextIO, tzinfo], None]


def write_text(events: Iterable[LogEvent], out: TextIO, zone: tzinfo) -> None:
    """`time stream-end message`, JSON records said in words; times in `zone`."""
    out.writelines(text_line(event, zone) for event in events)


def write_text_of_groups(events: Iterable[LogEvent], out: TextIO, zone: tzinfo) -> None:
    """`time group stream-end message`, for events of several groups."""
    out.writelines(text_line(event, zone, f"{event.group} ") for event in events)


def text_line(event: LogEvent, zone: tzinfo, of: str = "") -> str:
    """One event for reading, its own line breaks indented under it; the last eight characters of its stream tell
    environments apart."""
    at = of_ms(event.timestamp_ms, zone)
    lines = printable(readable(event.message).rstrip("\r\n\t ").replace("\r", "\n")).split("\n")
    return (
        f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} {at:%Z} {of}{event.stream[-8:]} "
        + "\n    ".join(lines)
        + "\n"
    )


def write_jsonl(events: Iterable[LogEvent], out: TextIO, zone: tzinfo) -> None:
    """The rows of `events.jsonl`, epoch milliseconds and all."""
    del zone
    out.writelines(event_line(event) for event in events)


def write_csv(events: Iterable[LogEvent], out: TextIO, zone: tzinfo) -> None:
    """RFC 4180 rows after the head line of `CSV_HEAD`; `time` is ISO 8601 in `zone`."""
    rows = csv.writer(out)
    for event in events:
        rows.writerow((of_ms(event.timestamp_ms, zone).isoformat(timespec="milliseconds"), *event))


CSV_HEAD = ",".join(("time", *LogEvent._fields)) + "\r\n"
HEADS = {"text": "", "jsonl": "", "csv": CSV_HEAD}
WRITERS: dict[str, Writer] = {"text": write_text, "jsonl": write_jsonl, "csv": write_csv}
