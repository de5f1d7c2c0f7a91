"""One HTTP exchange through Locust's own client library, cheaper: the request's bytes are made once, not for each call.

Connection pool and response parser are geventhttpclient's. Nothing is retried or redirected here: what happened to an
arrival is what its row must say.
"""

from collections.abc import Mapping

from geventhttpclient.client import HTTPClient
from geventhttpclient.response import HTTPSocketPoolResponse

READ_BYTES = 1 << 16


class Fields(dict[str, str]):
    """Response headers by lower-case name; of a repeated one the first. The library's own class costs 2 us a header."""

    def add(self, name: str, value: str) -> None:
        self.setdefault(name.lower(), value)


def request_bytes(client: HTTPClient, uri: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A whole POST request for the client's host. Raises ValueError for a header that HTTP cannot carry."""
    for name, value in headers.items():
        if not (name + value).isascii() or not (name + value).isprintable():
            raise ValueError(f"the header {name} holds a character that HTTP cannot carry")
    host = f"[{client.host}]" if ":" in client.host else client.host
    if client.port != (443 if client.ssl else 80):
        host += f":{client.port}"
    lines = [f"POST {uri} HTTP/1.1", f"Host: {host}", "User-Agent: load", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode("ascii") + body


def post(client: HTTPClient, request: bytes) -> HTTPSocketPoolResponse:
    """Sends a request and returns once the response's headers are there; its body is read by `read`.

    Raises OSError (TimeoutError among them), HTTPConnectionClosed or HTTPParseError.
    """
    pool = client._connection_pool  # what HTTPClient.request takes its sockets from; it has no other door
    sock = pool.get_socket()
    try:
        sock.sendall(request)
    except (ConnectionResetError, BrokenPipeError):
        pass  # the server may have refused and answered before it read everything
    except BaseException:
        pool.release_socket(sock)
        raise
    # The response hands the socket back, also when it fails.
    return HTTPSocketPoolResponse(sock, pool, block_size=READ_BYTES, method="POST", headers_type=Fields)
