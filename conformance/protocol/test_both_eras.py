"""Checks that hold in both eras: Origin, ids, malformed bodies, tool lists, unknown tools, bad arguments."""

import json
import re
from collections.abc import Iterator, Mapping

import jsonschema
import pytest

from conformance.client import Client, Discovery
from conformance.finding import NonConformance, expect, expect_error, expect_result, expect_status, requirement
from conformance.messages import (
    Era,
    changed,
    encode,
    next_id,
    request_headers,
    request_message,
    text_blocks,
)
from conformance.protocol.refusals import INTERNALS, UNKNOWN_TOOL, expect_refused, need_service, tool_with_required
from conformance.wire import Request, WireError, standard_headers


def list_tools(client: Client, era: Era, *, schema: bool = True) -> list[dict[str, object]]:
    """All tools, over all pages (at most 20); without `schema` also from a list that misses its schema."""
    tools: list[dict[str, object]] = []
    cursor: object = None
    for _ in range(20):
        reply = client.call(era, "tools/list", {"cursor": cursor} if cursor else None)
        result = expect_result(reply, schema=schema)
        page = result.get("tools")
        assert isinstance(page, list)
        tools += page
        cursor = result.get("nextCursor")
        if cursor is None:
            return tools
    raise NonConformance("tools/list still has a nextCursor after 20 pages.", got=cursor)


@requirement("T26-02", "T25-02")
@pytest.mark.parametrize(
    "origin", ["http://evil.example.com", "null", "https://{host}.evil.example.com"], ids=["other", "null", "suffix"]
)
def test_foreign_origin_is_403(client: Client, era: Era, origin: str) -> None:
    need_service(client, era)
    value = origin.format(host=client.target.endpoint.host)
    body = encode(request_message(era, "tools/list", None, next_id()))
    answer = client.send(body, headers=[*request_headers(era, "tools/list"), ("Origin", value)])
    expect_status(answer, 403)


@requirement("T26-02", "T25-02")
def test_foreign_origin_opens_no_stream(client: Client, era: Era) -> None:
    need_service(client, era)
    version = ("MCP-Protocol-Version", str(era))
    headers = [("Accept", "text/event-stream"), version, ("Origin", "http://evil.example.com")]
    answer = client.send(method="GET", headers=headers, timeout_s=4, allow_partial=True)
    expect_status(answer, 403, 404, 405)


@requirement("T26-03")
def test_absent_origin_is_served(client: Client, era: Era) -> None:
    expect_result(client.call(era, "tools/list"))


@requirement("T26-07", "T25-06")
def test_answer_is_json_or_an_event_stream(client: Client, era: Era) -> None:
    reply = client.call(era, "tools/list")
    answer = reply.answer
    known = ("application/json", "text/event-stream")
    expect(answer.media_type in known, "The Content-Type is neither.", expected=known, got=answer.media_type)
    expect(reply.message, "A request got no JSON-RPC response.", got=answer.status)


@requirement("B26-01", "B25-01")
@pytest.mark.parametrize("request_id", [1, 0, -7, 2**53 - 1, "abc", "", "1", "\u00fc-\u4e2d"], ids=repr)
def test_id_is_echoed_with_its_type(client: Client, era: Era, request_id: object) -> None:
    reply = client.call(era, "tools/list", request_id=request_id)
    expect_result(reply)


@requirement("B26-03", "B25-01")
def test_error_echoes_the_id(client: Client, era: Era) -> None:
    reply = client.call(era, "unknown/method", {}, request_id="error-id")
    expect_error(reply, -32601)
    assert reply.message is not None
    expect(reply.message.get("id") == "error-id", "An error does not carry the request's id.", got=reply.message)


@requirement("B26-06", "B25-02")
@pytest.mark.parametrize("request_id", [None, 1.5, True, {}, []], ids=["null", "float", "bool", "object", "array"])
def test_id_of_another_type_is_not_executed(client: Client, era: Era, request_id: object) -> None:
    expect_refused(client, encode(request_message(era, "tools/list", None, request_id)), era)


@requirement("B26-07", "B25-04")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="truncated"),
        pytest.param(b"", id="empty"),
        pytest.param(b"not json", id="text"),
    ],
)
def test_malformed_json_is_refused(client: Client, era: Era, body: bytes) -> None:
    expect_refused(client, body, era)


@requirement("B26-07", "B25-04")
def test_bad_utf8_is_refused(client: Client, era: Era) -> None:
    """A request that is right but for two bytes in a member nobody reads."""
    body = encode(request_message(era, "tools/list", {"unread": "@@"}, next_id()))
    expect_refused(client, body.replace(b"@@", b"\xff\xfe"), era)


@requirement("B26-07", "B25-04")
def test_malformed_json_is_a_parse_error(client: Client, era: Era) -> None:
    answer = client.send(b"{", headers=request_headers(era, "tools/list"))
    expect(b"-32700" in answer.body, "The error code is not -32700.", expected=-32700, got=answer.body.decode())


@requirement("B26-07", "B25-04")
def test_truncated_body_is_not_executed(client: Client, era: Era) -> None:
    """What came is whole JSON but less than was announced: who takes it runs what nobody finished sending."""
    need_service(client, era)
    endpoint = client.target.endpoint
    body = encode(request_message(era, "tools/list", None, 1))
    extra = [*request_headers(era, "tools/list"), *client.target.credentials]
    headers = [header for header in standard_headers(endpoint, body, extra) if header[0] != "Content-Length"]
    announced = (*headers, ("Content-Length", f" {len(body) + 20}"))
    request = Request("POST", endpoint.path, announced, body)
    try:
        answer = client.send(exact=request, half_close=True, timeout_s=4)
    except WireError:
        return  # closed or left unanswered: not executed
    expect(b'"result"' not in answer.body, "A body cut short was executed.", got=answer.status)


@requirement("B26-08", "B25-04")
@pytest.mark.parametrize("kind", ["batch", "no-jsonrpc", "wrong-jsonrpc", "not-an-object", "no-method"])
def test_broken_envelope_is_refused(client: Client, era: Era, kind: str) -> None:
    message = request_message(era, "tools/list", None, next_id())
    broken: object = {
        "batch": [message],
        "no-jsonrpc": {key: value for key, value in message.items() if key != "jsonrpc"},
        "wrong-jsonrpc": message | {"jsonrpc": "1.0"},
        "not-an-object": "tools/list",
        "no-method": {key: value for key, value in message.items() if key != "method"},
    }[kind]
    expect_refused(client, encode(broken), era)


@requirement("B26-08", "T25-03")
def test_posted_response_is_not_answered(client: Client, era: Era) -> None:
    """A response to nothing: taken (202) or refused, but it is no request and gets no message with a result."""
    need_service(client, era)
    stray = encode({"jsonrpc": "2.0", "id": "never-asked", "result": {}})
    answer = client.send(stray, headers=request_headers(era, "tools/list"))
    taken = answer.status == 202 or 400 <= answer.status < 500
    expect(taken, "A response was answered as if it were a request.", expected="202 or 4xx", got=answer.status)
    expect(b'"result"' not in answer.body, "A response was given a result.", got=str(answer.body[:300]))


@requirement("B26-14", "L26-04", "B25-05", "L25-04")
def test_tool_schemas_are_valid(client: Client, era: Era) -> None:
    for tool in list_tools(client, era, schema=False):
        for key in ("inputSchema", "outputSchema"):
            schema = tool.get(key)
            if schema is None and key == "outputSchema":
                continue
            expect(isinstance(schema, dict), f"{key} of {tool['name']} is no object.", got=schema)
            assert isinstance(schema, dict)
            rooted = key == "outputSchema" or schema.get("type") == "object"
            expect(rooted, f"The root of {tool['name']}'s inputSchema is not type object.", got=schema)
            dialect = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
            try:
                dialect.check_schema(schema)
            except jsonschema.SchemaError as error:
                raise NonConformance(f"{key} of {tool['name']} is invalid: {error.message}", got=schema) from None


@requirement("B26-15", "B25-05")
def test_schemas_refer_to_nothing_on_the_network(client: Client, era: Era) -> None:
    for tool in list_tools(client, era):
        for reference in references(tool):
            expect(reference.startswith("#"), f"{tool['name']} refers outside its schema.", got=reference)


def references(node: object) -> Iterator[str]:
    """Every $ref in a JSON value."""
    if isinstance(node, Mapping):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


@requirement("L26-05", "L25-05")
def test_tool_names_are_plain_and_unique(client: Client, era: Era) -> None:
    names = [str(tool["name"]) for tool in list_tools(client, era)]
    for name in names:
        expect(re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", name), "A tool name is outside the guidance.", got=name)
    expect(len(set(names)) == len(names), "A tool name appears twice.", got=names)


@requirement("L26-02", "L26-03")
def test_tool_list_does_not_change(client: Client, era: Era) -> None:
    first = list_tools(client, era)
    client.tool(era, UNKNOWN_TOOL, {})
    for _ in range(3):
        again = list_tools(client, era)
        expect(again == first, "tools/list differs between connections.", expected=first, got=again)


@requirement("L26-08", "L25-02")
def test_unknown_tool_is_a_protocol_error(client: Client, era: Era) -> None:
    reply = client.tool(era, UNKNOWN_TOOL, {})
    if reply.result is not None and reply.result.get("isError"):
        raise NonConformance("An unknown tool came back as a tool result with isError.", got=reply.result)
    expect_error(reply, status=(200, 400, 404))


@requirement("L26-15", "L25-09")
def test_unknown_tool_has_the_code_of_the_example(client: Client, era: Era) -> None:
    reply = client.tool(era, UNKNOWN_TOOL, {})
    if reply.error is None:
        pytest.skip("the endpoint answers with no protocol error, which another check tells")
    expect_error(reply, -32602)


@requirement("L26-09")
@pytest.mark.parametrize(
    "params",
    [
        pytest.param({"arguments": {}}, id="no-name"),
        pytest.param({"name": 5, "arguments": {}}, id="name-is-a-number"),
        pytest.param({"name": UNKNOWN_TOOL, "arguments": [1]}, id="arguments-are-an-array"),
    ],
)
def test_malformed_call_is_a_protocol_error(client: Client, era: Era, params: dict[str, object]) -> None:
    headers: dict[str, str | list[str] | None] = {}
    if era is Era.MODERN and not isinstance(params.get("name"), str):
        headers["Mcp-Name"] = str(params.get("name", UNKNOWN_TOOL))
    expect_error(client.call(era, "tools/call", params, headers=headers), status=(200, 400))


@requirement("L26-10", "L25-03")
@pytest.mark.parametrize("kind", ["missing", "wrong-type"])
def test_bad_arguments_are_told_to_the_model(client: Client, era: Era, discovery: Discovery, kind: str) -> None:
    name, properties = tool_with_required(discovery)
    arguments = {} if kind == "missing" else {key: {"unexpected": 1} for key in properties}
    reply = client.tool(era, name, arguments)
    result = expect_result(reply)
    text = " ".join(text_blocks(result))
    expect(result.get("isError") is True, "Bad arguments did not set isError.", expected=True, got=result)
    named = any(key in text for key in properties)
    expect(named, "The text names no argument, so a model cannot mend its call.", expected=list(properties), got=text)


@requirement("L26-13", "L25-08")
@pytest.mark.parametrize("kind", ["bad-arguments", "unknown-tool", "unknown-method", "bad-json", "bad-envelope"])
def test_errors_tell_no_internals(client: Client, era: Era, discovery: Discovery, kind: str) -> None:
    need_service(client, era)
    if kind == "bad-arguments":
        name, properties = tool_with_required(discovery)
        body = client.tool(era, name, {key: {"unexpected": 1} for key in properties}).answer.body
    elif kind == "unknown-tool":
        body = client.tool(era, UNKNOWN_TOOL, {}).answer.body
    elif kind == "unknown-method":
        body = client.call(era, "unknown/method", {}).answer.body
    elif kind == "bad-json":
        body = client.send(b"{", headers=request_headers(era, "tools/list")).body
    else:
        body = client.send(encode([{"jsonrpc": "1"}]), headers=request_headers(era, "tools/list")).body
    text = body.decode(errors="replace")
    found = INTERNALS.search(text)
    expect(
        found is None, "An error shows the server's internals.", got=text[max(0, found.start() - 80) :] if found else ""
    )


@requirement("L26-13", "L25-08")
def test_oversized_body_is_refused_not_crashed(client: Client, era: Era) -> None:
    need_service(client, era)
    message = request_message(era, "tools/call", {"name": UNKNOWN_TOOL, "arguments": {"x": "a" * 5_000_000}}, 1)
    headers = request_headers(era, "tools/call", {"name": UNKNOWN_TOOL})
    answer = client.send(encode(message), headers=headers)
    expect(answer.status < 500, "A body of 5 MB was met with a server error.", expected="below 500", got=answer.status)


@requirement("P26-01", "P25-01")
def test_invalid_cursor_is_invalid_params(client: Client, era: Era) -> None:
    expect_error(client.call(era, "tools/list", {"cursor": "no-such-cursor"}), -32602)


@requirement("L26-13", "L25-08")
def test_wrong_content_type_is_refused(client: Client, era: Era) -> None:
    need_service(client, era)
    body = encode(request_message(era, "tools/list", None, next_id()))
    answer = client.send(body, headers=changed(request_headers(era, "tools/list"), {"Content-Type": "text/plain"}))
    expect(400 <= answer.status < 500, "A text/plain body was taken for JSON.", expected="4xx", got=answer.status)


@requirement("R26-01", "R25-01", "G26-01", "G26-03", "T26-08", "X26-01")
def test_only_own_notifications_are_streamed(client: Client, era: Era) -> None:
    """Nothing was asked for beside the list: no progress, no logs; in 2026-07-28 no notification at all is due."""
    need_service(client, era)
    reply = client.call(era, "tools/list")
    unasked = ("notifications/progress", "notifications/message", "notifications/cancelled")
    strays = [one for one in reply.notifications if era is Era.MODERN or one["method"] in unasked]
    expect(not strays, "A notification came without being asked for.", got=json.dumps(strays))
