"""Given the local stack, ops run as commands agrees with the client, names what was broken, and leaves it as it was."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest

ROOT = Path(__file__).parents[2]
READY_S = 120


@contextmanager
def running(*flags):
    """The ready line of a local stack of our own, while it runs."""
    command = [sys.executable, "-m", "sam.local", "--port", "0", *flags]
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


@pytest.fixture(scope="module")
def stack():
    with running() as ready:
        yield ready


def call(endpoint, code, status=200):
    """One bare tools/call; returns (request id, invocation number)."""
    where = urlsplit(endpoint)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
    params = {"name": "execute_python", "arguments": {"code": code}}
    body = json.dumps({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params})
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    connection.request("POST", where.path, body, headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == status
    return response.headers.get("X-Lambda-Request-Id"), int(response.headers.get("X-Lambda-Invocation", 0))


def ops(stack, *argv, **settings):
    command, env = [sys.executable, "-m", "ops", *argv], environment_of(stack) | settings
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=180, check=False)


def environment_of(stack):
    """This process's environment without settings of its own, aimed at the stack."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "OPS_", "P_FN_", "MCP_"))}
    return kept | {"AWS_ENDPOINT_URL": stack["aws_endpoint_url"], "TZ": "UTC"}


@pytest.fixture(scope="module")
def calls(stack):
    """[(request id, invocation number)] of six calls, and the range that holds them and no other."""
    began = datetime.now(UTC)
    made = [call(stack["endpoint"], f"print('call', {n})\n{n} + 1") for n in range(6)]
    return made, ["--since", began.isoformat(), "--until", datetime.now(UTC).isoformat()]


def test_the_report_counts_what_the_client_saw(stack, calls, tmp_path):
    made, span = calls
    done = ops(stack, "report", *span, "--json", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["groups"] == [stack["log_group"]]
    assert summary["invocations"] == len(made)
    assert summary["cold"]["count"] == sum(invocation == 1 for _, invocation in made)
    assert summary["failures"]["error"]["count"] == 0
    assert summary["memory"][0]["max_used_mb"] > 0
    assert summary["calls"]["tools"] == [{"tool": "execute_python", "calls": len(made), "failed": 0}]
    assert summary["calls"]["cpu_ms"]["max"] > 0
    reported = (tmp_path / "events.jsonl").read_text()
    assert all(request_id in reported for request_id, _ in made)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_show_finds_the_request_of_a_response(stack, calls):
    made, _ = calls
    request_id, _ = made[-1]
    done = ops(stack, "logs", "show", request_id)
    assert done.returncode == 0, done.stderr
    assert f"START RequestId: {request_id}" in done.stdout or f'"requestId":"{request_id}"' in done.stdout
    assert "duration_ms" in done.stdout
    assert made[0][0] not in done.stdout


def test_a_range_before_the_first_call_is_inconclusive(stack, calls, tmp_path):
    done = ops(stack, "report", "--since", "2h", "--until", "1h", "--out", str(tmp_path))
    assert done.returncode == 4
    assert "has no events" in done.stderr


def client_of(stack, service):
    keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local", "region_name": "us-east-1"}
    return boto3.client(service, endpoint_url=stack["aws_endpoint_url"], **keys)


@pytest.fixture
def client(stack):
    return lambda service: client_of(stack, service)


def examine(stack, out, endpoint=None, function=None, *more, **settings):
    """`ops doctor`'s exit code, what it called wrong, and what it said on stderr."""
    argv = ["--endpoint", endpoint or stack["endpoint"], "--function", function or stack["function_name"]]
    done = ops(stack, "doctor", "--json", "--out", str(out), *argv, *more, **settings)
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {f["id"] for f in findings if f["level"] == "wrong"}, done.stderr


@pytest.fixture
def doctor(stack, tmp_path):
    return lambda *of, **settings: examine(stack, tmp_path, *of, **settings)


def test_the_stack_as_it_is_has_nothing_wrong(doctor):
    assert doctor()[:2] == (0, set())


def test_a_wrong_stage_is_named(stack, doctor):
    code, wrong, _ = doctor(endpoint=stack["endpoint"].replace("/dev/", "/prod/"))
    assert (code, wrong) == (3, {"stage", "permission"})


def test_a_dead_endpoint_is_named(doctor):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/dev/lambda/mcp/"
        assert doctor(endpoint=url)[:2] == (3, {"endpoint", "permission"})


def test_a_key_that_nobody_asks_for_is_named(doctor):
    assert doctor(MCP_API_KEY="a-key-of-ours")[:2] == (1, {"open"})


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
        assert doctor()[:2] == (1, {"function-fails", "concurrency", "permission"})
    finally:
        api.delete_function_concurrency(FunctionName=name)


def test_reserved_concurrency_that_is_used_up_is_named(stack, client, calls, doctor):
    api, name = client("lambda"), stack["function_name"]
    api.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    try:
        assert doctor()[:2] == (1, {"concurrency"})
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


def test_a_bucket_that_is_not_there_is_named_and_one_that_is_there_is_fine(client, doctor):
    assert doctor(None, None, "--bucket", "deployments-of-ops")[:2] == (1, {"bucket"})
    client("s3").create_bucket(Bucket="deployments-of-ops")
    assert doctor(None, None, "--bucket", "deployments-of-ops")[:2] == (0, set())


def test_confinement_that_is_off_and_a_limit_past_the_gateways_are_named(tmp_path):
    with running("--env", "INTERPRETER_AUDIT_HOOK=off", "--env", "INTERPRETER_TIMEOUT_S=28") as stack:
        assert examine(stack, tmp_path)[:2] == (1, {"isolation", "timeout-gateway"})


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
        assert examine(stack, tmp_path)[:2] == (1, {"timeout-function", "timed-out", "memory"})


def test_a_missing_key_a_function_that_does_not_start_and_a_log_group_that_is_gone_are_named(tmp_path):
    with running("--api-key", "a-key-of-the-plan", "--env", "INTERPRETER_REQUIRE=kernel") as stack:
        assert examine(stack, tmp_path, None, None, "--no-aws")[:2] == (3, {"key"})
        assert examine(stack, tmp_path, MCP_API_KEY="a-key-of-the-plan")[:2] == (1, {"function-fails", "permission"})
        client_of(stack, "logs").delete_log_group(logGroupName=stack["log_group"])
        done = ops(stack, "doctor", "--json", "--function", stack["function_name"], "--out", str(tmp_path))
        wrong = {f["id"] for f in map(json.loads, done.stdout.splitlines()) if f["level"] == "wrong"}
        assert (done.returncode, wrong) == (1, {"log-group", "permission"})


def test_the_log_format_is_read(stack, tmp_path):
    done = ops(stack, "doctor", "--json", "--out", str(tmp_path), "--function", stack["function_name"])
    assert {f["says"] for f in map(json.loads, done.stdout.splitlines()) if f["id"] == "log-format"} == {
        "Log format JSON."
    }


@pytest.fixture(scope="module")
def both_reports(stack, tmp_path_factory):
    """The pulled report and the one by Insights of the same calls: good, failed, refused, and some on cold starts."""
    began = datetime.now(UTC)
    codes = [
        "print(1)",
        "1 / 0",
        "import os\nos.system('true')",
        "import numpy\nnumpy.arange(9).sum()",
        "raise SystemExit(3)",
    ]
    for code in codes * 6:
        call(stack["endpoint"], code)
    with ThreadPoolExecutor(3) as together:
        numbers = [
            n for _, n in together.map(lambda code: call(stack["endpoint"], code), ["import time; time.sleep(1)"] * 3)
        ]
    assert 1 in numbers
    span = ["--since", began.isoformat(), "--until", datetime.now(UTC).isoformat()]
    found = []
    for flag in ([], ["--insights"]):
        done = ops(stack, "report", *flag, *span, "--json", "--out", str(tmp_path_factory.mktemp("report")))
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    return found


def test_the_report_by_insights_agrees_with_the_pulled_one(both_reports):
    pulled, asked = both_reports
    same = ("range", "groups", "invocations", "failures", "unfinished", "failed_inits", "cold", "cold_by")
    assert pulled["invocations"] == 33
    assert pulled["cold"]["count"] >= 1
    assert {name: asked[name] for name in (*same, "blocked_operations")} == {
        name: pulled[name] for name in (*same, "blocked_operations")
    }
    assert pulled["blocked_operations"]
    for name in ("tools", "failures", "callers"):
        assert sorted(asked["calls"][name], key=str) == sorted(pulled["calls"][name], key=str)
    assert asked["concurrency"]["environments"] == pulled["concurrency"]["environments"]
    mine, theirs = asked["cost"], pulled["cost"]
    assert mine.pop("left_out") == theirs.pop("left_out")
    assert mine == pytest.approx(theirs)
    for row, other in zip(asked["memory"], pulled["memory"], strict=True):
        assert {**row, "p95_used_mb": 0} == {**other, "p95_used_mb": 0}


@pytest.mark.parametrize("part", ["all", "warm", "cold"])
def test_percentiles_by_insights_lie_within_the_pulled_intervals(both_reports, part):
    pulled, asked = (report["duration_ms"][part] for report in both_reports)
    assert (asked["n"], asked["max"]) == (pulled["n"], pulled["max"])
    for mine, theirs in zip(asked["quantiles"], pulled["quantiles"], strict=True):
        assert (mine["name"], mine["refused"]) == (theirs["name"], theirs["refused"])
        if theirs["value"] is not None:
            assert (theirs["low"] or 0.0) <= mine["value"] <= (theirs["high"] or float("inf"))


def test_a_line_is_told_by_live_tail_and_ctrl_c_is_130(stack, tmp_path):
    argv = [
        sys.executable,
        "-m",
        "ops",
        "logs",
        "tail",
        "--live",
        "--group",
        stack["log_group"],
        "--out",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        argv, cwd=ROOT, env=environment_of(stack), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    told = iter(process.stderr.readline, "")
    assert any("Live from now on" in line for line in told)
    # The session begins a moment after it is announced: calls go on until one of them is seen.
    stop, asked = threading.Event(), []

    def keep_calling():
        while not stop.wait(0.3):
            asked.append(call(stack["endpoint"], "1")[0])

    caller = threading.Thread(target=keep_calling)
    caller.start()
    try:
        line = process.stdout.readline()
    finally:
        stop.set()
        caller.join()
        process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert any(request_id in line + rest for request_id in asked)
    assert any(request_id in (tmp_path / "events.jsonl").read_text() for request_id in asked)


@pytest.fixture
def memory(client):
    """{function: its memory in MB} of every function there is, asked anew each time."""
    return lambda: {f["FunctionName"]: f["MemorySize"] for f in client("lambda").list_functions()["Functions"]}


def test_tuning_measures_a_copy_of_the_real_function_and_deletes_it(stack, memory, tmp_path):
    before = memory()
    argv = ["tune", "memory", "--function", stack["function_name"], "--sizes", "768,1536", "--most", "5", "--json"]
    done = ops(stack, *argv, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    advice = json.loads(done.stdout)
    assert {o["memory_mb"] for o in advice["options"] if o["measured"]} == {768, 1536}
    assert advice["chosen_mb"] in {768, 1536}
    assert set(advice["init_ms"]) == {"768", "1536"}
    assert memory() == before


def test_tuning_ended_by_ctrl_c_deletes_the_copy_and_keeps_its_samples(stack, memory, tmp_path):
    before = memory()
    argv = [sys.executable, "-m", "ops", "tune", "memory", "--function", stack["function_name"], "--out", str(tmp_path)]
    process = subprocess.Popen(
        [*argv, "--sizes", "768,1536,2048"], cwd=ROOT, env=environment_of(stack), stderr=subprocess.PIPE, text=True
    )
    said = iter(process.stderr.readline, "")
    assert any("at 1536 MB" in line for line in said)  # 768 is done, so its samples are there
    process.send_signal(signal.SIGINT)
    process.stderr.read()
    assert process.wait(60) == 130
    assert memory() == before
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert {row["memory_mb"] for row in samples} >= {768}
