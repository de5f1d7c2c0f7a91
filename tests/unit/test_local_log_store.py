"""Given events in streams, these are the pages that AWS would cut, and this is what is kept when room runs out."""

from typing import Any

import pytest

from sam.local.log_store import DAY_MS, LogsError, LogStore
from sam.local.logs_api import LogsApi

GROUP = "/aws/lambda/f"


def store(now_ms: int = 1_000_000, most_bytes: int = 10**9, **streams: list[tuple[int, str]]) -> LogStore:
    made = LogStore(most_bytes, now=lambda: now_ms / 1000)
    made.create_group(GROUP)
    for name, events in streams.items():
        made.create_stream(GROUP, name)
        made.put(GROUP, name, events)
    return made


def everything(_: str) -> bool:
    return True


def filtered(of: LogStore, **how: Any) -> list[list[str]]:
    """The messages of every page until there is no token."""
    pages, token, matches = [], None, how.pop("matches", everything)
    while True:
        page, token = of.filter(GROUP, matches, token=token, **how)
        pages.append([event.message for _, event in page])
        if token is None:
            return pages


def test_filter_merges_streams_in_order_of_time_and_pages_to_the_end():
    logs = store(a=[(1, "a1"), (3, "a3"), (5, "a5")], b=[(2, "b2"), (3, "b3"), (4, "b4")])
    assert filtered(logs, limit=4) == [["a1", "b2", "a3", "b3"], ["b4", "a5"]]
    assert filtered(logs, limit=2) == [["a1", "b2"], ["a3", "b3"], ["b4", "a5"]]
    assert filtered(logs) == [["a1", "b2", "a3", "b3", "b4", "a5"]]


@pytest.mark.parametrize(
    ("how", "messages"),
    [
        pytest.param({"start_ms": 3}, ["a3", "b3", "b4", "a5"], id="from"),
        pytest.param({"end_ms": 3}, ["a1", "b2", "a3", "b3"], id="to-and-with"),
        pytest.param({"streams": ["b"]}, ["b2", "b3", "b4"], id="one-stream"),
        pytest.param({"prefix": "a"}, ["a1", "a3", "a5"], id="prefix"),
        pytest.param({"matches": lambda message: "3" in message}, ["a3", "b3"], id="matching"),
    ],
)
def test_filter_chooses(how: dict[str, Any], messages: list[str]):
    logs = store(a=[(1, "a1"), (3, "a3"), (5, "a5")], b=[(2, "b2"), (3, "b3"), (4, "b4")])
    assert filtered(logs, **how) == [messages]


def test_a_page_holds_a_mebibyte():
    logs = store(a=[(at, "x" * 400_000) for at in range(5)])
    assert [len(page) for page in filtered(logs)] == [2, 2, 1]


def test_events_that_come_between_pages_are_neither_lost_nor_doubled():
    logs = store(a=[(at, str(at)) for at in range(4)])
    first, token = logs.filter(GROUP, everything, limit=2)
    logs.put(GROUP, "a", [(9, "late"), (0, "too late for this search")])
    second, end = logs.filter(GROUP, everything, token=token)
    assert [event.message for _, event in (*first, *second)] == ["0", "1", "2", "3", "late"]
    assert end is None


def test_get_forward_gives_the_same_token_again_at_the_end():
    logs = store(a=[(at, str(at)) for at in range(5)])
    seen, token = [], None
    for _ in range(3):
        page, forward, _ = logs.page(GROUP, "a", limit=2, from_head=True, token=token)
        seen.append([event.message for event in page])
        token = forward
    assert seen == [["0", "1"], ["2", "3"], ["4"]]
    page, again, _ = logs.page(GROUP, "a", limit=2, token=token)
    assert (page, again) == ([], token)
    logs.put(GROUP, "a", [(9, "new")])
    assert [event.message for event in logs.page(GROUP, "a", token=token)[0]] == ["new"]


def test_get_without_a_token_begins_at_the_tail_and_goes_back():
    logs = store(a=[(at, str(at)) for at in range(5)])
    page, _, backward = logs.page(GROUP, "a", limit=2)
    assert [event.message for event in page] == ["3", "4"]
    page, forward, backward = logs.page(GROUP, "a", limit=2, token=backward)
    assert [event.message for event in page] == ["1", "2"]
    assert [event.message for event in logs.page(GROUP, "a", limit=2, token=forward)[0]] == ["3", "4"]
    page, _, backward = logs.page(GROUP, "a", limit=2, token=backward)
    assert [event.message for event in page] == ["0"]
    page, _, again = logs.page(GROUP, "a", limit=2, token=backward)
    assert (page, again) == ([], backward)


def test_get_ends_before_its_end_time():
    logs = store(a=[(at, str(at)) for at in range(5)])
    assert [e.message for e in logs.page(GROUP, "a", start_ms=1, end_ms=3, from_head=True)[0]] == ["1", "2"]


@pytest.mark.parametrize("token", [pytest.param("nonsense", id="no-token"), pytest.param(None, id="of-another")])
def test_a_token_that_is_none_is_refused(token: str | None):
    logs = store(a=[(1, "1"), (2, "2")])
    if token is None:
        token = logs.page(GROUP, "a", from_head=True)[1]
    with pytest.raises(LogsError, match="nextToken is invalid"):
        logs.filter(GROUP, everything, token=token)


def test_the_oldest_events_make_room_for_new_ones():
    logs = store(most_bytes=100_000, old=[(at, "x" * 974) for at in range(50)])
    logs.create_stream(GROUP, "new")
    for at in range(100, 200):
        logs.put(GROUP, "new", [(at, "x" * 974)])
        assert logs.bytes <= 100_000
    kept = [event.timestamp_ms for _, event in logs.filter(GROUP, everything)[0]]
    assert kept == list(range(200 - len(kept), 200))
    assert len(kept) >= 90
    assert logs.bytes == 1000 * len(kept)


def test_retention_drops_what_is_too_old():
    logs = store(now_ms=10 * DAY_MS, a=[(DAY_MS, "old"), (9 * DAY_MS, "new")])
    api = LogsApi(logs, "us-east-1")
    assert api.handle("PutRetentionPolicy", b'{"logGroupName": "/aws/lambda/f", "retentionInDays": 3}') == (200, {})
    assert filtered(logs) == [["new"]]


@pytest.mark.parametrize(
    ("operation", "body", "kind"),
    [
        pytest.param("FilterLogEvents", b'{"logGroupName": "no"}', "ResourceNotFoundException", id="no-group"),
        pytest.param(
            "GetLogEvents",
            b'{"logGroupName": "/aws/lambda/f", "logStreamName": "no"}',
            "ResourceNotFoundException",
            id="no-stream",
        ),
        pytest.param(
            "CreateLogGroup", b'{"logGroupName": "/aws/lambda/f"}', "ResourceAlreadyExistsException", id="twice"
        ),
        pytest.param(
            "FilterLogEvents",
            b'{"logGroupName": "/aws/lambda/f", "filterPattern": "{ $.a = "}',
            "InvalidParameterException",
            id="pattern",
        ),
        pytest.param(
            "PutLogEvents",
            b'{"logGroupName": "/aws/lambda/f", "logStreamName": "a", "logEvents": '
            b'[{"timestamp": 2, "message": "b"}, {"timestamp": 1, "message": "a"}]}',
            "InvalidParameterException",
            id="out-of-order",
        ),
        pytest.param("PutMetricFilter", b"{}", "UnknownOperationException", id="not-here"),
    ],
)
def test_a_request_that_aws_refuses_is_refused_by_its_name(operation: str, body: bytes, kind: str):
    status, document = LogsApi(store(a=[]), "us-east-1").handle(operation, body) or (0, {})
    assert (status, document["__type"]) == (400, kind)
