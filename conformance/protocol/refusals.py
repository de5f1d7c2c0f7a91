"""What checks of a refusal share: a right request to hold the wrong one against, a tool to call wrongly without harm,
what no error may show.
"""

import re

import pytest

from conformance.client import Client, Discovery
from conformance.finding import expect
from conformance.messages import Era, encode, next_id, request_headers, request_message
from conformance.wire import Header

# Called where a check needs a tool and must run nothing, should the endpoint miss what is wrong.
UNKNOWN_TOOL = "no_such_tool"
# What a stack trace or a validator's dump looks like in an error text that a stranger gets to read.
INTERNALS = re.compile(
    r'Traceback \(most recent|File "/|site-packages|/var/task|input_value=|pydantic|at 0x[0-9a-f]{6}'
)


def session_of(client: Client, era: Era) -> list[Header]:
    """The header of the session the client is in; 2025-03-26 has no version header by which it would be added."""
    return [("Mcp-Session-Id", client.session_id)] if client.session_id and era is not Era.MODERN else []


def need_service(client: Client, era: Era) -> None:
    """Skips unless a right request of that era is served: where nothing is, a refusal tells nothing."""
    method = "server/discover" if era is Era.MODERN else "ping"
    headers = [*request_headers(era, method), *session_of(client, era)]
    answer = client.send(encode(request_message(era, method, None, next_id())), headers=headers)
    if answer.status != 200 or b'"result"' not in answer.body:
        pytest.skip(f"cannot be judged: a right {method} is not served either (HTTP {answer.status})")


def expect_refused(client: Client, body: bytes, era: Era) -> None:
    """Expects a malformed body not to be executed: a 4xx, or in the handshake era, which leaves it free, any error."""
    need_service(client, era)
    answer = client.send(body, headers=request_headers(era, "tools/list"))
    shown = answer.body[:400].decode(errors="replace")
    told = era is Era.HANDSHAKE and answer.status == 200 and b'"error"' in answer.body
    expect(
        told or 400 <= answer.status < 500, "A malformed request was not refused.", expected="4xx", got=answer.status
    )
    expect(b'"result"' not in answer.body, "A malformed request was given a result.", got=shown)


def tool_with_required(discovery: Discovery) -> tuple[str, dict[str, object]]:
    """A tool that cannot run without arguments, and its properties; calling it wrongly is therefore harmless."""
    for name, tool in discovery.tools.items():
        schema = tool.get("inputSchema")
        if isinstance(schema, dict) and schema.get("required") and isinstance(schema.get("properties"), dict):
            return name, schema["properties"]
    pytest.skip("no tool has a required argument")
