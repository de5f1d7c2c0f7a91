"""Pulls log events through CloudWatch Logs with pagination by hand, once or following.

It must not lose an event to an empty page, a repeated token, a throttle or a late arrival, nor give one twice.
botocore's paginator stops at a repeated token (aws-cli issues 3022 and 3191), so tokens are followed here.
"""

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import botocore.exceptions

from ops.aws import NO_ANSWER, THROTTLED, error_code
from ops.failures import Inconclusive

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

# FilterLogEvents is limited to a few calls a second for the whole account and region.
CALLS_PER_SECOND = 5.0
# How late an event may still arrive: the careful public measurement saw 90 s (amazon-dynamodb-tools#315).
LATE_MS = 90_000
_MAX_ATTEMPTS = 10
_MAX_STUCK_PAGES = 20


class LogEvent(NamedTuple):
    """One log event; times are epoch milliseconds, `message` is as it was written.

    A tuple and not a frozen dataclass because a report makes millions: 0.3 against 1.3 microseconds each.
    """

    timestamp_ms: int
    ingestion_ms: int
    group: str
    stream: str
    id: str
    message: str


@dataclass(slots=True)
class Pace:
    """One token bucket for every call of a command; halves its rate when AWS throttles. Rate in calls a second."""

    rate: float = CALLS_PER_SECOND
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random
    throttles: int = 0
    _tokens: float = field(default=CALLS_PER_SECOND, init=False)
    _filled_at: float | None = field(default=None, init=False)

    def wait(self) -> None:
        """Returns when the next call may go out."""
        now = self.clock()
        elapsed = now - (self._filled_at if self._filled_at is not None else now)
        self._tokens = min(max(self.rate, 1.0), self._tokens + elapsed * self.rate)
        self._filled_at = now
        if self._tokens < 1:
            self.sleep((1 - self._tokens) / self.rate)
            self._filled_at = self.clock()
            self._tokens = 1.0
        self._tokens -= 1

    def throttled(self, attempt: int) -> None:
        """Slows the whole command down and waits, exponentially with full jitter, before the next attempt."""
        self.throttles += 1
        self.rate = max(0.5, self.rate / 2)
        self.sleep(min(20.0, 0.2 * 2**attempt) * self.jitter())


def pages(
    client: "CloudWatchLogsClient",
    group: str,
    start_ms: int,
    end_ms: int,
    pace: Pace,
    *,
    streams: Sequence[str] = (),
    pattern: str | None = None,
) -> Iterator[list[LogEvent]]:
    """The events of `group` from `start_ms` to before `end_ms`, page by page as AWS gives them; pages may repeat.

    Ends only when a page carries no token. Raises Inconclusive if AWS repeats a token without giving anything new.
    """
    request: dict[str, Any] = {"logGroupName": group, "startTime": start_ms, "endTime": max(start_ms, end_ms - 1)}
    if streams:
        request["logStreamNames"] = list(streams)
    if pattern:
        request["filterPattern"] = pattern
    token: str | None = None
    previous: tuple[str | None, list[str]] = (None, [])
    stuck = 0
    while True:
        answer = _call(client, request | ({"nextToken": token} if token else {}), pace)
        events = [_event(group, raw) for raw in answer.get("events", [])]
        yield events
        token = answer.get("nextToken")
        if not token:
            return
        seen = (token, [event.id for event in events])
        stuck = stuck + 1 if seen == previous else 0
        previous = seen
        if stuck >= _MAX_STUCK_PAGES:
            raise Inconclusive(
                f"CloudWatch gave one page of {group} {stuck + 1} times over, so what came is incomplete; try again."
            )


def _call(client: "CloudWatchLogsClient", request: dict[str, Any], pace: Pace) -> dict[str, Any]:
    for attempt in range(_MAX_ATTEMPTS):
        pace.wait()
        try:
            return client.filter_log_events(**request)  # type: ignore[return-value]
        except botocore.exceptions.ClientError as problem:
            passing = error_code(problem) in THROTTLED | {"ServiceUnavailableException", "InternalFailure"}
            if not passing or attempt == _MAX_ATTEMPTS - 1:
                raise
        except NO_ANSWER:
            # A first call that finds nobody home is an answer; a connection lost on the way is not.
            if "nextToken" not in request or attempt == _MAX_ATTEMPTS - 1:
                raise
        pace.throttled(attempt)
    raise AssertionError("the last attempt returns or raises")


def _event(group: str, raw: dict[str, Any]) -> LogEvent:
    return LogEvent(
        int(raw["timestamp"]),
        int(raw.get("ingestionTime", raw["timestamp"])),
        group,
        raw.get("logStreamName", ""),
        raw.get("eventId", ""),
        raw.get("message", ""),
    )


class Seen:
    """Remembers which events were given, for as long as they may still come again."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str, str, int], int] = {}

    def new(self, events: Iterable[LogEvent]) -> list[LogEvent]:
        """Those of `events` that were not given before, in their order."""
        fresh = []
        for event in events:
            # The id is unique in AWS; the stream and time keep apart what an emulator numbers anew.
            key = (event.group, event.stream, event.id, event.timestamp_ms)
            if key not in self._ids:
                self._ids[key] = event.timestamp_ms
                fresh.append(event)
        return fresh

    def forget_before(self, timestamp_ms: int) -> None:
        """Drops the memory of events older than any window that will be asked for again."""
        self._ids = {key: at for key, at in self._ids.items() if at >= timestamp_ms}

    def __len__(self) -> int:
        return len(self._ids)


def pull(
    client: "CloudWatchLogsClient",
    groups: Sequence[str],
    start_ms: int,
    end_ms: int,
    pace: Pace,
    *,
    streams: Sequence[str] = (),
    pattern: str | None = None,
    seen: Seen | None = None,
) -> Iterator[list[LogEvent]]:
    """Every event of `groups` in the range, once each, in batches as they come; group after group."""
    seen = seen if seen is not None else Seen()
    for group in groups:
        for page in pages(client, group, start_ms, end_ms, pace, streams=streams, pattern=pattern):
            if fresh := seen.new(page):
                yield fresh


def follow(
    client: "CloudWatchLogsClient",
    groups: Sequence[str],
    start_ms: int,
    pace: Pace,
    *,
    now_ms: Callable[[], int],
    pattern: str | None = None,
    poll_s: float = 2.0,
    sweep_s: float = 30.0,
) -> Iterator[list[LogEvent]]:
    """Events from `start_ms` on, for ever: a short window every `poll_s`, and a sweep for late ones every `sweep_s`.

    Batches are sorted by time; a late event comes in the batch of the sweep that found it. An empty list is given
    after each round, so that the caller can tell time passes.
    """
    seen, watermark_ms, swept_ms = Seen(), start_ms, now_ms()
    while True:
        until_ms = now_ms() + 1
        sweeping = until_ms - swept_ms >= sweep_s * 1000
        reach_ms = LATE_MS + int(sweep_s * 1000) if sweeping else int(poll_s * 5000)
        from_ms = max(start_ms, watermark_ms - reach_ms)
        for batch in pull(client, groups, from_ms, until_ms, pace, pattern=pattern, seen=seen):
            yield sorted(batch, key=lambda event: event.timestamp_ms)
        if sweeping:
            swept_ms = until_ms
            seen.forget_before(until_ms - 2 * (LATE_MS + int(sweep_s * 1000)))
        watermark_ms = until_ms
        yield []
        pace.sleep(poll_s)


def groups_there(client: "CloudWatchLogsClient", prefix: str, pace: Pace) -> list[str]:
    """The names of the log groups that begin with `prefix`."""
    names: list[str] = []
    token: str | None = None
    while True:
        pace.wait()
        answer = (
            client.describe_log_groups(logGroupNamePrefix=prefix, nextToken=token)
            if token
            else client.describe_log_groups(logGroupNamePrefix=prefix)
        )
        names += [group["logGroupName"] for group in answer["logGroups"]]
        following = answer.get("nextToken")
        if not following or following == token:
            return names
        token = following


def write_events(batches: Iterable[list[LogEvent]], path: Path) -> Iterator[int]:
    """Writes each batch to `path` as JSON Lines, whole lines at a time, and yields the count so far.

    What was written stays when the reading is interrupted.
    """
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for batch in batches:
            file.write("".join(event_line(event) for event in batch))
            file.flush()
            count += len(batch)
            yield count


def event_line(event: LogEvent) -> str:
    """One line of `events.jsonl`."""
    return json.dumps(event._asdict(), ensure_ascii=False) + "\n"


def read_events(path: Path) -> Iterator[LogEvent]:
    """The events of an `events.jsonl`, in its order; a last line cut short by an interruption is left out."""
    decode, fields, event = json.JSONDecoder().raw_decode, itemgetter(*LogEvent._fields), LogEvent._make
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n"):
                return
            yield event(fields(decode(line)[0]))
