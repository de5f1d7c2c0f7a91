"""Given facts that are right but for one, the doctor names that one and how to mend it, and nothing else."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest

from ops import diagnosis, doctor
from ops.__main__ import run
from ops.command import Surroundings
from ops.invocations import fold
from ops.logs import LogEvent
from ops.probes import Answer, Asked, Facts, allowed_actions, ask_endpoint, call

URL = "https://abc.execute-api.us-east-1.amazonaws.com/dev/lambda/mcp/"
ARN = "arn:aws:lambda:us-east-1:111122223333:layer:interpreter:7"
INFO = {
    "limits": {"timeout_s": 25.0},
    "confinement": [
        {"name": name, "active": name != "seccomp"}
        for name in ("process", "rlimits", "sweep", "wipe", "credentials", "audit-hook", "seccomp")
    ],
}


def ledger(*reports):
    lines = (
        f"REPORT RequestId: r{n}\tDuration: {duration} ms\tBilled Duration: 9 ms\tMemory Size: 1024 MB\t"
        f"Max Memory Used: {used} MB\t{status}"
        for n, (duration, used, status) in enumerate(reports)
    )
    return fold(LogEvent(1000 + n, 1000 + n, "g", f"s{n}", f"{n}", line) for n, line in enumerate(lines))


GOOD = Answer(URL, 200, result=INFO, elapsed_ms=20)
CONFIG = {
    "State": "Active",
    "LastUpdateStatus": "Successful",
    "Timeout": 60,
    "Runtime": "python3.12",
    "Architectures": ["x86_64"],
    "Layers": [{"Arn": ARN}],
    "LoggingConfig": {"LogFormat": "JSON"},
}
WELL = Facts(
    endpoint=URL,
    key_given=True,
    environment=GOOD,
    other_slash=replace(GOOD, url=URL.rstrip("/")),
    without_key=Answer(URL, 403, error_type="ForbiddenException", message="Forbidden"),
    imports=Answer(URL, 200, result={"success": True}),
    function_name="code-interpreter",
    function=Asked(CONFIG),
    concurrency=Asked({"ReservedConcurrentExecutions": 50}),
    policy=Asked({"Policy": '{"Principal": {"Service": "apigateway.amazonaws.com"}}'}),
    layers={ARN: Asked({"CompatibleRuntimes": ["python3.12"], "CompatibleArchitectures": ["x86_64"]})},
    log_group=Asked({"logGroupName": "/aws/lambda/code-interpreter", "retentionInDays": 30}),
    role_actions=Asked({"logs:CreateLogStream": "logs-only", "logs:PutLogEvents": "logs-only"}),
    region="us-east-1",
    bucket_name="deployments",
    bucket=Asked({"BucketRegion": "us-east-1"}),
    recent=ledger((10, 200, ""), (12, 300, "")),
)


def refusing(status, error_type=None, message=""):
    return {"environment": Answer(URL, status, error_type=error_type, message=message), "imports": None}


def with_config(**changes):
    return {"function": Asked(CONFIG | changes)}


def test_a_deployment_in_order_has_nothing_wrong():
    findings = diagnosis.diagnose(WELL)
    assert [f for f in findings if f.level != "ok"] == []
    assert doctor.exit_code(findings) == 0


@pytest.mark.parametrize(
    ("broken", "finding", "code", "mend"),
    [
        pytest.param(
            {"environment": Answer(URL, problem="Connection refused"), "other_slash": None, "imports": None},
            "endpoint", 3, "check the URL", id="dead-endpoint",
        ),
        pytest.param(
            refusing(403, "MissingAuthenticationTokenException", "Missing Authentication Token"),
            "stage", 3, "get-stages --rest-api-id abc`", id="wrong-stage-or-path",
        ),
        pytest.param(refusing(403, "ForbiddenException", "Forbidden"), "key", 3, "MCP_API_KEY", id="wrong-key"),
        pytest.param(refusing(404), "stage", 3, "/lambda/mcp/", id="not-found"),
        pytest.param(refusing(429, message="Too Many Requests"), "throttled", 1, "P_RATE_LIMIT", id="throttled"),
        pytest.param(refusing(429, message="Limit Exceeded"), "throttled", 1, "P_QUOTA_DAY", id="quota"),
        pytest.param({"other_slash": Answer(URL, 429)}, "throttled", 1, "P_RATE_LIMIT", id="throttled-later"),
        pytest.param({"imports": Answer(URL, 429)}, "throttled", 1, "P_RATE_LIMIT", id="throttled-at-last"),
        pytest.param(refusing(502), "function-fails", 1, "logs errors", id="function-fails"),
        pytest.param(refusing(504), "gateway-timeout", 1, "logs errors", id="gateway-timeout"),
        pytest.param(refusing(200), "protocol", 1, "/lambda/mcp/", id="another-server"),
        pytest.param({"other_slash": Answer(URL, 307)}, "trailing-slash", 1, "openapi.yaml", id="slash-redirects"),
        pytest.param({"without_key": GOOD}, "open", 1, "P_AUTH=api_key", id="key-not-required"),
        pytest.param({"key_given": False, "without_key": None}, "open", 1, "P_AUTH=api_key", id="open-to-the-world"),
        pytest.param(
            {"imports": Answer(URL, 200, result={"success": False, "error": {"message": "No module named 'numpy'"}})},
            "libraries", 1, "make layer", id="layer-not-importable",
        ),
        pytest.param(
            {"environment": replace(GOOD, result=INFO | {"confinement": INFO["confinement"][1:]})},
            "isolation", 1, "make apigw", id="isolation-off",
        ),
        pytest.param(
            {"environment": replace(GOOD, result=INFO | {"limits": {"timeout_s": 28.0}})},
            "timeout-gateway", 1, "25 s or less", id="soft-limit-past-the-gateway",
        ),
        pytest.param(with_config(Timeout=26), "timeout-function", 1, "P_FN_TIMEOUT=28", id="timeout-below-soft-limit"),
        pytest.param(with_config(State="Failed", StateReason="x"), "function", 1, "make apigw", id="function-failed"),
        pytest.param(with_config(LastUpdateStatus="Failed"), "function", 1, "make apigw", id="update-failed"),
        pytest.param({"function": Asked(missing=True)}, "function", 1, "P_FN_NAME", id="no-such-function"),
        pytest.param({"layers": {ARN: Asked(missing=True)}}, "layer-arn", 1, "make layer", id="layer-gone"),
        pytest.param({"layers": {ARN[:-2]: Asked({})}}, "layer-arn", 1, "layer-versions", id="arn-no-version"),
        pytest.param(
            {"layers": {ARN: Asked({"CompatibleRuntimes": ["python3.11"]})}}, "layer-arn", 1, "make layer", id="runtime"
        ),
        pytest.param(
            {"layers": {ARN: Asked({"CompatibleArchitectures": ["arm64"]})}}, "layer-arn", 1, "make layer", id="arch"
        ),
        pytest.param(
            {"concurrency": Asked({"ReservedConcurrentExecutions": 0})},
            "concurrency", 1, "delete-function-concurrency", id="concurrency-zero",
        ),
        pytest.param(
            {"concurrency": Asked({"ReservedConcurrentExecutions": 1})},
            "concurrency", 1, "put-function-concurrency", id="concurrency-used-up",
        ),
        pytest.param({"recent": ledger((10, 950, ""))}, "memory", 1, "P_FN_MEMORY=1472", id="memory-scarce"),
        pytest.param(
            {"recent": ledger((10, 500, "Status: error\tError Type: Runtime.OutOfMemory"))},
            "memory", 1, "P_FN_MEMORY=", id="out-of-memory",
        ),
        pytest.param({"recent": ledger((10, 200, "Status: timeout"))}, "timed-out", 1, "tune timeout", id="timed-out"),
        pytest.param({"log_group": Asked(missing=True)}, "log-group", 1, "logs:PutLogEvents", id="no-log-group"),
        pytest.param(
            {"log_group": Asked({"logGroupName": "g"})}, "log-retention", 1, "put-retention-policy", id="kept-for-ever"
        ),
        pytest.param({"role_actions": Asked({"s3:*": "Admin"})}, "role", 1, "remove those", id="role-too-wide"),
        pytest.param({"role_actions": Asked({"*": "Admin"})}, "role", 1, "remove those", id="role-all"),
        pytest.param({"bucket": Asked(missing=True)}, "bucket", 1, "aws s3 mb s3://deployments", id="no-bucket"),
        pytest.param({"bucket": Asked(refused="HeadBucket: 403")}, "bucket", 1, "s3:PutObject", id="bucket-not-ours"),
        pytest.param(
            {"bucket": Asked({"BucketRegion": "eu-west-1"})}, "bucket", 1, "--region us-east-1", id="bucket-elsewhere"
        ),
    ],
)  # fmt: skip
def test_one_thing_broken_is_one_thing_named(broken, finding, code, mend):
    findings = diagnosis.diagnose(replace(WELL, **broken))
    wrong = [f for f in findings if f.level == "wrong"]
    assert [f.id for f in wrong] == [finding]
    assert mend in wrong[0].mend
    assert doctor.exit_code(findings) == code


def test_what_waits_in_latest_is_told_beside_what_serves():
    told = replace(WELL, qualifier="live", latest=Asked(CONFIG | {"Timeout": 30, "CodeSha256": "x"}))
    (says,) = (f.says for f in diagnosis.diagnose(told) if f.id == "function")
    assert says == (
        "code-interpreter:live is active, last update successful; "
        "$LATEST has another code, timeout, which a release brings: `make gate FUNCTION=code-interpreter`."
    )
    (same,) = (f.says for f in diagnosis.diagnose(replace(told, latest=Asked(CONFIG))) if f.id == "function")
    assert same == "code-interpreter:live is active, last update successful."


def test_a_function_that_the_gateway_may_not_invoke():
    facts = replace(WELL, policy=Asked(missing=True), **refusing(500))
    assert {f.id for f in diagnosis.diagnose(facts) if f.level == "wrong"} == {"function-fails", "permission"}


@pytest.mark.parametrize(
    ("broken", "finding"),
    [
        pytest.param({"function": Asked(refused="GetFunction: AccessDenied")}, "function", id="function"),
        pytest.param({"concurrency": Asked(refused="GetConcurrency: AccessDenied")}, "concurrency", id="concurrency"),
        pytest.param({"layers": {ARN: Asked(refused="GetLayerVersion: AccessDenied")}}, "layer-arn", id="layer"),
        pytest.param({"log_group": Asked(refused="DescribeLogGroups: AccessDenied")}, "log-group", id="log-group"),
        pytest.param({"role_actions": Asked(refused="ListRolePolicies: AccessDenied")}, "role", id="role"),
        pytest.param({"recent": ledger()}, "memory", id="no-invocations"),
    ],
)  # fmt: skip
def test_what_could_not_be_asked_is_unknown_and_not_fine(broken, finding):
    by_id = {f.id: f.level for f in diagnosis.diagnose(replace(WELL, **broken))}
    assert by_id[finding] == "unknown"


def test_nothing_asked_is_inconclusive():
    assert doctor.exit_code(diagnosis.diagnose(Facts())) == 4


def served(handler):
    return httpx.Client(transport=httpx.MockTransport(handler))


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(
            httpx.Response(
                200,
                headers={"content-type": "text/event-stream"},
                text='event: message\ndata: {"result": {"structuredContent": {"a": 1}}}\n\n',
            ),
            id="sse",
        ),
        pytest.param(httpx.Response(200, json={"result": {"structuredContent": {"a": 1}}}), id="json"),
    ],
)
def test_both_shapes_of_answer_are_read(response):
    assert call(served(lambda _: response), URL, "t", {}, None).result == {"a": 1}


def test_the_key_is_sent_only_where_it_should_be_and_never_kept():
    seen = []

    def handler(request):
        seen.append((str(request.url), request.headers.get("x-api-key")))
        return httpx.Response(200, json={"result": {"structuredContent": INFO}})

    facts = ask_endpoint(URL, "secret-key", served(handler))
    assert seen == [(URL, "secret-key"), (URL.rstrip("/"), "secret-key"), (URL, None), (URL, "secret-key")]
    assert "secret-key" not in repr(facts)


def test_a_dead_endpoint_is_asked_once():
    def refuse(request):
        raise httpx.ConnectError("Connection refused")

    facts = ask_endpoint(URL, None, served(refuse))
    assert facts["environment"].problem == "Connection refused"
    assert "other_slash" not in facts


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param({"Statement": {"Effect": "Allow", "Action": "s3:Get*"}}, ["s3:Get*"], id="single"),
        pytest.param(
            {"Statement": [{"Effect": "Allow", "Action": ["a:B", "c:D"]}, {"Effect": "Deny", "Action": "e:F"}]},
            ["a:B", "c:D"],
            id="lists-and-a-deny",
        ),
        pytest.param('{"Statement": [{"Effect": "Allow", "Action": "a:B"}]}', ["a:B"], id="as-text"),
    ],
)
def test_the_actions_a_policy_allows(document, expected):
    assert allowed_actions(document) == expected


def test_the_command_writes_findings_and_exits_with_the_verdict(tmp_path):
    around = Surroundings(lambda: datetime(2026, 11, 24, tzinfo=UTC), UTC, out=io.StringIO(), err=io.StringIO())
    argv = ["doctor", "--endpoint", "http://127.0.0.1:9/dev/lambda/mcp/", "--no-aws", "--out", str(tmp_path)]
    assert run(argv, around) == 3
    assert "WRONG    endpoint: http://127.0.0.1:9/dev/lambda/mcp/ does not answer" in around.out.getvalue()
    rows = [json.loads(line) for line in (tmp_path / "findings.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["endpoint"]
