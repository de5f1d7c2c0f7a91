"""Checks that an endpoint which wants credentials refuses everything but the right ones, when we were given those."""

import pytest

from conformance.client import Client, Discovery
from conformance.finding import expect, requirement
from conformance.messages import encode, next_id, request_headers, request_message
from conformance.wire import Header


def spoiled(value: str, kind: str) -> str:
    """A credential that must not do: its scheme, where there is one, is kept unless the scheme is what is wrong."""
    scheme, space, token = value.rpartition(" ")
    if kind == "garbage":
        return f"{scheme}{space}garbage"
    if kind == "truncated":
        return f"{scheme}{space}{token[:-1]}"
    if kind == "extended":
        return f"{scheme}{space}{token}x"
    return f"Basic {token}"


@requirement("T26-04")
@pytest.mark.parametrize("kind", ["missing", "garbage", "truncated", "extended", "wrong-scheme"])
def test_other_credentials_are_refused(client: Client, discovery: Discovery, kind: str) -> None:
    given = client.target.credentials
    if not given:
        pytest.skip("no credential was given, so there is none to spoil")
    sent: list[Header] = [(name, spoiled(value, kind)) for name, value in given] if kind != "missing" else []
    era = discovery.call_era
    body = encode(request_message(era, "tools/list", None, next_id()))
    answer = client.send(body, headers=request_headers(era, "tools/list", None), credentials=sent)
    expect(
        answer.status in (401, 403), "Spoiled credentials were not refused.", expected="401 or 403", got=answer.status
    )
    expect(b"inputSchema" not in answer.body, "The refusal tells the tools all the same.", got=answer.status)
