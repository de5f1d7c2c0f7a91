"""The AWS APIs of the local stack, for boto3 with AWS_ENDPOINT_URL: ours where moto is wrong, moto for the rest.

Lambda is `lambda_api`, CloudWatch Logs `logs_api`, CloudWatch's data `metrics` behind moto's own parsing; IAM, layer
versions and whatever else is asked are moto's. Signatures are not checked: this listens on loopback only.
"""

import asyncio
import base64
import contextlib
import io
import json
import logging
import re
import threading
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from . import metrics
from .filter_pattern import Matches, compile_pattern, value_of
from .lambda_api import CODE_PATH, LambdaApi
from .live_tail import live_tail
from .log_store import MOST_BYTES, LogsError, LogStore
from .logs import LogEvent
from .logs_api import TARGET, LogsApi, refusal
from .stack import ACCOUNT_ID, MetricFilter, Stack

_CREDENTIAL_SCOPE = re.compile(r"(Credential=[^/]+/\d{8}/)([^/]+)(/)")
_LAMBDA_PATH = re.compile(r"/\d{4}-\d\d-\d\d/")


def is_aws_request(request: web.BaseRequest) -> bool:
    """Whether a request is for an AWS API rather than for the REST API of the stage."""
    authorization = request.headers.get("Authorization", "")
    if request.path.startswith(CODE_PATH):
        return True
    return authorization.startswith("AWS4-HMAC-SHA256") or "X-Amz-Target" in request.headers


class Aws:
    """Holds logs, metrics and moto's part of the account, and answers for all of it once it has its `lambda_api`."""

    def __init__(self, stack: Stack, most_log_bytes: int = MOST_BYTES) -> None:
        self.logs = LogStore(most_log_bytes)
        self.metrics = metrics.MetricStore()
        self.lambda_api: LambdaApi | None = None
        self.settle: Callable[[], None] = lambda: None  # deliver what was written before now
        self._logs_api = LogsApi(self.logs, stack.region)
        self._filters: dict[str, list[tuple[Matches, MetricFilter]]] = {}
        for each in stack.metric_filters:
            self._filters.setdefault(each.log_group, []).append((compile_pattern(each.pattern), each))
        self._stack = stack
        self._region = stack.region
        self._moto: Any = None
        self._lock = threading.Lock()  # moto is not made for threads
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="aws")
        self.logs.create_group(stack.log_group, stack.log_retention_days)

    @property
    def role_arn(self) -> str:
        return f"arn:aws:iam::{ACCOUNT_ID}:role/{self._stack.function_name}-Role"

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def deliver(self, group: str, stream: str, events: Sequence[LogEvent]) -> None:
        """Put events of one stream into its log group. Called from the log writer's thread."""
        if group not in self.logs.groups:
            with contextlib.suppress(LogsError):
                self.logs.create_group(group)
        with contextlib.suppress(LogsError):  # a client deleted the group meanwhile
            if stream not in self.logs.group(group).streams:
                self.logs.create_stream(group, stream)
            self.logs.put(group, stream, [(event.timestamp_ms, event.message) for event in events])
        for event in events:
            metrics.take_embedded(self.metrics, event.message, event.timestamp_ms)
            for matches, each in self._filters.get(group, ()):
                if matches(event.message):
                    value = value_of(each.pattern, each.value, event.message)
                    if value is not None:
                        self.metrics.put(each.namespace, each.name, (), event.timestamp_ms / 1000, {value: 1})

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()
        loop = asyncio.get_running_loop()
        target = request.headers.get("X-Amz-Target", "")
        if target == TARGET + "StartLiveTail":
            return await self._live_tail(request, body)
        if target.startswith(TARGET):
            operation = target.removeprefix(TARGET)
            told = await loop.run_in_executor(self._threads, self._ask_logs, operation, body)
            if told is not None:
                return web.json_response(told[1], status=told[0], content_type="application/x-amz-json-1.1")
        elif self.lambda_api is not None and _LAMBDA_PATH.match(request.path):
            response = await self.lambda_api.handle(request, body)
            if response is not None:
                return response
        elif self.lambda_api is not None and request.path.startswith(CODE_PATH):
            archive = self.lambda_api.code_of(request.path)
            return web.Response(status=404) if archive is None else web.Response(body=archive)
        return await loop.run_in_executor(self._threads, self._ask_moto, request, body)

    async def _live_tail(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        try:
            return await live_tail(request, json.loads(body or b"{}"), self.logs)
        except (LogsError, AttributeError, TypeError, ValueError) as error:
            status, document = refusal("StartLiveTail", error)
            return web.json_response(document, status=status, content_type="application/x-amz-json-1.1")

    def _ask_logs(self, operation: str, body: bytes) -> tuple[int, dict[str, Any]] | None:
        """A client that was answered before it asks finds its lines, though they are delivered in batches."""
        self.settle()
        return self._logs_api.handle(operation, body)

    # -- moto ---------------------------------------------------------------------------------------------------

    def _start_moto(self) -> Any:
        """moto with the function's role, and the function itself, so that what is not played here finds one.

        Once something is asked of it: it takes most of a second to import, and most stacks need nothing of it.
        """
        from moto.awslambda.models import lambda_backends
        from moto.core.models import DEFAULT_ACCOUNT_ID
        from moto.iam.models import iam_backends
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        if DEFAULT_ACCOUNT_ID != ACCOUNT_ID:
            raise RuntimeError(f"moto's account is {DEFAULT_ACCOUNT_ID}, the stack's is {ACCOUNT_ID}")
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        stack = self._stack
        iam_backends[ACCOUNT_ID]["aws"].create_role(
            f"{stack.function_name}-Role", "{}", "/", None, "logs only", [], None
        )
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("README", "The code is read from the directory that CodeUri names.")
        lambda_backends[ACCOUNT_ID][stack.region].create_function(
            {
                "FunctionName": stack.function_name,
                "Runtime": stack.runtime,
                "Role": self.role_arn,
                "Handler": stack.handler,
                "Code": {"ZipFile": base64.b64encode(code.getvalue()).decode()},
                "Publish": False,
            }
        )
        _replace_metrics(self.metrics)
        return DomainDispatcherApplication(create_backend_app)

    def _ask_moto(self, request: web.BaseRequest, body: bytes) -> web.Response:
        from werkzeug.test import EnvironBuilder, run_wsgi_app

        self.settle()  # metrics come from log lines too
        headers = [(name, self._in_our_region(name, value)) for name, value in request.headers.items()]
        path, _, query = request.raw_path.partition("?")
        builder = EnvironBuilder(
            path=unquote(_layer_path(request) or path),
            query_string=query,
            method=request.method,
            headers=headers,
            data=body,
            base_url=f"http://{request.host}",
        )
        environ = builder.get_environ()
        with self._lock:
            if self._moto is None:
                self._moto = self._start_moto()
            app = self._moto.get_application(environ)
            chunks, status, answer_headers = run_wsgi_app(app, environ, buffered=True)
            data = b"".join(chunks)
        kept = [
            (k, v) for k, v in answer_headers if k.lower() not in ("content-length", "connection", "date", "server")
        ]
        return web.Response(status=int(status.split()[0]), body=data, headers=kept)

    def _in_our_region(self, name: str, value: str) -> str:
        """The stack lives in one region; a client configured for another finds it all the same."""
        if name.lower() != "authorization":
            return value
        return _CREDENTIAL_SCOPE.sub(rf"\g<1>{self._region}\g<3>", value, count=1)


def _layer_path(request: web.BaseRequest) -> str | None:
    """GetLayerVersionByArn as the GetLayerVersion that moto knows; None for another request."""
    if not request.path.endswith("/layers") or request.query.get("find") != "LayerVersion":
        return None
    layer_arn, _, number = request.query.get("Arn", "").rpartition(":")
    return f"{request.path}/{layer_arn}/versions/{number}"


def _replace_metrics(store: metrics.MetricStore) -> None:
    """CloudWatch's data operations over our store: moto has no percentiles. Reading and writing the protocol is its."""
    from moto.cloudwatch.exceptions import InvalidParameterValue, ValidationError
    from moto.cloudwatch.responses import CloudWatchResponse
    from moto.core.responses import ActionResult, EmptyResult

    def answered(answer: Callable[[Mapping[str, Any]], Any]) -> Callable[[Any], Any]:
        def respond(response: Any) -> Any:
            try:
                told = answer(response._get_params())
            except metrics.MetricError as error:
                kind = ValidationError if str(error).startswith("Error in expression") else InvalidParameterValue
                raise kind(str(error)) from error
            return EmptyResult() if told is None else ActionResult(told)

        return respond

    for name, answer in (
        ("put_metric_data", lambda asked: metrics.put_metric_data(store, asked, time.time())),
        ("get_metric_data", lambda asked: metrics.get_metric_data(store, asked)),
        ("get_metric_statistics", lambda asked: metrics.get_metric_statistics(store, asked)),
        ("list_metrics", lambda asked: metrics.list_metrics(store, asked)),
    ):
        setattr(CloudWatchResponse, name, answered(answer))
