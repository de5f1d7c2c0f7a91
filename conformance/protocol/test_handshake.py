"""Checks of revision 2025-11-25 over HTTP: the handshake, sessions where minted, GET and DELETE, cancellation."""

import re

import pytest

from conformance.client import Client, Discovery, initialize_params
from conformance.finding import expect, expect_error, expect_result, expect_status, requirement
from conformance.messages import JSON_HEADERS, Era, changed, encode
from conformance.protocol.refusals import need_service
from conformance.wire import TimedOut

HANDSHAKE = Era.HANDSHAKE
UNDECLARED = {
    "prompts/list": "prompts",
    "resources/list": "resources",
    "completion/complete": "completions",
    "logging/setLevel": "logging",
}


@requirement("Y25-01")
def test_initialize_introduces_the_server(handshake: Client) -> None:
    result = expect_result(handshake.call(HANDSHAKE, "initialize", initialize_params()), schema=False)
    expect(result.get("protocolVersion") == HANDSHAKE, "Another version was agreed.", expected=HANDSHAKE, got=result)
    info = result.get("serverInfo")
    expect(isinstance(info, dict) and {"name", "version"} <= info.keys(), "serverInfo is incomplete.", got=info)


@requirement("L25-01")
def test_initialize_declares_tools(handshake: Client, discovery: Discovery) -> None:
    if not discovery.tools:
        pytest.skip("the endpoint lists no tools")
    result = expect_result(handshake.call(HANDSHAKE, "initialize", initialize_params()))
    capabilities = result["capabilities"]
    declared = isinstance(capabilities, dict) and isinstance(capabilities.get("tools"), dict)
    expect(declared, "Tools are listed but the tools capability is not declared.", got=capabilities)


@requirement("Y25-02")
@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"])
def test_supported_version_is_echoed(handshake: Client, version: str) -> None:
    reply = handshake.call(HANDSHAKE, "initialize", initialize_params(version))
    result = expect_result(reply)
    got = result["protocolVersion"]
    if got != version and version != HANDSHAKE:
        # Only what a server supports must be echoed; another answer is right when it does not support this one.
        expect(got in ("2025-11-25", "2025-06-18", "2025-03-26"), "The counter-offer is no known version.", got=got)
        pytest.skip(f"the endpoint does not support {version}: it offers {got}")
    expect(got == version, "A supported version was not echoed.", expected=version, got=got)


@requirement("Y25-03")
@pytest.mark.parametrize("version", ["1.0.0", "2099-01-01"])
def test_unknown_version_gets_the_latest_offer(handshake: Client, version: str) -> None:
    result = expect_result(handshake.call(HANDSHAKE, "initialize", initialize_params(version)))
    got = result["protocolVersion"]
    expect(got == HANDSHAKE, "The counter-offer is not the latest handshake version.", expected=HANDSHAKE, got=got)


@requirement("Y25-05")
def test_initialize_without_params_is_invalid(handshake: Client) -> None:
    body = encode({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})
    answer = handshake.send(body)
    expect(b"-32602" in answer.body, "The error code is not -32602.", expected=-32602, got=answer.body.decode())


@requirement("K25-01")
def test_ping_is_answered_with_an_empty_result(handshake: Client) -> None:
    result = expect_result(handshake.call(HANDSHAKE, "ping", request_id="ping-1"), schema=False)
    expect(not set(result) - {"_meta"}, "The ping result is not empty.", got=result)


@requirement("Y25-04", "G25-01")
@pytest.mark.parametrize("method", UNDECLARED)
def test_undeclared_capability_is_not_served(handshake: Client, discovery: Discovery, method: str) -> None:
    if UNDECLARED[method] in discovery.capabilities(HANDSHAKE):
        pytest.skip(f"the endpoint declares {UNDECLARED[method]}")
    known: dict[str, dict[str, object]] = {
        "completion/complete": {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {"name": "a", "value": ""}},
        "logging/setLevel": {"level": "info"},
    }
    expect_error(handshake.call(HANDSHAKE, method, known.get(method)), -32601)


@requirement("T25-07")
@pytest.mark.parametrize("version", ["garbage", "2000-01-01", "2099-01-01"])
def test_invalid_version_header_is_400(handshake: Client, version: str) -> None:
    need_service(handshake, HANDSHAKE)
    reply = handshake.call(HANDSHAKE, "tools/list", headers={"MCP-Protocol-Version": version})
    expect_status(reply.answer, 400)


@requirement("T25-08")
def test_absent_version_header_is_served(handshake: Client) -> None:
    expect_result(handshake.call(HANDSHAKE, "tools/list", headers={"MCP-Protocol-Version": None}))


@requirement("T25-01", "T25-05")
@pytest.mark.parametrize("extra", [pytest.param(None, id="plain"), pytest.param("7", id="last-event-id")])
def test_get_is_a_stream_or_405(handshake: Client, extra: str | None) -> None:
    headers = [("Accept", "text/event-stream"), ("MCP-Protocol-Version", str(HANDSHAKE))]
    if extra:
        headers.append(("Last-Event-ID", extra))
    try:
        answer = handshake.send(method="GET", headers=headers, timeout_s=4, allow_partial=True)
    except TimedOut as error:
        raise TimedOut("A GET was left without even a status line for 4 s; behind Lambda it would hang.") from error
    expect_status(answer, 200, 405)
    if answer.status == 200:
        expect(
            answer.media_type == "text/event-stream", "A GET was served, but not as a stream.", got=answer.media_type
        )


@requirement("T25-11")
def test_delete_ends_a_session_or_is_refused(handshake: Client) -> None:
    # Without a session id: ours is not to be ended while others of this run are in it.
    headers = [("MCP-Protocol-Version", str(HANDSHAKE))]
    answer = handshake.send(method="DELETE", headers=headers, timeout_s=5, session=False)
    expect_status(answer, 200, 202, 204, 400, 404, 405)


@requirement("T25-09")
def test_session_id_is_visible_ascii(handshake: Client) -> None:
    reply = handshake.call(HANDSHAKE, "initialize", initialize_params())
    minted = reply.answer.header("mcp-session-id")
    if minted is None:
        pytest.skip("the endpoint mints no session id")
    expect(re.fullmatch(r"[\x21-\x7e]+", minted), "The session id holds other than visible ASCII.", got=minted)


@requirement("T25-03", "B25-03")
@pytest.mark.parametrize("method", ["notifications/initialized", "notifications/of-no-known-kind"])
def test_notification_is_accepted_without_a_body(handshake: Client, method: str) -> None:
    answer = handshake.notify(HANDSHAKE, method)
    if method != "notifications/initialized" and 400 <= answer.status < 500:
        pytest.skip("the endpoint accepts no notification that it does not know, as it may")
    expect_status(answer, 202)
    expect(not answer.body, "A notification was answered with a body.", got=answer.body.decode(errors="replace"))


@requirement("T25-04")
@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"jsonrpc": "2.0", "method": 5}, id="method-is-a-number"),
        pytest.param({"method": "notifications/initialized"}, id="no-jsonrpc"),
    ],
)
def test_malformed_notification_is_an_http_error(handshake: Client, message: dict[str, object]) -> None:
    need_service(handshake, HANDSHAKE)
    answer = handshake.send(encode(message), headers=[*JSON_HEADERS, ("MCP-Protocol-Version", str(HANDSHAKE))])
    expect(400 <= answer.status < 500, "A malformed notification was accepted.", expected="4xx", got=answer.status)


@requirement("X25-01")
@pytest.mark.parametrize("params", [{"requestId": 987654}, {"requestId": "never-seen", "reason": "late"}], ids=str)
def test_late_cancellation_is_ignored(handshake: Client, params: dict[str, object]) -> None:
    expect_status(handshake.notify(HANDSHAKE, "notifications/cancelled", params), 202)


@requirement("J25-01")
def test_task_metadata_is_ignored_without_the_capability(handshake: Client, discovery: Discovery) -> None:
    if "tasks" in discovery.capabilities(HANDSHAKE):
        pytest.skip("the endpoint declares tasks")
    reply = handshake.call(HANDSHAKE, "tools/list", {"task": {"ttl": 1000}})
    result = expect_result(reply)
    expect("task" not in result, "A task was made though the capability is not declared.", got=result)


@requirement("T25-12")
def test_stream_ends_with_the_response(handshake: Client) -> None:
    reply = handshake.call(HANDSHAKE, "ping", timeout_s=5)
    if reply.answer.media_type != "text/event-stream":
        pytest.skip("the endpoint answers as JSON")
    expect_result(reply)


@requirement("T25-06")
def test_json_alone_is_acceptable_or_406(handshake: Client) -> None:
    """A client must offer both types; one that offers less is served or told 406, never met with a server error."""
    headers = changed(JSON_HEADERS, {"Accept": "application/json"})
    body = encode({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    answer = handshake.send(body, headers=[*headers, ("MCP-Protocol-Version", str(HANDSHAKE))])
    expect_status(answer, 200, 400, 406)
