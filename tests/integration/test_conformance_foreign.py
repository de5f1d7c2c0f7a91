"""A target.yaml brings the suite to an interpreter that shares no name with ours, over stdin and stdout."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from conformance.__main__ import run
from conformance.target import UsageFault, read_target_file

SERVER = Path(__file__).resolve().parents[1] / "broken_servers" / "stdio.py"
PYTHON = {
    "tool": "run_cell",
    "code": "source",
    "arguments": {"cell": 1},
    "pattern": r"\n---\n(.*)",
    "failure": "failed:",
}


def target(folder: Path, *arguments: str, **python: Any) -> str:
    """The path of a target.yaml for the foreign server."""
    document = {"command": [sys.executable, str(SERVER), *arguments], "python": PYTHON | python}
    path = folder / "target.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def judged(folder: Path, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code, and check id -> record."""
    code = run([*options, "--json", "--out", str(folder / "out")])
    report = json.loads((folder / "out" / "report.json").read_text())
    return code, {check["id"]: check for check in report["checks"]}


def test_what_any_interpreter_owes_is_asked_and_our_contract_is_not(tmp_path: Path) -> None:
    code, checks = judged(tmp_path, "--target", target(tmp_path), "--only", "tools")
    assert checks["tools.contract.addition_prints"]["status"] == "passed"
    failure = checks["tools.contract.failure_is_told"]
    assert (failure["status"], failure["message"]) == ("failed", "A failed execution does not set isError.")
    assert checks["tools.contract.three_tools_are_listed"]["status"] == "skipped"
    assert code == 1


def test_stdout_is_found_where_the_file_says_and_nowhere_else(tmp_path: Path) -> None:
    wrong = target(tmp_path, pattern="no such text (.*)")
    _, checks = judged(tmp_path, "--target", wrong, "--only", "tools", "-k", "addition_prints")
    assert checks["tools.contract.addition_prints"]["status"] == "failed"


def test_stdio_server_is_asked_nothing_about_http(tmp_path: Path) -> None:
    _, checks = judged(tmp_path, "--target", target(tmp_path), "--only", "protocol", "-k", "not older")
    assert checks["protocol.handshake.ping_is_answered_with_an_empty_result"]["status"] == "passed"
    assert checks["protocol.both_eras.unknown_tool_is_a_protocol_error[2025-11-25]"]["status"] == "passed"
    assert not [name for name in checks if "origin" in name or "get_is_a" in name or "method_header" in name]


def test_security_runs_on_it_and_sees_that_nothing_is_blocked(tmp_path: Path) -> None:
    options = ("--target", target(tmp_path), "--only", "security", "-k", "process-os-popen")
    code, checks = judged(tmp_path, *options)
    (found,) = [check["security"] for check in checks.values() if check["security"]]
    assert "LEAKED" in found["verdict"] + found["evidence"]
    assert code == 1


def test_server_that_ends_at_once_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--target", target(tmp_path, "end")]) == 3
    assert "502" in capsys.readouterr().err


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"url": "http://h/", "command": ["x"]}, id="both-places"),
        pytest.param({"url": "http://h/", "python": {"toool": "x"}}, id="misspelt"),
        pytest.param([], id="a-list"),
    ],
)
def test_unusable_target_files_are_2(tmp_path: Path, document: object) -> None:
    path = tmp_path / "target.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(UsageFault, match=r"targets/README\.md"):
        read_target_file(path)
    assert run(["--target", str(path)]) == 2


def test_command_that_is_not_there_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "target.yaml"
    path.write_text("command: [/no/such/program]\n")
    assert run(["--target", str(path)]) == 2
    assert "cannot be started" in capsys.readouterr().err
