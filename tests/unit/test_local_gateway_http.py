"""Given what the pool does with an event, this is the HTTP answer; the pool is played by the test."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sam.local.environment import Outcome
from sam.local.gateway import MAX_BODY_BYTES, Gateway
from sam.local.host import LaunchError
from sam.local.pool import MAX_EVENT_BYTES, Throttled
from sam.local.stack import Route, Stack, read_stack
from sam.local.throttle import UsagePlan

STACK = replace(
    read_stack(Path(__file__).parents[2] / "sam" / "template.yaml"),
    routes=(Route("/lambda/mcp", "ANY", True, timeout_s=0.05),),
)
INTERNAL = {"message": "Internal server error"}


class PlayedFunction:
    """Takes the place of the function: what it does with an event is given."""

    def __init__(self, behave: Callable[[], Awaitable[Outcome]], *, lets_gateway: bool = True) -> None:
        self._behave = behave
        self._lets_gateway = lets_gateway
        self.asked_for: list[tuple[str | None, str]] = []
        self.events: list[dict[str, Any]] = []
        self.called: list[dict[str, Any]] = []

    def lets_gateway(self, qualifier: str | None, method_arn: str) -> bool:
        self.asked_for.append((qualifier, method_arn))
        return self._lets_gateway

    async def invoke(self, payload: bytes, **how: Any) -> Outcome:
        self.events.append(json.loads(payload))
        self.called.append(how)
        return await self._behave()


async def answers() -> Outcome:
    return Outcome(b'{"statusCode": 201, "body": "{}"}', None, b"")


async def fails() -> Outcome:
    return Outcome(b'{"errorType": "X"}', "Unhandled", b"")


async def never() -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError


async def throttles() -> Outcome:
    raise Throttled("ConcurrentInvocationLimitExceeded")


async def has_no_room() -> Outcome:
    raise LaunchError("nothing works here")


def ask(
    pool: PlayedFunction, body: bytes = b"{}", headers: dict[str, str] | None = None, stack: Stack = STACK
) -> tuple[int, Any, Any]:
    """POST to a gateway over a real socket: status, body, headers."""

    async def exchange() -> tuple[int, Any, Any]:
        gateway = Gateway(stack, pool, ["key"])  # type: ignore[arg-type]

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await gateway.handle(request)

        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.post(
                    f"http://127.0.0.1:{port}/dev/lambda/mcp/",
                    data=body,
                    headers={"x-api-key": "key", **(headers or {})},
                ) as response,
            ):
                return response.status, await response.json(), response.headers
        finally:
            await runner.cleanup()

    return asyncio.run(exchange())


@pytest.mark.parametrize(
    ("behave", "status", "body"),
    [
        pytest.param(answers, 201, {}, id="answered"),
        pytest.param(fails, 502, INTERNAL, id="function-error"),
        pytest.param(never, 504, {"message": "Endpoint request timed out"}, id="integration-timeout"),
        pytest.param(throttles, 500, INTERNAL, id="throttled"),
        pytest.param(has_no_room, 500, INTERNAL, id="no-environment"),
    ],
)
def test_an_outcome_has_its_status(behave: Callable[[], Awaitable[Outcome]], status: int, body: Any):
    seen_status, seen_body, headers = ask(PlayedFunction(behave))
    assert (seen_status, seen_body) == (status, body)
    assert headers["x-amzn-RequestId"]


@pytest.mark.parametrize(
    ("size", "status"),
    [
        pytest.param(MAX_EVENT_BYTES - 10_000, 201, id="fits"),
        pytest.param(MAX_EVENT_BYTES, 413, id="no-room-for-the-event-around-it"),
        pytest.param(MAX_BODY_BYTES + 1, 413, id="more-than-the-gateway-reads"),
    ],
)
def test_a_body_that_makes_too_large_an_event_is_a_413(size: int, status: int):
    pool = PlayedFunction(answers)
    assert ask(pool, b"x" * size)[0] == status
    assert [len(event["body"]) for event in pool.events] == [size] * (status == 201)


def test_a_client_that_leaves_in_mid_body_is_no_error_and_no_call():
    function = PlayedFunction(answers)

    async def leave() -> web.StreamResponse:
        answered: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
        gateway = Gateway(STACK, function, ["key"])  # type: ignore[arg-type]

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            try:
                answered.set_result(await gateway.handle(request))
            except BaseException as error:
                answered.set_exception(error)
            return await answered

        # Where the server does not cancel the handler, the body's end is what tells.
        runner = web.ServerRunner(web.Server(handle), handler_cancellation=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
            writer.write(b"POST /dev/lambda/mcp/ HTTP/1.1\r\nHost: x\r\nx-api-key: key\r\nContent-Length: 9\r\n\r\n{")
            await writer.drain()
            writer.close()
            return await answered
        finally:
            await runner.cleanup()

    assert asyncio.run(leave()).status == 400
    assert function.events == []


def test_without_the_key_nothing_reaches_the_function():
    pool = PlayedFunction(answers)
    status, body, headers = ask(pool, headers={"x-api-key": "Key"})
    assert (status, body, headers["x-amzn-ErrorType"]) == (403, {"message": "Forbidden"}, "ForbiddenException")
    assert pool.events == []


def test_without_permission_nothing_reaches_the_function():
    function = PlayedFunction(answers, lets_gateway=False)
    assert ask(function)[:2] == (500, INTERNAL)
    assert function.events == []
    method = "arn:aws:execute-api:us-east-1:123456789012:local00000/dev/POST/lambda/mcp/"
    assert function.asked_for == [(None, method)]


def test_a_trace_id_is_passed_on_and_one_is_made():
    pool = PlayedFunction(answers)
    given = "Root=1-5e66d96f-7491f09xmpl79d18acf3d050"
    assert ask(pool, headers={"X-Amzn-Trace-Id": given})[2]["X-Amzn-Trace-Id"] == given
    assert ask(pool)[2]["X-Amzn-Trace-Id"].startswith("Root=1-")
    assert [event["headers"]["X-Amzn-Trace-Id"] == given for event in pool.events] == [True, False]


@pytest.mark.parametrize(
    ("expression", "tenant"),
    [
        pytest.param(None, None, id="none"),
        pytest.param("context.identity.apiKeyId", "local00000", id="by-key-id"),
        pytest.param("context.identity.apiKey", "key", id="by-key"),
        pytest.param("method.request.header.X-Team", "blue", id="by-header"),
        pytest.param("'everyone'", "everyone", id="literal"),
        pytest.param("context.identity.nothing.more", None, id="of-nothing"),
    ],
)
def test_the_tenant_comes_from_where_the_integration_says(expression: str | None, tenant: str | None):
    function = PlayedFunction(answers)
    stack = replace(STACK, routes=(Route("/lambda/mcp", "ANY", True, "live", expression),))
    assert ask(function, headers={"X-Team": "blue"}, stack=stack)[0] == 201
    assert (function.called[0]["tenant"], function.called[0]["qualifier"]) == (tenant, "live")


def test_bytes_that_are_no_utf8_arrive_as_replacement_characters():
    function = PlayedFunction(answers)
    assert ask(function, b'{"a": "\xff\xfe"}')[0] == 201
    assert function.events[0]["body"] == '{"a": "\ufffd\ufffd"}'
    assert function.events[0]["isBase64Encoded"] is False


def test_a_stage_that_throttles_does_so_for_all_together():
    stack = replace(STACK, stage_throttle=UsagePlan(rate_per_s=0.001, burst=0.5))
    status, body, headers = ask(PlayedFunction(answers), stack=stack)
    assert (status, body, headers["x-amzn-ErrorType"]) == (
        429, {"message": "Too Many Requests"}, "TooManyRequestsException",
    )  # fmt: skip
