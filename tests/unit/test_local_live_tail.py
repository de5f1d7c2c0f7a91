"""Given lines that are put while somebody tails, an update tells those asked for, and that some were left out."""

from collections.abc import Sequence

import pytest
from botocore.eventstream import EventStreamBuffer

from sam.local.filter_pattern import compile_pattern
from sam.local.live_tail import MOST_EVENTS, _Tail, encoded
from sam.local.log_store import LogStore


def heard(groups: Sequence[str], names: Sequence[str] = (), prefixes: tuple[str, ...] = (), pattern: str = "") -> _Tail:
    store, tail = LogStore(now=lambda: 1.5), _Tail(groups, names, prefixes, compile_pattern(pattern))
    store.listeners.add(tail.hear)
    for group in ("g", "h"):
        store.create_group(group)
        for stream in ("a1", "a2", "b"):
            store.create_stream(group, stream)
            store.put(group, stream, [(1000, f"{group} {stream} first"), (1001, f"{group} {stream} second")])
    return tail


@pytest.mark.parametrize(
    ("tail", "messages"),
    [
        pytest.param(
            heard(["g"], pattern="second"), ["g a1 second", "g a2 second", "g b second"], id="one-group-by-pattern"
        ),
        pytest.param(heard(["g"], names=["b"]), ["g b first", "g b second"], id="one-stream"),
        pytest.param(
            heard(["h"], prefixes=("a",), pattern="first"), ["h a1 first", "h a2 first"], id="streams-by-prefix"
        ),
        pytest.param(heard(["g", "h"], pattern='"b first"'), ["g b first", "h b first"], id="two-groups"),
    ],
)
def test_an_update_tells_what_was_asked_for_and_once(tail: _Tail, messages: list[str]) -> None:
    update = tail.update()
    assert [result["message"] for result in update["sessionResults"]] == messages
    assert update["sessionMetadata"] == {"sampled": False}
    assert tail.update()["sessionResults"] == []


def test_more_than_fits_is_left_out_and_said() -> None:
    store, tail = LogStore(), _Tail(["g"], [], (), compile_pattern(""))
    store.listeners.add(tail.hear)
    store.create_group("g")
    store.create_stream("g", "s")
    for _ in range(3):
        store.put("g", "s", [(1, "line")] * MOST_EVENTS)
    update = tail.update()
    assert (len(update["sessionResults"]), update["sessionMetadata"]) == (MOST_EVENTS, {"sampled": True})


def test_a_message_is_one_that_botocore_reads() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(encoded({":event-type": "sessionUpdate"}, {"a": "ü"}) + encoded({}, {}, kind="exception"))
    first, second = buffer
    assert first.headers == {
        ":message-type": "event", ":content-type": "application/json", ":event-type": "sessionUpdate",
    }  # fmt: skip
    assert (first.payload, second.headers[":message-type"]) == (b'{"a": "\\u00fc"}', "exception")
