"""API Gateway's REST API (v1) for the local stack: HTTP in, Lambda proxy events out, and back again.

It decides what a client sees when the function fails; it never looks into what the function says.
Shapes: https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
Failures: https://docs.aws.amazon.com/lambda/latest/dg/services-apigateway-errors.html (500 when Lambda refuses the
invocation, as when it throttles; 502 when the function failed or answered in another shape).
"""

import asyncio
import base64
import binascii
import functools
import hmac
import json
import secrets
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from aiohttp import web
from multidict import CIMultiDict

from .functions import Function, LambdaError
from .host import LaunchError
from .pool import MAX_EVENT_BYTES, Throttled
from .stack import ACCOUNT_ID, API_ID, Route, Stack
from .throttle import Meter

MAX_BODY_BYTES = 10 * 1024 * 1024
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length"})


class Malformed(Exception):
    """The function's answer is no proxy response; API Gateway says 502."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One client's key: the id that the event tells, and what it has used of the usage plan."""

    id: str
    meter: Meter


@dataclass(frozen=True, slots=True)
class Match:
    """The route a request took: `path` is without the stage, as the event carries it."""

    route: Route
    path: str
    parameters: Mapping[str, str]


class Gateway:
    """Answers HTTP requests for one stage. Without `api_keys` no key is asked for, and no usage plan holds.

    `now` is a clock in seconds since the epoch, for rates and quotas.
    """

    def __init__(
        self,
        stack: Stack,
        function: Function,
        api_keys: Sequence[str] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._stack = stack
        self._function = function
        self._keys = {
            key: ApiKey(f"local{number:05d}", Meter(stack.usage_plan, now)) for number, key in enumerate(api_keys)
        }
        self._stage_meter = Meter(stack.stage_throttle, now)
        self._match = functools.lru_cache(256)(functools.partial(match_route, stack))

    async def handle(self, request: web.BaseRequest) -> web.Response:
        request_id = str(uuid.uuid4())
        answer = await self._answer(request, request_id)
        answer.headers.setdefault("Content-Type", "application/json")
        answer.headers["x-amzn-RequestId"] = request_id
        answer.headers["x-amz-apigw-id"] = _extended_id(request_id)
        return answer

    async def _answer(self, request: web.BaseRequest, request_id: str) -> web.Response:
        raw_path = request.raw_path.partition("?")[0]
        match = self._match(raw_path, request.method)
        if match is None:
            return refusal(403, "Missing Authentication Token", "MissingAuthenticationTokenException")
        key = self._key_of(request) if match.route.api_key_required else None
        if key is None and match.route.api_key_required and self._keys:
            return refusal(403, "Forbidden", "ForbiddenException")
        if refused := (key.meter.refusal() if key else None) or self._stage_meter.refusal():
            kind = {"Limit Exceeded": "LimitExceededException", "Too Many Requests": "TooManyRequestsException"}
            return refusal(429, refused, kind[refused])
        if not self._function.lets_gateway(match.route.qualifier, self._method_arn(match, request.method)):
            print(
                "sam.local: the function was not called: its policy does not let API Gateway invoke it", file=sys.stderr
            )
            return refusal(500, "Internal server error", "InternalServerErrorException")
        try:
            body = await _body(request)
        except ConnectionResetError:
            return refusal(400, "Bad Request", "BadRequestException")  # to nobody: the client left in mid-body
        if body is None:
            return refusal(413, "Request Too Long", "RequestEntityTooLargeException")
        trace_id = request.headers.get("X-Amzn-Trace-Id") or f"Root=1-{int(time.time()):x}-{secrets.token_hex(12)}"
        event = proxy_event(
            self._stack, match, request.method, request.raw_path, _client_headers(request, trace_id), body, request_id,
            source_ip=request.remote or "127.0.0.1", protocol=f"HTTP/{request.version.major}.{request.version.minor}",
            api_key_id=key.id if key else None,
        )  # fmt: skip
        payload = json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass")
        if len(payload) > MAX_EVENT_BYTES:
            return refusal(413, "Request Too Long", "RequestEntityTooLargeException")
        tenant = _tenant(match.route.tenant, request, event)
        try:
            async with asyncio.timeout(match.route.timeout_s):
                outcome = await self._function.invoke(
                    payload, qualifier=match.route.qualifier, trace_id=trace_id, tenant=tenant
                )
        except TimeoutError:
            return refusal(504, "Endpoint request timed out", "InternalServerErrorException")
        except (LaunchError, LambdaError) as error:
            print(f"sam.local: the function was not called: {error}", file=sys.stderr)
            return refusal(500, "Internal server error", "InternalServerErrorException")
        except Throttled:
            return refusal(500, "Internal server error", "InternalServerErrorException")
        if outcome.function_error is not None:
            return refusal(502, "Internal server error", "InternalServerErrorException")
        try:
            answer = proxy_response(outcome.payload, self._stack.binary_media_types, request.headers.get("Accept", ""))
        except Malformed:
            return refusal(502, "Internal server error", "InternalServerErrorException")
        answer.headers.setdefault("X-Amzn-Trace-Id", trace_id.partition(";")[0])
        return answer

    def _method_arn(self, match: Match, method: str) -> str:
        stack = self._stack
        return f"arn:aws:execute-api:{stack.region}:{ACCOUNT_ID}:{API_ID}/{stack.stage}/{method}{match.path}"

    def _key_of(self, request: web.BaseRequest) -> ApiKey | None:
        given = request.headers.get("x-api-key", "").encode()
        # All are compared, so that the time tells nothing.
        found = [key for text, key in self._keys.items() if hmac.compare_digest(given, text.encode())]
        return found[0] if found else None


def _tenant(expression: str | None, request: web.BaseRequest, event: Mapping[str, Any]) -> str | None:
    """The value of a mapping expression of an integration: 'literal', a header, or something of the context."""
    if expression is None:
        return None
    if expression.startswith("'"):
        return expression.strip("'")
    if expression.startswith("method.request.header."):
        return request.headers.get(expression.removeprefix("method.request.header."))
    found: Any = event["requestContext"]
    for step in expression.removeprefix("context.").split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None


def match_route(stack: Stack, raw_path: str, method: str) -> Match | None:
    """Find the route of `/{stage}/...`; a last slash makes no difference, as in a REST API."""
    parts = raw_path.split("/")
    if len(parts) < 3 or parts[0] or parts[1] != stack.stage:
        return None
    path = unquote("/" + "/".join(parts[2:]))
    wanted = [part for part in path.split("/") if part]
    candidates = []
    for route in stack.routes:
        parameters = _path_parameters(route.resource, wanted)
        if parameters is not None and route.method in ("ANY", method):
            # The more literal resource wins, then the named method over ANY.
            candidates.append((len(parameters), route.method == "ANY", Match(route, path, parameters)))
    return min(candidates, key=lambda candidate: candidate[:2])[2] if candidates else None


def _path_parameters(resource: str, wanted: list[str]) -> dict[str, str] | None:
    template = [part for part in resource.split("/") if part]
    parameters: dict[str, str] = {}
    for index, part in enumerate(template):
        if part.startswith("{") and part.endswith("+}"):
            rest = wanted[index:]
            return {**parameters, part[1:-2]: "/".join(rest)} if rest else None
        if index >= len(wanted):
            return None
        if part.startswith("{") and part.endswith("}"):
            parameters[part[1:-1]] = wanted[index]
        elif part != wanted[index]:
            return None
    return parameters if len(template) == len(wanted) else None


def proxy_event(
    stack: Stack,
    match: Match,
    method: str,
    raw_target: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    request_id: str,
    *,
    source_ip: str,
    protocol: str,
    api_key_id: str | None = None,
    now_s: float | None = None,
) -> dict[str, Any]:
    """The event of a REST API's Lambda proxy integration, payload format 1.0."""
    headers = list(headers)
    query = parse_qsl(raw_target.partition("?")[2], keep_blank_values=True)
    host = _first(headers, "host") or "localhost"
    moment_s = time.time() if now_s is None else now_s
    content_type = (_first(headers, "content-type") or "").partition(";")[0].strip()
    binary = _is_binary(content_type, stack.binary_media_types)
    # Bytes that are no UTF-8 arrive as U+FFFD on AWS too: https://qiita.com/ma2shita/items/ea96fbb73b7095413d3f
    text = (base64.b64encode(body).decode() if binary else body.decode("utf-8", "replace")) if body else None
    return {
        "resource": match.route.resource,
        "path": match.path,
        "httpMethod": method,
        "headers": dict(headers) or None,
        "multiValueHeaders": _many(headers) or None,
        "queryStringParameters": dict(query) or None,
        "multiValueQueryStringParameters": _many(query) or None,
        "pathParameters": dict(match.parameters) or None,
        "stageVariables": None,
        "requestContext": {
            "resourceId": f"{zlib.crc32(match.route.resource.encode()) & 0xFFFFFF:06x}",  # one for each resource
            "resourcePath": match.route.resource,
            "httpMethod": method,
            "extendedRequestId": _extended_id(request_id),
            "requestTime": _request_time(int(moment_s)),
            "path": f"/{stack.stage}{match.path}",
            "accountId": ACCOUNT_ID,
            "protocol": protocol,
            "stage": stack.stage,
            "domainPrefix": host.partition(".")[0].partition(":")[0],
            "requestTimeEpoch": int(moment_s * 1000),
            "requestId": request_id,
            "identity": {
                "cognitoIdentityPoolId": None,
                "accountId": None,
                "cognitoIdentityId": None,
                "caller": None,
                "sourceIp": source_ip,
                "principalOrgId": None,
                "accessKey": None,
                "cognitoAuthenticationType": None,
                "cognitoAuthenticationProvider": None,
                "userArn": None,
                "userAgent": _first(headers, "user-agent"),
                "user": None,
                **(
                    {"apiKeyId": api_key_id or "local", "apiKey": _first(headers, "x-api-key")}
                    if match.route.api_key_required
                    else {}
                ),
            },
            "domainName": host.partition(":")[0],
            "apiId": API_ID,
        },
        "body": text,
        "isBase64Encoded": bool(binary and body),
    }


@functools.lru_cache(2)
def _request_time(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")


def _extended_id(request_id: str) -> str:
    """The id that the event and the header x-amz-apigw-id tell, in the shape of AWS's."""
    return base64.b64encode(request_id.encode()[:11]).decode()


def proxy_response(payload: bytes, binary_media_types: tuple[str, ...], accept: str) -> web.Response:
    """The HTTP answer that a proxy response asks for. Raises Malformed when it is none."""
    try:
        document = json.loads(payload)
    except ValueError as error:
        raise Malformed("not JSON") from error
    if not isinstance(document, dict) or set(document) - {
        "statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded", "cookies"
    }:  # fmt: skip
        raise Malformed("not a proxy response")
    status = _status(document.get("statusCode"))
    body = document.get("body")
    if body is not None and not isinstance(body, str):
        raise Malformed("body is not a string")
    data = (body or "").encode()
    if document.get("isBase64Encoded") and _is_binary(
        accept.partition(",")[0].partition(";")[0].strip(), binary_media_types
    ):
        try:
            data = base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise Malformed("body is not base64") from error
    return web.Response(status=status, body=data, headers=_response_headers(document))


def refusal(status: int, message: str, kind: str) -> web.Response:
    """An answer of API Gateway's own."""
    body = json.dumps({"message": message}, separators=(",", ":")).encode()
    return web.Response(
        status=status, body=body, headers={"x-amzn-ErrorType": kind, "Content-Type": "application/json"}
    )


def _response_headers(document: Mapping[str, Any]) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict()
    single, multi = (
        {} if value is None else value for value in (document.get("headers"), document.get("multiValueHeaders"))
    )
    if not isinstance(single, dict) or not isinstance(multi, dict):
        raise Malformed("headers is not an object")
    for name, values in multi.items():
        if not isinstance(values, list):
            raise Malformed(f"multiValueHeaders.{name} is not a list")
        for value in values:
            headers.add(name, _header_value(name, value))
    for name, value in single.items():
        if name not in headers:  # named in both, the multi-value one counts
            headers[name] = _header_value(name, value)
    for name in _HOP_BY_HOP & {key.lower() for key in headers}:
        headers.popall(name)
    # API Gateway keeps these for itself and hands the function's own value on under another name.
    for name in ("Date", "Server"):
        if name in headers:
            headers[f"x-amzn-Remapped-{name.lower()}"] = headers.pop(name)
    return headers


def _header_value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise Malformed(f"header {name} is not a string")
    text = str(value)
    if "\r" in text or "\n" in text:
        raise Malformed(f"header {name} holds a line break")
    return text


def _status(value: Any) -> int:
    try:
        status = int(value)
    except (TypeError, ValueError) as error:
        raise Malformed(f"statusCode is {value!r}") from error
    if not 100 <= status <= 599 or isinstance(value, float):
        raise Malformed(f"statusCode is {value!r}")
    return status


def _is_binary(media_type: str, binary_media_types: tuple[str, ...]) -> bool:
    main = media_type.partition("/")[0]
    return any(kind in ("*/*", media_type) or kind == f"{main}/*" for kind in binary_media_types)


async def _body(request: web.BaseRequest) -> bytes | None:
    """The whole body, or None when it is longer than API Gateway takes."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # else curl waits a second before a large body
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _client_headers(request: web.BaseRequest, trace_id: str) -> list[tuple[str, str]]:
    """The client's headers in its own spelling, and the ones API Gateway adds."""
    headers = [
        (name.decode("latin-1"), value.decode("utf-8", "replace"))
        for name, value in request.raw_headers
        if name.lower() not in (b"connection", b"content-length", b"transfer-encoding", b"x-amzn-trace-id", b"expect")
    ]
    scheme_port = request.host.rpartition(":")[2] if ":" in request.host else "80"
    return [
        *headers,
        ("X-Amzn-Trace-Id", trace_id),
        ("X-Forwarded-For", request.remote or "127.0.0.1"),
        ("X-Forwarded-Port", scheme_port),
        ("X-Forwarded-Proto", "http"),
    ]


def _first(pairs: Iterable[tuple[str, str]], name: str) -> str | None:
    return next((value for key, value in pairs if key.lower() == name), None)


def _many(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    many: dict[str, list[str]] = {}
    for name, value in pairs:
        many.setdefault(name, []).append(value)
    return many
