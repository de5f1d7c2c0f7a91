"""The smallest HTTP server with a function for an answer: for faults below what an ASGI server lets a mutant see.

It keeps header names and trailing whitespace as they came and reads what there is of a body cut short.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answering = Callable[[BaseHTTPRequestHandler, Any], tuple[int, Any]]


@contextmanager
def serving(answer: Answering) -> Iterator[str]:
    """Serves POST on a port of its own; `answer` gets the request and its JSON, None when that cannot be read."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                message = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            except ValueError:
                message = None
            status, payload = answer(self, message)
            data = b"" if payload is None else json.dumps(payload).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/mcp"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def handshake_alone(_handler: BaseHTTPRequestHandler, message: Any) -> tuple[int, Any]:
    """Introduces itself in the handshake era and knows nothing else."""
    if message and message.get("method") == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}
        return 200, {"jsonrpc": "2.0", "id": message["id"], "result": result}
    error = {"code": -32601, "message": "no"}
    return 200, {"jsonrpc": "2.0", "id": message.get("id") if message else None, "error": error}


def refuses_all_else(handler: BaseHTTPRequestHandler, message: Any) -> tuple[int, Any]:
    """Introduces itself in the handshake era and answers 404 to all else, right or wrong."""
    introduced = isinstance(message, dict) and message.get("method") == "initialize" and isinstance(message["id"], int)
    return handshake_alone(handler, message) if introduced else (404, None)


def modern_alone(message: Any) -> tuple[int, Any]:
    """Serves server/discover and an empty tools/list of 2026-07-28, to anything that names no other method."""
    method = message.get("method") if message else None
    request_id = message.get("id") if message else 1
    if method not in (None, "server/discover", "tools/list"):
        error = {"code": -32601, "message": "no; I speak 2026-07-28"}
        return 404, {"jsonrpc": "2.0", "id": request_id, "error": error}
    result: dict[str, Any] = {"resultType": "complete", "ttlMs": 0, "cacheScope": "public", "tools": []}
    if method == "server/discover":
        result |= {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    return 200, {"jsonrpc": "2.0", "id": request_id, "result": result}


def reads_names_with_case(handler: BaseHTTPRequestHandler, message: Any) -> tuple[int, Any]:
    """The fault: looks for Mcp-Method in exactly this spelling."""
    if "Mcp-Method" not in list(handler.headers):
        return 400, {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32020, "message": "no Mcp-Method"}}
    return modern_alone(message)


def compares_values_verbatim(handler: BaseHTTPRequestHandler, message: Any) -> tuple[int, Any]:
    """The fault: compares Mcp-Method with the whitespace that came after it."""
    if handler.headers["Mcp-Method"] not in (None, message["method"]):
        return 400, {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32020, "message": "differs"}}
    return modern_alone(message)


def takes_what_there_is(_handler: BaseHTTPRequestHandler, message: Any) -> tuple[int, Any]:
    """The fault: answers a body cut short as if it were whole."""
    return modern_alone(message)


FAULTS: dict[str, tuple[Answering, str]] = {
    "reads-names-with-case": (reads_names_with_case, "header_names_have_no_case"),
    "compares-values-verbatim": (compares_values_verbatim, "whitespace_around_header_values_is_ignored"),
    "takes-what-there-is": (takes_what_there_is, "truncated_body_is_not_executed"),
}
