"""What a server may have beside tools, correct or with one fault: sessions, a GET stream, prompts, resources, OAuth.

Used by reference.py for paths /rich/ (all correct) and /rich-<fault>/; it must not be right about anything by accident.
"""

import itertools
import secrets
from collections.abc import Callable
from typing import Any

META = "io.modelcontextprotocol"
TOKEN, EXPIRED = "Bearer the-right-token", "Bearer the-expired-token"
PROMPTS = [{"name": "greet", "arguments": [{"name": "whom", "required": True}]}, {"name": "plain"}]
RESOURCES = [{"uri": "test://one", "name": "one"}]
sessions: set[str] = set()
counter = itertools.count()


class Fault(Exception):
    """A JSON-RPC error; reference.py turns it into its own."""

    def __init__(self, code: int, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


def capabilities(*, modern: bool) -> dict[str, Any]:
    """Everything; listChanged in the era that has subscriptions."""
    changes = {"listChanged": True} if modern else {}
    return {"tools": changes, "prompts": {}, "resources": {}, "completions": {}, "logging": {}}


def session(fault: str, headers: Callable[[str], str | None], http: str, method: str) -> tuple[int | None, str | None]:
    """(status that ends the request, session id to mint), in the handshake era."""
    if method == "initialize":
        minted = {"rich-session-constant": "always-the-same-id", "rich-session-short": f"s{next(counter)}"}
        new = minted.get(fault) or secrets.token_hex(16)
        sessions.add(new)
        return None, new
    named = headers("mcp-session-id")
    if named is None:
        return (500 if fault == "rich-session-missing-is-500" else 400), None
    if named not in sessions and fault != "rich-ended-session-lives":
        return (400 if fault == "rich-unknown-session-is-400" else 404), None
    if http == "DELETE":
        sessions.discard(named)
        return 204, None
    return None, None


def stream(fault: str) -> bytes:
    """What a GET stream has in its first second."""
    note = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}\n\n'
    return note + (b'data: {"jsonrpc":"2.0","id":1,"result":{}}\n\n' if fault == "rich-get-stream-answers" else b"")


def subscription(fault: str, request_id: object) -> list[dict[str, Any]]:
    """The first messages of subscriptions/listen."""
    meta = {} if fault == "rich-subscription-id-missing" else {f"{META}/subscriptionId": request_id}

    def note(method: str) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "method": method, "params": {"notifications": {}, "_meta": meta}}

    acknowledged = note("notifications/subscriptions/acknowledged")
    changed = note("notifications/tools/list_changed")
    return [changed, acknowledged] if fault == "rich-acknowledged-late" else [acknowledged, changed]


def dispatch(fault: str, method: str, params: dict[str, Any], *, modern: bool) -> dict[str, Any] | None:
    """The result of a method that only a rich server has; None when it is none of them."""
    hints = {"ttlMs": 0, "cacheScope": "private"} if modern else {}
    refused = 400 if modern else 200
    if method == "prompts/list":
        return {"prompts": PROMPTS * (2 if fault == "rich-prompt-listed-twice" else 1), **hints}
    if method == "prompts/get":
        return _prompt(fault, params, refused)
    if method == "resources/list":
        return {"resources": RESOURCES * (2 if fault == "rich-resource-listed-twice" else 1), **hints}
    if method == "resources/read":
        if params.get("uri") != "test://one":
            if fault == "rich-unknown-resource-is-empty":
                return {"contents": [], **hints}
            raise Fault(-32602 if modern else -32002, "no such resource", refused)
        contents = [{"uri": "test://one", "text": "1"}]
        return {"contents": [] if fault == "rich-resource-unreadable" else contents, **hints}
    if method == "completion/complete":
        if fault == "rich-completes-anything":
            return {"completion": {"values": []}}
        raise Fault(-32602, "no such prompt", refused)
    if method == "logging/setLevel" and not modern:
        if params.get("level") != "info" and fault != "rich-level-unchecked":
            raise Fault(-32602, "no such level")
        return {}
    return None


def _prompt(fault: str, params: dict[str, Any], refused: int) -> dict[str, Any]:
    names = [prompt["name"] for prompt in PROMPTS]
    if params.get("name") not in names and fault != "rich-unknown-prompt-served":
        raise Fault(-32602, "no such prompt", refused)
    arguments = params.get("arguments") or {}
    if params.get("name") == "greet" and "whom" not in arguments and fault != "rich-argument-unchecked":
        raise Fault(-32602, "whom is missing", refused)
    if params.get("name") == "plain" and fault == "rich-prompt-broken":
        raise Fault(-32603, "broken", refused)
    return {"messages": [{"role": "user", "content": {"type": "text", "text": "hello"}}]}


def authorization(fault: str, headers: Callable[[str], str | None], query: str) -> tuple[int, str] | None:
    """(status, WWW-Authenticate) for a request without the right token; None when it may pass."""
    if headers("authorization") == TOKEN:
        return None
    if fault == "oauth-token-in-query" and query == f"access_token={TOKEN.rpartition(' ')[2]}":
        return None
    if fault == "oauth-invalid-is-403":
        return 403, ""
    if fault == "oauth-expired-taken" and headers("authorization") == EXPIRED:
        return None
    scope = "" if fault == "oauth-scope-untold" else 'scope="run"'
    return 401, f'Bearer realm="{TOKEN}", {scope}' if fault == "oauth-challenge-leaks" else f"Bearer {scope}"


def metadata(path: str, host: str) -> tuple[int, dict[str, Any]] | None:
    """Protected resource metadata at its well-known place."""
    if not path.startswith("/.well-known/oauth-protected-resource"):
        return None
    # The place for the whole host has nothing, so that only the one for the endpoint is right.
    named = path.removeprefix("/.well-known/oauth-protected-resource").strip("/").partition("/")[0]
    if named in ("", "oauth-metadata-missing"):
        return 404, {}
    servers = [] if named == "oauth-metadata-empty" else ["https://auth.example.com"]
    place = "elsewhere.example.com" if named == "oauth-metadata-of-another" else f"{host}/{named}/mcp"
    return 200, {"resource": f"http://{place}", "authorization_servers": servers}
