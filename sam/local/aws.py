"""The AWS APIs of the local stack, for boto3 with AWS_ENDPOINT_URL: moto in this process, its function made ours.

CloudWatch Logs, CloudWatch and Lambda's control plane are moto's; Invoke runs in the pool, and an update of the
function's configuration recycles environments. Signatures are not checked: this listens on loopback only.
"""

import asyncio
import base64
import contextlib
import io
import json
import logging
import re
import threading
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from werkzeug.test import EnvironBuilder, run_wsgi_app

from .logs import LogEvent
from .pool import MAX_EVENT_BYTES, Pool, Throttled
from .stack import ACCOUNT_ID, Stack

_INVOKE = re.compile(r"/2015-03-31/functions/([^/]+)/invocations/?$")
_CONFIGURATION = re.compile(r"/2015-03-31/functions/([^/]+)/configuration/?$")
_CREDENTIAL_SCOPE = re.compile(r"(Credential=[^/]+/\d{8}/)([^/]+)(/)")


def is_aws_request(request: web.BaseRequest) -> bool:
    """Whether a request is for an AWS API rather than for the REST API of the stage."""
    authorization = request.headers.get("Authorization", "")
    return authorization.startswith("AWS4-HMAC-SHA256") or "X-Amz-Target" in request.headers


class Aws:
    """Holds the log group and the function in moto, and answers for both."""

    def __init__(self, stack: Stack) -> None:
        # Imported here: moto takes most of a second, and reading a template should not.
        from moto.awslambda.models import lambda_backends
        from moto.core.models import DEFAULT_ACCOUNT_ID
        from moto.iam.models import iam_backends
        from moto.logs.models import logs_backends
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        if DEFAULT_ACCOUNT_ID != ACCOUNT_ID:
            raise RuntimeError(f"moto's account is {DEFAULT_ACCOUNT_ID}, the stack's is {ACCOUNT_ID}")
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._stack = stack
        self._region = stack.region
        self._logs = logs_backends[ACCOUNT_ID][stack.region]
        self._lambda = lambda_backends[ACCOUNT_ID][stack.region]
        self._streams: set[str] = set()
        self._lock = threading.Lock()  # moto is not made for threads
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="aws")
        self._create_log_group()
        self._role = iam_backends[ACCOUNT_ID]["aws"].create_role(
            f"{stack.function_name}-Role", "{}", "/", None, "logs only", [], None
        )
        self._create_function()

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def deliver(self, stream: str, events: Sequence[LogEvent]) -> None:
        """Put events of one stream into the log group. Called from the log writer's thread."""
        group = self._stack.log_group
        with self._lock, contextlib.suppress(KeyError):
            if stream not in self._streams:
                self._logs.ensure_log_stream(group, stream)
                self._streams.add(stream)
            self._logs.put_log_events(
                group, stream, [{"timestamp": event.timestamp_ms, "message": event.message} for event in events]
            )

    async def handle(self, request: web.BaseRequest, pool: Pool) -> web.Response:
        body = await request.content.read()
        path = request.raw_path.partition("?")[0]
        if request.method == "POST" and (match := _INVOKE.fullmatch(unquote(path))):
            return await self._invoke(request, match.group(1), body, pool)
        loop = asyncio.get_running_loop()
        response = await loop.run_in_executor(self._threads, self._ask_moto, request, body)
        if request.method == "PUT" and response.status == 200 and _CONFIGURATION.fullmatch(unquote(path)):
            pool.reconfigure(self._configured(pool.stack))
        return response

    # -- Lambda -------------------------------------------------------------------------------------------------

    async def _invoke(self, request: web.BaseRequest, function: str, body: bytes, pool: Pool) -> web.Response:
        name = function.rpartition("function:")[2].partition(":")[0]
        if name != self._stack.function_name:
            arn = self._stack.function_arn.replace(self._stack.function_name, name)
            return _aws_error(404, "ResourceNotFoundException", f"Function not found: {arn}")
        if len(body) > MAX_EVENT_BYTES:
            message = f"Request must be smaller than {MAX_EVENT_BYTES} bytes for the InvokeFunction operation"
            return _aws_error(413, "RequestTooLargeException", message)
        try:
            json.loads(body or b"null")
        except ValueError as error:
            return _aws_error(400, "InvalidRequestContentException", f"Could not parse request body into json: {error}")
        kind = request.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        if kind == "DryRun":
            return web.Response(status=204)
        if kind != "RequestResponse":
            return _aws_error(400, "InvalidParameterValueException", f"The local stack has no {kind} invocations")
        request_id = request.headers.get("x-amzn-RequestId")
        try:
            outcome = await pool.invoke(
                body or b"{}", request_id=request_id, client_context=request.headers.get("X-Amz-Client-Context", "")
            )
        except Throttled as error:
            reason = {"Reason": error.reason}
            return _aws_error(429, "TooManyRequestsException", str(error), reason)
        headers = {"X-Amz-Executed-Version": "$LATEST", "Content-Type": "application/json"}
        if outcome.function_error is not None:
            headers["X-Amz-Function-Error"] = outcome.function_error
        if request.headers.get("X-Amz-Log-Type") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(outcome.log_tail).decode()
        return web.Response(body=outcome.payload, headers=headers)

    def _configured(self, stack: Stack) -> Stack:
        function = self._lambda.get_function(self._stack.function_name)
        return replace(
            stack,
            memory_mb=int(function.memory_size),
            timeout_s=int(function.timeout),
            environment={str(key): str(value) for key, value in function.environment_vars.items()},
            handler=str(function.handler),
        )

    def _create_function(self) -> None:
        stack = self._stack
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("README", "The code is read from the directory that CodeUri names.")
        self._lambda.create_function(
            {
                "FunctionName": stack.function_name,
                "Runtime": stack.runtime,
                "Role": self._role.arn,
                "Handler": stack.handler,
                "Code": {"ZipFile": base64.b64encode(code.getvalue()).decode()},
                "MemorySize": stack.memory_mb,
                "Timeout": stack.timeout_s,
                "Environment": {"Variables": dict(stack.environment)},
                "LoggingConfig": {"LogFormat": stack.log_format, "LogGroup": stack.log_group},
                "Publish": False,
            }
        )

    # -- CloudWatch Logs ----------------------------------------------------------------------------------------

    def _create_log_group(self) -> None:
        self._logs.create_log_group(self._stack.log_group, tags={})
        if self._stack.log_retention_days:
            self._logs.put_retention_policy(self._stack.log_group, str(self._stack.log_retention_days))

    # -- moto ---------------------------------------------------------------------------------------------------

    def _ask_moto(self, request: web.BaseRequest, body: bytes) -> web.Response:
        headers = [(name, self._in_our_region(name, value)) for name, value in request.headers.items()]
        builder = EnvironBuilder(
            path=unquote(request.raw_path.partition("?")[0]),
            query_string=request.raw_path.partition("?")[2],
            method=request.method,
            headers=headers,
            data=body,
            base_url=f"http://{request.host}",
        )
        environ = builder.get_environ()
        with self._lock:
            app = self._app.get_application(environ)
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


def _aws_error(status: int, kind: str, message: str, extra: dict[str, Any] | None = None) -> web.Response:
    body = json.dumps({"Type": "User", "Message": message, "message": message, **(extra or {})}).encode()
    return web.Response(
        status=status, body=body, headers={"x-amzn-ErrorType": kind, "Content-Type": "application/json"}
    )
