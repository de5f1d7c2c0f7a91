"""Given the local stack broken in one way, the doctor names it; given the stack as it is, it finds nothing wrong."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import boto3
import pytest

ROOT = Path(__file__).parents[2]
READY_S = 120


@pytest.fixture(scope="module")
def stack():
    command = [sys.executable, "-m", "sam.local", "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    killer = threading.Timer(READY_S, process.kill)
    killer.start()
    try:
        line = process.stdout.readline()
        killer.cancel()
        assert line, "the local stack ended before it was ready"
        yield json.loads(line)
    finally:
        killer.cancel()
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def client(stack):
    def make(service):
        keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local", "region_name": "us-east-1"}
        return boto3.client(service, endpoint_url=stack["aws_endpoint_url"], **keys)

    return make


@pytest.fixture
def doctor(stack, tmp_path):
    def examine(endpoint=None, function=None):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MCP_", "P_FN_"))}
        environment |= {"AWS_ENDPOINT_URL": stack["aws_endpoint_url"]}
        argv = [sys.executable, "-m", "ops", "doctor", "--json", "--out", str(tmp_path)]
        argv += ["--endpoint", endpoint or stack["endpoint"], "--function", function or stack["function_name"]]
        done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False)
        findings = [json.loads(line) for line in done.stdout.splitlines()]
        return done.returncode, {f["id"] for f in findings if f["level"] == "wrong"}, done.stderr

    return examine


def test_the_stack_as_it_is_has_nothing_wrong(doctor):
    assert doctor()[:2] == (0, set())


def test_a_wrong_stage_is_named(stack, doctor):
    code, wrong, _ = doctor(endpoint=stack["endpoint"].replace("/dev/", "/prod/"))
    assert (code, wrong) == (3, {"stage", "permission"})


def test_an_unknown_function_is_named(doctor):
    assert doctor(function="no-such-function")[:2] == (1, {"function"})


def test_a_timeout_below_the_interpreters_own_is_named(stack, client, doctor):
    api, name = client("lambda"), stack["function_name"]
    before = api.get_function_configuration(FunctionName=name)["Timeout"]
    api.update_function_configuration(FunctionName=name, Timeout=20)
    try:
        assert doctor()[:2] == (1, {"timeout-function"})
    finally:
        api.update_function_configuration(FunctionName=name, Timeout=before)


def test_a_log_group_kept_for_ever_is_named(stack, client, doctor):
    api, name = client("logs"), stack["log_group"]
    days = int(api.describe_log_groups(logGroupNamePrefix=name)["logGroups"][0]["retentionInDays"])
    api.delete_retention_policy(logGroupName=name)
    try:
        assert doctor()[:2] == (1, {"log-retention"})
    finally:
        api.put_retention_policy(logGroupName=name, retentionInDays=days)


def test_reserved_concurrency_of_zero_is_named(stack, client, doctor):
    api, name = client("lambda"), stack["function_name"]
    api.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    try:
        assert "concurrency" in doctor()[1]
    finally:
        api.delete_function_concurrency(FunctionName=name)


def test_a_role_that_allows_more_than_logs_is_named(stack, client, doctor):
    role = client("lambda").get_function_configuration(FunctionName=stack["function_name"])["Role"].rpartition("/")[2]
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam = client("iam")
    iam.put_role_policy(RoleName=role, PolicyName="wide", PolicyDocument=json.dumps(document))
    try:
        assert doctor()[:2] == (1, {"role"})
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="wide")
