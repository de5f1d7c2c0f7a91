"""What load does with the product itself on the local stack: forced cold starts, and a profile made of its records."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from local_stack import DEADLINE_S, ROOT, LocalStack

from load.plan import load_plan
from tests.published_schemas import validated


def load(product: LocalStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "AWS_ENDPOINT_URL": product.ready["aws_endpoint_url"]}
    command = [sys.executable, "-m", "load", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def state(product: LocalStack) -> tuple[Any, ...]:
    client, name = product.client("lambda"), product.ready["function_name"]
    now = client.get_function_configuration(FunctionName=name)
    versions = client.list_versions_by_function(FunctionName=name)["Versions"]
    aliases = client.list_aliases(FunctionName=name)["Aliases"]
    return now["Description"], now["MemorySize"], [v["Version"] for v in versions], [a["Name"] for a in aliases]


def test_every_call_on_a_new_version_is_cold_by_both_words(product: LocalStack, tmp_path: Path) -> None:
    before = state(product)
    done = load(
        product, "coldstart", "--function", product.ready["function_name"], "-n", "2", "--rounds", "2",
        "--out", str(tmp_path), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["burst"], report["confirmed"], report["shared"]) == (4, 4, 0)
    assert [one["confirmed_by_both"] for one in report["groups"]] == [4]
    assert report["first_call_penalty_ms"] > 0
    told = json.loads((tmp_path / "server.json").read_text())
    assert (validated(told), told["verdict"]) == ("load-server/1", "agreed")
    assert state(product) == before


def tool(name: str, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


def test_the_product_is_asked_again_what_it_was_asked(product: LocalStack, tmp_path: Path) -> None:
    accept = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    for ask in (
        tool("execute_python", code="import os\nos.system('true')"),
        tool("execute_python", code="1 / 0"),
        tool("get_environment_info"),
    ):
        assert product.call(ask, **accept).status == 200
    path, deadline = tmp_path / "mix.yaml", time.monotonic() + DEADLINE_S
    while True:
        done = load(product, "mix", product.ready["log_group"], "--hours", "1", "--write", str(path))
        if done.returncode == 0 and {"blocked", "error", "info"} <= set(load_plan(str(path)).scenarios):
            break
        assert time.monotonic() < deadline, done.stderr
    assert "python -m load run" in done.stderr


def test_a_time_without_calls_is_no_profile(product: LocalStack) -> None:
    done = load(product, "mix", product.ready["log_group"], "--hours", "0.0000001")
    assert done.returncode == 4
    assert "holds no call records" in done.stderr
