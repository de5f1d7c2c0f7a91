"""Checks of what a server may declare beside tools: prompts, resources, completions, logging, subscriptions."""

from collections.abc import Mapping

import pytest

from conformance.client import Client, Discovery
from conformance.finding import expect, expect_error, expect_result, requirement
from conformance.messages import META, Era, encode, modern_meta, request_headers
from conformance.wire import Answer, json_messages

NOWHERE = "nothing-of-this-name"
NO_RESOURCE = "test-nothing://nothing-of-this-name"
MOST = 5
LISTEN_S = 2.0


def declared(discovery: Discovery, era: Era, capability: str) -> Mapping[str, object]:
    """The capability's own object; skips where it is not declared."""
    found = discovery.capabilities(era).get(capability)
    if not isinstance(found, dict):
        pytest.skip(f"the endpoint does not declare {capability} in {era}")
    return found


def listed(client: Client, era: Era, method: str, member: str) -> list[dict[str, object]]:
    """The first page of a list."""
    items = expect_result(client.call(era, method))[member]
    assert isinstance(items, list)
    return items


def arguments_of(prompt: Mapping[str, object], *, required: bool) -> list[str]:
    """Names of a prompt's arguments that are, or are not, required."""
    found = prompt.get("arguments")
    return (
        [str(one["name"]) for one in found if bool(one.get("required")) is required] if isinstance(found, list) else []
    )


@requirement("Q26-01", "Q25-01")
def test_prompts_are_listed_once(client: Client, era: Era, discovery: Discovery) -> None:
    declared(discovery, era, "prompts")
    names = [str(one["name"]) for one in listed(client, era, "prompts/list", "prompts")]
    expect(len(names) == len(set(names)), "A prompt is listed twice.", got=names)


@requirement("Q26-02", "Q25-02")
def test_listed_prompts_can_be_got(client: Client, era: Era, discovery: Discovery) -> None:
    declared(discovery, era, "prompts")
    prompts = listed(client, era, "prompts/list", "prompts")[:MOST]
    if not prompts:
        pytest.skip("the endpoint lists no prompts")
    for prompt in prompts:
        filled = dict.fromkeys(arguments_of(prompt, required=True), "1")
        reply = client.call(era, "prompts/get", {"name": prompt["name"], "arguments": filled})
        asks = (reply.result or {}).get("resultType") == "input_required"
        if asks or (reply.error and filled):
            continue  # it wants what this client cannot give, or has its reasons against "1"
        expect_result(reply)


@requirement("Q26-03", "Q25-03")
def test_unknown_prompt_is_invalid_params(client: Client, era: Era, discovery: Discovery) -> None:
    declared(discovery, era, "prompts")
    expect_error(client.call(era, "prompts/get", {"name": NOWHERE}), -32602)


@requirement("Q26-04", "Q25-04")
def test_missing_prompt_argument_is_invalid_params(client: Client, era: Era, discovery: Discovery) -> None:
    declared(discovery, era, "prompts")
    prompts = listed(client, era, "prompts/list", "prompts")
    wanting = next((one for one in prompts if arguments_of(one, required=True)), None)
    if wanting is None:
        pytest.skip("no prompt requires an argument")
    expect_error(client.call(era, "prompts/get", {"name": wanting["name"], "arguments": {}}), -32602)


@requirement("U26-01", "U25-01")
def test_resources_are_listed_once(client: Client, era: Era, discovery: Discovery) -> None:
    declared(discovery, era, "resources")
    uris = [str(one["uri"]) for one in listed(client, era, "resources/list", "resources")]
    expect(len(uris) == len(set(uris)), "A resource is listed twice.", got=uris)


@requirement("U26-02", "U25-02")
def test_listed_resources_can_be_read(client: Client, era: Era, discovery: Discovery) -> None:
    declared(discovery, era, "resources")
    resources = listed(client, era, "resources/list", "resources")[:MOST]
    if not resources:
        pytest.skip("the endpoint lists no resources")
    for resource in resources:
        result = expect_result(client.call(era, "resources/read", {"uri": resource["uri"]}))
        expect(result["contents"], f"{resource['uri']} was read, but it has no contents.", got=result)


@requirement("U26-03", "U25-03")
def test_unknown_resource_is_not_found(client: Client, era: Era, discovery: Discovery) -> None:
    declared(discovery, era, "resources")
    reply = client.call(era, "resources/read", {"uri": NO_RESOURCE})
    expect_error(reply, -32602 if era is Era.MODERN else -32002)


@requirement("N26-01", "N25-01")
def test_completion_of_an_unknown_prompt_is_invalid_params(client: Client, era: Era, discovery: Discovery) -> None:
    declared(discovery, era, "completions")
    params = {"ref": {"type": "ref/prompt", "name": NOWHERE}, "argument": {"name": "x", "value": ""}}
    expect_error(client.call(era, "completion/complete", params), -32602)


@requirement("G25-02")
def test_unknown_log_level_is_invalid_params(handshake: Client, discovery: Discovery) -> None:
    declared(discovery, Era.HANDSHAKE, "logging")
    expect_error(handshake.call(Era.HANDSHAKE, "logging/setLevel", {"level": "loud"}), -32602)


def listening(client: Client, wanted: Mapping[str, object]) -> tuple[Answer, list[dict[str, object]]]:
    """The messages of a subscription's first two seconds."""
    meta = modern_meta()
    body = {"jsonrpc": "2.0", "id": "listen-1", "method": "subscriptions/listen"}
    params = {"notifications": wanted, "_meta": meta}
    headers = request_headers(Era.MODERN, "subscriptions/listen", params)
    answer = client.send(encode({**body, "params": params}), headers=headers, timeout_s=LISTEN_S, allow_partial=True)
    return answer, [one for one in json_messages(answer) if isinstance(one, dict)]


@requirement("S26-02")
def test_subscription_is_acknowledged_first(modern: Client, discovery: Discovery) -> None:
    """The acknowledgement comes first, every notification carries the subscription's id, and none is unasked for."""
    offered = {
        f"{name}ListChanged": True
        for name in ("tools", "prompts", "resources")
        if isinstance(found := discovery.capabilities(Era.MODERN).get(name), dict) and found.get("listChanged")
    }
    if not offered:
        pytest.skip("the endpoint declares no listChanged")
    answer, messages = listening(modern, offered)
    expect(answer.status == 200, "A declared subscription was not served.", expected=200, got=answer.status)
    first = messages[0] if messages else {}
    acknowledged = first.get("method") == "notifications/subscriptions/acknowledged"
    expect(acknowledged, "The first message is not the acknowledgement.", got=first)
    for message in messages:
        params = message.get("params")
        meta = params.get("_meta") if isinstance(params, dict) else None
        told = meta.get(f"{META}/subscriptionId") if isinstance(meta, dict) else None
        expect(
            "method" not in message or told == "listen-1", "A notification lacks its subscription's id.", got=message
        )
