"""`server.py` without Lambda: stdio with the official client, and the HTTP modes on a free port."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FUNCTION = Path(__file__).resolve().parents[2] / "function"
CALL = {"name": "execute_python", "arguments": {"code": "print('one')\nprint('two')\nresult = 2 + 3"}}


def test_stdio_serves_a_client_and_streams_printed_lines() -> None:
    from mcp.client.client import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client

    told: list[tuple[float, str | None]] = []

    async def progress(number: float, _total: float | None, message: str | None) -> None:
        told.append((number, message))

    async def use() -> Any:
        command = StdioServerParameters(command=sys.executable, args=["server.py", "--mode", "stdio"], cwd=FUNCTION)
        async with Client(stdio_client(command)) as client:
            return await client.call_tool(CALL["name"], CALL["arguments"], progress_callback=progress)

    result = asyncio.run(use())
    assert result.structured_content["result"] == "5"
    assert told == [(1.0, "one"), (2.0, "two")]


@pytest.fixture(params=["streamable-http", "fastapi"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    command = [sys.executable, "server.py", "--mode", request.param, "--port", str(free)]
    with subprocess.Popen(command, cwd=FUNCTION, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(free, process)
            yield free
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    pytest.fail("the server did not listen")


def test_the_http_modes(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    params = CALL | {"_meta": {"progressToken": "p"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    connection.request("POST", "/lambda/mcp/", body, headers)
    text = connection.getresponse().read().decode()
    messages = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]
    assert [message["params"]["message"] for message in messages[:-1]] == ["one", "two"]
    assert {message["params"]["progressToken"] for message in messages[:-1]} == {"p"}
    assert messages[-1]["result"]["structuredContent"]["result"] == "5"
    connection.request("GET", "/lambda/health")
    assert json.loads(connection.getresponse().read())["status"] == "ok"
