"""Given API keys, plans, tenants and snapshots in a template, calls go, or are refused, as they would be on AWS."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError
from local_stack import Start

NOTHING = {"do": "nothing"}


def environment_of(answer: Any) -> tuple[str, int]:
    assert answer.status == 200, answer.body
    return answer.body["environment"], answer.body["invocation"]


def test_each_key_has_environments_of_its_own(start: Start):
    stack = start("--api-key", "of ann", "--api-key", "of bob", "--concurrency", "2", PTenants="yes", PLogFormat="JSON")
    ann = environment_of(stack.call(NOTHING, x_api_key="of ann"))
    bob = environment_of(stack.call(NOTHING, x_api_key="of bob"))
    assert ann[0] != bob[0]
    assert environment_of(stack.call(NOTHING, x_api_key="of ann")) == (ann[0], 2)
    assert environment_of(stack.call(NOTHING, x_api_key="of bob")) == (bob[0], 2)
    assert stack.call(NOTHING, x_api_key="of nobody").status == 403
    seen = stack.call({"do": "context"}, x_api_key="of ann").body["answer"]
    starts = [json.loads(line)["record"] for line in stack.log_lines("platform.report", 5) if "platform.start" in line]
    assert {record["tenantId"] for record in starts} == {seen["tenant"], "local00001"}
    assert seen["tenant"] == "local00000"
    lam = stack.client("lambda")
    assert lam.get_function_configuration(FunctionName="echo")["TenancyConfig"] == {"TenantIsolationMode": "PER_TENANT"}
    with pytest.raises(ClientError, match="Add a valid tenant ID"):
        lam.invoke(FunctionName="echo", Payload=b"{}")
    answer = lam.invoke(FunctionName="echo", TenantId=seen["tenant"], Payload=b'{"do": "context"}')
    assert json.loads(json.loads(answer["Payload"].read())["body"])["environment"] == ann[0]


def test_without_tenants_a_tenant_is_refused(start: Start):
    with pytest.raises(ClientError, match="Remove the tenant ID"):
        start().client("lambda").invoke(FunctionName="echo", TenantId="ann", Payload=b"{}")


def test_the_usage_plan_holds_each_key_by_itself(start: Start):
    stack = start("--api-key", "of ann", "--api-key", "of bob", PQuota="2")
    statuses = [stack.call(NOTHING, x_api_key="of ann").status for _ in range(2)]
    refused = stack.call(NOTHING, x_api_key="of ann")
    assert (statuses, refused.status, refused.body) == ([200, 200], 429, {"message": "Limit Exceeded"})
    assert refused.headers["x-amzn-ErrorType"] == "LimitExceededException"
    assert stack.call(NOTHING, x_api_key="of bob").status == 200


def test_past_the_rate_it_is_too_many_requests(start: Start):
    stack = start("--api-key", "key", PRateLimit="2")
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: stack.call({"do": "sleep", "seconds": 1}, x_api_key="key"), range(8)))
    refused = [answer for answer in answers if answer.status == 429]
    assert refused
    assert {tuple(answer.body.items()) for answer in refused} == {(("message", "Too Many Requests"),)}
    assert {answer.status for answer in answers} == {200, 429}


def test_scaling_out_has_a_rate(start: Start):
    stack = start("--scale-out", "1", "--concurrency", "5")
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(stack.call, [{"do": "sleep", "seconds": 1}] * 3))
    assert sorted(answer.status for answer in answers) == [200, 500, 500]
    assert stack.call(NOTHING).status == 200  # by the one environment there is


def test_reserved_concurrency_of_the_template_is_a_limit(start: Start):
    stack = start(PConcurrency="1")
    assert stack.client("lambda").get_function_concurrency(FunctionName="echo")["ReservedConcurrentExecutions"] == 1
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(stack.call, [{"do": "sleep", "seconds": 1}] * 2))
    assert sorted(answer.status for answer in answers) == [200, 500]


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_a_snapshot_is_restored_where_there_would_be_an_init(start: Start, log_format: str):
    stack = start(PSnapStart="yes", PLogFormat=log_format, PHandler="snapshot.handler")
    lam = stack.client("lambda")
    assert lam.get_alias(FunctionName="echo", Name="live")["FunctionVersion"] == "1"
    configuration = lam.get_function_configuration(FunctionName="echo", Qualifier="live")
    assert configuration["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "On"}
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(stack.call, [{"do": "look", "wait": 1}] * 2))
    for answer in answers:
        seen = answer.body["answer"]["environ"]
        assert (seen["AWS_LAMBDA_INITIALIZATION_TYPE"], seen["HOOKS"]) == ("snap-start", "before after")
        assert seen["AWS_LAMBDA_FUNCTION_VERSION"] == "1"
        assert "AWS_LAMBDA_LOG_STREAM_NAME" not in seen
    assert len({environment_of(answer)[0] for answer in answers}) == 2
    environment_of(stack.call(NOTHING))
    lines = stack.log_lines("REPORT RequestId" if log_format == "Text" else "platform.report", 3)
    reports = [line for line in lines if line.startswith("REPORT") or '"platform.report"' in line]
    restored = ["Billed Restore Duration: " in line or "billedRestoreDurationMs" in line for line in reports]
    assert sorted(restored) == [False, True, True]
    assert not any("Init Duration" in line or "initDurationMs" in line for line in reports)
    for kind in ("RESTORE_START", "RESTORE_REPORT") if log_format == "Text" else ("restoreStart", "restoreReport"):
        assert sum(kind in line for line in lines) == 2
