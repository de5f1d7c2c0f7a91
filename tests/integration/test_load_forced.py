"""Cold starts forced on the product itself: new versions on the local stack, called through Invoke, and taken away."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from local_stack import ROOT, LocalStack

pytestmark = pytest.mark.xdist_group("product")


def state(product: LocalStack) -> tuple[Any, ...]:
    client, name = product.client("lambda"), product.ready["function_name"]
    now = client.get_function_configuration(FunctionName=name)
    versions = client.list_versions_by_function(FunctionName=name)["Versions"]
    aliases = client.list_aliases(FunctionName=name)["Aliases"]
    return now["Description"], now["MemorySize"], [v["Version"] for v in versions], [a["Name"] for a in aliases]


def test_every_call_on_a_new_version_is_cold_by_both_words(product: LocalStack, tmp_path: Path) -> None:
    before = state(product)
    command = [sys.executable, "-m", "load", "coldstart", "--function", product.ready["function_name"]]
    done = subprocess.run(
        [*command, "-n", "2", "--rounds", "2", "--out", str(tmp_path), "--json"],
        cwd=ROOT,
        env={**os.environ, "AWS_ENDPOINT_URL": product.ready["aws_endpoint_url"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["burst"], report["confirmed"], report["shared"]) == (4, 4, 0)
    assert [one["confirmed_by_both"] for one in report["groups"]] == [4]
    assert report["first_call_penalty_ms"] > 0
    assert json.loads((tmp_path / "server.json").read_text())["verdict"] == "agreed"
    assert state(product) == before
