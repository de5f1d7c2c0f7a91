"""Given an HTTP request, this is the event API Gateway makes of it; given an answer, this is what the client gets."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sam.local.gateway import Malformed, Match, match_route, proxy_event, proxy_response
from sam.local.stack import Route, Stack

EVENTS = Path(__file__).parents[1] / "events"

STACK = Stack(
    function_name="f",
    handler="h.h",
    runtime="python3.12",
    code_dir=Path(),
    memory_mb=256,
    timeout_s=3,
    environment={},
    log_group="/aws/lambda/f",
    log_format="JSON",
    log_retention_days=None,
    reserved_concurrency=None,
    stage="Prod",
    routes=(
        Route("/lambda/mcp", "ANY", True),
        Route("/lambda/health", "GET", False),
        Route("/lambda/{name}", "POST", False),
        Route("/files/{path+}", "ANY", False),
    ),
    binary_media_types=(),
    region="us-east-1",
)


@pytest.mark.parametrize(
    ("method", "path", "resource", "seen", "parameters"),
    [
        pytest.param("POST", "/Prod/lambda/mcp", "/lambda/mcp", "/lambda/mcp", {}, id="plain"),
        pytest.param("POST", "/Prod/lambda/mcp/", "/lambda/mcp", "/lambda/mcp/", {}, id="last-slash-is-kept"),
        pytest.param("DELETE", "/Prod/lambda/mcp", "/lambda/mcp", "/lambda/mcp", {}, id="any-method"),
        pytest.param("POST", "/Prod/lambda/x", "/lambda/{name}", "/lambda/x", {"name": "x"}, id="parameter"),
        pytest.param("GET", "/Prod/files/a/b%20c", "/files/{path+}", "/files/a/b c", {"path": "a/b c"}, id="greedy"),
    ],
)
def test_a_request_finds_its_route(method: str, path: str, resource: str, seen: str, parameters: dict[str, str]):
    match = match_route(STACK, path, method)
    assert match is not None
    assert (match.route.resource, match.path, match.parameters) == (resource, seen, parameters)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("POST", "/dev/lambda/mcp", id="another-stage"),
        pytest.param("POST", "/lambda/mcp", id="no-stage"),
        pytest.param("POST", "/Prod/lambda/mcp/more", id="longer"),
        pytest.param("PUT", "/Prod/lambda/health", id="another-method"),
        pytest.param("GET", "/Prod", id="the-stage-alone"),
        pytest.param("GET", "/Prod/files", id="greedy-wants-something"),
    ],
)
def test_what_has_no_route_finds_none(method: str, path: str):
    assert match_route(STACK, path, method) is None


def shape(value: Any) -> Any:
    """Keys and types of a JSON value, without its contents."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in sorted(value.items())}
    return [shape(value[0])] if isinstance(value, list) else type(value).__name__


def test_an_event_is_what_the_published_fixture_is():
    fixture = json.loads((EVENTS / "apigw-rest-post.json").read_text())
    context = fixture["requestContext"]
    event = proxy_event(
        replace(STACK, stage="Prod"),
        Match(Route("/my/path", "POST", False), "/my/path", {}),
        "POST",
        "/Prod/my/path?parameter1=value2&parameter1=value1&parameter2=value",
        list(fixture["headers"].items()),
        fixture["body"].encode(),
        context["requestId"],
        source_ip=context["identity"]["sourceIp"],
        protocol="HTTP/1.1",
        now_s=context["requestTimeEpoch"] / 1000,
    )
    assert shape(event) == shape(fixture)
    for made in ("resourceId", "extendedRequestId", "apiId"):  # invented by API Gateway, so not compared
        event["requestContext"][made] = context[made]
    event["multiValueQueryStringParameters"]["parameter1"].sort()
    assert event == fixture


@pytest.mark.parametrize(
    ("body", "types", "expected", "encoded"),
    [
        pytest.param(b"", (), None, False, id="no-body"),
        pytest.param("é".encode(), (), "é", False, id="text"),
        pytest.param(b"\xff", (), "\ufffd", False, id="bytes-as-text"),
        pytest.param(b"\xff", ("image/*",), "/w==", True, id="binary-by-family"),
        pytest.param(b"\xff", ("*/*",), "/w==", True, id="binary-all"),
        pytest.param(b"x", ("application/zip",), "x", False, id="another-binary-type"),
    ],
)
def test_a_body_is_text_unless_its_type_is_binary(
    body: bytes, types: tuple[str, ...], expected: str | None, encoded: bool
):
    match = Match(Route("/a", "POST", False), "/a", {})
    event = proxy_event(
        replace(STACK, binary_media_types=types), match, "POST", "/Prod/a", [("Content-Type", "image/png")], body, "id",
        source_ip="127.0.0.1", protocol="HTTP/1.1",
    )  # fmt: skip
    assert (event["body"], event["isBase64Encoded"]) == (expected, encoded)


BINARY = {"statusCode": 200, "body": "/w==", "isBase64Encoded": True}


@pytest.mark.parametrize(
    ("document", "accept", "status", "body"),
    [
        pytest.param({"statusCode": 200, "body": "é"}, "", 200, "é".encode(), id="text"),
        pytest.param({"statusCode": "404"}, "", 404, b"", id="status-as-string"),
        pytest.param(BINARY, "text/html", 200, b"/w==", id="binary-that-was-not-asked-for-stays-base64"),
        pytest.param(BINARY, "image/png, */*", 200, b"\xff", id="binary-asked-for-first"),
    ],
)
def test_an_answer_becomes_status_and_body(document: dict[str, Any], accept: str, status: int, body: bytes):
    answer = proxy_response(json.dumps(document).encode(), ("image/png",), accept)
    assert (answer.status, answer.body) == (status, body)


@pytest.mark.parametrize(
    ("given", "name", "values"),
    [
        pytest.param({"headers": {"A": 1}}, "A", ["1"], id="number"),
        pytest.param({"headers": {"A": True}}, "A", ["true"], id="boolean"),
        pytest.param({"headers": None, "multiValueHeaders": {"A": ["1", "2"]}}, "A", ["1", "2"], id="twice"),
        pytest.param({"headers": {"A": "x"}, "multiValueHeaders": {"a": ["1"]}}, "a", ["1"], id="multi-value-wins"),
        pytest.param({"headers": {"Server": "s"}}, "x-amzn-Remapped-server", ["s"], id="remapped"),
        pytest.param({"headers": {"Connection": "close"}}, "Connection", [], id="hop-by-hop"),
    ],
)
def test_headers_of_an_answer_arrive_as_from_api_gateway(given: dict[str, Any], name: str, values: list[str]):
    answer = proxy_response(json.dumps({"statusCode": 200, **given}).encode(), (), "")
    assert answer.headers.getall(name, []) == values


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"not json", id="not-json"),
        pytest.param(b'"text"', id="a-string"),
        pytest.param(b"{}", id="no-status"),
        pytest.param(b'{"statusCode": 99}', id="status-too-low"),
        pytest.param(b'{"statusCode": "ok"}', id="status-no-number"),
        pytest.param(b'{"statusCode": 200, "body": {}}', id="body-an-object"),
        pytest.param(b'{"statusCode": 200, "extra": 1}', id="an-unknown-key"),
        pytest.param(b'{"statusCode": 200, "headers": []}', id="headers-a-list"),
        pytest.param(b'{"statusCode": 200, "headers": {"a": "x\\r\\ny: z"}}', id="a-line-break-in-a-header"),
        pytest.param(b'{"statusCode": 200, "multiValueHeaders": {"a": "x"}}', id="multi-value-no-list"),
        pytest.param(b'{"statusCode": 200, "body": "%", "isBase64Encoded": true}', id="not-base64"),
    ],
)
def test_what_is_no_proxy_response_is_malformed(payload: bytes):
    with pytest.raises(Malformed):
        proxy_response(payload, ("*/*",), "*/*")


def test_base64_of_the_answer_is_decoded_strictly():
    good = {"statusCode": 200, "isBase64Encoded": True, "body": base64.b64encode(b"\x00\x01").decode()}
    assert proxy_response(json.dumps(good).encode(), ("*/*",), "*/*").body == b"\x00\x01"
