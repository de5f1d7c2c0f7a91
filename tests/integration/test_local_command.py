"""Given options on the command line, the stack says where it is, or in one sentence why it cannot be."""

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from local_stack import DEADLINE_S, ROOT, TEMPLATE, local_stack

from sam.local import processes
from sam.local.__main__ import run


def test_the_ready_line(tmp_path: Path):
    with local_stack(tmp_path) as stack:
        base = stack.ready["aws_endpoint_url"]
        assert base.startswith("http://127.0.0.1:")
        assert stack.ready == {
            "endpoint": f"{base}/dev/lambda/mcp/",
            "aws_endpoint_url": base,
            "log_group": "/aws/lambda/echo",
            "function_name": "echo",
            "console": f"{base}/",
        }
        assert stack.call(method="GET", path="/").body == stack.ready
        assert stack.stop() == 0
        assert stack.process.stdout is not None
        assert stack.process.stdout.read() == ""


def test_both_forms_of_the_endpoint_and_no_other(tmp_path: Path):
    with local_stack(tmp_path) as stack:
        for path in ("/dev/lambda/mcp/", "/dev/lambda/mcp"):
            event = stack.call({"do": "event"}, path=path).body["answer"]
            assert (event["path"], event["resource"]) == (path.removeprefix("/dev"), "/lambda/mcp")
        refused = stack.call({}, path="/dev/lambda/other")
        assert (refused.status, refused.body) == (403, {"message": "Missing Authentication Token"})
        assert refused.headers["x-amzn-ErrorType"] == "MissingAuthenticationTokenException"
        assert {"x-amzn-RequestId", "x-amz-apigw-id"} <= set(refused.headers)


def test_the_api_key(tmp_path: Path):
    with local_stack(tmp_path, "--api-key", "open sesame") as stack:
        for headers in ({}, {"x_api_key": "wrong"}):
            refused = stack.call({"do": "nothing"}, **headers)
            assert (refused.status, refused.body) == (403, {"message": "Forbidden"})
            assert refused.headers["x-amzn-ErrorType"] == "ForbiddenException"
        assert stack.call({"do": "nothing"}, x_api_key="open sesame").status == 200


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        pytest.param(["--template", "none.yaml"], "cannot read none.yaml: No such file or directory", id="no-template"),
        pytest.param(["--memory", "64"], "memory must be 128 to 10240 MB, got 64", id="memory"),
        pytest.param(["--timeout", "901"], "timeout must be 1 to 900 s, got 901", id="timeout"),
        pytest.param(["--concurrency", "0"], "--concurrency must be at least 1, got 0", id="concurrency"),
        pytest.param(["--keep-logs", "0"], "--keep-logs must be at least 1 MB, got 0", id="keep-logs"),
        pytest.param(["--env", "novalue"], "--env wants NAME=VALUE, got 'novalue'", id="env"),
        pytest.param(["--parameter", "PNone=1"], "the template has no parameter PNone", id="parameter"),
        pytest.param(["--layer", "nowhere"], "--layer nowhere has no python directory", id="layer"),
    ],
)
def test_what_cannot_start_exits_2(options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]):
    assert run(["--port", "0", "--template", str(TEMPLATE), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sam.local: ")
    assert sentence in err
    assert err.count("\n") == 1


def test_a_port_in_use_exits_2(capsys: pytest.CaptureFixture[str]):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        assert run(["--port", str(port), "--template", str(TEMPLATE)]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_memory_from_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("P_FN_MEMORY", "lots")
    assert run(["--port", "0", "--template", str(TEMPLATE)]) == 2
    assert "P_FN_MEMORY must be a whole number, got 'lots'" in capsys.readouterr().err


def test_help_has_examples():
    command = [sys.executable, "-m", "sam.local", "--help"]
    help_text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "examples:" in help_text


def test_what_a_killed_stack_leaves_goes_with_the_next_start(tmp_path: Path):
    with local_stack(tmp_path) as killed:
        assert killed.call({"do": "leave-behind"}).status == 200
        started = processes.descendants(killed.process.pid)
        (left,) = tmp_path.glob("sam-local-*")
        killed.process.kill()
        killed.process.wait()
    with local_stack(tmp_path) as next_one:
        (directory,) = tmp_path.glob("sam-local-*")
        assert directory != left
        deadline = time.monotonic() + DEADLINE_S
        while not all(processes.is_gone(pid) for pid in started):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert next_one.stop() == 0
    assert list(tmp_path.glob("sam-local-*")) == []
