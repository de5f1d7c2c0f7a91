"""Checks of the revisions before 2025-11-25, each in a handshake that agreed on it; skipped where the server does not.

Of 2024-11-05 only the handshake and the errors: its transport is another one, so what is about HTTP is not asked of it.
"""

import json

import pytest

from conformance.client import Agreement, Client, Discovery
from conformance.finding import expect, expect_error, expect_result, expect_status, requirement
from conformance.messages import Era, encode, next_id, request_headers, request_message, text_blocks
from conformance.protocol.refusals import UNKNOWN_TOOL, expect_refused, need_service, session_of, tool_with_required
from conformance.wire import json_messages


def over_http(older: Era) -> None:
    """Skips what 2024-11-05 knows only of a transport that this endpoint does not speak."""
    if older is Era.FIRST:
        pytest.skip("2024-11-05 has another HTTP transport")


@requirement("Y24-01", "Y03-01", "Y06-01")
def test_older_version_is_introduced(older: Era, agreements: dict[Era, Agreement | str]) -> None:
    agreement = agreements[older]
    assert isinstance(agreement, Agreement)
    info = agreement.result.get("serverInfo")
    expect(isinstance(info, dict) and {"name", "version"} <= info.keys(), "serverInfo is incomplete.", got=info)
    expect(isinstance(agreement.result.get("capabilities"), dict), "capabilities is no object.", got=agreement.result)


@requirement("L24-01", "L03-01", "L06-01")
def test_older_tool_list_is_served(client: Client, older: Era, discovery: Discovery) -> None:
    if not discovery.tools:
        pytest.skip("the endpoint lists no tools")
    result = expect_result(client.call(older, "tools/list"))
    expect(result["tools"], "The tools of the newest revision are not listed in this one.", got=result)


@requirement("K24-01", "K03-01", "K06-01")
def test_older_ping_is_answered(client: Client, older: Era) -> None:
    result = expect_result(client.call(older, "ping"))
    expect(not set(result) - {"_meta"}, "The ping result is not empty.", got=result)


@requirement("B24-01", "B03-01", "B06-01")
def test_older_unknown_method_is_an_error(client: Client, older: Era) -> None:
    reply = client.call(older, "unknown/method", {}, request_id="older-error")
    expect_error(reply, -32601)
    assert reply.message is not None
    expect(reply.message.get("id") == "older-error", "The error does not carry the request's id.", got=reply.message)


@requirement("L24-02", "L03-02", "L06-02")
def test_older_unknown_tool_is_a_protocol_error(client: Client, older: Era) -> None:
    expect_error(client.tool(older, UNKNOWN_TOOL, {}), status=(200, 400))


@requirement("L03-03", "L06-03")
def test_older_bad_arguments_are_told(client: Client, older: Era, discovery: Discovery) -> None:
    """These revisions leave open how: as a protocol error or as a tool result."""
    over_http(older)
    name, properties = tool_with_required(discovery)
    reply = client.tool(older, name, {key: {"unexpected": 1} for key in properties})
    if reply.error is not None:
        expect_error(reply, -32602)
        return
    result = expect_result(reply)
    expect(result.get("isError") is True, "Bad arguments are no error.", got=" ".join(text_blocks(result)))


@requirement("T03-02", "T06-02")
def test_older_foreign_origin_is_refused(client: Client, older: Era) -> None:
    over_http(older)
    need_service(client, older)
    body = encode(request_message(older, "tools/list", None, next_id()))
    session = session_of(client, older)
    headers = [*request_headers(older, "tools/list"), *session, ("Origin", "http://evil.example.com")]
    answer = client.send(body, headers=headers)
    expect(400 <= answer.status < 500, "A foreign Origin was served.", expected="4xx", got=answer.status)


@requirement("T03-03", "T06-03")
def test_older_notification_is_accepted_without_a_body(client: Client, older: Era) -> None:
    over_http(older)
    answer = client.notify(older, "notifications/of-no-known-kind")
    expect_status(answer, 202)
    expect(not answer.body, "A notification was answered with a body.", got=answer.body.decode(errors="replace"))


@requirement("T03-05", "T06-05")
def test_older_get_is_a_stream_or_405(client: Client, older: Era) -> None:
    over_http(older)
    version = [("MCP-Protocol-Version", str(older))] if older is Era.JUNE else []
    headers = [("Accept", "text/event-stream"), *version, *session_of(client, older)]
    answer = client.send(method="GET", headers=headers, timeout_s=4, allow_partial=True)
    expect_status(answer, 200, 405)
    if answer.status == 200:
        expect(
            answer.media_type == "text/event-stream", "A GET was served, but not as a stream.", got=answer.media_type
        )


@requirement("T06-07")
def test_older_invalid_version_header_is_400(client: Client, older: Era) -> None:
    if older is not Era.JUNE:
        pytest.skip("the header exists since 2025-06-18")
    reply = client.call(older, "ping", headers={"MCP-Protocol-Version": "1900-01-01"})
    expect_status(reply.answer, 400)


def send_batch(client: Client, older: Era) -> None:
    """Two pings in an array must come back as two results."""
    requests = [request_message(older, "ping", None, name) for name in ("batch-1", "batch-2")]
    headers = [*request_headers(older, "ping"), ("MCP-Protocol-Version", str(older))]
    answer = client.send(encode(requests), headers=headers)
    expect_status(answer, 200)
    messages = json_messages(answer)
    flat = [one for message in messages for one in (message if isinstance(message, list) else [message])]
    ids = sorted(str(one.get("id")) for one in flat if isinstance(one, dict) and "result" in one)
    expect(ids == ["batch-1", "batch-2"], "A batch of two did not get two results.", got=json.dumps(flat)[:500])


@requirement("B03-04")
def test_batch_in_a_session_is_received(client: Client, older: Era) -> None:
    if older is not Era.MARCH or client.session_id is None:
        pytest.skip("not a session in which 2025-03-26 was agreed")
    send_batch(client, older)


@requirement("B03-05")
def test_batch_without_a_session_is_received(client: Client, older: Era) -> None:
    if older is not Era.MARCH or client.session_id is not None:
        pytest.skip("not 2025-03-26 without a session")
    send_batch(client, older)


@requirement("B06-04")
def test_batch_is_refused_since_it_was_removed(client: Client, older: Era) -> None:
    if older is not Era.JUNE:
        pytest.skip("batches were removed in 2025-06-18")
    expect_refused(client, encode([request_message(older, "ping", None, 1)]), older)
