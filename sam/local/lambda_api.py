"""Lambda's REST API for boto3: paths and documents to and from `functions`; what it does not know is moto's to answer.

Shapes are those of botocore's service model; a test holds every answer against it.
"""

import base64
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from .functions import ACCOUNT_CONCURRENCY, Document, Function, Functions, LambdaError
from .host import LaunchError
from .pool import MAX_EVENT_BYTES, Throttled
from .stack import Stack

CODE_PATH = "/_local/code/"
_MAX_ITEMS = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: path parameters, query, body and where the client found us."""

    names: Mapping[str, str]
    query: Mapping[str, str]
    body: Document
    base_url: str


Answer = tuple[int, Document | None]


class LambdaApi:
    """Answers for all functions. `template` is the stack whose region and runtime new functions get."""

    def __init__(self, functions: Functions, template: Stack) -> None:
        self._functions = functions
        self._template = template
        name = r"functions/(?P<function>[^/]+)"
        routes: list[tuple[str, str, Callable[[Asked], Answer | Awaitable[Answer]]]] = [
            ("GET", r"/2015-03-31/functions", self._list),
            ("POST", r"/2015-03-31/functions", self._create),
            ("GET", rf"/2015-03-31/{name}", self._get),
            ("DELETE", rf"/2015-03-31/{name}", self._delete),
            ("GET", rf"/2015-03-31/{name}/configuration", self._get_configuration),
            ("PUT", rf"/2015-03-31/{name}/configuration", self._update_configuration),
            ("PUT", rf"/2015-03-31/{name}/code", self._update_code),
            ("POST", rf"/2015-03-31/{name}/versions", self._publish),
            ("GET", rf"/2015-03-31/{name}/versions", self._versions),
            ("POST", rf"/2015-03-31/{name}/aliases", self._create_alias),
            ("GET", rf"/2015-03-31/{name}/aliases", self._aliases),
            ("GET", rf"/2015-03-31/{name}/aliases/(?P<alias>[^/]+)", self._get_alias),
            ("PUT", rf"/2015-03-31/{name}/aliases/(?P<alias>[^/]+)", self._update_alias),
            ("DELETE", rf"/2015-03-31/{name}/aliases/(?P<alias>[^/]+)", self._delete_alias),
            ("GET", rf"/2015-03-31/{name}/policy", self._policy),
            ("POST", rf"/2015-03-31/{name}/policy", self._add_permission),
            ("DELETE", rf"/2015-03-31/{name}/policy/(?P<statement>[^/]+)", self._remove_permission),
            ("PUT", rf"/2017-10-31/{name}/concurrency", self._put_concurrency),
            ("DELETE", rf"/2017-10-31/{name}/concurrency", self._delete_concurrency),
            ("GET", rf"/2019-09-30/{name}/concurrency", self._concurrency),
            ("PUT", rf"/2019-09-30/{name}/provisioned-concurrency", self._put_provisioned),
            ("GET", rf"/2019-09-30/{name}/provisioned-concurrency", self._provisioned),
            ("DELETE", rf"/2019-09-30/{name}/provisioned-concurrency", self._delete_provisioned),
            ("GET", r"/2016-08-19/account-settings", self._account),
        ]
        self._routes = [(method, re.compile(pattern + "/?"), answer) for method, pattern, answer in routes]
        self._invocations = re.compile(rf"/2015-03-31/{name}/invocations/?")

    async def handle(self, request: web.BaseRequest, body: bytes) -> web.Response | None:
        """The answer, or None for an operation that is not ours."""
        path = request.raw_path.partition("?")[0]
        try:
            if request.method == "POST" and (match := self._invocations.fullmatch(path)):
                return await self._invoke(request, unquote(match["function"]), body)
            for method, pattern, answer in self._routes:
                if method == request.method and (match := pattern.fullmatch(path)):
                    names = {key: unquote(value) for key, value in match.groupdict().items()}
                    asked = Asked(names, dict(request.query), _document(body), f"http://{request.host}")
                    told = answer(asked)
                    status, document = await told if isinstance(told, Awaitable) else told
                    return _json(status, document)
        except LambdaError as error:
            return aws_error(error.status, error.kind, str(error))
        return None

    def code_of(self, path: str) -> bytes | None:
        """The archive that GetFunction's Location names."""
        for function in self._functions.all.values():
            for version in (function.latest, *function.versions.values()):
                if path == CODE_PATH + version.code.token:
                    return version.code.archive
        return None

    # -- Invoke -------------------------------------------------------------------------------------------------

    async def _invoke(self, request: web.BaseRequest, name: str, body: bytes) -> web.Response:
        function, qualifier = self._functions.find(name)
        if len(body) > MAX_EVENT_BYTES:
            message = f"Request must be smaller than {MAX_EVENT_BYTES} bytes for the InvokeFunction operation"
            return aws_error(413, "RequestTooLargeException", message)
        try:
            json.loads(body or b"null")
        except ValueError as error:
            return aws_error(400, "InvalidRequestContentException", f"Could not parse request body into json: {error}")
        kind = request.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        if kind == "DryRun":
            return web.Response(status=204)
        if kind != "RequestResponse":
            return aws_error(400, "InvalidParameterValueException", f"The local stack has no {kind} invocations")
        try:
            outcome = await function.invoke(
                body or b"{}",
                qualifier=request.query.get("Qualifier") or qualifier,
                request_id=request.headers.get("x-amzn-RequestId"),
                trace_id=request.headers.get("X-Amzn-Trace-Id", ""),
                client_context=request.headers.get("X-Amz-Client-Context", ""),
                tenant=request.headers.get("X-Amz-Tenant-Id"),
            )
        except Throttled as error:
            return aws_error(429, "TooManyRequestsException", str(error), {"Reason": error.reason})
        except LaunchError as error:
            return aws_error(500, "ServiceException", f"No environment could be made: {error}")
        headers = {"X-Amz-Executed-Version": outcome.version, "Content-Type": "application/json"}
        if outcome.function_error is not None:
            headers["X-Amz-Function-Error"] = outcome.function_error
        if request.headers.get("X-Amz-Log-Type") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(outcome.log_tail).decode()
        return web.Response(body=outcome.payload, headers=headers)

    # -- functions ----------------------------------------------------------------------------------------------

    def _one(self, asked: Asked) -> tuple[Function, str | None]:
        function, qualifier = self._functions.find(asked.names["function"])
        return function, asked.query.get("Qualifier") or qualifier

    def _list(self, asked: Asked) -> Answer:
        found = []
        for function in self._functions.all.values():
            found.append(function.configuration())
            if asked.query.get("FunctionVersion") == "ALL":
                found += [function.configuration(number) for number in function.versions]
        return 200, _page("Functions", found, asked)

    def _create(self, asked: Asked) -> Answer:
        return 201, self._functions.create(asked.body, self._template)

    def _get(self, asked: Asked) -> Answer:
        function, qualifier = self._one(asked)
        location = asked.base_url + CODE_PATH + function.version_of(qualifier).code.token
        document: Document = {
            "Configuration": function.configuration(qualifier),
            "Code": {"RepositoryType": "S3", "Location": location},
        }
        if function.concurrency():
            document["Concurrency"] = function.concurrency()
        return 200, document

    async def _delete(self, asked: Asked) -> Answer:
        function, qualifier = self._one(asked)
        if qualifier is not None:
            function.delete_version(qualifier)
        else:
            await self._functions.delete(function.name)
        return 204, None

    def _get_configuration(self, asked: Asked) -> Answer:
        function, qualifier = self._one(asked)
        return 200, function.configuration(qualifier)

    def _update_configuration(self, asked: Asked) -> Answer:
        return 200, self._one(asked)[0].update_configuration(asked.body)

    def _update_code(self, asked: Asked) -> Answer:
        return 200, self._one(asked)[0].update_code(asked.body)

    # -- versions and aliases -----------------------------------------------------------------------------------

    def _publish(self, asked: Asked) -> Answer:
        return 201, self._one(asked)[0].publish(asked.body)

    def _versions(self, asked: Asked) -> Answer:
        function, _ = self._one(asked)
        found = [function.configuration(number) for number in ("$LATEST", *function.versions)]
        return 200, _page("Versions", found, asked)

    def _create_alias(self, asked: Asked) -> Answer:
        return 201, self._one(asked)[0].create_alias(asked.body)

    def _aliases(self, asked: Asked) -> Answer:
        function, _ = self._one(asked)
        wanted = asked.query.get("FunctionVersion")
        found = [function.alias_document(a) for a in function.aliases.values() if wanted in (None, a.version)]
        return 200, _page("Aliases", found, asked)

    def _get_alias(self, asked: Asked) -> Answer:
        function, _ = self._one(asked)
        return 200, function.alias_document(function.alias(asked.names["alias"]))

    def _update_alias(self, asked: Asked) -> Answer:
        return 200, self._one(asked)[0].update_alias(asked.names["alias"], asked.body)

    def _delete_alias(self, asked: Asked) -> Answer:
        self._one(asked)[0].delete_alias(asked.names["alias"])
        return 204, None

    # -- who may call -------------------------------------------------------------------------------------------

    def _policy(self, asked: Asked) -> Answer:
        function, qualifier = self._one(asked)
        return 200, function.policy(qualifier)

    def _add_permission(self, asked: Asked) -> Answer:
        function, qualifier = self._one(asked)
        return 201, function.add_permission(qualifier, asked.body)

    def _remove_permission(self, asked: Asked) -> Answer:
        function, qualifier = self._one(asked)
        function.remove_permission(qualifier, asked.names["statement"])
        return 204, None

    # -- concurrency --------------------------------------------------------------------------------------------

    def _put_concurrency(self, asked: Asked) -> Answer:
        return 200, self._one(asked)[0].put_concurrency(asked.body)

    def _delete_concurrency(self, asked: Asked) -> Answer:
        self._one(asked)[0].delete_concurrency()
        return 204, None

    def _concurrency(self, asked: Asked) -> Answer:
        return 200, self._one(asked)[0].concurrency()

    def _put_provisioned(self, asked: Asked) -> Answer:
        function, qualifier = self._one(asked)
        return 202, function.put_provisioned(qualifier, asked.body)

    def _provisioned(self, asked: Asked) -> Answer:
        function, qualifier = self._one(asked)
        if asked.query.get("List") == "ALL":
            return 200, _page("ProvisionedConcurrencyConfigs", function.all_provisioned(), asked)
        return 200, function.provisioned(qualifier or "")

    def _delete_provisioned(self, asked: Asked) -> Answer:
        function, qualifier = self._one(asked)
        function.remove_provisioned(qualifier or "")
        return 204, None

    def _account(self, asked: Asked) -> Answer:
        del asked
        reserved = [function.pool.reserved or 0 for function in self._functions.all.values()]
        limits = {
            "TotalCodeSize": 80530636800,
            "CodeSizeUnzipped": 262144000,
            "CodeSizeZipped": 52428800,
            "ConcurrentExecutions": ACCOUNT_CONCURRENCY,
            "UnreservedConcurrentExecutions": ACCOUNT_CONCURRENCY - sum(reserved),
        }
        usage = {"TotalCodeSize": 0, "FunctionCount": len(reserved)}
        return 200, {"AccountLimit": limits, "AccountUsage": usage}


def aws_error(status: int, kind: str, message: str, extra: Document | None = None) -> web.Response:
    """A refusal in the shape of Lambda's REST API."""
    body = json.dumps({"Type": "User", "Message": message, "message": message, **(extra or {})}).encode()
    return web.Response(
        status=status, body=body, headers={"x-amzn-ErrorType": kind, "Content-Type": "application/json"}
    )


def _json(status: int, document: Document | None) -> web.Response:
    if document is None:
        return web.Response(status=status)
    return web.Response(status=status, body=json.dumps(document).encode(), content_type="application/json")


def _document(body: bytes) -> Document:
    try:
        document: Any = json.loads(body or b"{}")
    except ValueError as error:
        raise LambdaError(400, "InvalidRequestContentException", f"The body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise LambdaError(400, "InvalidRequestContentException", "The body is no JSON object")
    return document


def _page(name: str, items: list[Document], asked: Asked) -> Document:
    start = int(asked.query.get("Marker") or 0)
    end = start + min(int(asked.query.get("MaxItems") or _MAX_ITEMS), _MAX_ITEMS)
    page: Document = {name: items[start:end]}
    return {**page, "NextMarker": str(end)} if end < len(items) else page
