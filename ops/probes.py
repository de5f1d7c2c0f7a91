"""Gathers the facts a diagnosis rests on: a few calls to the endpoint, and read-only questions to AWS.

It must not judge or change anything; a question AWS refuses is kept as refused, never taken for a no.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import botocore.exceptions
import httpx

from ops.aws import SERVING, Account, error_code, iam_client, lambda_client, logs_client, s3_client, split_name
from ops.invocations import Ledger, fold
from ops.logs import Pace, pull

PACKAGES = ("numpy", "pandas", "matplotlib")
_IMPORTS = "import " + ", ".join(PACKAGES) + "\nresult = 2 + 3"
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call to the endpoint gave: `problem` when nothing came, else the status and what could be read of it."""

    url: str
    status: int | None = None
    problem: str | None = None
    error_type: str | None = None
    message: str = ""
    result: Mapping[str, Any] | None = None
    elapsed_ms: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether a tool's structured result came back."""
        return self.status == 200 and self.result is not None

    @property
    def is_throttled(self) -> bool:
        """Whether it tells of the rate or the quota alone."""
        return self.status == 429


@dataclass(frozen=True, slots=True)
class Asked:
    """The answer to one question to AWS; `refused` says why there is none, `missing` that the thing does not exist."""

    value: Mapping[str, Any] | None = None
    missing: bool = False
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything gathered; None is what was not asked, because there was no endpoint or no function to ask about."""

    asks_aws: bool = True
    endpoint: str | None = None
    key_given: bool = False
    environment: Answer | None = None
    other_slash: Answer | None = None
    without_key: Answer | None = None
    imports: Answer | None = None
    function_name: str | None = None
    qualifier: str | None = None
    function: Asked | None = None
    latest: Asked | None = None
    concurrency: Asked | None = None
    policy: Asked | None = None
    layers: Mapping[str, Asked] = field(default_factory=dict)
    log_group: Asked | None = None
    role_actions: Asked | None = None
    region: str | None = None
    bucket_name: str | None = None
    bucket: Asked | None = None
    recent: Ledger | None = None


def ask_endpoint(url: str, api_key: str | None, client: httpx.Client) -> dict[str, Any]:
    """The endpoint's part of the facts."""
    environment = call(client, url, "get_environment_info", {}, api_key)
    facts: dict[str, Any] = {"endpoint": url, "key_given": api_key is not None, "environment": environment}
    if environment.status is None:
        return facts
    other = url.rstrip("/") if url.endswith("/") else url + "/"
    facts["other_slash"] = call(client, other, "get_environment_info", {}, api_key)
    if api_key is not None:
        facts["without_key"] = call(client, url, "get_environment_info", {}, None)
    if environment.is_good:
        facts["imports"] = call(client, url, "execute_python", {"code": _IMPORTS}, api_key)
    return facts


def call(client: httpx.Client, url: str, tool: str, arguments: Mapping[str, Any], api_key: str | None) -> Answer:
    """One bare tools/call, as an agent without a handshake makes it."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": dict(arguments)}}
    headers = {"Accept": "application/json, text/event-stream"} | ({"x-api-key": api_key} if api_key else {})
    began = time.monotonic()
    try:
        response = client.post(url, json=body, headers=headers, timeout=_TIMEOUT_S)
    except httpx.TimeoutException:
        return Answer(url, problem=f"no answer within {_TIMEOUT_S:g} s")
    except (httpx.TransportError, httpx.InvalidURL) as problem:
        return Answer(url, problem=str(problem) or type(problem).__name__)
    elapsed_ms = (time.monotonic() - began) * 1000
    reply = _json_of(response)
    result = reply.get("result")
    structured = result.get("structuredContent") if isinstance(result, dict) else None
    error = reply.get("error")
    return Answer(
        url,
        response.status_code,
        None,
        response.headers.get("x-amzn-ErrorType"),
        str(error.get("message", "")) if isinstance(error, dict) else str(reply.get("message", "")),
        structured if isinstance(structured, dict) else None,
        elapsed_ms,
    )


def _json_of(response: httpx.Response) -> dict[str, Any]:
    text = response.text
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        text = next((line[5:] for line in text.splitlines() if line.startswith("data:")), "")
    try:
        reply = json.loads(text)
    except ValueError:
        return {}
    return reply if isinstance(reply, dict) else {}


def ask_aws(account: Account, function_name: str, start_ms: int, end_ms: int, pace: Pace) -> dict[str, Any]:
    """AWS's part of the facts about one function and its logs in a range.

    `function_name` may be an ARN and may end in `:QUALIFIER`; without one the version that serves is asked about.
    """
    client = lambda_client(account)
    name, qualifier = split_name(function_name)
    version = {"Qualifier": qualifier or SERVING}
    function = _ask(lambda: client.get_function_configuration(FunctionName=name, **version))
    if function.missing and not qualifier:
        version = {}
        function = _ask(lambda: client.get_function_configuration(FunctionName=name))
    facts: dict[str, Any] = {"function_name": name, "qualifier": version.get("Qualifier"), "function": function}
    if function.value is None:
        return facts
    if version:
        facts["latest"] = _ask(lambda: client.get_function_configuration(FunctionName=name))
    facts["concurrency"] = _ask(lambda: client.get_function_concurrency(FunctionName=name))
    facts["policy"] = _ask(lambda: client.get_policy(FunctionName=name, **version))
    arns = [layer["Arn"] for layer in function.value.get("Layers", [])]
    facts["layers"] = {arn: _ask(partial(client.get_layer_version_by_arn, Arn=arn)) for arn in arns}
    group = function.value.get("LoggingConfig", {}).get("LogGroup") or f"/aws/lambda/{name}"
    facts["log_group"] = _log_group(account, group)
    facts["role_actions"] = _role_actions(account, str(function.value.get("Role", "")).rpartition("/")[2])
    if facts["log_group"].value is not None:
        logs = logs_client(account)
        batches = pull(logs, [group], start_ms, end_ms, pace, pattern='?"REPORT RequestId" ?"platform.report"')
        facts["recent"] = fold(event for batch in batches for event in batch)
    return facts


def ask_bucket(account: Account, name: str) -> dict[str, Any]:
    """S3's part of the facts: whether the bucket that deployments upload to is there for us, and where."""
    asked = _ask(lambda: s3_client(account).head_bucket(Bucket=name))
    return {"region": account.region, "bucket_name": name, "bucket": asked}


def _log_group(account: Account, name: str) -> Asked:
    def find() -> Mapping[str, Any]:
        found = logs_client(account).describe_log_groups(logGroupNamePrefix=name)["logGroups"]
        return next((group for group in found if group["logGroupName"] == name), {})

    asked = _ask(find)
    return Asked(missing=True) if asked.value == {} else asked


def _role_actions(account: Account, role: str) -> Asked:
    """The allowed actions of a role's inline and attached policies, as {action: policy name}."""

    def find() -> Mapping[str, Any]:
        iam = iam_client(account)
        documents = {
            name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
            for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
        }
        for policy in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
            arn = policy["PolicyArn"]
            version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
            document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
            documents[policy["PolicyName"]] = document
        return {action: name for name, document in documents.items() for action in allowed_actions(document)}

    return _ask(find)


def allowed_actions(document: Any) -> list[str]:
    """The actions a policy document allows."""
    if isinstance(document, str):
        document = json.loads(document)
    statements = document.get("Statement", [])
    allowed = [s for s in (statements if isinstance(statements, list) else [statements]) if s.get("Effect") == "Allow"]
    actions = [s.get("Action", []) for s in allowed]
    return [action for some in actions for action in (some if isinstance(some, list) else [some])]


def _ask(question: Callable[[], Mapping[str, Any]]) -> Asked:
    try:
        return Asked(value=question())
    except botocore.exceptions.ClientError as problem:
        code = error_code(problem)
        if code in {"ResourceNotFoundException", "NoSuchEntity", "NoSuchBucket", "404"}:
            return Asked(missing=True)
        if code in {"AccessDenied", "AccessDeniedException", "403"}:
            return Asked(refused=f"{problem.operation_name}: {code}")
        raise
