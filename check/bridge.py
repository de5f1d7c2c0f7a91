"""Versions of a function as endpoints on this machine: HTTP in, Lambda's Invoke, HTTP out.

So a version can be judged before any stage of API Gateway leads to it, with nothing in AWS made for the purpose. What
API Gateway itself does (keys, quotas, its own refusals) is not in the way and not judged. It judges nothing itself.
Shapes: https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote

from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

TENANT = "deploy-gate"  # whom calls are for, where the function isolates tenants
MOST_BODY_BYTES = 6 * 1024 * 1024  # Invoke takes no more
DROPPED = frozenset({"connection", "keep-alive", "content-length", "transfer-encoding", "expect"})
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Bridge:
    """Where the versions are to be had while the bridge stands."""

    base: str

    def endpoint(self, qualifier: str) -> str:
        """The MCP endpoint of a version or an alias."""
        return f"{self.base}/{qualifier}/lambda/mcp/"


@contextlib.contextmanager
def bridge(client: Any, function: str, *, per_tenant: bool) -> Iterator[Bridge]:
    """Serve every version and alias of `function` on a free port of 127.0.0.1, through boto3's Lambda `client`."""
    named = {"FunctionName": function} | ({"TenantId": TENANT} if per_tenant else {})
    handler = type("Handler", (_Handler,), {"client": client, "named": named})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield Bridge(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    client: ClassVar[Any]
    named: ClassVar[Mapping[str, str]]
    protocol_version = "HTTP/1.1"
    # Head and body in one packet: in two, the second would wait for the first to be acknowledged, 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True

    def pass_on(self) -> None:
        """Answer one request of any method."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal() or int(length) > MOST_BODY_BYTES:
            self.close_connection = True
            return self.say(413, {"message": "Request Too Long"})
        body = self.rfile.read(int(length))
        qualifier = self.path.partition("?")[0].strip("/").partition("/")[0]
        headers = [
            (name, value.encode("latin-1", "replace").decode("utf-8", "replace"))
            for name, value in self.headers.items()
            if name.lower() not in DROPPED
        ]
        event = proxy_event(self.command, self.path, headers, body)
        try:
            told = self.client.invoke(**self.named, Qualifier=qualifier, Payload=json.dumps(event).encode())
            payload = told["Payload"].read()
        except ReadTimeoutError:
            return self.say(504, {"message": "Endpoint request timed out"})
        except (BotoCoreError, ClientError) as error:
            return self.say(500, {"message": f"Invoke: {error}"})
        if "FunctionError" in told:
            return self.say(502, {"message": "Internal server error"})
        try:
            status, answered, content = http_answer(payload)
        except (ValueError, KeyError, TypeError, AttributeError):
            return self.say(502, {"message": "Internal server error"})
        return self.send(status, answered, content)

    def say(self, status: int, document: Mapping[str, str]) -> None:
        self.send(status, [("Content-Type", "application/json")], json.dumps(document).encode())

    def send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the function's own log has every call."""


for _method in METHODS:
    setattr(_Handler, f"do_{_method}", _Handler.pass_on)


def proxy_event(method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> dict[str, Any]:
    """The event of a REST API's proxy integration, format 1.0; the first segment of `target` stands for the stage."""
    raw_path, _, raw_query = target.partition("?")
    stage, _, rest = raw_path.lstrip("/").partition("/")
    path, query = unquote("/" + rest), parse_qsl(raw_query, keep_blank_values=True)
    request_id = str(uuid.uuid4())
    return {
        "resource": path.rstrip("/"),
        "path": path,
        "httpMethod": method,
        "headers": dict(headers),
        "multiValueHeaders": _many(headers),
        "queryStringParameters": dict(query) or None,
        "multiValueQueryStringParameters": _many(query) or None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "resourcePath": path.rstrip("/"),
            "httpMethod": method,
            "path": f"/{stage}{path}",
            "protocol": "HTTP/1.1",
            "stage": stage,
            "requestId": request_id,
            "extendedRequestId": request_id,
            "requestTimeEpoch": int(time.time() * 1000),
            "identity": {"sourceIp": "127.0.0.1", "userAgent": dict(headers).get("User-Agent")},
            "domainName": "deploy-gate.invalid",
            "apiId": "deploy-gate",
            "accountId": "000000000000",
        },
        "body": body.decode("utf-8", "replace") if body else None,
        "isBase64Encoded": False,
    }


def http_answer(payload: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of a proxy response. Raises ValueError, KeyError, TypeError or AttributeError."""
    document = json.loads(payload)
    many = document.get("multiValueHeaders") or {}
    single = {name: [value] for name, value in (document.get("headers") or {}).items() if name not in many}
    headers = [
        (name, str(value))
        for name, values in (many | single).items()
        for value in values
        if name.lower() not in DROPPED
    ]
    text = document.get("body") or ""
    body = base64.b64decode(text) if document.get("isBase64Encoded") else text.encode()
    return int(document["statusCode"]), headers, body


def _many(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    many: dict[str, list[str]] = {}
    for name, value in pairs:
        many.setdefault(name, []).append(value)
    return many
