"""`pip install .` gives four commands that work outside the repository, in a directory full of clashing names."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_stack import ROOT, LocalStack

from tests.published_schemas import validated

UV = ROOT / ".tools" / "uv" / "bin" / "uv"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROOMS = ("conformance", "load", "ops", "check")
DATA = (
    "conformance/pytest.ini",
    "conformance/profiles/lambda.yaml",
    "conformance/requirements/contract.yaml",
    "conformance/report/report.schema.json",
    "conformance/report/report.html.jinja",
    "load/thresholds.yaml",
    "load/profiles/smoke.yaml",
    "ops/report.html.j2",
    "check/page.html.j2",
)
# Imported under a name of their own, and brought by what is declared.
BROUGHT_BY = {"botocore": "boto3", "gevent": "locust", "urllib3": "boto3"}
# Declared for an option of another package, not to be imported.
NOT_IMPORTED = {"pytest-xdist"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run([UV, "build", "--wheel", "-q", "--out-dir", out, ROOT], capture_output=True, text=True)
    if "build-system.requires" in done.stderr:
        pytest.skip(f"the package index did not give the build backend: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the commands in an environment of their own, which borrows its libraries from this one."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([UV, "venv", "-q", "--no-project", "--python", sys.executable, venv], check=True)
    subprocess.run([UV, "pip", "install", "-q", "--no-deps", "--python", venv / "bin" / "python", wheel], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (borrowed,) = (path for path in sys.path if path.endswith("site-packages"))
    (site / "borrowed.pth").write_text(borrowed + "\n")
    return venv / "bin"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working directory of somebody who has a `load`, an `ops` and so on of their own."""
    for name in (*ROOMS, "locust"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('{name} of the working directory was imported')\n")
    return tmp_path


def run(command: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_", "AWS_", "PYTHON"))}
    return subprocess.run([command, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_the_wheel_adds_one_name_and_leaves_no_data_behind(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"lambda_code_interpreter"}
    assert {f"lambda_code_interpreter/{name}" for name in DATA} <= set(names)
    tracked = subprocess.run(["git", "ls-files", *ROOMS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    missing = {f"lambda_code_interpreter/{name}" for name in tracked.splitlines()} - set(names)
    assert not missing
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


@pytest.mark.parametrize("room", ROOMS)
def test_a_command_tells_its_name_and_version_anywhere(room: str, commands: Path, elsewhere: Path) -> None:
    command = commands / f"lci-{room}"
    told = run(command, "--version", cwd=elsewhere)
    assert (told.returncode, told.stdout) == (0, f"lci-{room} {PROJECT['version']}\n")
    helped = run(command, "--help", cwd=elsewhere)
    assert helped.returncode == 0, helped.stderr
    assert helped.stdout.startswith(f"usage: lci-{room} ")
    for module in re.findall(r"python -m (\w+)", helped.stdout):
        assert module not in ROOMS, "the help names commands that do not work here"


def test_conformance_judges_an_endpoint_in_two_processes(commands: Path, elsewhere: Path, product: LocalStack) -> None:
    done = run(commands / "lci-conformance", product.ready["endpoint"], "--smoke", "-n", "2", "--json", cwd=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert (summary["verdict"], summary["counts"]["passed"]) == ("pass", 3)
    assert validated(summary) == "conformance/1"
    (records,) = (elsewhere / "out").glob("conformance-*/checks.jsonl")
    for line in records.read_text().splitlines():
        validated(json.loads(line), "conformance-check/1")


def test_a_server_that_conformance_starts_is_as_in_its_users_shell(commands: Path, elsewhere: Path) -> None:
    """`python -m theirs` is found in the working directory, and nothing of ours is on its path."""
    foreign = ROOT / "tests" / "broken_servers" / "stdio.py"
    (elsewhere / "theirs.py").write_text(
        "import os, runpy, sys\n"
        "assert not [name for name in os.environ if name.startswith('PYTHON')]\n"
        "assert not [path for path in sys.path if path.endswith('lambda_code_interpreter')]\n"
        f"runpy.run_path({str(foreign)!r}, run_name='__main__')\n"
    )
    python = {"tool": "run_cell", "code": "source", "arguments": {"cell": 1}, "pattern": "\\n---\\n(.*)"}
    target = {"command": [str(commands / "python"), "-m", "theirs"], "python": python}
    (elsewhere / "target.yaml").write_text(json.dumps(target))
    done = run(
        commands / "lci-conformance", "--target", "target.yaml", "--only", "tools", "-k", "addition_prints",
        cwd=elsewhere,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_load_starts_its_own_locust(commands: Path, elsewhere: Path, product: LocalStack) -> None:
    url = product.ready["endpoint"]
    done = run(
        commands / "lci-load", "run", "smoke", url, "--duration", "2", "--rate", "5", "--out", "run", "--json",
        cwd=elsewhere,
    )  # fmt: skip
    assert done.returncode in (0, 1, 4), done.stderr  # what a machine this busy makes of it is not asked here
    summary = json.loads(done.stdout)
    assert validated(summary) == "load/1"
    assert summary["counts"]["ok"] > 0
    for line in (elsewhere / "run" / "requests.jsonl").read_text().splitlines():
        validated(json.loads(line), "load-row/1")
    assert (elsewhere / "run" / "report.html").is_file()


def test_ops_looks_at_an_endpoint(commands: Path, elsewhere: Path, product: LocalStack) -> None:
    done = run(
        commands / "lci-ops", "doctor", "--endpoint", product.ready["endpoint"], "--no-aws", "--json", cwd=elsewhere
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert {validated(one) for one in found} == {"ops-finding/1"}
    assert {one["level"] for one in found} <= {"ok", "unknown"}


def test_check_finds_the_other_commands_and_says_what_is_not_installed(commands: Path, elsewhere: Path) -> None:
    dead = "http://127.0.0.1:9/lambda/mcp/"
    done = run(
        commands / "lci-check", "gate", "--candidate", dead, "--previous", dead, "--json", "--out", "run", cwd=elsewhere
    )
    assert done.returncode == 3, done.stdout + done.stderr
    (step,) = json.loads(done.stdout)["steps"]
    assert (step["exit_code"], step["command"].startswith("lci-conformance")) == (3, True)
    without = run(commands / "lci-check", cwd=elsewhere)
    assert without.returncode == 2
    assert "the local stack is in the repository only" in without.stderr


def imported(room: str) -> Iterator[str]:
    """The top-level modules that a room imports when it runs; what only a type checker imports is left out."""
    for path in (ROOT / room).rglob("*.py"):
        if "corpus" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        for_types = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if id(node) in for_types:
                continue
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]


def test_what_is_imported_is_declared_and_the_reverse() -> None:
    declared = {re.split(r"[<>=\[ ]", line)[0].lower() for line in PROJECT["dependencies"]}
    owners = importlib.metadata.packages_distributions()
    needed: dict[str, str] = {}
    for module in {name for room in ROOMS for name in imported(room)} - set(sys.stdlib_module_names) - set(ROOMS):
        assert module in owners, f"{module} is imported and belongs to no package here"
        needed[BROUGHT_BY.get(module, owners[module][0].lower())] = module
    assert set(needed) - declared == set(), needed
    assert declared - set(needed) == NOT_IMPORTED
