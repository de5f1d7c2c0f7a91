"""Checks of revision 2026-07-28 over HTTP: per-request `_meta`, routing headers, typed errors, cache hints."""

import base64
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from conformance.client import Client, Discovery, initialize_params
from conformance.finding import NonConformance, expect, expect_error, expect_result, expect_status, requirement
from conformance.messages import META, Era, changed, encode, modern_meta, read_reply, request_headers, request_message
from conformance.protocol.refusals import UNKNOWN_TOOL, need_service

MODERN = Era.MODERN
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022
# What a platform answers for a function that has no more environments to give.
THROTTLED = (429, 503)
LABEL = r"[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
META_KEY = re.compile(rf"(?:{LABEL}(?:\.{LABEL})*/)?(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?")
OPTIONAL_METHODS = {
    "prompts/list": "prompts",
    "resources/list": "resources",
    "completion/complete": "completions",
    "tasks/list": "tasks",
}


def sentinel(name: str) -> str:
    """A header value in the base64 form of the specification's "Value Encoding"."""
    return f"=?base64?{base64.b64encode(name.encode()).decode()}?="


@requirement("T26-01", "V26-01", "D26-01")
def test_discover_is_served_and_lists_its_version(modern: Client) -> None:
    result = expect_result(modern.call(MODERN, "server/discover"), schema=False)
    versions = result.get("supportedVersions")
    expect(
        isinstance(versions, list) and MODERN in versions, "supportedVersions lacks the version in use.", got=versions
    )


@requirement("L26-01")
def test_discover_declares_tools(modern: Client, discovery: Discovery) -> None:
    if not discovery.tools:
        pytest.skip("the endpoint lists no tools")
    result = expect_result(modern.call(MODERN, "server/discover"), schema=False)
    capabilities = result.get("capabilities")
    declared = capabilities.get("tools") if isinstance(capabilities, dict) else None
    expect(isinstance(declared, dict), "Tools are listed but the tools capability is not declared.", got=result)


@requirement("B26-02", "M26-01")
@pytest.mark.parametrize("method", ["server/discover", "tools/list"])
def test_result_type_is_complete(modern: Client, method: str) -> None:
    result = expect_result(modern.call(MODERN, method), schema=False)
    expect(result.get("resultType") == "complete", "resultType is not complete.", expected="complete", got=result)


@requirement("C26-01")
@pytest.mark.parametrize("method", ["server/discover", "tools/list"])
def test_cache_hints(modern: Client, method: str) -> None:
    result = expect_result(modern.call(MODERN, method), schema=False)
    ttl, scope = result.get("ttlMs"), result.get("cacheScope")
    expect(type(ttl) is int and ttl >= 0, "ttlMs is not an integer of 0 or more.", got=ttl)
    expect(scope in ("public", "private"), "cacheScope is neither public nor private.", got=scope)


@requirement("B26-12")
@pytest.mark.parametrize("method", ["server/discover", "tools/list"])
def test_server_info_in_meta(modern: Client, method: str) -> None:
    result = expect_result(modern.call(MODERN, method), schema=False)
    meta = result.get("_meta")
    info = meta.get(f"{META}/serverInfo") if isinstance(meta, dict) else None
    expect(isinstance(info, dict) and {"name", "version"} <= info.keys(), "serverInfo is missing.", got=meta)


@requirement("T26-13")
@pytest.mark.parametrize(
    ("header", "body"),
    [
        pytest.param("2026-07-28", "1999-12-31", id="body-unknown"),
        pytest.param("2025-11-25", "2026-07-28", id="header-of-the-handshake-era"),
        pytest.param("1999-12-31", "2026-07-28", id="header-unknown"),
    ],
)
def test_version_header_must_match_meta(modern: Client, header: str, body: str) -> None:
    params = {"_meta": modern_meta(body)}
    versions: dict[str, str | list[str] | None] = {"MCP-Protocol-Version": header}
    reply = modern.call(MODERN, "tools/list", params, headers=versions, result_schema=False)
    expect_error(reply, HEADER_MISMATCH, status=(400,))


@requirement("T26-14")
def test_unsupported_version_is_named(modern: Client) -> None:
    version = "1900-01-01"
    reply = modern.call(
        MODERN, "tools/list", {"_meta": modern_meta(version)}, headers={"MCP-Protocol-Version": version}
    )
    error = expect_error(reply, UNSUPPORTED_VERSION, status=(400,))
    data = error.get("data")
    supported = data.get("supported") if isinstance(data, dict) else None
    expect(isinstance(supported, list) and supported, "data.supported lists no version.", got=error)
    expect(isinstance(data, dict) and data.get("requested") == version, "data.requested is not the version.", got=error)


@requirement("T26-29")
def test_supported_versions_are_told_the_same_everywhere(modern: Client) -> None:
    version = "1900-01-01"
    reply = modern.call(
        MODERN, "tools/list", {"_meta": modern_meta(version)}, headers={"MCP-Protocol-Version": version}
    )
    data = (reply.error or {}).get("data")
    in_error = data.get("supported") if isinstance(data, dict) else None
    discovered = expect_result(modern.call(MODERN, "server/discover"))["supportedVersions"]
    if not isinstance(in_error, list) or not isinstance(discovered, list):
        pytest.skip("the error lists no versions, which another check tells")
    same = sorted(map(str, in_error)) == sorted(map(str, discovered))
    expect(same, "The error and server/discover name different versions.", expected=discovered, got=in_error)


@requirement("T26-15")
@pytest.mark.parametrize(
    "method",
    ["unknown/method", "initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"],
)
def test_unimplemented_method_is_404(modern: Client, method: str) -> None:
    expect_error(modern.call(MODERN, method, {}), -32601, status=(404,))


@requirement("T26-15", "D26-02")
@pytest.mark.parametrize("method", OPTIONAL_METHODS)
def test_undeclared_capability_is_not_served(modern: Client, discovery: Discovery, method: str) -> None:
    if OPTIONAL_METHODS[method] in discovery.capabilities(MODERN):
        pytest.skip(f"the endpoint declares {OPTIONAL_METHODS[method]}")
    # Right params, so that a server which looks at them first has nothing else to object to.
    completion = {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {"name": "a", "value": ""}}
    params = completion if method == "completion/complete" else {}
    expect_error(modern.call(MODERN, method, params, result_schema=False), -32601, status=(404,))


@requirement("T26-16")
def test_missing_version_header(modern: Client, discovery: Discovery) -> None:
    headers = changed(request_headers(MODERN, "tools/list"), {"MCP-Protocol-Version": None})
    answer = modern.send(encode(request_message(MODERN, "tools/list", None, 1)), headers=headers)
    if answer.status == 200 and Era.HANDSHAKE in discovery.eras:
        # A server that also serves clients older than 2025-06-18 may take it for one of theirs, and answer as to them.
        expect_result(read_reply(answer, Era.BARE, "tools/list", 1))
        return
    if discovery.session_id:
        expect_status(answer, 400)  # taken for an older client's, it lacks a session
        return
    expect_error(read_reply(answer, MODERN, "tools/list", 1), HEADER_MISMATCH, status=(400,))


@requirement("T26-17")
def test_missing_method_header(modern: Client) -> None:
    expect_error(modern.call(MODERN, "tools/list", headers={"Mcp-Method": None}), HEADER_MISMATCH, status=(400,))


@requirement("T26-18")
def test_missing_name_header(modern: Client) -> None:
    params = {"name": UNKNOWN_TOOL, "arguments": {}}
    reply = modern.call(MODERN, "tools/call", params, headers={"Mcp-Name": None})
    expect_error(reply, HEADER_MISMATCH, status=(400,))


@requirement("T26-19")
@pytest.mark.parametrize("value", ["prompts/list", "TOOLS/LIST"])
def test_method_header_must_match(modern: Client, value: str) -> None:
    expect_error(modern.call(MODERN, "tools/list", headers={"Mcp-Method": value}), HEADER_MISMATCH, status=(400,))


@requirement("T26-20")
def test_name_header_must_match(modern: Client) -> None:
    params = {"name": UNKNOWN_TOOL, "arguments": {}}
    reply = modern.call(MODERN, "tools/call", params, headers={"Mcp-Name": "another_tool"})
    expect_error(reply, HEADER_MISMATCH, status=(400,))


@requirement("T26-21")
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(sentinel("another_tool"), id="another-name"),
        pytest.param("=?base64?bm8*c3VjaA?=", id="not-base64"),
        pytest.param("=?base64?bm9fc3VjaF90b29s/w?=", id="bad-padding"),
    ],
)
def test_encoded_name_header_is_decoded_and_compared(modern: Client, value: str) -> None:
    params = {"name": UNKNOWN_TOOL, "arguments": {}}
    expect_error(modern.call(MODERN, "tools/call", params, headers={"Mcp-Name": value}), HEADER_MISMATCH, status=(400,))


@requirement("T26-21")
def test_encoded_name_header_is_accepted(modern: Client) -> None:
    # An unknown tool, named the same in header and body, must get past the header comparison and fail as unknown.
    name = "no_such_t\u00f6ol"
    params = {"name": name, "arguments": {}}
    reply = modern.call(MODERN, "tools/call", params, headers={"Mcp-Name": sentinel(name)})
    error = reply.error
    expect(reply.message, "A correctly encoded Mcp-Name got no JSON-RPC answer.", got=reply.answer.status)
    mismatch = error is not None and error.get("code") == HEADER_MISMATCH
    expect(not mismatch, "A correctly encoded Mcp-Name was called a mismatch.", got=error)


@requirement("T26-22")
@pytest.mark.parametrize("spelling", ["MCP-METHOD", "mcp-method", "mCp-MeThOd"])
def test_header_names_have_no_case(modern: Client, spelling: str) -> None:
    expect_result(modern.call(MODERN, "tools/list", headers={"Mcp-Method": None, spelling: "tools/list"}))


@requirement("T26-22")
def test_whitespace_around_header_values_is_ignored(modern: Client) -> None:
    expect_result(modern.call(MODERN, "tools/list", headers={"Mcp-Method": " \t tools/list  "}))


@requirement("T26-23")
@pytest.mark.parametrize("header", ["Mcp-Method", "MCP-Protocol-Version"])
def test_duplicated_routing_header_is_refused(modern: Client, header: str) -> None:
    first = "tools/list" if header == "Mcp-Method" else str(MODERN)
    second = "prompts/list" if header == "Mcp-Method" else "2025-11-25"
    expect_error(modern.call(MODERN, "tools/list", headers={header: [first, second]}), status=(400,))


@requirement("T26-24")
def test_tools_header_parameters_are_well_formed(modern: Client, discovery: Discovery) -> None:
    used: dict[str, str] = {}
    for name, tool in discovery.tools.items():
        schema = tool.get("inputSchema")
        for key, value in (schema.get("properties") or {}).items() if isinstance(schema, dict) else ():
            header = value.get("x-mcp-header") if isinstance(value, dict) else None
            if header is None:
                continue
            expect(
                isinstance(header, str) and header.isascii() and header.replace("-", "").isalnum(),
                f"x-mcp-header of {name}.{key} is no header token.",
                got=header,
            )
            expect(value.get("type") in ("string", "integer", "number", "boolean"), "It marks no primitive.", got=value)
            expect(
                used.setdefault(f"{name}:{header.lower()}", key) == key, "Two parameters share a header.", got=header
            )


@requirement("T26-25")
def test_unknown_param_header_is_ignored(modern: Client) -> None:
    expect_result(modern.call(MODERN, "tools/list", headers={"Mcp-Param-Nothing": "1"}))


@requirement("T26-26")
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_only_post_is_served(modern: Client, method: str) -> None:
    headers = [("Accept", "text/event-stream"), ("MCP-Protocol-Version", str(MODERN))]
    answer = modern.send(method=method, headers=headers, timeout_s=5, allow_partial=True)
    expect_status(answer, 405)


@requirement("T26-27")
def test_session_id_is_ignored_and_not_minted(modern: Client) -> None:
    reply = modern.call(MODERN, "tools/list", headers={"Mcp-Session-Id": "not-a-session"})
    expect_result(reply)
    minted = reply.answer.header("mcp-session-id")
    expect(minted is None, "A session id came back in an era without sessions.", got=minted)


@requirement("T26-28")
def test_last_event_id_is_ignored(modern: Client) -> None:
    expect_result(modern.call(MODERN, "tools/list", headers={"Last-Event-ID": "7"}))


@requirement("B26-09")
@pytest.mark.parametrize("missing", ["_meta", "protocolVersion", "clientCapabilities"])
def test_missing_meta_field_is_invalid_params(modern: Client, missing: str) -> None:
    meta = modern_meta()
    meta.pop(f"{META}/{missing}", None)
    message = request_message(MODERN, "tools/list", {"_meta": meta}, 1)
    if missing == "_meta":
        message["params"] = {}
    answer = modern.send(encode(message), headers=request_headers(MODERN, "tools/list"))
    expect_status(answer, 400)
    expect(b"-32602" in answer.body or b"-32020" in answer.body, "Neither -32602 nor -32020.", got=answer.body.decode())
    if missing == "clientCapabilities":
        expect(b"-32602" in answer.body, "The error code is not -32602.", expected=-32602, got=answer.body.decode())


@requirement("B26-10")
def test_client_info_is_optional(modern: Client) -> None:
    meta = modern_meta()
    del meta[f"{META}/clientInfo"]
    expect_result(modern.call(MODERN, "tools/list", {"_meta": meta}))


@requirement("V26-03")
def test_unknown_client_extension_is_ignored(modern: Client) -> None:
    meta = modern_meta() | {f"{META}/clientCapabilities": {"extensions": {"com.example/nothing": {}}}}
    expect_result(modern.call(MODERN, "tools/list", {"_meta": meta}))


@requirement("T26-05")
def test_notification_is_accepted_without_a_body(modern: Client) -> None:
    answer = modern.notify(MODERN, "notifications/cancelled", {"requestId": 987654, "_meta": modern_meta()})
    if 400 <= answer.status < 500:
        pytest.skip("the endpoint accepts no notification, as it may: none is defined over HTTP")
    expect_status(answer, 202)
    expect(not answer.body, "A notification was answered with a body.", got=answer.body.decode(errors="replace"))


@requirement("T26-06")
def test_unacceptable_notification_is_an_http_error(modern: Client) -> None:
    need_service(modern, MODERN)
    version = "1900-01-01"
    answer = modern.notify(
        MODERN,
        "notifications/cancelled",
        {"requestId": 1, "_meta": modern_meta(version)},
        headers={"MCP-Protocol-Version": version},
    )
    expect(400 <= answer.status < 500, "A notification of an unknown version was accepted.", got=answer.status)


@requirement("G26-02")
def test_invalid_log_level(modern: Client) -> None:
    meta = modern_meta() | {f"{META}/logLevel": "loud"}
    expect_error(modern.call(MODERN, "tools/list", {"_meta": meta}), -32602)


@requirement("M26-02")
def test_unexpected_input_responses_are_ignored(modern: Client) -> None:
    expect_result(modern.call(MODERN, "tools/list", {"inputResponses": {}, "requestState": "bogus"}))


@requirement("S26-01", "L26-12")
def test_listen_is_refused_when_not_declared(modern: Client, discovery: Discovery) -> None:
    tools = discovery.capabilities(MODERN).get("tools")
    params = {"notifications": {"toolsListChanged": True}}
    if isinstance(tools, dict) and tools.get("listChanged"):
        pytest.skip("the endpoint declares listChanged; its streams are not followed yet")
    expect_error(modern.call(MODERN, "subscriptions/listen", params, timeout_s=5), -32601, status=(404,))


@requirement("P26-02", "C26-02")
def test_pagination_ends_and_keeps_its_scope(modern: Client) -> None:
    cursor: object = None
    names: list[object] = []
    scopes: set[object] = set()
    for _ in range(20):
        result = expect_result(modern.call(MODERN, "tools/list", {"cursor": cursor} if cursor else None), schema=False)
        tools = result.get("tools")
        assert isinstance(tools, list)
        names += [tool["name"] for tool in tools]
        scopes.add(result.get("cacheScope"))
        cursor = result.get("nextCursor")
        if cursor is None:
            break
    else:
        raise NonConformance("tools/list still has a nextCursor after 20 pages.", got=cursor)
    expect(len(names) == len(set(map(str, names))), "A tool is listed twice.", got=names)
    expect(len(scopes) == 1, "Pages differ in cacheScope.", got=sorted(map(str, scopes)))


@requirement("T26-09")
def test_server_makes_no_requests(modern: Client) -> None:
    """A request on the stream is Malformed wherever it comes; this check only makes sure that somebody looks."""
    expect_result(modern.call(MODERN, "tools/list"))


def codes_seen(client: Client) -> set[int]:
    """The error codes that a round of faulty requests brings out."""
    replies = [
        client.call(MODERN, "unknown/method", {}),
        client.call(MODERN, "tools/call", {"name": UNKNOWN_TOOL, "arguments": {}}),
        client.call(MODERN, "tools/list", headers={"Mcp-Method": "other"}, result_schema=False),
        client.call(MODERN, "tools/list", {"cursor": "no-such-cursor"}),
        client.call(MODERN, "resources/read", {"uri": "file:///nothing"}, result_schema=False),
    ]
    return {reply.error["code"] for reply in replies if reply.error and isinstance(reply.error["code"], int)}


@requirement("B26-04")
def test_error_codes_are_defined(modern: Client) -> None:
    """Undefined and retired codes are Malformed wherever they come; this check brings errors out on purpose."""
    expect(codes_seen(modern), "Five faulty requests brought out no error code.", got=[])


@requirement("B26-05")
def test_error_codes_keep_out_of_old_ranges(modern: Client) -> None:
    standard = {-32700, -32600, -32601, -32602, -32603}
    need_service(modern, MODERN)
    for code in codes_seen(modern) - standard:
        reserved = -32768 <= code <= -32000 and not -32099 <= code <= -32020
        expect(not reserved, "An error code is in a range reserved for JSON-RPC or earlier revisions.", got=code)


@requirement("B26-16")
def test_meta_keys_are_well_formed(modern: Client) -> None:
    for method in ("server/discover", "tools/list"):
        meta = expect_result(modern.call(MODERN, method), schema=False).get("_meta")
        for key in meta if isinstance(meta, dict) else ():
            expect(META_KEY.fullmatch(key), "A _meta key is not an optional prefix and a name.", got=key)
            labels = key.partition("/")[0].split(".") if "/" in key else []
            squats = len(labels) > 1 and labels[1] in ("modelcontextprotocol", "mcp") and not key.startswith(f"{META}/")
            expect(not squats, "A _meta key uses a prefix that is reserved for the protocol.", got=key)


@requirement("B26-17")
def test_icons_are_https_or_data(modern: Client, discovery: Discovery) -> None:
    for name, tool in discovery.tools.items():
        icons = tool.get("icons")
        for icon in icons if isinstance(icons, list) else ():
            source = str(icon.get("src", "")) if isinstance(icon, dict) else ""
            expect(source.startswith(("https:", "data:")), f"An icon of {name} is neither https nor data.", got=icon)


@requirement("V26-02")
def test_server_without_handshake_names_its_versions(modern: Client, discovery: Discovery) -> None:
    if Era.HANDSHAKE in discovery.eras:
        pytest.skip("the endpoint serves the handshake too")
    answer = modern.send(encode(request_message(Era.BARE, "initialize", initialize_params(), 1)))
    expect(
        MODERN in answer.body.decode(errors="replace"), "The error names no version to try.", got=str(answer.body[:300])
    )


@requirement("T26-10")
def test_modern_stream_ends_with_the_response(modern: Client) -> None:
    answer = modern.call(MODERN, "tools/list", timeout_s=5).answer
    if answer.media_type != "text/event-stream":
        pytest.skip("the endpoint answers this era as JSON")
    expect(answer.complete, "The stream goes on after the response.", got=answer.status)


@requirement("B26-13")
def test_concurrent_requests_do_not_mix(modern: Client) -> None:
    """Each request has a connection of its own and no request before it; those at once each get their own id back."""
    ids = [f"concurrent-{number}" for number in range(4)]
    with ThreadPoolExecutor(max_workers=len(ids)) as pool:
        replies = list(pool.map(lambda one: modern.call(MODERN, "tools/list", request_id=one), ids))
    served = [reply for reply in replies if reply.answer.status not in THROTTLED]
    if len(served) < 2:
        pytest.skip("the endpoint throttles requests at the same time")
    for reply in served:
        expect_result(reply)


@requirement("T26-11")
def test_event_streams_are_not_buffered(modern: Client) -> None:
    answer = modern.call(MODERN, "tools/list", headers={"Accept": "application/json, text/event-stream"}).answer
    if answer.media_type != "text/event-stream":
        pytest.skip("the endpoint answers this era as JSON")
    expect(answer.header("x-accel-buffering") == "no", "X-Accel-Buffering is not no.", got=str(answer.headers))
