"""What goes on the wire is a well-formed request, made once; the response is the library's, read and handed back."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from geventhttpclient.client import HTTPClient
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError

from load.exchange import Fields, post, request_bytes


@pytest.mark.parametrize(
    ("url", "host"),
    [
        pytest.param("http://127.0.0.1:8000", "127.0.0.1:8000", id="port"),
        pytest.param("http://x.example", "x.example", id="http"),
        pytest.param("https://x.example", "x.example", id="https"),
        pytest.param("https://x.example:8443", "x.example:8443", id="https-port"),
    ],
)
def test_the_request_as_bytes(url: str, host: str) -> None:
    made = request_bytes(HTTPClient.from_url(url), "/dev/mcp/?a=1", {"Accept": "text/x"}, "ä".encode())
    head, _, body = made.partition(b"\r\n\r\n")
    assert head.decode().split("\r\n") == [
        "POST /dev/mcp/?a=1 HTTP/1.1",
        f"Host: {host}",
        "User-Agent: load",
        "Content-Length: 2",
        "Accept: text/x",
    ]
    assert body == "ä".encode()


def test_a_header_cannot_bring_another_line() -> None:
    with pytest.raises(ValueError, match="x-api-key"):
        request_bytes(HTTPClient.from_url("http://h"), "/", {"x-api-key": "a\r\nb: c"}, b"")


def test_fields_keep_the_first_of_a_repeated_header() -> None:
    fields = Fields()
    fields.add("X-Lambda-Invocation", "1")
    fields.add("x-lambda-invocation", "2")
    assert fields.get("x-lambda-invocation") == "1"


def reply(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 200 OK\r\nX-Lambda-Invocation: 7\r\nContent-Length: %d\r\n\r\n" % size + body


@contextmanager
def answering(*replies: bytes) -> Iterator[HTTPClient]:
    """A client of a server that gives each reply to one request on one connection, then closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                for reply in replies:
                    connection.recv(65536)
                    connection.sendall(reply)

        server = threading.Thread(target=serve)
        server.start()
        try:
            yield HTTPClient.from_url(f"http://127.0.0.1:{listening.getsockname()[1]}", network_timeout=10)
        finally:
            server.join()


def ask(client: HTTPClient) -> tuple[int, str | list[str] | None, bytes]:
    response = post(client, request_bytes(client, "/", {}, b"{}"))
    return response.get_code(), response.get("x-lambda-invocation"), response.read()


def test_one_connection_serves_call_after_call() -> None:
    with answering(reply(b"one"), reply(b"two")) as client:
        assert ask(client) == (200, "7", b"one")
        assert ask(client) == (200, "7", b"two")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        pytest.param(b"", HTTPConnectionClosed, id="closed-without-a-word"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConte", HTTPParseError, id="cut-in-the-headers"),
        pytest.param(reply(b"one", length=10), HTTPParseError, id="cut-in-the-body"),
        pytest.param(b"SSH-2.0-x\r\n\r\n", HTTPParseError, id="another-protocol"),
    ],
)
def test_a_broken_answer_is_an_error_and_no_retry(said: bytes, error: type[Exception]) -> None:
    with answering(said) as client, pytest.raises(error):
        ask(client)
