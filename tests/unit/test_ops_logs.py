"""Given a CloudWatch that repeats tokens, gives empty pages, throttles and is late, every event comes exactly once."""

import io
import random
from dataclasses import dataclass, field

import botocore.exceptions
import pytest

from ops import logs
from ops.failures import Inconclusive
from ops.logs import LogEvent, Pace, Seen


def throttled(operation="FilterLogEvents"):
    return botocore.exceptions.ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate"}}, operation)


@dataclass
class Clock:
    """Time that passes only when somebody sleeps."""

    seconds: float = 1_000_000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self):
        return self.seconds

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.seconds += seconds


@dataclass
class FaultyCloudWatch:
    """FilterLogEvents as it is at its worst; `late` events are there only once `clock` has reached their ingestion."""

    events: list[LogEvent]
    clock: Clock
    page_size: int = 500
    empty_page: float = 0.0
    same_token: float = 0.0
    throttle: float = 0.0
    lost_connection: float = 0.0
    repeat_page: float = 0.0
    seed: int = 1
    calls: int = 0

    def __post_init__(self):
        self.random = random.Random(self.seed)
        self.serves: dict[str, int] = {}

    def filter_log_events(
        self, logGroupName, startTime, endTime, nextToken=None, logStreamNames=None, filterPattern=None
    ):
        self.calls += 1
        draw = self.random.random
        if draw() < self.throttle:
            raise throttled()
        if nextToken and draw() < self.lost_connection:
            raise botocore.exceptions.ReadTimeoutError(endpoint_url="https://logs")
        now_ms = self.clock() * 1000
        there = [
            e
            for e in self.events
            if e.group == logGroupName
            and startTime <= e.timestamp_ms <= endTime
            and e.ingestion_ms <= now_ms
            and (not logStreamNames or e.stream in logStreamNames)
            and (not filterPattern or filterPattern.strip('"') in e.message)
        ]
        at = int(nextToken.split(":")[0]) if nextToken else 0
        if draw() < self.empty_page:
            # An empty page, sometimes under the very token that was asked with.
            keep = nextToken is not None and draw() < self.same_token
            return {"events": [], "nextToken": nextToken if keep else f"{at}:{self.calls}"}
        page = there[at : at + self.page_size]
        if page and draw() < self.repeat_page:
            return {"events": [self._raw(e) for e in page], "nextToken": f"{at}:{self.calls}"}
        answer = {"events": [self._raw(e) for e in page]}
        if at + self.page_size < len(there):
            answer["nextToken"] = f"{at + self.page_size}:"
        return answer

    @staticmethod
    def _raw(event):
        return {
            "timestamp": event.timestamp_ms,
            "ingestionTime": event.ingestion_ms,
            "logStreamName": event.stream,
            "eventId": event.id,
            "message": event.message,
        }


def events(count, streams=10, start_ms=1_000_000_000 - 100_000, step_ms=1, group="/aws/lambda/f"):
    return [
        LogEvent(at, at, group, f"2026/11/24/[$LATEST]{n % streams:08x}", f"{n:056d}", f"line {n}")
        for n in range(count)
        for at in [start_ms + n * step_ms]
    ]


def pace_of(clock, rate=1e9):
    return Pace(rate, clock=clock, sleep=clock.sleep, jitter=lambda: 1.0)


def pulled(client, pace, start=0, end=2_000_000_000, **kwargs):
    groups = kwargs.pop("groups", ["/aws/lambda/f"])
    return [event for batch in logs.pull(client, groups, start, end, pace, **kwargs) for event in batch]


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param({}, id="none"),
        pytest.param({"empty_page": 0.3}, id="empty-pages"),
        pytest.param({"empty_page": 0.4, "same_token": 0.8}, id="repeated-tokens"),
        pytest.param({"throttle": 0.3}, id="throttles"),
        pytest.param({"repeat_page": 0.3}, id="repeated-pages"),
        pytest.param({"lost_connection": 0.2}, id="lost-connections"),
        pytest.param(
            {"empty_page": 0.2, "same_token": 0.5, "throttle": 0.2, "repeat_page": 0.2, "lost_connection": 0.1},
            id="all",
        ),
    ],
)
def test_no_event_is_lost_or_given_twice(faults):
    clock, there = Clock(), events(5000)
    client = FaultyCloudWatch(there, clock, page_size=50, **faults)
    assert [e.id for e in pulled(client, pace_of(clock))] == [e.id for e in there]


def test_a_hundred_thousand_events_over_a_thousand_streams_with_every_fault():
    clock, there = Clock(), events(100_000, streams=1000)
    client = FaultyCloudWatch(
        there, clock, page_size=5000, empty_page=0.2, same_token=0.5, throttle=0.2, repeat_page=0.2, lost_connection=0.1
    )
    assert [e.id for e in pulled(client, pace_of(clock))] == [e.id for e in there]


def test_the_range_is_half_open_so_that_neighbouring_ranges_share_nothing():
    clock, there = Clock(), events(10, start_ms=1000)
    client = FaultyCloudWatch(there, clock)
    first, second = pulled(client, pace_of(clock), 1000, 1005), pulled(client, pace_of(clock), 1005, 1010)
    assert [e.id for e in first + second] == [e.id for e in there]


def test_several_groups_are_pulled_each_once():
    clock = Clock()
    there = events(30) + events(20, group="/aws/lambda/g")
    client = FaultyCloudWatch(there, clock, page_size=7)
    got = pulled(client, pace_of(clock), groups=["/aws/lambda/f", "/aws/lambda/g"])
    assert [(e.group, e.id) for e in got] == [(e.group, e.id) for e in there]


def test_a_token_that_repeats_for_ever_is_an_error_and_not_an_end():
    class Stuck:
        def filter_log_events(self, **_):
            return {"events": [], "nextToken": "again"}

    with pytest.raises(Inconclusive, match="incomplete"):
        pulled(Stuck(), pace_of(Clock()))


def test_endless_throttling_ends_after_ten_attempts_and_slows_down_on_the_way():
    class Throttling:
        calls = 0

        def filter_log_events(self, **_):
            self.calls += 1
            raise throttled()

    clock, client = Clock(), Throttling()
    pace = pace_of(clock, rate=5.0)
    with pytest.raises(botocore.exceptions.ClientError):
        pulled(client, pace)
    assert client.calls == 10
    assert pace.rate == 0.5
    assert pace.throttles == 9


def test_nobody_home_is_told_at_once():
    class Dead:
        calls = 0

        def filter_log_events(self, **_):
            self.calls += 1
            raise botocore.exceptions.EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    dead = Dead()
    with pytest.raises(botocore.exceptions.EndpointConnectionError):
        pulled(dead, pace_of(Clock()))
    assert dead.calls == 1


def test_one_pace_holds_the_whole_command_to_its_rate():
    clock = Clock()
    began = clock()
    pace = pace_of(clock, rate=5.0)
    for _ in range(105):
        pace.wait()
    assert clock() - began == pytest.approx(20.0)  # a burst of five, then five a second


def test_what_was_pulled_before_an_interruption_is_on_disk(tmp_path):
    there = events(100)

    def interrupted():
        yield there[:60]
        raise KeyboardInterrupt

    path = tmp_path / "events.jsonl"
    with pytest.raises(KeyboardInterrupt):
        list(logs.write_events(interrupted(), path))
    assert list(logs.read_events(path)) == there[:60]


def test_each_batch_is_on_disk_before_the_next_is_asked_for(tmp_path):
    there, path = events(20), tmp_path / "events.jsonl"
    writing = logs.write_events(iter([there[:10], there[10:]]), path)
    assert next(writing) == 10
    assert list(logs.read_events(path)) == there[:10]
    assert next(writing) == 20
    assert list(logs.read_events(path)) == there


def test_a_last_line_cut_short_is_left_out(tmp_path):
    there = events(3)
    path = tmp_path / "events.jsonl"
    path.write_text("".join(logs.event_line(e) for e in there)[:-10])
    assert list(logs.read_events(path)) == there[:2]


def test_messages_with_every_kind_of_line_break_survive_the_file(tmp_path):
    odd = LogEvent(1, 2, "g", "s", "i", "a\rb\nc\u2028d\u0085e\x00计算")
    path = tmp_path / "events.jsonl"
    list(logs.write_events([[odd]], path))
    assert list(logs.read_events(path)) == [odd]


def test_following_gives_late_events_once_and_loses_none():
    clock = Clock()
    began_ms = int(clock() * 1000)
    rng = random.Random(7)
    there = []
    for n in range(2000):
        at = began_ms + n * 100  # 200 s of ten events a second, each up to 85 s late
        there.append(
            LogEvent(at, at + rng.choice([0, 0, 0, 500, 5_000, 40_000, 85_000]), "/aws/lambda/f", "s", f"{n}", "x")
        )
    client = FaultyCloudWatch(there, clock, page_size=300, empty_page=0.1, same_token=0.5, throttle=0.05)
    got = []
    follower = logs.follow(client, ["/aws/lambda/f"], began_ms, pace_of(clock), now_ms=lambda: int(clock() * 1000))
    while clock() * 1000 < began_ms + 200_000 + 85_000 + 60_000:
        got += next(follower)
    assert len(got) == len(there)
    assert {e.id for e in got} == {e.id for e in there}


def test_seen_forgets_what_cannot_come_again():
    seen = Seen()
    seen.new(events(10, start_ms=1000))
    seen.forget_before(1005)
    assert len(seen) == 5


def test_event_lines_are_json_lines():
    buffer = io.StringIO("".join(logs.event_line(e) for e in events(2)))
    assert buffer.read().count("\n") == 2
