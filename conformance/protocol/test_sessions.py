"""Checks of sessions and of the stream a GET opens (2025-11-25); a server without them is not blamed."""

import threading
import time

import pytest

from conformance.client import Client, initialize_params
from conformance.finding import expect, expect_result, expect_status, requirement
from conformance.messages import Era, changed, encode, next_id, request_headers, request_message
from conformance.wire import Answer, json_messages, sse_events

HANDSHAKE = Era.HANDSHAKE
STREAM_S = 2.0


def begin(client: Client) -> str:
    """A session of this check's own; skips where none is minted."""
    client.session_id = None
    minted = client.call(HANDSHAKE, "initialize", initialize_params()).answer.header("mcp-session-id")
    if minted is None:
        pytest.skip("the endpoint mints no session id")
    client.session_id = minted
    client.notify(HANDSHAKE, "notifications/initialized")
    return minted


def ping(client: Client, session_id: str | None) -> Answer:
    """A ping in the given session, none when None."""
    headers = changed(request_headers(HANDSHAKE, "ping"), {"Mcp-Session-Id": session_id})
    body = encode(request_message(HANDSHAKE, "ping", None, next_id()))
    return client.send(body, headers=headers, session=False)


@requirement("T25-10")
def test_session_ids_are_unique_and_long(handshake: Client) -> None:
    ids = [begin(handshake) for _ in range(3)]
    expect(len(set(ids)) == 3, "Two handshakes got the same session id.", got=ids)
    short = [one for one in ids if len(one) < 16]
    expect(not short, "A session id is too short to be hard to guess.", expected=">= 16 characters", got=short)


@requirement("T25-10")
def test_request_without_its_session_is_400(handshake: Client) -> None:
    begin(handshake)
    answer = ping(handshake, None)
    if answer.status == 200:
        pytest.skip("the endpoint does not require its session id")
    expect_status(answer, 400)


@requirement("T25-17")
def test_unknown_session_is_404(handshake: Client) -> None:
    begin(handshake)
    answer = ping(handshake, "00000000000000000000000000000000")
    if answer.status == 200:
        pytest.skip("the endpoint does not require its session id")
    expect_status(answer, 404)


@requirement("T25-16")
def test_ended_session_is_404(handshake: Client) -> None:
    session_id = begin(handshake)
    headers = [("MCP-Protocol-Version", str(HANDSHAKE)), ("Mcp-Session-Id", session_id)]
    ended = handshake.send(method="DELETE", headers=headers, timeout_s=5)
    if ended.status not in (200, 202, 204):
        pytest.skip(f"the endpoint does not let a client end its session: {ended.status}")
    expect_status(ping(handshake, session_id), 404)


@requirement("T25-14")
def test_get_stream_carries_no_responses(handshake: Client) -> None:
    """While the stream is open a ping is made; its response belongs on its own answer and nowhere else."""
    headers = [("Accept", "text/event-stream"), ("MCP-Protocol-Version", str(HANDSHAKE))]
    opened: list[Answer] = []

    def listen() -> None:
        opened.append(handshake.send(method="GET", headers=headers, timeout_s=STREAM_S, allow_partial=True))

    thread = threading.Thread(target=listen)
    thread.start()
    time.sleep(STREAM_S / 4)
    expect_result(handshake.call(HANDSHAKE, "ping"))
    thread.join()
    if not opened or opened[0].status != 200 or opened[0].media_type != "text/event-stream":
        pytest.skip("the endpoint opens no stream on GET")
    responses = [one for one in json_messages(opened[0]) if isinstance(one, dict) and "method" not in one]
    expect(not responses, "A response came on the stream that a GET opened.", got=responses)


@requirement("T25-13")
def test_resumable_stream_primes_the_client(handshake: Client) -> None:
    answer = handshake.call(HANDSHAKE, "ping", timeout_s=5).answer
    events = list(sse_events(answer.body)) if answer.media_type == "text/event-stream" else []
    if not any(event.event_id for event in events):
        pytest.skip("the endpoint gives its events no ids, so there is nothing to resume by")
    first = events[0]
    primes = bool(first.event_id) and not first.data
    expect(primes, "The first event is not an id with empty data.", got={"id": first.event_id, "data": first.data})
