"""Log groups, their streams and events, kept in memory up to a limit; it knows neither HTTP nor boto3.

Pages come as AWS cuts them: FilterLogEvents in order of time with a token until the end, GetLogEvents by position in
one stream, with the same token again at its end.
"""

import base64
import bisect
import heapq
import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_BYTES = 256 * 1024 * 1024  # of messages; the oldest events go first
EVENT_OVERHEAD = 26  # bytes that CloudWatch Logs counts for every event beside its message
PAGE_EVENTS, PAGE_BYTES = 10_000, 1024 * 1024
DAY_MS = 24 * 3600 * 1000


class LogsError(Exception):
    """A refusal of CloudWatch Logs: its exception's name and the message."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Stored:
    """One event; `serial` orders events of the same millisecond, and is what page tokens name."""

    timestamp_ms: int
    serial: int
    ingested_ms: int
    message: str

    @property
    def order(self) -> tuple[int, int]:
        return self.timestamp_ms, self.serial

    @property
    def event_id(self) -> str:
        return f"{self.timestamp_ms:020d}{self.serial:036d}"

    @property
    def size(self) -> int:
        return len(self.message.encode("utf-8", "replace")) + EVENT_OVERHEAD


@dataclass(slots=True)
class Stream:
    """One log stream, its events in order of time."""

    name: str
    created_ms: int
    events: list[Stored] = field(default_factory=list)
    last_ingested_ms: int | None = None
    bytes: int = 0


@dataclass(slots=True)
class Group:
    """One log group."""

    name: str
    created_ms: int
    retention_days: int | None = None
    streams: dict[str, Stream] = field(default_factory=dict)


class LogStore:
    """All log groups. May be used from several threads."""

    def __init__(self, most_bytes: int = MOST_BYTES, now: Callable[[], float] = time.time) -> None:
        self.groups: dict[str, Group] = {}
        # Called with group, stream and what was just put into it, in the thread that puts it.
        self.listeners: set[Callable[[str, str, Sequence[Stored]], None]] = set()
        self._most_bytes = most_bytes
        self._now = now
        self._bytes = 0
        self._serials = itertools.count(1)
        self._lock = threading.RLock()

    @property
    def bytes(self) -> int:
        """Of all events, as CloudWatch Logs counts them."""
        return self._bytes

    def create_group(self, name: str, retention_days: int | None = None) -> Group:
        """Raises LogsError when it is there."""
        with self._lock:
            if name in self.groups:
                raise LogsError("ResourceAlreadyExistsException", "The specified log group already exists")
            self.groups[name] = Group(name, self._now_ms(), retention_days)
            return self.groups[name]

    def delete_group(self, name: str) -> None:
        """Raises LogsError when it is not there."""
        with self._lock:
            group = self.group(name)
            for stream in list(group.streams):
                self.delete_stream(name, stream)
            del self.groups[name]

    def group(self, name: str) -> Group:
        """Raises LogsError when it is not there."""
        if name not in self.groups:
            raise LogsError("ResourceNotFoundException", "The specified log group does not exist.")
        return self.groups[name]

    def create_stream(self, group: str, name: str) -> Stream:
        """Raises LogsError when it is there, or its group is not."""
        with self._lock:
            streams = self.group(group).streams
            if name in streams:
                raise LogsError("ResourceAlreadyExistsException", "The specified log stream already exists")
            streams[name] = Stream(name, self._now_ms())
            return streams[name]

    def delete_stream(self, group: str, name: str) -> None:
        """Raises LogsError when it is not there."""
        with self._lock:
            self._bytes -= self.stream(group, name).bytes
            del self.group(group).streams[name]

    def stream(self, group: str, name: str) -> Stream:
        """Raises LogsError when it is not there."""
        streams = self.group(group).streams
        if name not in streams:
            raise LogsError("ResourceNotFoundException", "The specified log stream does not exist.")
        return streams[name]

    def put(self, group: str, stream: str, events: Iterable[tuple[int, str]]) -> None:
        """Add events, each a time in ms since the epoch and a message. Raises LogsError."""
        with self._lock:
            into = self.stream(group, stream)
            now_ms = self._now_ms()
            stored = [Stored(timestamp_ms, next(self._serials), now_ms, message) for timestamp_ms, message in events]
            for event in stored:
                if into.events and event.order < into.events[-1].order:
                    bisect.insort(into.events, event, key=lambda stored: stored.order)
                else:
                    into.events.append(event)
                into.bytes += event.size
                self._bytes += event.size
            into.last_ingested_ms = now_ms
            if self._bytes > self._most_bytes:
                self._trim()
            for listener in list(self.listeners):
                listener(group, stream, stored)

    def expire(self) -> None:
        """Drop what its group keeps no longer."""
        with self._lock:
            for group in self.groups.values():
                if group.retention_days:
                    oldest_ms = self._now_ms() - group.retention_days * DAY_MS
                    for stream in group.streams.values():
                        self._drop(stream, bisect.bisect_left(stream.events, (oldest_ms, 0), key=lambda s: s.order))

    def _trim(self) -> None:
        """Drop the oldest events until a tenth of the room is free, and streams that are then empty."""
        streams = [stream for group in self.groups.values() for stream in group.streams.values() if stream.events]
        streams.sort(key=lambda stream: stream.events[0].order)
        for stream in streams:
            count, freed = 0, 0
            while count < len(stream.events) and self._bytes - freed > self._most_bytes * 0.9:
                freed += stream.events[count].size
                count += 1
            self._drop(stream, count)
        for group in self.groups.values():
            newest = max((s.last_ingested_ms or 0 for s in group.streams.values()), default=0)
            for name, stream in list(group.streams.items()):
                if not stream.events and stream.last_ingested_ms and stream.last_ingested_ms < newest:
                    del group.streams[name]

    def _drop(self, stream: Stream, count: int) -> None:
        freed = sum(event.size for event in stream.events[:count])
        del stream.events[:count]
        stream.bytes -= freed
        self._bytes -= freed

    # -- reading ------------------------------------------------------------------------------------------------

    def filter(
        self,
        group: str,
        matches: Callable[[str], bool],
        *,
        streams: Sequence[str] | None = None,
        prefix: str | None = None,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = PAGE_EVENTS,
        token: str | None = None,
    ) -> tuple[list[tuple[str, Stored]], str | None]:
        """Events of [start, end] of several streams in order of time, and the token of the next page, None at the end.

        Raises LogsError for a token that is none.
        """
        with self._lock:
            chosen = self._chosen(group, streams, prefix)
        after = (start_ms or 0, 0)
        if token is not None:
            after = _position(token, "filter", group)
        page: list[tuple[str, Stored]] = []
        size = 0
        for stream, event in _merged(chosen, after, end_ms):
            if len(page) >= limit or (page and size + event.size > PAGE_BYTES):
                return page, _token("filter", group, event.order)
            if matches(event.message):
                page.append((stream, event))
                size += event.size
        return page, None

    def _chosen(self, group: str, streams: Sequence[str] | None, prefix: str | None) -> list[tuple[str, list[Stored]]]:
        there = self.group(group).streams
        if streams:
            names = [self.stream(group, name).name for name in streams]
        else:
            names = [name for name in there if name.startswith(prefix or "")]
        return [(name, list(there[name].events)) for name in names]

    def page(
        self,
        group: str,
        stream: str,
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = PAGE_EVENTS,
        from_head: bool = False,
        token: str | None = None,
    ) -> tuple[list[Stored], str, str]:
        """Events of [start, end) of one stream, oldest first, and the tokens forward and backward.

        Without a token the page begins at the head or ends at the tail. At either end the token is the one that was
        given. Raises LogsError.
        """
        with self._lock:
            there = [
                event
                for event in self.stream(group, stream).events
                if event.timestamp_ms >= (start_ms or 0) and (end_ms is None or event.timestamp_ms < end_ms)
            ]
        direction, orders = "f" if from_head else "b", [event.order for event in there]
        at = 0 if from_head else len(there)
        if token is not None:
            direction, _, rest = token.partition("/")
            at = bisect.bisect_left(orders, _position(rest, "get", stream))
        if direction == "f":
            begin, end = at, _fill(there, at, limit, 1)
        else:
            begin, end = _fill(there, at, limit, -1), at
        forward = orders[end] if end < len(there) else ((orders[-1][0], orders[-1][1] + 1) if orders else (0, 0))
        backward = orders[begin] if begin < len(there) else forward
        return there[begin:end], "f/" + _token("get", stream, forward), "b/" + _token("get", stream, backward)

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


def _merged(
    streams: Sequence[tuple[str, list[Stored]]], after: tuple[int, int], end_ms: int | None
) -> Iterator[tuple[str, Stored]]:
    parts = []
    for name, events in streams:
        first = bisect.bisect_left(events, after, key=lambda event: event.order)
        parts.append([(event.order, name, event) for event in events[first:]])
    for _, name, event in heapq.merge(*parts):
        if end_ms is not None and event.timestamp_ms > end_ms:
            return
        yield name, event


def _fill(events: Sequence[Stored], at: int, limit: int, step: int) -> int:
    """How far a page that begins (or, with step -1, ends) at `at` reaches."""
    size, end = 0, at
    while abs(end - at) < limit:
        next_index = end if step == 1 else end - 1
        if not 0 <= next_index < len(events):
            break
        size += events[next_index].size
        if size > PAGE_BYTES and end != at:
            break
        end += step
    return end


def _token(kind: str, of: str, order: tuple[int, int]) -> str:
    return base64.urlsafe_b64encode(json.dumps([kind, _mark(of), *order]).encode()).decode()


def _position(token: str, kind: str, of: str) -> tuple[int, int]:
    try:
        found: Any = json.loads(base64.urlsafe_b64decode(token))
        token_kind, mark, timestamp_ms, serial = found
    except (ValueError, TypeError) as error:
        raise LogsError("InvalidParameterException", "The specified nextToken is invalid.") from error
    if (token_kind, mark) != (kind, _mark(of)):
        raise LogsError("InvalidParameterException", "The specified nextToken is invalid.")
    return int(timestamp_ms), int(serial)


def _mark(of: str) -> str:
    """A token is good for the group or stream it was made for alone."""
    return uuid.uuid5(uuid.NAMESPACE_URL, of).hex[:8]
