"""Starts the local stack for tests of ops, calls it, and runs `python -m ops` on it as its user would."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import boto3

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


def client_of(stack, service):
    keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local", "region_name": "us-east-1"}
    return boto3.client(service, endpoint_url=stack["aws_endpoint_url"], **keys)
