"""Given calls through the local stack, `ops report` and `ops logs show`, run as commands, agree with the client."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
READY_S = 120


@pytest.fixture(scope="module")
def stack():
    """The ready line of a local stack of our own, which ends with the module."""
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


def call(endpoint, code):
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
    assert response.status == 200
    return response.headers["X-Lambda-Request-Id"], int(response.headers["X-Lambda-Invocation"])


def ops(stack, *argv):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "OPS_", "P_FN_"))}
    environment |= {"AWS_ENDPOINT_URL": stack["aws_endpoint_url"], "TZ": "UTC"}
    command = [sys.executable, "-m", "ops", *argv]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def calls(stack):
    return [call(stack["endpoint"], f"print('call', {n})\n{n} + 1") for n in range(6)]


def test_the_report_counts_what_the_client_saw(stack, calls, tmp_path):
    done = ops(stack, "report", "--since", "10m", "--json", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["groups"] == [stack["log_group"]]
    assert summary["invocations"] == len(calls)
    assert summary["cold"]["count"] == sum(invocation == 1 for _, invocation in calls)
    assert summary["failures"]["error"]["count"] == 0
    assert summary["memory"][0]["max_used_mb"] > 0
    reported = (tmp_path / "events.jsonl").read_text()
    assert all(request_id in reported for request_id, _ in calls)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_show_finds_the_request_of_a_response(stack, calls):
    request_id, _ = calls[-1]
    done = ops(stack, "logs", "show", request_id)
    assert done.returncode == 0, done.stderr
    assert f"START RequestId: {request_id}" in done.stdout or f'"requestId":"{request_id}"' in done.stdout
    assert "duration_ms" in done.stdout
    assert calls[0][0] not in done.stdout


def test_a_range_before_the_first_call_is_inconclusive(stack, calls, tmp_path):
    done = ops(stack, "report", "--since", "2h", "--until", "1h", "--out", str(tmp_path))
    assert done.returncode == 4
    assert "has no events" in done.stderr
