"""What the guard answers itself, and what it lets through to the SDK, one request each."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import batch
from guard import MAX_BODY_BYTES, Guard, Message, Receive, Scope, Send

META = "io.modelcontextprotocol/protocolVersion"
CALL: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
MODERN = CALL | {"params": {"_meta": {META: "2026-07-28"}}}


async def sdk(_scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


def ask(body: bytes, headers: dict[str, str] | None = None, method: str = "POST", **options: Any) -> tuple[int, Any]:
    """Status and parsed body of the guard's answer; the stand-in for the SDK echoes what it is given."""
    sent: list[Message] = []
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope: Scope = {"type": "http", "method": method, "headers": [(b"host", b"127.0.0.1:8000"), *raw]}

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(Guard(sdk, **options)(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"]) if sent[1]["body"] else None


def error(answer: tuple[int, Any]) -> tuple[int, int | None]:
    status, body = answer
    return status, body["error"]["code"] if body else None


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(CALL, {}, id="bare"),
        pytest.param(CALL | {"id": "a"}, {"mcp-protocol-version": "2025-11-25"}, id="handshake-era"),
        pytest.param(MODERN, {"mcp-protocol-version": "2026-07-28"}, id="per-request-era"),
        pytest.param(CALL, {"origin": "http://127.0.0.1:8000"}, id="own-origin"),
        pytest.param(CALL, {"mcp-protocol-version": "  2025-11-25\t"}, id="whitespace-around-a-value"),
    ],
)
def test_a_right_request_is_let_through(body: dict[str, Any], headers: dict[str, str]) -> None:
    assert ask(json.dumps(body).encode(), headers) == (200, body)


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        pytest.param(b"{", {}, (400, -32700), id="not-json"),
        pytest.param(b"", {}, (400, -32700), id="empty"),
        pytest.param(b'"\xff"', {}, (400, -32700), id="not-utf8"),
        pytest.param(b"[" * 100_000, {}, (400, -32700), id="too-deep"),
        pytest.param([CALL], {"mcp-protocol-version": "2025-11-25"}, (400, -32600), id="batch"),
        pytest.param([], {}, (400, -32600), id="batch-of-nothing"),
        pytest.param([CALL] * 17, {}, (400, -32600), id="batch-of-many"),
        pytest.param(CALL | {"id": None}, {}, (400, -32600), id="id-null"),
        pytest.param(CALL | {"id": 1.5}, {}, (400, -32600), id="id-float"),
        pytest.param(CALL | {"id": True}, {}, (400, -32600), id="id-bool"),
        pytest.param(CALL | {"jsonrpc": "1.0"}, {}, (400, -32600), id="jsonrpc-1"),
        pytest.param(CALL | {"params": [1]}, {}, (400, -32602), id="params-array"),
        pytest.param({"jsonrpc": "2.0", "id": 1}, {}, (400, -32600), id="no-method"),
        pytest.param(CALL | {"method": 1}, {}, (400, -32600), id="method-number"),
        pytest.param(MODERN, {}, (400, -32020), id="per-request-era-without-header"),
        pytest.param(MODERN, {"mcp-protocol-version": "2025-11-25"}, (400, -32020), id="header-against-meta"),
        pytest.param(CALL, {"mcp-protocol-version": "1900-01-01"}, (400, -32022), id="unknown-version"),
        pytest.param(
            MODERN | {"method": "prompts/get"},
            {"mcp-protocol-version": "2026-07-28"},
            (404, -32601),
            id="unknown-method",
        ),
        pytest.param(CALL, {"origin": "http://evil.example.com"}, (403, -32600), id="origin"),
        pytest.param(CALL, {"origin": "null"}, (403, -32600), id="origin-null"),
        pytest.param(CALL, {"origin": "http://127.0.0.1:8000.evil.com"}, (403, -32600), id="origin-suffix"),
        pytest.param(CALL, {"origin": "http://127.0.0.1:9000"}, (403, -32600), id="origin-other-port"),
        pytest.param(b"{}" + b" " * MAX_BODY_BYTES, {}, (413, -32600), id="body-too-large"),
        pytest.param(b"{}", {"content-length": str(MAX_BODY_BYTES + 1)}, (413, -32600), id="declared-too-large"),
    ],
)
def test_a_wrong_request_is_refused_with_its_code(
    body: Any, headers: dict[str, str], expected: tuple[int, int]
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert error(ask(raw, headers)) == expected


def test_the_id_is_echoed_where_it_can_be_read() -> None:
    _, body = ask(json.dumps(CALL | {"jsonrpc": "1.0", "id": "abc"}).encode())
    assert body["id"] == "abc"


def test_a_posted_response_is_accepted_and_dropped() -> None:
    assert ask(b'{"jsonrpc": "2.0", "id": 1, "result": {}}') == (202, None)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "HEAD"])
def test_other_methods_are_refused(method: str) -> None:
    assert ask(b"", method=method) == (405, None)


def test_a_rebound_host_is_not_same_origin() -> None:
    assert error(ask(b"{}", {"host": "evil.example.com", "origin": "http://evil.example.com"})) == (403, -32600)


def test_configured_origins_are_allowed() -> None:
    status, _ = ask(
        json.dumps(CALL).encode(), {"origin": "https://app.example.com"}, origins=["https://app.example.com/"]
    )
    assert status == 200


RUN = CALL | {"method": "tools/call", "params": {"name": "execute_python", "arguments": {"code": "1"}}}


@pytest.mark.parametrize("headers", [{}, {"mcp-protocol-version": "2025-03-26"}], ids=["no-version", "2025-03-26"])
def test_batch_is_answered_message_by_message(headers: dict[str, str]) -> None:
    messages = [CALL, CALL | {"id": "b", "method": "ping"}, RUN]
    assert ask(json.dumps(messages).encode(), headers) == (200, messages)


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        pytest.param(RUN | {"id": 9}, -32600, id="second-run"),
        pytest.param(CALL | {"id": 9, "method": "initialize"}, -32600, id="initialize"),
        pytest.param(CALL | {"id": 9, "params": []}, -32602, id="what-is-refused-by-itself"),
    ],
)
def test_one_message_of_a_batch_is_refused_and_the_others_served(refused: dict[str, Any], code: int) -> None:
    status, (first, told, last) = ask(json.dumps([RUN, refused, CALL]).encode())
    assert (status, first, last) == (200, RUN, CALL)
    assert (told["id"], told["error"]["code"]) == (9, code)


def test_batch_of_responses_alone_is_accepted() -> None:
    assert ask(json.dumps([{"jsonrpc": "2.0", "id": 1, "result": {}}] * 2).encode()) == (202, None)


def captured(status: int, media: str, body: bytes) -> batch.CapturedAnswer:
    one = batch.CapturedAnswer()
    one.status, one.media, one.body = status, media, body
    return one


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        pytest.param(
            [(200, "text/event-stream", b"data: 1\r\n\r\n"), (202, "", b""), (400, "application/json", b"{}")],
            (200, "text/event-stream", b"data: 1\r\n\r\nevent: message\r\ndata: {}\r\n\r\n"),
            id="an-error-among-events",
        ),
        pytest.param(
            [(200, "application/json", b"{}"), (406, "", b"")], (406, "", b""), id="no-answer-would-be-acceptable"
        ),
    ],
)
def test_answers_of_a_batch_become_one(answers: list[tuple[int, str, bytes]], expected: tuple[int, str, bytes]) -> None:
    assert batch.join([captured(*one) for one in answers]) == expected
