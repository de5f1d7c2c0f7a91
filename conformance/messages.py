"""Builds MCP requests for each era and reads what comes back, checking every message against the JSON-RPC envelope.

It must not send anything and must not know which server answers.
"""

import base64
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from conformance import schemas
from conformance.wire import Answer, Header, json_messages

META = "io.modelcontextprotocol"
JSON_HEADERS: tuple[Header, ...] = (
    ("Content-Type", "application/json"),
    ("Accept", "application/json, text/event-stream"),
)
CLIENT_INFO = {"name": "conformance", "version": "1"}

# 2026-07-28 basic/index "Error Codes": -32020..-32099 are the specification's own; these are the ones it defines.
DEFINED_ERRORS_2026 = {-32020, -32021, -32022}
RETIRED_ERRORS_2026 = {-32002, -32042}


class Era(StrEnum):
    """How a request presents itself: by handshake, by per-request `_meta`, or not at all."""

    BARE = "bare"
    FIRST = "2024-11-05"
    MARCH = "2025-03-26"
    JUNE = "2025-06-18"
    HANDSHAKE = "2025-11-25"
    MODERN = "2026-07-28"


# The revisions before the newest of the handshake era: spoken by the same handshake, where the server agrees to them.
OLDER = (Era.FIRST, Era.MARCH, Era.JUNE)


class Malformed(AssertionError):
    """A message broke the JSON-RPC envelope; raised in any check, whatever it is about."""

    def __init__(self, message: str, got: object) -> None:
        super().__init__(message)
        self.message = message
        self.expected = "a well-formed message"
        self.got = got


@dataclass(frozen=True, slots=True)
class SchemaCheck:
    """One message held against the schema of its method; `fault` is None when it fits."""

    revision: str
    method: str
    fault: str | None
    got: object


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one JSON-RPC request: the response message, and the notifications that came before it.

    `schema_checks` tells how each of them fits its schema. A result that does not fit is no failure of the check that
    met it: it is told once for the whole run, and that check cannot judge it.
    """

    answer: Answer
    message: Mapping[str, object] | None
    notifications: tuple[Mapping[str, object], ...] = ()
    schema_checks: tuple[SchemaCheck, ...] = ()

    @property
    def misfit(self) -> str | None:
        """The fault of the result, None when it fits."""
        return next((one.fault for one in self.schema_checks if one.fault and one.got is self.result), None)

    @property
    def result(self) -> dict[str, object] | None:
        value = self.message.get("result") if self.message else None
        return value if isinstance(value, dict) else None

    @property
    def error(self) -> dict[str, object] | None:
        value = self.message.get("error") if self.message else None
        return value if isinstance(value, dict) else None


_ids = itertools.count(1)


def next_id() -> int:
    """A request id not used before in this process."""
    return next(_ids)


def modern_meta(version: str = Era.MODERN) -> dict[str, object]:
    """The per-request `_meta` of 2026-07-28."""
    return {f"{META}/protocolVersion": version, f"{META}/clientCapabilities": {}, f"{META}/clientInfo": CLIENT_INFO}


def request_message(
    era: Era, method: str, params: Mapping[str, object] | None, request_id: object
) -> dict[str, object]:
    """A JSON-RPC request as a client of that era sends it."""
    message: dict[str, object] = {"jsonrpc": "2.0", "id": request_id, "method": method}
    body = dict(params or {})
    if era is Era.MODERN and "_meta" not in body:
        body["_meta"] = modern_meta()
    if body or era is Era.MODERN:
        message["params"] = body
    return message


def request_headers(era: Era, method: str, params: Mapping[str, object] | None = None) -> list[Header]:
    """The headers a client of that era sends with a request."""
    headers = list(JSON_HEADERS)
    # The version header exists since 2025-06-18.
    if era in (Era.BARE, Era.FIRST, Era.MARCH) or (era is not Era.MODERN and method == "initialize"):
        return headers
    headers.append(("MCP-Protocol-Version", str(era)))
    if era is Era.MODERN:
        headers.append(("Mcp-Method", method))
        named = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}.get(method)
        if named and params and isinstance(params.get(named), str):
            headers.append(("Mcp-Name", header_value(str(params[named]))))
    return headers


def header_value(text: str) -> str:
    """A header value as 2026-07-28 "Value Encoding" wants it: as it is, or base64 where a header could not hold it."""
    plain = all(" " <= character <= "~" for character in text) and text == text.strip()
    if plain and not text.startswith("=?base64?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def changed(headers: Sequence[Header], changes: Mapping[str, str | list[str] | None]) -> list[Header]:
    """Headers with some replaced (str), dropped (None) or repeated (list), compared without case."""
    touched = {name.lower() for name in changes}
    kept = [(name, value) for name, value in headers if name.lower() not in touched]
    for name, value in changes.items():
        if isinstance(value, str):
            kept.append((name, value))
        elif value is not None:
            kept.extend((name, one) for one in value)
    return kept


def encode(message: object) -> bytes:
    """Compact UTF-8 JSON, without ASCII escapes, so that UTF-8 really travels."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def read_reply(answer: Answer, era: Era, method: str, request_id: object, *, result_schema: bool = True) -> Reply:
    """Reads the response to a request out of an answer.

    Raises:
        Malformed: the body is not JSON, an envelope is broken, or the id is another one.
    """
    if answer.body.strip() and answer.media_type not in ("application/json", "text/event-stream"):
        return Reply(answer, None)
    try:
        messages = json_messages(answer)
    except ValueError as error:
        raise Malformed(f"The body is not UTF-8 JSON: {error}.", answer.body[:400].decode(errors="replace")) from None
    if answer.status >= 400 and not any(isinstance(one, dict) and "jsonrpc" in one for one in messages):
        return Reply(answer, None)  # an HTTP error in the words of a gateway, which no revision forbids
    notifications: list[Mapping[str, object]] = []
    response: Mapping[str, object] | None = None
    for message in messages:
        checked = check_envelope(message, era)
        if "method" in checked:
            if response is not None:
                raise Malformed("A notification came after the response it belongs to.", checked)
            notifications.append(checked)
        elif response is not None:
            raise Malformed("Two responses came back for one request.", messages)
        else:
            response = checked
    if response is not None:
        _check_id(response, request_id)
    held = [*notifications, response] if response and "result" in response and result_schema else notifications
    checks = tuple(filter(None, (_schema_check(era, method, one) for one in held)))
    return Reply(answer, response, tuple(notifications), checks)


def check_envelope(message: object, era: Era) -> Mapping[str, object]:
    """Checks one message a server sent: jsonrpc 2.0, result XOR error, no request of its own on a modern stream.

    Raises:
        Malformed
    """
    if not isinstance(message, dict):
        raise Malformed("A message is not a JSON object.", message)
    if message.get("jsonrpc") != "2.0":
        raise Malformed('A message does not say "jsonrpc": "2.0".', message)
    if "method" in message:
        if not isinstance(message["method"], str):
            raise Malformed("A notification's method is not a string.", message)
        if "id" in message and era is Era.MODERN:
            raise Malformed("The server sent a request of its own, which 2026-07-28 forbids.", message)
        return message
    if ("result" in message) == ("error" in message):
        raise Malformed("A response holds both result and error, or neither.", message)
    if "result" in message:
        if not isinstance(message["result"], dict):
            raise Malformed("A result is not an object.", message)
        return message
    _check_error(message, era)
    return message


def _check_error(message: Mapping[str, object], era: Era) -> None:
    error = message["error"]
    code = error.get("code") if isinstance(error, dict) else None
    if not isinstance(error, dict) or not isinstance(code, int) or isinstance(code, bool):
        raise Malformed("An error has no integer code.", message)
    if not isinstance(error.get("message"), str):
        raise Malformed("An error has no message string.", message)
    if era is Era.MODERN:
        if code in RETIRED_ERRORS_2026:
            raise Malformed(f"Error code {code} must not be emitted since 2026-07-28.", message)
        if -32099 <= code <= -32020 and code not in DEFINED_ERRORS_2026:
            raise Malformed(f"Error code {code} is reserved by the specification and not defined.", message)


def _check_id(response: Mapping[str, object], request_id: object) -> None:
    if "result" not in response and response.get("id") is None:
        return  # an error about a request whose id could not be read: null or absent, by revision
    echoed = response.get("id")
    if echoed != request_id or type(echoed) is not type(request_id):
        raise Malformed(f"The response's id is {echoed!r}, the request's was {request_id!r}.", response)


def _schema_check(era: Era, method: str, message: Mapping[str, object]) -> SchemaCheck | None:
    """How a result or a notification fits its schema, None where the revision has none for it."""
    revision = str(Era.HANDSHAKE if era is Era.BARE else era)  # a bare call is answered as in the handshake era
    named = str(message["method"]) if "method" in message else method
    if not schemas.is_known(revision, named):
        return None
    if "method" in message:
        return SchemaCheck(revision, named, schemas.notification_fault(revision, message), message)
    return SchemaCheck(revision, named, schemas.result_fault(revision, named, message["result"]), message["result"])


def text_blocks(result: Mapping[str, object]) -> Iterator[str]:
    """The text of a tool result's text blocks."""
    content = result.get("content")
    for block in content if isinstance(content, list) else []:
        if isinstance(block, dict) and block.get("type") == "text":
            yield str(block.get("text", ""))
