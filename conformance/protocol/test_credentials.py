"""Checks that an endpoint which wants credentials refuses everything but the right ones, when we were given those."""

import json
import re
from urllib.parse import urlsplit

import pytest

from conformance.client import Client, Discovery
from conformance.finding import NonConformance, expect, requirement
from conformance.messages import Era, encode, next_id, request_headers, request_message
from conformance.protocol.refusals import INTERNALS
from conformance.wire import Answer, Header

WELL_KNOWN = "/.well-known/oauth-protected-resource"
METADATA = re.compile(r'resource_metadata="([^"]+)"')


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


def ask(client: Client, era: Era, credentials: list[Header], path: str | None = None) -> Answer:
    """A tools/list with these credentials in place of the target's."""
    body = encode(request_message(era, "tools/list", None, next_id()))
    return client.send(body, headers=request_headers(era, "tools/list"), credentials=credentials, path=path)


@requirement("T26-04")
@pytest.mark.parametrize("kind", ["missing", "garbage", "truncated", "extended", "wrong-scheme"])
def test_other_credentials_are_refused(client: Client, discovery: Discovery, kind: str) -> None:
    given = client.target.credentials
    if not given:
        pytest.skip("no credential was given, so there is none to spoil")
    sent: list[Header] = [(name, spoiled(value, kind)) for name, value in given] if kind != "missing" else []
    answer = ask(client, discovery.call_era, sent)
    expect(
        answer.status in (401, 403), "Spoiled credentials were not refused.", expected="401 or 403", got=answer.status
    )
    expect(b"inputSchema" not in answer.body, "The refusal tells the tools all the same.", got=answer.status)
    everything = "\n".join([answer.body.decode(errors="replace"), *(value for _, value in answer.headers)])
    expect(INTERNALS.search(everything) is None, "The refusal shows the server's internals.", got=answer.status)
    for _, value in given:
        expect(value.rpartition(" ")[2] not in everything, "The refusal tells the right credential.", got=answer.status)


def bearer(client: Client) -> Header:
    """The bearer token we were given; skips without one."""
    for name, value in client.target.credentials:
        if name.lower() == "authorization" and value.lower().startswith("bearer "):
            return name, value
    pytest.skip("no bearer token was given (--header Authorization=@file)")


@requirement("A26-01", "A25-01")
def test_invalid_token_is_401_with_a_challenge(client: Client, discovery: Discovery) -> None:
    bearer(client)
    answer = ask(client, discovery.call_era, [("Authorization", "Bearer not-a-token-of-anyone")])
    expect(answer.status == 401, "An invalid token is not answered with 401.", expected=401, got=answer.status)
    challenge = answer.header("www-authenticate") or ""
    expect(challenge.lower().startswith("bearer"), "The 401 does not challenge for a bearer token.", got=challenge)


@requirement("A26-01", "A25-01")
def test_named_credentials_are_refused(client: Client, discovery: Discovery) -> None:
    """Those that only the caller can come by: expired tokens, tokens of another audience or of too narrow a scope."""
    if not client.target.refused:
        pytest.skip("no credential was named that must be refused (--refused-header Authorization=@file)")
    for one in client.target.refused:
        others = [header for header in client.target.credentials if header[0].lower() != one[0].lower()]
        answer = ask(client, discovery.call_era, [*others, one])
        # Any other status, 404 for a session that is another's, is said by a server that took the token.
        past = "A credential that must be refused got past authorization."
        expect(answer.status in (401, 403), past, expected="401 or 403", got=answer.status)
        expect(b"inputSchema" not in answer.body, "The refusal tells the tools all the same.", got=answer.status)


@requirement("A26-05", "A25-05")
def test_challenge_names_the_scope(client: Client, discovery: Discovery) -> None:
    bearer(client)
    challenge = ask(client, discovery.call_era, []).header("www-authenticate") or ""
    expect(re.search(r"\bscope=", challenge), "The challenge does not say which scope is needed.", got=challenge)


def protected_resource_metadata(client: Client, discovery: Discovery) -> dict[str, object]:
    """By the challenge's resource_metadata, else at the well-known place; one on another host is not asked for."""
    challenge = ask(client, discovery.call_era, []).header("www-authenticate") or ""
    endpoint = client.target.endpoint
    told = METADATA.search(challenge)
    places = [f"{WELL_KNOWN}{endpoint.path.rstrip('/')}", WELL_KNOWN]
    if told:
        url = urlsplit(told[1])
        if url.netloc != endpoint.authority:
            pytest.skip(f"the metadata is on another host, which was not given to us to judge: {url.netloc}")
        places = [url.path]
    for path in places:
        answer = client.send(method="GET", path=path, headers=[("Accept", "application/json")], credentials=[])
        if answer.status == 200:
            break
    else:
        raise NonConformance("No protected resource metadata is served.", expected=places, got=challenge)
    try:
        found = json.loads(answer.body)
    except ValueError:
        raise NonConformance(
            "The protected resource metadata is not JSON.", got=answer.body.decode("latin-1")
        ) from None
    if not isinstance(found, dict):
        raise NonConformance("The protected resource metadata is not a JSON object.", got=found)
    return found


@requirement("A26-02", "A25-02")
def test_protected_resource_metadata_is_found(client: Client, discovery: Discovery) -> None:
    bearer(client)
    found = protected_resource_metadata(client, discovery)
    servers = found.get("authorization_servers")
    expect(isinstance(servers, list) and servers, "The metadata names no authorization server.", got=found)


@requirement("A26-04", "A25-04")
def test_metadata_is_about_this_endpoint(client: Client, discovery: Discovery) -> None:
    """A client asks for a token for `resource`, and drops metadata about another place: behind a proxy that rewrites
    the host, or a stage prefix the server does not know of, nobody can log in."""
    bearer(client)
    resource = protected_resource_metadata(client, discovery).get("resource")
    told = urlsplit(str(resource))
    endpoint = client.target.endpoint
    here = f"{endpoint.path.partition('?')[0].rstrip('/')}/"
    same = (told.scheme, told.netloc) == (endpoint.scheme, endpoint.authority)
    within = here.startswith(f"{told.path.rstrip('/')}/")
    expect(same and within, "The metadata's resource is another place.", expected=endpoint.url, got=resource)


@requirement("A26-03", "A25-03")
def test_token_in_the_query_is_refused(client: Client, discovery: Discovery) -> None:
    _, value = bearer(client)
    path = client.target.endpoint.path
    joined = f"{path}{'&' if '?' in path else '?'}access_token={value.rpartition(' ')[2]}"
    answer = ask(client, discovery.call_era, [], joined)
    expect(answer.status in (400, 401, 403), "A token in the query string was taken.", expected=401, got=answer.status)
