"""`simple_test_client.py URL` and `test_deployment.sh BASE_URL`: what they print, and the exit codes they share."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_stack import ROOT, LocalStack

CLIENT = [sys.executable, "-I", str(ROOT / "simple_test_client.py")]
SCRIPT = [str(ROOT / "test_deployment.sh")]
KEY = "a-key-of-this-test"
GOOD: dict[str, dict[str, Any]] = {
    "get_environment_info": {"python_version": "3.12.1", "platform": "Linux", "memory_mb": 512, "confinement": []},
    "execute_python": {"success": True, "result": "5", "stdout": "计算结果: 5\n", "error": None},
    "list_preinstalled_packages": {
        "packages": [{"name": name, "version": "1.2"} for name in ("numpy", "pandas", "matplotlib")]
    },
}


def run(command: list[str], *arguments: str, cwd: Path, key: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MCP_")}
    environment |= {"MCP_API_KEY": key} if key else {}
    if command == SCRIPT and arguments and arguments[0].startswith("http"):
        arguments += ("--out", str(cwd / f"records-{len(list(cwd.iterdir()))}"))
    return subprocess.run([*command, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


class Fake(http.server.BaseHTTPRequestHandler):
    """Answers tools/call with `answers`, and little else."""

    answers: dict[str, dict[str, Any]] = GOOD
    status = 200
    as_event = False

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["x-api-key"] != KEY:
            return self.answer(403, json.dumps({"message": "Forbidden"}))
        text = json.dumps({"jsonrpc": "2.0", "id": asked.get("id"), **self.outcome(asked)})
        return self.answer(self.status, f"event: message\r\ndata: {text}\r\n\r\n" if self.as_event else text)

    def outcome(self, asked: dict[str, Any]) -> dict[str, Any]:
        match asked["method"]:
            case "tools/call":
                found = self.answers[asked["params"]["name"]]
                return {"result": {"content": [], "structuredContent": found, "isError": found.get("success") is False}}
            case "tools/list":
                return {"result": {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in GOOD]}}
            case "initialize":
                about = {"serverInfo": {"name": "fake", "version": "1"}, "capabilities": {"tools": {}}}
                return {"result": {"protocolVersion": "2025-11-25", **about}}
        return {"error": {"code": -32601, "message": "Method not found"}}

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/event-stream" if text.startswith("event:") else "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def fake() -> Iterator[tuple[type[Fake], str]]:
    """A handler whose answers a test may change, and the URL that it answers at."""
    handler = type("Answers", (Fake,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield handler, f"http://127.0.0.1:{server.server_port}/dev/lambda/mcp/"
        server.shutdown()
        thread.join()


def test_the_client_shows_three_answers_and_needs_nothing_but_python(product: LocalStack, tmp_path: Path) -> None:
    done = run([*CLIENT[:1], "-IS", CLIENT[2]], product.ready["endpoint"], cwd=tmp_path)  # -S: no site-packages
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[0] == f"Testing {product.ready['endpoint']}"
    assert [line for line in lines if line.startswith("[")] == [
        "[1/3] get_environment_info",
        "[2/3] execute_python: 2 + 3",
        "[3/3] list_preinstalled_packages",
    ]
    assert "success: true, result: 5, stdout: 计算结果: 5" in lines
    assert lines[-1] == "3 of 3 passed"


@pytest.mark.parametrize("form", ["{stage}", "{stage}/", "{stage}/lambda/mcp", "{stage}/lambda/mcp/"])
def test_the_script_takes_a_stage_or_an_endpoint(form: str, product: LocalStack, tmp_path: Path) -> None:
    stage = product.ready["endpoint"].removesuffix("/lambda/mcp/")
    done = run(SCRIPT, form.format(stage=stage), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"Testing deployment at {product.ready['endpoint']}\n")
    assert "MUST    3 passed" in done.stdout
    assert done.stdout.endswith("deployment test: passed\n")


@pytest.mark.parametrize("front", [CLIENT, SCRIPT], ids=["client", "script"])
def test_a_dead_url_is_3_and_a_bad_one_2(front: list[str], tmp_path: Path) -> None:
    with socket.socket() as bound:  # bound and not listening: nobody else can answer there
        bound.bind(("127.0.0.1", 0))
        dead = run(front, f"http://127.0.0.1:{bound.getsockname()[1]}/dev/lambda/mcp/", cwd=tmp_path)
    assert dead.returncode == 3, dead.stdout + dead.stderr
    assert "Connection refused" in dead.stderr
    for bad in (["ftp://127.0.0.1/"], []):
        refused = run(front, *bad, cwd=tmp_path)
        assert refused.returncode == 2
        assert "http:// or https://" in refused.stderr
    helped = run(front, "--help", cwd=tmp_path)
    assert helped.returncode == 0
    assert "exit codes" in helped.stdout


@pytest.mark.parametrize("as_event", [False, True], ids=["json", "sse"])
def test_the_client_sends_the_key_and_tells_it_to_nobody(
    as_event: bool, fake: tuple[type[Fake], str], tmp_path: Path
) -> None:
    handler, url = fake
    handler.as_event = as_event
    right = run(CLIENT, url, cwd=tmp_path, key=KEY)
    assert right.returncode == 0, right.stdout + right.stderr
    for wrong in (None, "another-key"):
        done = run(CLIENT, url, cwd=tmp_path, key=wrong)
        assert done.returncode == 3
        assert "check the key" in done.stderr
    (tmp_path / ".env").write_text(f"MCP_ENDPOINT_URL={url}\nMCP_API_KEY='{KEY}'\n")
    from_file = run(CLIENT, cwd=tmp_path)
    assert from_file.returncode == 0, from_file.stderr
    assert KEY not in right.stdout + right.stderr + from_file.stdout


def test_the_script_sends_the_key(fake: tuple[type[Fake], str], tmp_path: Path) -> None:
    _, url = fake
    assert run(SCRIPT, url, cwd=tmp_path, key=KEY).returncode == 0
    without = run(SCRIPT, url, cwd=tmp_path)
    assert (without.returncode, "credential is missing" in without.stderr) == (3, True)
    wrong = run(SCRIPT, url, cwd=tmp_path, key="another-key")
    assert (wrong.returncode, "credential was refused" in wrong.stderr) == (3, True)


def test_the_script_fails_where_a_smoke_check_fails(fake: tuple[type[Fake], str], tmp_path: Path) -> None:
    handler, url = fake
    handler.answers = GOOD | {"execute_python": GOOD["execute_python"] | {"stdout": "计算结果: 6\n"}}
    done = run(SCRIPT, url, cwd=tmp_path, key=KEY)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "deployment test: FAILED" in done.stdout


@pytest.mark.parametrize(
    ("tool", "answer", "told"),
    [
        pytest.param("execute_python", {"stdout": "计算结果: 6\n"}, "stdout is not", id="another-sum"),
        pytest.param("execute_python", {"success": False}, "the tool failed", id="failed"),
        pytest.param("get_environment_info", {"python_version": "unknown"}, "python_version is", id="no-version"),
        pytest.param("list_preinstalled_packages", {"packages": []}, "numpy, pandas, matplotlib not", id="no-packages"),
    ],
)
def test_the_client_fails_on_an_answer_that_is_wrong_in_one_thing(
    tool: str, answer: dict[str, Any], told: str, fake: tuple[type[Fake], str], tmp_path: Path
) -> None:
    handler, url = fake
    handler.answers = GOOD | {tool: GOOD[tool] | answer}
    done = run(CLIENT, url, cwd=tmp_path, key=KEY)
    assert done.returncode == 1
    assert f"FAILED: {told}" in done.stdout
    assert done.stdout.endswith("2 of 3 passed\n")


def test_a_gateway_without_a_function_behind_it_is_3(fake: tuple[type[Fake], str], tmp_path: Path) -> None:
    handler, url = fake
    handler.status = 502
    done = run(CLIENT, url, cwd=tmp_path, key=KEY)
    assert (done.returncode, "5xx to every question" in done.stderr) == (3, True)
