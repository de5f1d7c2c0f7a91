"""Given the local stack's own logs, a report by its Logs Insights agrees with the one from pulled events."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from local_stack import ROOT, LocalStack, local_stack


def report(stack: LocalStack, out: Path, *options: str) -> dict[str, Any]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "OPS_", "P_FN_", "MCP_"))}
    command = [sys.executable, "-m", "ops", "report", "--group", stack.ready["log_group"], "--json"]
    done = subprocess.run(
        [*command, "--since", "10m", "--settle", "0", "--out", str(out), *options],
        cwd=ROOT, env=kept | {"AWS_ENDPOINT_URL": stack.ready["aws_endpoint_url"], "TZ": "UTC"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_both_ways_to_a_report_agree(log_format: str, tmp_path: Path):
    with local_stack(tmp_path, "--log-format", log_format, "--memory", "256", "--timeout", "1") as stack:
        for ask in ({"do": "nothing"}, {"do": "fail"}, {"do": "exit"}, {"do": "sleep", "seconds": 5}):
            stack.call(ask)
        for _ in range(3):
            assert stack.call({"do": "nothing"}).status == 200
        pulled = report(stack, tmp_path / "pulled")
        asked = report(stack, tmp_path / "asked", "--insights")
    assert pulled["invocations"] == 7
    assert [pulled["failures"][kind]["count"] for kind in ("timeout", "error")] == [1, 2]
    for name in ("invocations", "failures", "cold", "cold_by", "unfinished", "failed_inits"):
        assert asked[name] == pulled[name], name
    for part, figures in pulled["duration_ms"].items():
        assert (asked["duration_ms"][part]["n"], asked["duration_ms"][part]["max"]) == (figures["n"], figures["max"])
    for mine, theirs in zip(asked["memory"], pulled["memory"], strict=True):
        assert (mine["size_mb"], mine["max_used_mb"]) == (theirs["size_mb"], theirs["max_used_mb"])
