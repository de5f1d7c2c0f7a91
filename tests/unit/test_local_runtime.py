"""Given a runtime's HTTP requests, the Runtime API answers as Lambda's does, whoever sends them and however cut up."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sam.local import runtime
from sam.local.runtime import PREFIX, Invocation, RuntimeApi

NEXT = f"GET {PREFIX}invocation/next HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {PREFIX}{path} HTTP/1.1", "Host: x", *headers]
    if not any(header.startswith("Transfer-Encoding") for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def event(request_id: str = "r1", payload: bytes = b'{"a":1}') -> Invocation:
    return Invocation(request_id, payload, 123, "arn:f", "Root=1", client_context="", tenant="")


class Client:
    """Bytes in, answers out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, *pieces: bytes) -> tuple[int, dict[str, str], bytes]:
        for piece in pieces:
            self.writer.write(piece)
            await asyncio.sleep(0)
        return await self.answer()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(head[0].split()[1]), headers, body


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[RuntimeApi, Any]]:
    api = RuntimeApi()
    listening = socket.create_server(("127.0.0.1", 0))
    await api.serve(listening)
    clients = []

    async def connect() -> Client:
        clients.append(Client(*await asyncio.open_connection(*listening.getsockname())))
        return clients[-1]

    try:
        yield api, connect
    finally:
        for client in clients:
            client.writer.close()
        await api.close()


def test_an_event_waits_for_its_runtime_and_a_runtime_for_its_event() -> None:
    async def story() -> None:
        async with serving() as (api, connect):
            client = await connect()
            asked = asyncio.create_task(client.ask(NEXT))
            await api.ready
            first = event()
            api.offer(first)
            status, headers, body = await asked
            assert (status, headers["lambda-runtime-aws-request-id"], body) == (200, "r1", b'{"a":1}')
            assert headers["lambda-runtime-deadline-ms"] == "123"
            assert "lambda-runtime-aws-tenant-id" not in headers
            again = await client.ask(NEXT)  # a second reader during the invocation sees the same event
            assert again[2] == body
            assert (await client.ask(post("invocation/r1/response", b"done")))[0] == 202
            assert not first.done.done()
            waiting = asyncio.create_task(client.ask(NEXT))
            assert await first.done is None
            assert first.answer is not None
            assert (first.answer.payload, first.answer.error_type) == (b"done", None)
            api.offer(event("r2"))
            assert (await waiting)[1]["lambda-runtime-aws-request-id"] == "r2"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("request_bytes", "status", "kind"),
    [
        pytest.param(post("invocation/other/response", b"x"), 400, b"InvalidRequestID", id="another-invocation"),
        pytest.param(post("invocation/r1/elsewhere", b"x"), 404, b"NotFound", id="no-such-path"),
        pytest.param(b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", 404, b"NotFound", id="no-such-method"),
        pytest.param(b"nonsense\r\n\r\n", 400, b"BadRequest", id="no-http"),
        pytest.param(
            post("invocation/r1/response", bytes(runtime.MAX_RESPONSE_BYTES + 1)), 413, b"RequestEntityTooLarge",
            id="too-large",
        ),
    ],
)  # fmt: skip
def test_what_lambda_refuses_is_refused(request_bytes: bytes, status: int, kind: bytes) -> None:
    async def story() -> None:
        async with serving() as (api, connect):
            api.offer(event())
            answer = await (await connect()).ask(request_bytes)
            assert answer[0] == status
            assert kind in answer[2]

    asyncio.run(story())


def test_an_answer_counts_once() -> None:
    async def story() -> None:
        async with serving() as (api, connect):
            invocation = event()
            api.offer(invocation)
            client = await connect()
            error = post("invocation/r1/error", b'{"errorType":"ValueError"}')
            assert (await client.ask(error))[0] == 202
            assert (await client.ask(post("invocation/r1/response", b"late")))[0] == 403
            assert invocation.answer is not None
            assert invocation.answer.error_type == "ValueError"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        pytest.param([post("invocation/r1/response", b"body!")], b"body!", id="whole"),
        pytest.param([post("invocation/r1/response", b"")], b"", id="empty"),
        pytest.param([bytes([byte]) for byte in post("invocation/r1/response", b"body!")], b"body!", id="byte-by-byte"),
        pytest.param(
            [post("invocation/r1/response", b"2\r\nbo\r\n3\r\ndy!\r\n0\r\n\r\n", "Transfer-Encoding: chunked")],
            b"body!",
            id="chunked",
        ),
    ],
)
def test_a_body_is_taken_however_it_comes(pieces: list[bytes], body: bytes) -> None:
    async def story() -> None:
        async with serving() as (api, connect):
            invocation = event()
            api.offer(invocation)
            assert (await (await connect()).ask(*pieces))[0] == 202
            assert invocation.answer is not None
            assert invocation.answer.payload == body

    asyncio.run(story())


def test_requests_sent_together_are_answered_in_their_order() -> None:
    async def story() -> None:
        async with serving() as (api, connect):
            client = await connect()
            together = asyncio.create_task(client.ask(NEXT + post("invocation/r1/response", b"x") + NEXT))
            await api.ready
            api.offer(event())
            assert (await together)[0] == 200
            assert (await client.answer())[0] == 202
            api.offer(event("r2"))
            assert (await client.answer())[1]["lambda-runtime-aws-request-id"] == "r2"

    asyncio.run(story())


def test_a_client_that_expects_100_gets_it_and_one_that_says_close_is_closed() -> None:
    async def story() -> None:
        async with serving() as (api, connect):
            api.offer(event())
            client = await connect()
            whole = post("invocation/r1/response", b"body!", "Expect: 100-continue", "Connection: close")
            assert (await client.ask(whole[:-5]))[0] == 100
            assert (await client.ask(whole[-5:]))[0] == 202
            assert await client.reader.read() == b""

    asyncio.run(story())


def test_what_is_too_long_is_read_to_its_end_but_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "MAX_RESPONSE_BYTES", 1000)
    kept: list[int] = []
    handle = RuntimeApi.handle

    def handled(self: RuntimeApi, connection: Any, request: Any, body: bytes) -> Any:
        kept.append(len(body))
        return handle(self, connection, request, body)

    monkeypatch.setattr(RuntimeApi, "handle", handled)

    async def story() -> None:
        async with serving() as (api, connect):
            api.offer(event())
            client = await connect()
            assert (await client.ask(post("invocation/r1/response", bytes(4_000_000))))[0] == 413
            assert 1000 < kept[0] < 2_000_000

    asyncio.run(story())


def test_the_end_lets_go_of_who_waits() -> None:
    async def story() -> None:
        async with serving() as (api, connect):
            restoring, waiting, leaving = await connect(), await connect(), await connect()
            restore = asyncio.create_task(restoring.ask(NEXT.replace(b"invocation", b"restore")))
            asked = asyncio.create_task(waiting.ask(NEXT))
            leaving.writer.write(NEXT)
            leaving.writer.close()
            await api.ready
            await api.restoring
            await api.close()
            assert (await asked)[0] == 410
            assert (await restore)[0] == 200
            assert await waiting.reader.read() == b""

    asyncio.run(story())
