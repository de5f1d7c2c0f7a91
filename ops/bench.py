"""Measures a function at chosen memory sizes: a copy of it by default, itself only where that is asked for.

It must leave everything as it was: the copy is deleted, or the function's own memory restored, on failure and on Ctrl-C
too. Payloads are never written down.
"""

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ops import records
from ops.aws import SERVING, split_name
from ops.failures import OpsError, UsageError

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

FEWEST, MOST = 5, 20
# Sampling of a size ends when the mean is known to this share (standard error over mean), or at the most.
PRECISE = 0.025
_CARRIED_OVER = ("Runtime", "Role", "Handler", "Timeout", "Architectures", "EphemeralStorage", "TracingConfig")


@dataclass(frozen=True, slots=True)
class Payload:
    """An event to invoke with, and how often beside the others; `body` is JSON text."""

    name: str
    body: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Shot:
    """One measured invocation; times in ms, memory in MB. `failure` is what kept it from succeeding, `output` what the
    function answered, where that is to be kept."""

    memory_mb: int
    payload: str
    request_id: str
    duration_ms: float
    billed_ms: float
    init_ms: float | None
    max_memory_used_mb: float | None
    cpu_ms: float | None
    failure: str | None
    output: str | None = None

    def as_json(self) -> str:
        """One line of samples.jsonl."""
        return json.dumps(asdict(self)) + "\n"


@dataclass(slots=True)
class Bench:
    """A function whose memory may be set, and that may be invoked; `name` is the copy's or the function's own.

    `tenant` goes with each invocation of a function that keeps its tenants apart, which AWS invokes for nobody else.
    `before` names a function that gets each payload first, and may answer with another one; `after` one that gets each
    answer. Neither is measured.
    """

    client: "LambdaClient"
    name: str
    sleep: Callable[[float], None] = time.sleep
    description: str = ""
    tenant: str | None = None
    before: str | None = None
    after: str | None = None
    keeps_output: bool = False
    _memory_mb: int | None = field(default=None, init=False)
    _renewals: int = field(default=0, init=False)

    def set_memory(self, memory_mb: int) -> None:
        """Gives the function `memory_mb` MB, which makes its next environment a new one, and waits until it has it."""
        self.client.update_function_configuration(FunctionName=self.name, MemorySize=memory_mb)
        wait_until_updated(self.client, self.name, self.sleep)
        self._memory_mb = memory_mb

    def renew(self) -> None:
        """Makes the function's next environment a new one, by a change of configuration that changes nothing."""
        self._renewals += 1
        description = f"{self.description} (tuning {self._renewals})".strip()
        self.client.update_function_configuration(FunctionName=self.name, Description=description[-256:])
        wait_until_updated(self.client, self.name, self.sleep)

    def shoot(self, payload: Payload) -> Shot:
        """One invocation. Raises OpsError when its REPORT does not come back with it."""
        whose: dict[str, Any] = {"TenantId": self.tenant} if self.tenant else {}
        event = payload.body.encode()
        if self.before:
            event = self._processed(self.before, event) or event
        answer = self.client.invoke(FunctionName=self.name, LogType="Tail", Payload=event, **whose)
        body = answer["Payload"].read()
        if self.after:
            self._processed(self.after, body)
        tail = base64.b64decode(answer.get("LogResult", "")).decode("utf-8", "replace")
        report = report_in_tail(tail)
        if report is None:
            raise OpsError(
                f"The log tail of an invocation of {self.name} holds no REPORT; is its log format supported?"
            )
        failure = _failure(report, answer.get("FunctionError"), body)
        return Shot(
            self._memory_mb or int(report.memory_size_mb or 0),
            payload.name,
            report.request_id,
            report.duration_ms,
            report.billed_ms or report.duration_ms,
            report.init_ms,
            report.max_memory_used_mb,
            cpu_ms_of(body),
            failure,
            body.decode("utf-8", "replace") if self.keeps_output else None,
        )

    def _processed(self, name: str, body: bytes) -> bytes | None:
        """What the function `name` makes of `body`; None for nothing. Raises UsageError when it fails."""
        answer = self.client.invoke(FunctionName=name, Payload=body)
        made = answer["Payload"].read()
        if answer.get("FunctionError"):
            raise UsageError(f"The function {name}, which goes with each shot, failed ({_error_name(made)}); mend it.")
        return made if _json(made) else None


def report_in_tail(tail: str) -> records.Report | None:
    """The last REPORT of a log tail, text or JSON; lines cut off at its beginning are no harm."""
    lines = tail.splitlines()
    found = [r for line in lines if isinstance(r := records.parse(line), records.Report)]
    return found[-1] if found else None


def _failure(report: records.Report, function_error: str | None, body: bytes) -> str | None:
    if report.status == "timeout":
        return "timeout"
    if "OutOfMemory" in (report.error_type or ""):
        return "oom"
    used, size = report.max_memory_used_mb, report.memory_size_mb
    if function_error:
        return "oom" if used and size and used >= size * 0.97 else f"error {_error_name(body)}"
    answer = _json(body)
    status = answer.get("statusCode") if isinstance(answer, dict) else None
    if isinstance(status, int) and status >= 400:
        return f"status {status}"
    tool = tool_result(body)
    if tool.get("success") is False:
        return f"tool {(tool.get('error') or {}).get('name', 'failed')}"
    return None


def _error_name(body: bytes) -> str:
    answer = _json(body)
    return str(answer.get("errorType", "unknown")) if isinstance(answer, dict) else "unknown"


def _json(body: bytes | str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def tool_result(body: bytes) -> dict[str, Any]:
    """The structured result of execute_python inside a proxy response, or {} if the body is something else."""
    answer = _json(body)
    text = answer.get("body") if isinstance(answer, dict) else None
    if not isinstance(text, str):
        return {}
    if answer.get("isBase64Encoded"):
        text = base64.b64decode(text).decode("utf-8", "replace")
    data = next((line[5:] for line in text.splitlines() if line.startswith("data:")), text)
    result = (_json(data) or {}).get("result") if isinstance(_json(data), dict) else None
    structured = result.get("structuredContent") if isinstance(result, dict) else None
    return structured if isinstance(structured, dict) else {}


def cpu_ms_of(body: bytes) -> float | None:
    """The CPU time that execute_python reports of itself, in ms."""
    cpu = (tool_result(body).get("usage") or {}).get("cpu_ms")
    return float(cpu) if isinstance(cpu, int | float) else None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one size is measured: at most `most` counted shots, `pause_s` between them, failures `allowed` by name.

    With `only_cold` every shot gets a new environment, and those are what is counted; else the warm ones are.
    """

    most: int = MOST
    pause_s: float = 0.0
    allowed: tuple[str, ...] = ()
    only_cold: bool = False


def measure(bench: Bench, memory_mb: int, payloads: Sequence[Payload], how: Sampling | None = None) -> Iterator[Shot]:
    """Shots at one size: a cold one, then counted ones until their mean is known well enough, or the most were made.

    Payloads take turns by their weights. Ends early at the first lack of memory or timeout: the size is too small.
    Raises UsageError for any other failure that is not allowed: there is nothing to tune in broken calls.
    """
    how = how or Sampling()
    bench.set_memory(memory_mb)
    counted: dict[str, list[float]] = {payload.name: [] for payload in payloads}
    for made, payload in enumerate(turns(payloads), start=1):
        if made > 1 and how.pause_s:
            bench.sleep(how.pause_s)
        if made > 1 and how.only_cold:
            bench.renew()
        shot = bench.shoot(payload)
        yield shot
        if shot.failure in {"oom", "timeout"}:
            return
        if shot.failure and not any(name in shot.failure for name in how.allowed):
            raise UsageError(
                f"The payload {payload.name!r} fails at {memory_mb} MB ({shot.failure}); mend it or give --allow-error."
            )
        if how.only_cold or shot.init_ms is None:
            counted[payload.name].append(shot.duration_ms + (shot.init_ms or 0.0))
        enough = sum(map(len, counted.values())) >= FEWEST and precision(list(counted.values())) <= PRECISE
        if enough or made > how.most:
            return


def precision(payloads: Sequence[Sequence[float]]) -> float:
    """The standard error of the mean over the mean, of the durations of each payload; infinite below two of one.

    What the payloads differ by is no part of it: they take turns by their weights, so their shares are not by chance.
    """
    if min(map(len, payloads)) < 2:
        return float("inf")
    count, total = sum(map(len, payloads)), sum(map(sum, payloads))
    variance = sum(len(values) * float(np.var(values, ddof=1)) for values in payloads) / count**2
    return float(np.sqrt(variance)) / (total / count)


def turns(payloads: Sequence[Payload]) -> Iterator[Payload]:
    """Payloads for ever, each as often as its weight says, as evenly spread as can be and the same every time."""
    owed = [0.0] * len(payloads)
    total = sum(p.weight for p in payloads)
    while True:
        owed = [o + p.weight / total for o, p in zip(owed, payloads, strict=True)]
        chosen = max(range(len(owed)), key=lambda i: (round(owed[i], 9), -i))
        owed[chosen] -= 1
        yield payloads[chosen]


def wait_until_updated(client: "LambdaClient", name: str, sleep: Callable[[float], None]) -> None:
    """Returns when the function's last update is through. Raises OpsError if it failed or takes five minutes."""
    for _ in range(600):
        config = client.get_function_configuration(FunctionName=name)
        status, state = config.get("LastUpdateStatus", "Successful"), config.get("State", "Active")
        if status == "Failed" or state == "Failed":
            why = config.get("LastUpdateStatusReason") or config.get("StateReason") or "no reason given"
            raise OpsError(f"AWS could not update {name}: {why}.")
        if status == "Successful" and state in {"Active", "Inactive"}:
            return
        sleep(0.5)
    raise OpsError(f"{name} was still being updated after five minutes; look at it in the console.")


@contextmanager
def in_place(client: "LambdaClient", name: str, sleep: Callable[[float], None] = time.sleep) -> Iterator[Bench]:
    """The function itself; its memory is restored at the end, whatever happens."""
    config = client.get_function_configuration(FunctionName=name)
    before, description = config["MemorySize"], config.get("Description", "")
    is_per_tenant = config.get("TenancyConfig", {}).get("TenantIsolationMode") == "PER_TENANT"
    bench = Bench(client, name, sleep, description, "ops-tune" if is_per_tenant else None)
    try:
        yield bench
    finally:
        wait_until_updated(client, name, sleep)
        now = client.get_function_configuration(FunctionName=name)
        if (now["MemorySize"], now.get("Description", "")) != (before, description):
            client.update_function_configuration(FunctionName=name, MemorySize=before, Description=description)
            wait_until_updated(client, name, sleep)


@contextmanager
def copied(
    client: "LambdaClient",
    name: str,
    copy_name: str,
    download: Callable[[str], bytes],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Bench]:
    """A copy of the code and configuration that serve, or that `name` names, under `copy_name`; deleted at the end.

    The live function, its versions and aliases are only read. `download` gets the code's presigned URL. The copy has no
    tenant isolation and no SnapStart: neither changes how long a warm call takes, and both would cost.
    """
    described = _described(client, name)
    config: Mapping[str, Any] = described["Configuration"]
    if config.get("PackageType", "Zip") != "Zip":
        raise UsageError(f"{name} is a container image, which cannot be copied here; use --in-place.")
    code = download(described["Code"]["Location"])
    wanted = {key: config[key] for key in _CARRIED_OVER if key in config}
    if tracing := wanted.get("TracingConfig"):
        wanted["TracingConfig"] = {"Mode": tracing["Mode"]}
    if layers := config.get("Layers"):
        wanted["Layers"] = [layer["Arn"] for layer in layers]
    if variables := config.get("Environment", {}).get("Variables"):
        wanted["Environment"] = {"Variables": variables}
    if log_format := config.get("LoggingConfig", {}).get("LogFormat"):
        # The same group as the original's role may write to; the copy's lines are told apart by its stream names.
        wanted["LoggingConfig"] = {"LogFormat": log_format, "LogGroup": config["LoggingConfig"]["LogGroup"]}
    description = f"Temporary copy of {name} for tuning; safe to delete"
    try:
        client.create_function(
            FunctionName=copy_name,
            Code={"ZipFile": code},
            MemorySize=config["MemorySize"],
            Description=description,
            **wanted,
        )
        wait_until_updated(client, copy_name, sleep)
        yield Bench(client, copy_name, sleep, description)
    finally:
        delete_if_there(client, copy_name)


def _described(client: "LambdaClient", function: str) -> Mapping[str, Any]:
    """The version that is named, else the one that serves, else $LATEST."""
    name, qualifier = split_name(function)
    try:
        return client.get_function(FunctionName=name, Qualifier=qualifier or SERVING)
    except client.exceptions.ResourceNotFoundException:
        if qualifier:
            raise
        return client.get_function(FunctionName=name)


def delete_if_there(client: "LambdaClient", name: str) -> None:
    """Deletes the function; that it is not there is fine."""
    with suppress(client.exceptions.ResourceNotFoundException):
        client.delete_function(FunctionName=name)


def proxy_event(code: str, stage: str = "dev") -> str:
    """The REST API event of a bare tools/call that runs `code`, as API Gateway would send it."""
    return call_event("execute_python", {"code": code}, stage)


def call_event(tool: str, arguments: Mapping[str, Any], stage: str = "dev") -> str:
    """The REST API event of a bare tools/call of `tool`."""
    params = {"name": tool, "arguments": dict(arguments)}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "Host": "tune.local",
    }
    event = {
        "resource": "/lambda/mcp/",
        "path": "/lambda/mcp/",
        "httpMethod": "POST",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "resourcePath": "/lambda/mcp/",
            "httpMethod": "POST",
            "path": f"/{stage}/lambda/mcp/",
            "protocol": "HTTP/1.1",
            "stage": stage,
            "domainName": "tune.local",
            "identity": {"sourceIp": "127.0.0.1", "userAgent": "ops-tune"},
            "requestId": "tune",
            "accountId": "000000000000",
            "apiId": "tune",
        },
        "body": body,
        "isBase64Encoded": False,
    }
    return json.dumps(event)


def read_payloads(text: str, source: str) -> list[Payload]:
    """Payloads of a file: one event, or power-tuning's weighted list [{"payload": ..., "weight": 30}, ...].

    Raises UsageError if it is neither.
    """
    data = _json(text)
    if isinstance(data, list) and data and all(isinstance(d, dict) and "payload" in d for d in data):
        weights = [d.get("weight", 1) for d in data]
        if all(isinstance(w, int | float) and w > 0 for w in weights):
            bodies = [d["payload"] if isinstance(d["payload"], str) else json.dumps(d["payload"]) for d in data]
            return [Payload(f"{source}#{n}", b, float(w)) for n, (b, w) in enumerate(zip(bodies, weights, strict=True))]
    elif data is not None:
        return [Payload(source, text)]
    raise UsageError(f"{source} holds no event and no list of {{payload, weight}} with weights above 0.")
