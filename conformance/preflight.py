"""Finds out, before anything is judged, whether an endpoint can be: it answers, takes our credentials, is at this URL.

It must not judge, and knows no pytest.
"""

import sys
from dataclasses import replace

from conformance.client import Client, Discovery, discover
from conformance.target import Target
from conformance.wire import TimedOut, WireError

# What a gateway says when the function behind it did not answer in time.
COLD = {502, 503, 504}
ATTEMPTS = 3


class NotJudged(Exception):
    """The endpoint is unreachable or does not take our credentials, so nothing can be judged."""


def preflight(target: Target) -> Discovery:
    """Finds out whether the endpoint can be judged at all, and what it is.

    A cold environment may need longer than a gateway or we wait, so what looks like that is tried again and told on
    stderr; nothing after this is ever tried twice.

    Raises:
        NotJudged: with one sentence for a person.
    """
    for attempt in range(1, ATTEMPTS + 1):
        client, last = Client(target), attempt == ATTEMPTS
        try:
            found = discover(client)
        except TimedOut as error:
            if last:
                raise NotJudged(f"{error} Check the endpoint, or give it longer with --timeout.") from None
        except WireError as error:
            raise NotJudged(f"{error} Check the URL and that the endpoint is up.") from None
        else:
            if last or not looks_cold(client):
                return replace(_usable(target, client, found), retries=attempt - 1 + client.retries)
        told = f"{target.endpoint.url} may be cold; attempt {attempt + 1} of {ATTEMPTS}"
        print(told, file=sys.stderr, flush=True)
    raise AssertionError("the last attempt returns or raises")


def looks_cold(client: Client) -> bool:
    """Whether every answer was a gateway's that waited in vain for the function behind it."""
    return _statuses(client) <= COLD


def _statuses(client: Client) -> set[object]:
    return {exchange.get("status") for exchange in client.exchanges}


def _usable(target: Target, client: Client, found: Discovery) -> Discovery:
    statuses = _statuses(client)
    url = target.endpoint.url
    if statuses <= {401, 403}:
        hint = "was refused; check its value" if target.credentials else "is missing; set MCP_API_KEY or use --header"
        raise NotJudged(f"{url} answered {_words(statuses)}: the credential {hint}.")
    moved = next((exchange for exchange in client.exchanges if exchange.get("status") in (301, 302, 307, 308)), None)
    if moved is not None and not found.eras:
        raise NotJudged(f"{url} answered {moved['status']}, a redirect; give the URL it leads to: {_location(moved)}.")
    if statuses <= {404, 405} or statuses <= {500, 502, 503, 504}:
        raise NotJudged(f"{url} answered {_words(statuses)} to every first request; check the path and the deployment.")
    return found


def _location(exchange: dict[str, object]) -> str:
    headers = exchange.get("headers")
    lines = headers if isinstance(headers, list) else []
    return next(
        (str(line).partition(": ")[2] for line in lines if str(line).lower().startswith("location:")), "unknown"
    )


def _words(statuses: set[object]) -> str:
    return " and ".join(sorted(map(str, statuses)))
