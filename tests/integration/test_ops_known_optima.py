"""Given workloads whose best size is known, `tune memory` finds it on the local stack and leaves everything as it was.

The stack gives CPU by memory. The sizes are chosen so that the answers hold on a busy machine too: where a full core is
ten times slower than its share says, the order of the choices is the same.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_stack import ROOT, LocalStack, local_stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with local_stack(tmp_path_factory.mktemp("stack"), "--cpu-share", "--timeout", "30") as running:
        yield running


def everything(stack: LocalStack) -> Any:
    """What there is to leave as it was: every function, version and alias, its settings and limits."""
    client = stack.client("lambda")
    told = {}
    for function in client.list_functions(FunctionVersion="ALL")["Functions"]:
        name = function["FunctionName"]
        told[function["FunctionArn"]] = {k: v for k, v in function.items() if k not in ("LastModified", "RevisionId")}
        told[name] = [a["Name"] for a in client.list_aliases(FunctionName=name)["Aliases"]]
        told[f"{name} reserved"] = client.get_function_concurrency(FunctionName=name).get(
            "ReservedConcurrentExecutions"
        )
    return told


def advised(stack: LocalStack, work: dict[str, Any], folder: Path, *argv: str) -> dict[str, Any]:
    payload = folder / "payload.json"
    payload.write_text(json.dumps(work))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "OPS_", "P_FN_", "MCP_"))}
    command = [
        sys.executable,
        "-m",
        "ops",
        "tune",
        "memory",
        "--function",
        "echo",
        "--payloads",
        str(payload),
        "--json",
    ]
    done = subprocess.run(
        [*command, "--most", "6", "--out", str(folder / "tune"), *argv],
        cwd=ROOT, env=kept | {"AWS_ENDPOINT_URL": stack.ready["aws_endpoint_url"]},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("work", "sizes", "strategy", "optimum"),
    [
        # Cost is the same at every share below a core, and far higher past it: the fastest of the cheap ones is best.
        pytest.param({"do": "burn", "cpu_s": 0.04}, "128,192,256,10240", "balanced", 256, id="cpu-bound"),
        pytest.param({"do": "sleep", "seconds": 0.3}, "128,512,3008", "cost", 128, id="wait-bound"),
        pytest.param({"do": "eat", "mb": 280, "hold": 0.5}, "128,256,512,1536", "cost", 512, id="memory-bound"),
    ],
)
def test_the_known_optimum_is_found(
    stack: LocalStack, tmp_path: Path, work: dict[str, Any], sizes: str, strategy: str, optimum: int
):
    before = everything(stack)
    advice = advised(stack, work, tmp_path, "--sizes", sizes, "--strategy", strategy)
    assert advice["chosen_mb"] == optimum, advice["options"]
    assert advice["too_small_mb"] == ([128, 256] if work["do"] == "eat" else [])
    assert everything(stack) == before


def test_in_place_measures_the_function_itself_and_restores_it(stack: LocalStack, tmp_path: Path):
    before = everything(stack)
    advice = advised(stack, {"do": "sleep", "seconds": 0.2}, tmp_path, "--sizes", "128,512", "--in-place")
    assert advice["chosen_mb"] == 128
    assert everything(stack) == before
