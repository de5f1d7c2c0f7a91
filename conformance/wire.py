"""A small HTTP/1.1 client that sends exactly the bytes it is given and never follows redirects.

It must not tidy a request: duplicate headers, odd whitespace, bad UTF-8 and wrong lengths are what checks are made of.
It must not know MCP.

Exceptions:

    WireError
    ├── Unreachable     no connection: name, refusal, TLS
    ├── TimedOut        connected, no whole answer within the deadline
    └── BrokenAnswer    the peer closed early or did not speak HTTP/1.1
"""

import json
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import h11

Header = tuple[str, str]

# Answers past this are cut: no check needs more, and a hostile endpoint must not fill our memory.
MAX_BODY_BYTES = 32 * 1024 * 1024


class WireError(Exception):
    """No usable answer came back."""


class Unreachable(WireError):
    """No connection could be made."""


class TimedOut(WireError):
    """The deadline passed before the answer was whole."""


class BrokenAnswer(WireError):
    """What came back is not a whole HTTP/1.1 answer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect and what path to ask for, taken apart from a URL once."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header's value: the port only when it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it goes on the wire; `headers` are written as given, in order, duplicates included."""

    method: str
    path: str
    headers: tuple[Header, ...]
    body: bytes = b""

    def to_bytes(self) -> bytes:
        """The request's bytes. Header values are UTF-8, so a check may send what latin-1 could not hold."""
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}:{value}" for name, value in self.headers)]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `complete` is False when it was still streaming at the deadline and the caller allowed that."""

    status: int
    headers: tuple[Header, ...]
    body: bytes
    elapsed_ms: float
    complete: bool = True

    def header(self, name: str) -> str | None:
        """The first value of a header, or None; names are compared without case."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    @property
    def media_type(self) -> str:
        """The Content-Type without parameters, lower case, "" when absent."""
        return (self.header("content-type") or "").split(";")[0].strip().lower()


@dataclass(slots=True)
class SseEvent:
    """One server-sent event; `event_id` and `retry` are None when the server sent none."""

    event: str = "message"
    data: str = ""
    event_id: str | None = None
    retry: str | None = None
    lines: list[str] = field(default_factory=list)


def parse_url(url: str) -> Endpoint:
    """Takes an http(s) URL apart.

    Raises:
        ValueError: not an absolute http or https URL, in one sentence for a person.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an endpoint URL; give one like https://host/stage/lambda/mcp/.")
    if parts.username or parts.password:
        raise ValueError("The endpoint URL holds a user name or password; pass credentials with --header instead.")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise ValueError(f"{url!r} has an unusable port: {error}.") from None
    path = parts.path or "/"
    return Endpoint(parts.scheme, parts.hostname, port, f"{path}?{parts.query}" if parts.query else path)


def standard_headers(endpoint: Endpoint, body: bytes, extra: Sequence[Header] = ()) -> tuple[Header, ...]:
    """The headers any HTTP/1.1 request needs, then `extra`. A leading space is written so dumps read as usual."""
    base: list[Header] = [("Host", f" {endpoint.authority}"), ("Connection", " close"), ("User-Agent", " conformance")]
    return (*base, *((name, f" {value}") for name, value in extra), ("Content-Length", f" {len(body)}"))


def exchange(
    endpoint: Endpoint,
    request: Request,
    *,
    timeout_s: float,
    allow_partial: bool = False,
    half_close: bool = False,
) -> Answer:
    """Sends one request on a connection of its own and reads one answer within `timeout_s` in all.

    With `allow_partial` an answer whose head arrived is returned at the deadline with `complete=False`. With
    `half_close` our side of the connection is closed after writing, so that a body cut short is seen as cut short.

    Raises:
        Unreachable, TimedOut, BrokenAnswer: see the module.
    """
    started = time.monotonic()
    with _connect(endpoint, timeout_s) as connection:
        try:
            connection.sendall(request.to_bytes())
            if half_close and not isinstance(connection, ssl.SSLSocket):
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a server may answer 413 and close before it has read everything; the answer is still there to read
        except TimeoutError:
            raise TimedOut(f"{endpoint.url} did not take the request within {timeout_s:g} s.") from None
        return _read_answer(connection, request.method, endpoint, started, timeout_s, allow_partial=allow_partial)


def _connect(endpoint: Endpoint, timeout_s: float) -> socket.socket:
    try:
        plain = socket.create_connection((endpoint.host, endpoint.port), timeout=timeout_s)
    except OSError as error:
        raise Unreachable(f"Cannot connect to {endpoint.authority}: {error.strerror or error}.") from None
    if endpoint.scheme == "http":
        return plain
    try:
        return ssl.create_default_context().wrap_socket(plain, server_hostname=endpoint.host)
    except (OSError, ssl.SSLError) as error:
        plain.close()
        raise Unreachable(f"TLS with {endpoint.authority} failed: {error}.") from None


def _read_answer(
    connection: socket.socket,
    method: str,
    endpoint: Endpoint,
    started: float,
    timeout_s: float,
    *,
    allow_partial: bool,
) -> Answer:
    parser = h11.Connection(our_role=h11.CLIENT)
    # h11 only parses an answer to a request it has seen; its bytes are dropped, ours are already on the wire.
    parser.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    parser.send(h11.EndOfMessage())
    head: h11.Response | None = None
    body = bytearray()
    complete = True
    while True:
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError as error:
            raise BrokenAnswer(f"{endpoint.url} broke HTTP/1.1: {error}.") from None
        if event is h11.NEED_DATA:
            try:
                connection.settimeout(max(started + timeout_s - time.monotonic(), 0.001))
                parser.receive_data(connection.recv(65536))
            except TimeoutError:
                if head is not None and allow_partial:
                    complete = False
                    break
                what = "the rest of its answer" if head else "an answer"
                raise TimedOut(f"{endpoint.url} did not send {what} within {timeout_s:g} s.") from None
            except OSError as error:
                raise BrokenAnswer(f"{endpoint.url} closed the connection: {error.strerror or error}.") from None
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise BrokenAnswer(f"{endpoint.url} sent more than {MAX_BODY_BYTES} bytes.")
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            break
    if head is None:
        raise BrokenAnswer(f"{endpoint.url} closed the connection without answering.")
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
    return Answer(head.status_code, headers, bytes(body), (time.monotonic() - started) * 1000, complete)


def sse_events(body: bytes) -> Iterator[SseEvent]:
    """The server-sent events in a body, per the WHATWG event stream format; comments are skipped.

    Raises:
        UnicodeDecodeError: the stream is not UTF-8.
    """
    current = SseEvent()
    for line in body.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line:
            if current.lines or current.event_id is not None or current.retry is not None:
                current.data = "\n".join(current.lines)
                yield current
            current = SseEvent()
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            current.lines.append(value)
        elif name == "event":
            current.event = value
        elif name == "id":
            current.event_id = value
        elif name == "retry":
            current.retry = value


def json_messages(answer: Answer) -> list[object]:
    """The JSON values an answer carries: its body, or the data of each non-empty event of an SSE body.

    Raises:
        ValueError: a body or an event is not UTF-8 JSON (JSONDecodeError and UnicodeDecodeError are both ValueErrors).
    """
    if not answer.body.strip():
        return []
    if answer.media_type == "text/event-stream":
        return [json.loads(event.data) for event in sse_events(answer.body) if event.data]
    return [json.loads(answer.body)]
