"""Calls a version of the function through Lambda's Invoke, many at one instant, each as API Gateway would pass it on.

The only way to an alias that no stage points to. Every call leaves a row like any other request's, and the REPORT that
Invoke gives back as the second word on whether it was cold. It changes nothing in AWS.
"""

import base64
import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from load.rows import Outcome, Row
from load.scenarios import SCENARIOS, Request, Verdict, build_request, judge_answer, parse_server_timing
from load.server_side import ServerCall, parse_report

PATH = "/lambda/mcp/"


@dataclass(frozen=True, slots=True)
class Burst:
    """`size` calls of one scenario at one instant to one alias or version; rows count from `first_index`."""

    function: str
    qualifier: str
    stage: str
    size: int
    scenario: str
    era: str
    first_index: int
    tenant: str | None = None

    def address(self) -> dict[str, str]:
        """Whom Invoke is to call; a function with tenant isolation wants a tenant named."""
        named = {} if self.tenant is None else {"TenantId": self.tenant}
        return {"FunctionName": self.function, "Qualifier": self.qualifier, **named}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: HTTP as the gateway would have told it, and the REPORT if Invoke gave one."""

    status: int | None
    headers: Mapping[str, str]
    body: bytes
    verdict: Verdict
    report: ServerCall | None


def send_burst(client: Any, burst: Burst, anchor_s: float, record: Callable[[Row, ServerCall | None], None]) -> None:
    """Sends all calls at once and hands each row, with its REPORT, to `record` in the order they end.

    Connections are opened before, by a dry run that starts no environment: otherwise only the first burst would pay for
    them. `anchor_s` is the run's zero on time.monotonic. On KeyboardInterrupt what was sent is waited for and recorded.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    event = json.dumps(proxy_event(build_request(SCENARIOS[burst.scenario], burst.era))).encode()
    go, stop, lock = threading.Event(), threading.Event(), threading.Lock()
    opened = threading.Semaphore(0)
    at_s = 0.0

    def one(number: int) -> None:
        try:
            client.invoke(**burst.address(), InvocationType="DryRun")
        except (BotoCoreError, ClientError):
            pass  # the call itself will say what is wrong
        finally:
            opened.release()
        go.wait()
        if stop.is_set():
            return
        sent_s = time.monotonic() - anchor_s
        answer = invoke(client, burst, event)
        done_s = time.monotonic() - anchor_s
        row = _row(burst, burst.first_index + number, at_s, sent_s, done_s, answer)
        with lock:
            record(row, answer.report)

    with ThreadPoolExecutor(burst.size) as threads:
        calls = [threads.submit(one, number) for number in range(burst.size)]
        try:
            for _ in calls:
                opened.acquire()
        except KeyboardInterrupt:
            stop.set()
            raise
        finally:
            at_s = time.monotonic() - anchor_s
            go.set()
        for call in calls:
            call.result()


def invoke(client: Any, burst: Burst, event: bytes) -> Answer:
    """One call and its judged answer; what goes wrong is a verdict, not an exception."""
    from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

    try:
        told = client.invoke(**burst.address(), LogType="Tail", Payload=event)
        payload = told["Payload"].read()
    except ReadTimeoutError as error:
        return _failed("timeout", str(error))
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        said = error.response["Error"]
        return _failed("http_error", f"Invoke: {said.get('Code')}: {said.get('Message')}", status)
    except BotoCoreError as error:
        return _failed("connect_error", str(error))
    report = _report(told.get("LogResult"))
    if "FunctionError" in told:
        said = payload[:200].decode(errors="replace")
        return _failed("http_error", f"the function failed ({told['FunctionError']}): {said}", 502, report)
    return _read(burst.scenario, payload, report)


def _failed(outcome: Outcome, error: str, status: int | None = None, report: ServerCall | None = None) -> Answer:
    return Answer(status, {}, b"", Verdict(outcome, " ".join(error.split())[:300]), report)


def _read(scenario: str, payload: bytes, report: ServerCall | None) -> Answer:
    """The HTTP answer in a proxy response (Lambda developer guide, "Output format of a Lambda function for proxy")."""
    try:
        document = json.loads(payload)
        many = {name.lower(): str(values[0]) for name, values in (document.get("multiValueHeaders") or {}).items()}
        headers = {name.lower(): str(value) for name, value in (document.get("headers") or {}).items()} | many
        text = document.get("body") or ""
        body = base64.b64decode(text) if document.get("isBase64Encoded") else text.encode()
        status = int(document["statusCode"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        said = payload[:120].decode(errors="replace")
        return _failed("http_error", f"the function's answer is no proxy response: {said}", 502, report)
    return Answer(
        status, headers, body, judge_answer(SCENARIOS[scenario], status, headers.get("content-type", ""), body), report
    )


def _report(log_result: str | None) -> ServerCall | None:
    """The REPORT in the last 4 KB of the call's log, which Invoke returns in base64."""
    lines = base64.b64decode(log_result or "").decode(errors="replace").splitlines()
    return next((call for line in reversed(lines) if (call := parse_report(line)) is not None), None)


def _row(burst: Burst, index: int, at_s: float, sent_s: float, done_s: float, answer: Answer) -> Row:
    headers = answer.headers
    invocation = int(told) if (told := headers.get("x-lambda-invocation", "")).isdecimal() else None
    request_id = headers.get("x-lambda-request-id") or (answer.report.request_id if answer.report else None)
    timing = headers.get("server-timing")
    return Row(
        index=index,
        stage=burst.stage,
        scenario=burst.scenario,
        era=burst.era,
        intended_s=round(at_s, 6),
        sent_s=round(max(sent_s, at_s), 6),
        first_byte_s=None,
        done_s=round(done_s, 6),
        latency_ms=round((done_s - at_s) * 1000, 3),
        service_ms=round((done_s - sent_s) * 1000, 3),
        status=answer.status,
        outcome=answer.verdict.outcome,
        error=answer.verdict.error or None,
        lambda_request_id=request_id,
        environment_id=headers.get("x-lambda-environment-id"),
        invocation=invocation,
        init_type=headers.get("x-lambda-init-type"),
        cold=None if invocation is None else invocation == 1,
        server_timing=parse_server_timing(timing) if timing else None,
        bytes=len(answer.body),
    )


def proxy_event(request: Request) -> dict[str, Any]:
    """The event of a REST API's proxy integration, version 1.0, for a POST of the request to PATH."""
    headers = {**request.headers, "Host": "coldstart.invalid", "X-Forwarded-Proto": "https", "User-Agent": "load"}
    return {
        "resource": PATH,
        "path": PATH,
        "httpMethod": "POST",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "resourcePath": PATH,
            "httpMethod": "POST",
            "path": PATH,
            "protocol": "HTTP/1.1",
            "stage": "coldstart",
            "requestId": str(uuid.uuid4()),
            "requestTimeEpoch": int(time.time() * 1000),
            "identity": {"sourceIp": "127.0.0.1", "userAgent": "load"},
            "domainName": "coldstart.invalid",
            "apiId": "coldstart",
            "accountId": "000000000000",
        },
        "body": request.body.decode(),
        "isBase64Encoded": False,
    }
