"""Every broken envelope is noticed, whatever a check is about; every whole one is let through."""

import json

import pytest

from conformance import schemas
from conformance.messages import Era, Malformed, changed, read_reply, request_headers, request_message
from conformance.wire import Answer


def answer(*messages: object, stream: bool = False) -> Answer:
    if stream:
        body = "".join(f"data: {json.dumps(message)}\n\n" for message in messages)
        return Answer(200, (("content-type", "text/event-stream"),), body.encode(), 1.0)
    return Answer(200, (("content-type", "application/json"),), json.dumps(messages[0]).encode(), 1.0)


RESULT = {"jsonrpc": "2.0", "id": 1, "result": {}}
ERROR = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no"}}


@pytest.mark.parametrize(
    "message",
    [
        pytest.param([RESULT], id="array"),
        pytest.param({"id": 1, "result": {}}, id="no-jsonrpc"),
        pytest.param(RESULT | {"jsonrpc": "1.0"}, id="wrong-jsonrpc"),
        pytest.param(RESULT | ERROR, id="result-and-error"),
        pytest.param({"jsonrpc": "2.0", "id": 1}, id="neither"),
        pytest.param(RESULT | {"result": []}, id="result-is-an-array"),
        pytest.param(RESULT | {"id": 2}, id="another-id"),
        pytest.param(RESULT | {"id": "1"}, id="id-of-another-type"),
        pytest.param(RESULT | {"id": True}, id="id-is-true"),
        pytest.param({"jsonrpc": "2.0", "result": {}}, id="result-without-id"),
        pytest.param(ERROR | {"error": {"code": "x", "message": ""}}, id="code-is-text"),
        pytest.param(ERROR | {"error": {"code": 1.5, "message": ""}}, id="code-is-a-float"),
        pytest.param(ERROR | {"error": {"code": 1}}, id="no-message"),
        pytest.param(ERROR | {"error": {"code": -32002, "message": ""}}, id="retired-code"),
        pytest.param(ERROR | {"error": {"code": -32055, "message": ""}}, id="reserved-code"),
        pytest.param({"jsonrpc": "2.0", "id": 5, "method": "sampling/createMessage"}, id="request-of-the-server"),
    ],
)
def test_broken_messages_are_malformed(message: object) -> None:
    with pytest.raises(Malformed):
        read_reply(answer(message), Era.MODERN, "some/method", 1)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param((RESULT, RESULT), id="two-responses"),
        pytest.param(
            (RESULT, {"jsonrpc": "2.0", "method": "notifications/progress"}), id="notification-after-response"
        ),
    ],
)
def test_broken_streams_are_malformed(messages: tuple[object, ...]) -> None:
    with pytest.raises(Malformed):
        read_reply(answer(*messages, stream=True), Era.HANDSHAKE, "some/method", 1)


def test_whole_messages_are_read() -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}
    reply = read_reply(answer(note, RESULT, stream=True), Era.HANDSHAKE, "some/method", 1)
    assert (reply.result, reply.error, len(reply.notifications)) == ({}, None, 1)
    unread = read_reply(answer(ERROR | {"id": None}), Era.MODERN, "some/method", 1)
    assert unread.error == ERROR["error"]


LIST = {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]}
HINTS = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}


@pytest.mark.parametrize(
    ("era", "method", "result"),
    [
        pytest.param(Era.HANDSHAKE, "tools/list", LIST, id="list-2025"),
        pytest.param(Era.MODERN, "tools/list", LIST | HINTS, id="list-2026"),
        pytest.param(Era.MODERN, "tools/call", {"content": [], "resultType": "complete"}, id="call-2026"),
        pytest.param(Era.HANDSHAKE, "unknown/method", {"anything": 1}, id="unknown-method"),
    ],
)
def test_results_that_fit(era: Era, method: str, result: object) -> None:
    assert schemas.result_fault(str(era), method, result) is None


@pytest.mark.parametrize(
    ("era", "method", "result"),
    [
        pytest.param(Era.MODERN, "tools/list", LIST, id="no-hints"),
        pytest.param(Era.MODERN, "tools/list", LIST | HINTS | {"ttlMs": -1}, id="negative-ttl"),
        pytest.param(Era.MODERN, "tools/list", LIST | HINTS | {"cacheScope": "x"}, id="unknown-scope"),
        pytest.param(Era.MODERN, "tools/call", {"content": []}, id="no-result-type"),
        pytest.param(Era.HANDSHAKE, "tools/call", {}, id="no-content"),
        pytest.param(Era.HANDSHAKE, "tools/call", {"content": [{"type": "text"}]}, id="text-without-text"),
        pytest.param(Era.HANDSHAKE, "tools/call", {"content": [], "structuredContent": []}, id="structured-array"),
        pytest.param(Era.HANDSHAKE, "tools/list", {"tools": [{"name": "a"}]}, id="tool-without-schema"),
        pytest.param(Era.HANDSHAKE, "initialize", {"capabilities": {}}, id="initialize-incomplete"),
    ],
)
def test_results_that_do_not_fit(era: Era, method: str, result: object) -> None:
    assert schemas.result_fault(str(era), method, result)
    came_back = answer({"jsonrpc": "2.0", "id": 1, "result": result})
    assert read_reply(came_back, era, method, 1).misfit is not None
    assert read_reply(came_back, era, method, 1, result_schema=False).schema_checks == ()


def test_each_era_presents_itself_its_own_way() -> None:
    params = {"name": "t", "arguments": {}}
    assert "_meta" not in str(request_message(Era.BARE, "tools/call", params, 1))
    assert "clientCapabilities" in str(request_message(Era.MODERN, "tools/call", params, 1))
    bare = dict(request_headers(Era.BARE, "tools/call", params))
    modern = dict(request_headers(Era.MODERN, "tools/call", params))
    assert "MCP-Protocol-Version" not in bare
    assert (modern["MCP-Protocol-Version"], modern["Mcp-Method"], modern["Mcp-Name"]) == (
        "2026-07-28",
        "tools/call",
        "t",
    )
    assert "Mcp-Name" not in dict(request_headers(Era.MODERN, "tools/list", None))


def test_headers_are_replaced_dropped_and_repeated() -> None:
    headers = [("A", "1"), ("B", "2"), ("C", "3")]
    assert changed(headers, {"a": "x", "B": None, "c": ["1", "2"]}) == [("a", "x"), ("c", "1"), ("c", "2")]
