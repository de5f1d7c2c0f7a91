"""The wire client sends what it is given, byte for byte, and tells the ways an answer can fail to come apart."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from conformance.wire import (
    Answer,
    BrokenAnswer,
    Endpoint,
    Request,
    TimedOut,
    Unreachable,
    exchange,
    json_messages,
    parse_url,
    sse_events,
    standard_headers,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], tuple[Endpoint, list[bytes]]]]:
    """Starts a listener that answers one connection with given bytes; what it received is in the list."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(answer: bytes, *, keep_open: bool = False) -> tuple[Endpoint, list[bytes]]:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        received: list[bytes] = []

        def answer_one() -> None:
            connection, _ = listener.accept()
            with connection:
                received.append(connection.recv(65536))
                connection.sendall(answer)
                if keep_open:
                    connection.recv(1)

        threads.append(threading.Thread(target=answer_one, daemon=True))
        threads[-1].start()
        return Endpoint("http", "127.0.0.1", listener.getsockname()[1], "/mcp"), received

    yield start
    for listener in listeners:
        listener.close()


def request(endpoint: Endpoint, *extra: tuple[str, str], body: bytes = b"") -> Request:
    return Request("POST", endpoint.path, standard_headers(endpoint, body, extra), body)


def test_duplicate_headers_and_whitespace_reach_the_wire(serve) -> None:  # type: ignore[no-untyped-def]
    endpoint, received = serve(OK)
    exchange(endpoint, request(endpoint, ("Mcp-Name", "a"), ("Mcp-Name", " \tb  ")), timeout_s=5)
    assert b"\r\nMcp-Name: a\r\nMcp-Name:  \tb  \r\n" in received[0]


def test_bad_utf8_reaches_the_wire(serve) -> None:  # type: ignore[no-untyped-def]
    endpoint, received = serve(OK)
    exchange(endpoint, request(endpoint, body=b"\xff\xfe"), timeout_s=5)
    assert received[0].endswith(b"\r\n\r\n\xff\xfe")


def test_a_redirect_is_returned_and_not_followed(serve) -> None:  # type: ignore[no-untyped-def]
    endpoint, _ = serve(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n")
    answer = exchange(endpoint, request(endpoint), timeout_s=5)
    assert (answer.status, answer.header("LOCATION")) == (307, "/other")


def test_refused_connection_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint("http", "127.0.0.1", listener.getsockname()[1], "/")
    with pytest.raises(Unreachable, match="Connection refused"):
        exchange(endpoint, request(endpoint), timeout_s=5)


def test_silence_is_a_timeout(serve) -> None:  # type: ignore[no-untyped-def]
    endpoint, _ = serve(b"", keep_open=True)
    with pytest.raises(TimedOut, match="an answer within"):
        exchange(endpoint, request(endpoint), timeout_s=0.05)


def test_endless_stream_is_a_timeout_or_partial_when_allowed(serve) -> None:  # type: ignore[no-untyped-def]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    endpoint, _ = serve(head, keep_open=True)
    with pytest.raises(TimedOut, match="the rest of its answer"):
        exchange(endpoint, request(endpoint), timeout_s=0.05)
    endpoint, _ = serve(head, keep_open=True)
    answer = exchange(endpoint, request(endpoint), timeout_s=0.2, allow_partial=True)
    assert (answer.status, answer.complete) == (200, False)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="closed-without-a-word"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", id="another-protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", id="body-cut-short"),
    ],
)
def test_what_is_no_whole_answer_is_broken(serve, answer: bytes) -> None:  # type: ignore[no-untyped-def]
    endpoint, _ = serve(answer)
    with pytest.raises(BrokenAnswer):
        exchange(endpoint, request(endpoint), timeout_s=5)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("http://h/x", ("http", "h", 80, "/x", "h"), id="http"),
        pytest.param("https://h", ("https", "h", 443, "/", "h"), id="https-without-path"),
        pytest.param("https://h:8443/p/", ("https", "h", 8443, "/p/", "h:8443"), id="port"),
        pytest.param("http://[::1]:9/x?q=1", ("http", "::1", 9, "/x?q=1", "[::1]:9"), id="ipv6-and-query"),
    ],
)
def test_urls_are_taken_apart(url: str, expected: tuple[str, str, int, str, str]) -> None:
    got = parse_url(url)
    assert (got.scheme, got.host, got.port, got.path, got.authority) == expected


@pytest.mark.parametrize("url", ["example.test/mcp", "ftp://h/", "http://", "http://u:p@h/", "http://h:99999/"])
def test_other_urls_are_refused_in_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        parse_url(url)


def answer_of(kind: str, body: bytes) -> Answer:
    return Answer(200, (("Content-Type", kind),), body, 1.0)


def test_messages_are_read_from_json_and_from_streams() -> None:
    assert json_messages(answer_of("application/json; charset=utf-8", b'{"a":1}')) == [{"a": 1}]
    stream = b': ping\r\n\r\nid: 1\r\ndata:\r\n\r\nevent: message\r\ndata: {"a":\r\ndata: 2}\r\n\r\n'
    assert json_messages(answer_of("text/event-stream", stream)) == [{"a": 2}]
    assert json_messages(answer_of("application/json", b"")) == []


def test_event_fields_are_kept() -> None:
    first, second = sse_events(b"retry: 5\nid: 7\n\ndata: x\nevent: note\n\n")
    assert (first.event_id, first.retry, first.data) == ("7", "5", "")
    assert (second.event, second.data, second.event_id) == ("note", "x", None)


@pytest.mark.parametrize("body", [b"\xff", b"{", b"nonsense"])
def test_what_is_not_utf8_json_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        json_messages(answer_of("application/json", body))


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 signed by its own key, and that key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2120, 1, 1, tzinfo=UTC))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    plain_key = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(built.public_bytes(encoding))
    key_file.write_bytes(plain_key)
    return certificate_file, key_file


def test_https_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))
    endpoint = Endpoint("https", "127.0.0.1", listener.getsockname()[1], "/mcp")

    def answer_two() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
                secure.recv(65536)
                secure.sendall(OK)

    with listener:
        thread = threading.Thread(target=answer_two, daemon=True)
        thread.start()
        with pytest.raises(Unreachable, match=r"TLS .* certificate"):
            exchange(endpoint, request(endpoint), timeout_s=5)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert exchange(endpoint, request(endpoint), timeout_s=5).status == 200
        thread.join(5)
