"""action.yml as a runner takes it: inputs into the step's environment, its shell line run, outputs and summary read."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
EXPRESSION = re.compile(r"\$\{\{\s*inputs\.([a-z-]+)\s*\}\}")


def step() -> dict[str, Any]:
    """The step whose outputs the action hands on."""
    found: dict[str, Any] = next(one for one in ACTION["runs"]["steps"] if one.get("id") == "suite")
    return found


def act(folder: Path, **inputs: str) -> tuple[int, dict[str, str], str, str]:
    """Runs the suite's step as a runner would; returns exit code, outputs, summary and what was printed."""
    values = {name: str(one.get("default", "")) for name, one in ACTION["inputs"].items()}
    values |= {name.replace("_", "-"): value for name, value in inputs.items()}
    given = {name: EXPRESSION.sub(lambda match: values[match[1]], template) for name, template in step()["env"].items()}
    output, summary = folder / "output", folder / "summary"
    output.touch()
    summary.touch()
    runner = {
        "GITHUB_ACTION_PATH": str(ROOT),
        "GITHUB_OUTPUT": str(output),
        "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_ACTIONS": "true",
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_", "INPUT_"))}
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step()["run"]],
        cwd=folder,
        env=clean | runner | given,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = (line.partition("=") for line in output.read_text().splitlines())
    return done.returncode, {name: value for name, _, value in lines}, summary.read_text(), done.stdout + done.stderr


def test_every_output_is_one_the_step_writes(reference: str, tmp_path: Path) -> None:
    code, outputs, summary, _ = act(tmp_path, endpoint=f"{reference}/correct/mcp/", only="tools", workers="0")
    assert code == 0
    assert set(outputs) == set(ACTION["outputs"])
    assert all(f"steps.suite.outputs.{name} " in one["value"] for name, one in ACTION["outputs"].items())
    assert (outputs["verdict"], outputs["failed"]) == ("pass", "0")
    assert int(outputs["passed"]) > 40
    assert (Path(outputs["results"]) / "report.sarif").is_file()
    assert Path(outputs["results"]).is_relative_to(tmp_path)
    assert summary.startswith("## MCP conformance: pass")


def test_failure_fails_the_step_and_keyed_endpoint_gets_its_key(reference: str, tmp_path: Path) -> None:
    faulty = f"{reference}/keyed/mcp/"
    code, outputs, summary, printed = act(
        tmp_path, endpoint=faulty, only="protocol", api_key="the-right-key", workers="2"
    )
    assert (code, outputs["verdict"]) == (0, "pass")
    assert "the-right-key" not in printed + summary
    folder = tmp_path / "faulty"
    folder.mkdir()
    code, outputs, summary, _ = act(
        folder, endpoint=f"{reference}/ping-has-a-payload/mcp/", only="protocol", workers="2"
    )
    assert code == 1
    assert outputs["verdict"] == "fail"
    assert int(outputs["failed"]) > 0
    assert "ping_is_answered_with_an_empty_result" in summary


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        pytest.param({"endpoint": "http://127.0.0.1:1/mcp"}, 3, id="unreachable"),
        pytest.param({"endpoint": ""}, 2, id="no-endpoint"),
        pytest.param({"endpoint": "http://127.0.0.1:1/mcp", "strict": "perhaps"}, 2, id="bad-strict"),
        pytest.param({"endpoint": "http://127.0.0.1:1/mcp", "headers": "X-A=in-the-clear"}, 2, id="header"),
        pytest.param(
            {"endpoint": "http://127.0.0.1:1/mcp", "refused_headers": "X-A=in-the-clear"}, 2, id="refused-header"
        ),
    ],
)
def test_what_cannot_be_judged_is_an_error_in_the_log(tmp_path: Path, inputs: dict[str, str], expected: int) -> None:
    code, _, summary, printed = act(tmp_path, **inputs)
    assert code == expected
    assert "::error title=MCP conformance::" in printed
    assert summary == ""


def test_reports_are_kept_whatever_the_verdict() -> None:
    upload = next(one for one in ACTION["runs"]["steps"] if "upload-artifact" in one.get("uses", ""))
    assert upload["if"].startswith("always()")
