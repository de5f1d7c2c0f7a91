"""The inputs that fuzzing starts from, and those that it has found, hold to its properties without the fuzzer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A process of its own, since the function is imported there with an interpreter that starts no process.
REPLAY = """
import sys
from pathlib import Path
from tests.bench.fuzzing import {surface} as module
surface = module.Surface()
EMPTY = {{"statusCode": 200, "headers": {{}}, "body": "", "isBase64Encoded": False}}
{broken}
for path in sorted(module.SEEDS.iterdir()):
    try:
        surface.one(path.read_bytes())
    except Exception as error:
        sys.exit(f"{{path.name}}: {{type(error).__name__}}: {{error}}")
surface.check_plain()
"""


def replay(surface: str, scratch: Path, broken: str = "") -> subprocess.CompletedProcess[str]:
    program = REPLAY.format(surface=surface, broken=broken)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("surface", ["request", "pipe"])
def test_every_known_input_keeps_the_properties(surface: str, tmp_path: Path) -> None:
    assert replay(surface, tmp_path).stderr == ""


@pytest.mark.parametrize(
    ("surface", "broken", "says"),
    [
        pytest.param("request", "import guard; guard._check_message = None", "a fault of the server", id="guard"),
        pytest.param("request", "surface.handler.handler = lambda *_: EMPTY", "no body", id="empty-answer"),
        pytest.param("request", "import tools; tools.Tools.execute_python = None", "a fault of ours", id="tool"),
        pytest.param("request", "import interpreter.files as files; files.check_name = id", "outside", id="names"),
        pytest.param("pipe", "surface.outcome._parse_report = lambda one: 1 / 0", "ZeroDivisionError", id="parser"),
        pytest.param("pipe", "surface.outcome._parse_report = lambda one: None", "a plain report", id="deaf"),
    ],
)  # fmt: skip
def test_the_properties_can_fail(surface: str, broken: str, says: str, tmp_path: Path) -> None:
    done = replay(surface, tmp_path, broken)
    assert done.returncode != 0
    assert says in done.stderr
