"""Given a local stack that is broken in one way, `ops doctor` names that way and nothing else."""

import importlib.util
import json
import os
import shutil
import socket
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from local_stack import archive, publish_what_cannot_start
from ops_stack import ROOT, call, client_of, ops, running

KEY = "a-key-of-the-plan"
LAYER = "arn:aws:lambda:us-east-1:123456789012:layer:interpreter:2"
REDIRECTS = """
import json
def handler(event, context):
    if not event["path"].endswith("/"):
        return {"statusCode": 307, "headers": {"Location": event["path"] + "/"}}
    answer = {"jsonrpc": "2.0", "id": 1, "result": {"structuredContent": {"success": True}}}
    return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps(answer)}
"""
NO_MCP = """
def handler(event, context):
    return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": '{"hello": "world"}'}
"""


@pytest.fixture(scope="module")
def stack():
    with running() as ready:
        yield ready


@pytest.fixture
def client(stack):
    return lambda service: client_of(stack, service)


def examine(stack, out, *more, endpoint=None, function=None, **settings):
    """`ops doctor`'s exit code, and what it called wrong: {id: what it says}."""
    argv = ["--endpoint", endpoint or stack["endpoint"], "--function", function or stack["function_name"]]
    done = ops(stack, "doctor", "--json", "--out", str(out), *argv, *more, **settings)
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert findings, done.stderr
    return done.returncode, {f["id"]: f["says"] for f in findings if f["level"] == "wrong"}


@pytest.fixture
def doctor(stack, tmp_path):
    def named(*more, **settings):
        code, wrong = examine(stack, tmp_path, *more, **settings)
        return code, set(wrong)

    return named


def wait(api, waiter, **asked):
    waiting = api.get_waiter(waiter)
    waiting.config.delay = 0.05
    waiting.wait(**asked)


def release(api, name, code=None, **change):
    """Changes $LATEST, publishes it and moves the alias `live` to it, as a deployment does. The version before."""
    if code is not None:
        api.update_function_code(FunctionName=name, ZipFile=archive(code))
        wait(api, "function_updated_v2", FunctionName=name)
    api.update_function_configuration(FunctionName=name, **change)
    wait(api, "function_updated_v2", FunctionName=name)
    version = api.publish_version(FunctionName=name)["Version"]
    wait(api, "published_version_active", FunctionName=name, Qualifier=version)
    before = api.get_alias(FunctionName=name, Name="live")["FunctionVersion"]
    api.update_alias(FunctionName=name, Name="live", FunctionVersion=version)
    return before


@contextmanager
def released(api, name, **change):
    before = release(api, name, **change)
    try:
        yield
    finally:
        api.update_alias(FunctionName=name, Name="live", FunctionVersion=before)


def test_the_stack_as_it_is_has_nothing_wrong(doctor):
    assert doctor() == (0, set())


# -- the endpoint -------------------------------------------------------------------------------------------------


def test_a_wrong_stage_is_named(stack, doctor):
    assert doctor(endpoint=stack["endpoint"].replace("/dev/", "/prod/")) == (3, {"stage"})


def test_a_dead_endpoint_is_named(doctor):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/dev/lambda/mcp/"
        assert doctor(endpoint=url) == (3, {"endpoint"})


def test_a_key_that_nobody_asks_for_is_named(doctor):
    assert doctor(MCP_API_KEY="a-key-of-ours") == (1, {"open"})


def test_a_quota_that_is_used_up_is_named(tmp_path):
    with running("--api-key", KEY, "--parameter", "PQuotaDay=1") as stack:
        for _ in ("by the doctor's second call", "before its first"):
            assert examine(stack, tmp_path, MCP_API_KEY=KEY) == (
                1,
                {"throttled": "The key's quota is used up (429 Limit Exceeded)."},
            )


def test_a_gateway_that_gives_up_is_named(tmp_path):
    """Its first call is a cold start, which takes longer than the 50 ms that this integration waits."""
    template = (ROOT / "sam" / "template.yaml").read_text()
    assert "CodeUri: ../function" in template
    (tmp_path / "template.yaml").write_text(template.replace("CodeUri: ../function", f"CodeUri: {ROOT / 'function'}"))
    integration = "type: aws_proxy\n"
    api = (ROOT / "sam" / "openapi.yaml").read_text()
    (tmp_path / "openapi.yaml").write_text(api.replace(integration, f"{integration}        timeoutInMillis: 50\n"))
    with running("--template", str(tmp_path / "template.yaml")) as stack:
        code, wrong = examine(stack, tmp_path)
        assert (code, set(wrong)) == (1, {"gateway-timeout"})


@pytest.mark.parametrize(
    ("code", "finding"),
    [pytest.param(REDIRECTS, "trailing-slash", id="redirect"), pytest.param(NO_MCP, "protocol", id="another-server")],
)
def test_another_function_is_named(another, tmp_path, code, finding):
    release(client_of(another, "lambda"), another["function_name"], code, Environment={"Variables": {}})
    told, wrong = examine(another, tmp_path, "--no-aws")
    assert (told, set(wrong)) == (1, {finding})


def test_a_missing_key_and_a_function_that_does_not_start_and_a_log_group_that_is_gone_are_named(tmp_path):
    with running("--api-key", KEY, "--env", "INTERPRETER_REQUIRE=kernel") as stack:
        code, wrong = examine(stack, tmp_path, "--no-aws")
        assert (code, set(wrong)) == (3, {"key"})
        code, wrong = examine(stack, tmp_path, MCP_API_KEY=KEY)
        assert (code, set(wrong)) == (1, {"function-fails"})
        client_of(stack, "logs").delete_log_group(logGroupName=stack["log_group"])
        done = ops(stack, "doctor", "--json", "--function", stack["function_name"], "--out", str(tmp_path))
        wrong = {f["id"] for f in map(json.loads, done.stdout.splitlines()) if f["level"] == "wrong"}
        assert (done.returncode, wrong) == (1, {"log-group"})


# -- the function -------------------------------------------------------------------------------------------------


def test_an_unknown_function_is_named(doctor):
    assert doctor(function="no-such-function") == (1, {"function"})


def test_a_version_that_failed_is_named(client, tmp_path, stack):
    api = client("lambda")
    publish_what_cannot_start(api, "raise RuntimeError('not today')")
    try:
        code, wrong = examine(stack, tmp_path, function="broken:1")
        assert (code, wrong["function"]) == (
            1,
            "broken:1 is Failed, last update Successful: The function failed to initialize: RuntimeError.",
        )
        assert "function" not in examine(stack, tmp_path, function="broken")[1]
    finally:
        api.delete_function(FunctionName="broken")


def test_a_release_that_cannot_start_is_named(tmp_path):
    with running("--parameter", "PIsolation=snap_start", "--env", "INTERPRETER_REQUIRE=kernel") as stack:
        code, wrong = examine(stack, tmp_path)
        assert (code, set(wrong)) == (1, {"function-fails", "function"})
        assert "SettingsError" in wrong["function"]
        done = ops(stack, "logs", "errors", "--out", str(tmp_path))
        assert "init: INIT_REPORT error SettingsError, <n> ms, snap-start" in done.stdout


def test_a_layer_that_is_gone_or_for_another_runtime_is_named(another, tmp_path):
    api = client_of(another, "lambda")
    gone = examine(another, tmp_path, function=another["function_name"])[1]
    assert gone["layer-arn"] == f"The layer {LAYER} does not exist any more."
    for runtime in ("python3.12", "python3.11"):
        api.publish_layer_version(LayerName="interpreter", Content={"ZipFile": b"x"}, CompatibleRuntimes=[runtime])
    assert "is for ['python3.11']" in examine(another, tmp_path)[1]["layer-arn"]


@pytest.fixture(scope="module")
def another():
    with running("--parameter", f"PLayerArn={LAYER}") as ready:
        yield ready


def test_libraries_that_are_not_in_the_layer_are_named(tmp_path):
    origin = importlib.util.find_spec("awslambdaric").origin
    site = Path(origin).parents[1]
    heavy = (
        "scipy*",
        "moto*",
        "boto*",
        "mypy*",
        "ruff*",
        "pandas*",
        "locust*",
        "cfnlint*",
        "samtranslator*",
        "skimage*",
    )
    left_out = shutil.ignore_patterns("numpy", "numpy.libs", "numpy-*", "__pycache__", *heavy)
    layer = tmp_path / "layer"
    shutil.copytree(site, layer / "python", ignore=left_out, copy_function=_linked, symlinks=True)
    for path in (tmp_path, layer, layer / "python"):
        path.chmod(0o755)
    with running("--layer", str(layer)) as stack:
        code, wrong = examine(stack, tmp_path)
        assert (code, set(wrong)) == (1, {"libraries"})
        assert "No module named 'numpy'" in wrong["libraries"]


def _linked(source, target):
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def test_confinement_that_is_off_and_a_limit_past_the_gateways_are_named(tmp_path):
    with running("--env", "INTERPRETER_AUDIT_HOOK=off", "--env", "INTERPRETER_TIMEOUT_S=28") as stack:
        code, wrong = examine(stack, tmp_path)
        assert (code, set(wrong)) == (1, {"isolation", "timeout-gateway"})


def test_a_timeout_below_the_interpreters_own_is_named(stack, client, doctor):
    with released(client("lambda"), stack["function_name"], Timeout=20):
        assert doctor() == (1, {"timeout-function"})


def test_what_was_changed_in_latest_alone_is_told_and_nothing_is_wrong(stack, client, tmp_path):
    api, name = client("lambda"), stack["function_name"]
    before = api.get_function_configuration(FunctionName=name)["MemorySize"]
    api.update_function_configuration(FunctionName=name, MemorySize=before + 64)
    wait(api, "function_updated_v2", FunctionName=name)
    try:
        assert examine(stack, tmp_path) == (0, {})
        assert "$LATEST has another memory" in (tmp_path / "findings.jsonl").read_text()
    finally:
        api.update_function_configuration(FunctionName=name, MemorySize=before)
        wait(api, "function_updated_v2", FunctionName=name)


def test_too_little_time_and_memory_are_named(tmp_path):
    """The interpreter ends what would outlast the function, so the line of one that was cut off is written here."""
    with running("--timeout", "20", "--memory", "256") as stack:
        call(stack["endpoint"], "1")
        metrics = {"durationMs": 20000.0, "billedDurationMs": 20000, "memorySizeMB": 256, "maxMemoryUsedMB": 250}
        record = {"requestId": "3f6c1a52-0b1e-4b35-9d3c-1f1c7f1f8a11", "status": "timeout", "metrics": metrics}
        message = json.dumps({"type": "platform.report", "record": record})
        logs, stream = client_of(stack, "logs"), {"logGroupName": stack["log_group"], "logStreamName": "one-more"}
        logs.create_log_stream(**stream)
        at = int(datetime.now(UTC).timestamp() * 1000)
        logs.put_log_events(**stream, logEvents=[{"timestamp": at, "message": message}])
        code, wrong = examine(stack, tmp_path)
        assert (code, set(wrong)) == (1, {"timeout-function", "timed-out", "memory"})


def test_reserved_concurrency_of_zero_is_named(stack, client, doctor):
    api, name = client("lambda"), stack["function_name"]
    api.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    try:
        assert doctor() == (1, {"function-fails", "concurrency"})
    finally:
        api.delete_function_concurrency(FunctionName=name)


def test_reserved_concurrency_that_is_used_up_is_named(stack, client, doctor):
    api, name = client("lambda"), stack["function_name"]
    call(stack["endpoint"], "1")
    api.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    try:
        assert doctor() == (1, {"concurrency"})
    finally:
        api.delete_function_concurrency(FunctionName=name)


def test_a_policy_that_does_not_let_the_gateway_in_is_named(stack, client, doctor):
    api, of = client("lambda"), {"FunctionName": stack["function_name"], "Qualifier": "live"}
    (statement,) = json.loads(api.get_policy(**of)["Policy"])["Statement"]
    api.remove_permission(**of, StatementId=statement["Sid"])
    try:
        assert doctor() == (1, {"function-fails", "permission"})
    finally:
        api.add_permission(
            **of,
            StatementId=statement["Sid"],
            Action=statement["Action"],
            Principal=statement["Principal"]["Service"],
            SourceArn=statement["Condition"]["ArnLike"]["AWS:SourceArn"],
        )


# -- what lies around it ------------------------------------------------------------------------------------------


def test_a_log_group_kept_for_ever_is_named(stack, client, doctor):
    api, name = client("logs"), stack["log_group"]
    days = int(api.describe_log_groups(logGroupNamePrefix=name)["logGroups"][0]["retentionInDays"])
    api.delete_retention_policy(logGroupName=name)
    try:
        assert doctor() == (1, {"log-retention"})
    finally:
        api.put_retention_policy(logGroupName=name, retentionInDays=days)


def test_the_log_format_is_read(stack, tmp_path):
    done = ops(stack, "doctor", "--json", "--out", str(tmp_path), "--function", stack["function_name"])
    assert {f["says"] for f in map(json.loads, done.stdout.splitlines()) if f["id"] == "log-format"} == {
        "Log format JSON."
    }


def test_a_role_that_allows_more_than_logs_is_named(stack, client, doctor):
    role = client("lambda").get_function_configuration(FunctionName=stack["function_name"])["Role"].rpartition("/")[2]
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam = client("iam")
    iam.put_role_policy(RoleName=role, PolicyName="wide", PolicyDocument=json.dumps(document))
    try:
        assert doctor() == (1, {"role"})
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="wide")


def test_a_bucket_that_is_not_there_is_named_and_one_that_is_there_is_fine(client, doctor):
    assert doctor("--bucket", "deployments-of-ops") == (1, {"bucket"})
    client("s3").create_bucket(Bucket="deployments-of-ops")
    assert doctor("--bucket", "deployments-of-ops") == (0, set())
