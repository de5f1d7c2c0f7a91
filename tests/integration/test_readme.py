"""Every command in the README is run here, or stands in a table with the test that runs it; another one fails."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from local_stack import ROOT, LocalStack

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.compile(
    r"(make|curl|python3?|\.venv/bin/python|(\./)?[a-z_]+\.(py|sh)|cp|cd|pip|git|uv|uvx|npx|docker|aws|sam|lci-[a-z]+)\b"
)
# How a block begins that is no command but what one prints.
OUTPUTS = ("protocol       pass", '{"success": true')


@dataclass(frozen=True, slots=True)
class By:
    """The test that runs it; `holds` is a text of that test's file without which it cannot."""

    test: str
    holds: str


MAIN_JOB = By("tests/integration/test_check.py::test_the_main_job_passes_and_its_page_links_every_report", '"check"')
MODES = By("tests/integration/test_conformance_security_modes.py::test_only_the_residue_gets_through", '"security"')
DEPLOY = "tests/integration/test_deploy_ministack.py::test_the_smoke_checks_pass_with_the_key"
GATE = By("tests/integration/test_ci_recipe.py::test_a_good_version_is_promoted_and_serves", "deploy-gate.yml")
STACK = By("tests/integration/test_local_command.py::test_the_ready_line", "local_stack(")

ELSEWHERE = {
    "make check": MAIN_JOB,
    "python -m check": MAIN_JOB,
    "make check ENDPOINT": By(
        "tests/integration/test_check.py::test_a_deployed_endpoint_goes_through_the_same_steps",
        'url = product.ready["endpoint"]',
    ),
    "make conformance ENDPOINT": MAIN_JOB,
    "make load ENDPOINT PROFILE=smoke": MAIN_JOB,
    "make serve": STACK,
    "python -m sam.local": STACK,
    "python -m sam.local --confinement kernel": By(
        "tests/integration/test_local_isolation.py::test_with_kernel_confinement_they_are_left_to_the_function",
        '"--confinement", "kernel"',
    ),
    "cd function && ../.venv/bin/python server.py --mode stdio": By(
        "tests/integration/test_server_modes.py::test_stdio_serves_a_client_and_streams_printed_lines", '"stdio"'
    ),
    "python -m conformance --only security": MODES,
    "python -m conformance compare A B": By(
        "tests/unit/test_conformance_security_scorecard.py::test_runs_are_put_side_by_side", "scorecard_compare"
    ),
    "make mutants": By("tests/integration/test_conformance_mutants.py::test_check_fails_on_its_mutant", "mutants"),
    "make coldstart ENDPOINT": By("tests/integration/test_load_runs.py::test_cold_start_burst", '"coldstart"'),
    "python -m load coldstart --function NAME": By(
        "tests/integration/test_load_product.py::test_every_call_on_a_new_version_is_cold_by_both_words", '"--function"'
    ),
    "python -m load mix LOG_GROUP --write mix.yaml": By(
        "tests/integration/test_load_product.py::test_the_product_is_asked_again_what_it_was_asked", '"--write"'
    ),
    "python -m load ab smoke URL-A URL-B": By(
        "tests/integration/test_load_runs.py::test_two_endpoints_in_turns", '"ab"'
    ),
    "python -m ops logs tail --live": By(
        "tests/integration/test_ops_local_stack.py::test_a_line_is_told_by_live_tail_and_ctrl_c_is_130", '"--live"'
    ),
    "python -m load compare A B": By("tests/integration/test_load_runs.py::test_two_endpoints_in_turns", '"compare"'),
    "python -m load report DIR": By(
        "tests/integration/test_load_runs.py::test_a_lost_worker_is_inconclusive", '"report"'
    ),
    "make tune": By("tests/integration/test_ops_known_optima.py::test_the_known_optimum_is_found", '"memory"'),
    "make layer": By(DEPLOY, '"layer"'),
    "make apigw": By(DEPLOY, '"apigw.deploy"'),
    "make gate FUNCTION=NAME": GATE,
    "python -m check gate --function NAME": GATE,
    "python simple_test_client.py ENDPOINT": By(
        "tests/integration/test_fronts.py::test_the_client_shows_three_answers_and_needs_nothing_but_python",
        "simple_test_client.py",
    ),
    "./test_deployment.sh BASE_URL": By(
        "tests/integration/test_fronts.py::test_the_script_takes_a_stage_or_an_endpoint", "test_deployment.sh"
    ),
    "pip install .": By(
        "tests/integration/test_packaging.py::test_conformance_judges_an_endpoint_in_two_processes",
        '"build", "--wheel"',
    ),
    "lci-conformance ENDPOINT": By(
        "tests/integration/test_packaging.py::test_conformance_judges_an_endpoint_in_two_processes", '"lci-conformance"'
    ),
}
# Run here. What takes minutes or never ends is shown by its first step; the comment says which.
HERE = {
    "make test": "test_make_test_runs_all_tests",  # it is running
    "make bench": "test_help_is_printed",  # a quarter of an hour
    "make help": "test_help_is_printed",
    "python -m ops tune --help": "test_help_is_printed",
    "python -m conformance requirements": "test_help_is_printed",
    "curl": "test_the_call_answers_with_what_is_printed_below_it",
    "make smoke ENDPOINT": "test_make_runs_it_on_the_local_stack",
    "make report": "test_make_runs_it_on_the_local_stack",
    "make doctor": "test_make_runs_it_on_the_local_stack",
    "make logs": "test_logs_are_followed_until_ctrl_c",
    "cp etc/environment.sh.example etc/environment.sh": "test_the_example_settings_can_be_copied",
    "make validate": "test_the_templates_are_valid",
}


def blocks() -> Iterator[str]:
    """Indented and fenced blocks, without their indentation."""
    fenced = re.compile(r"^```[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    yield from (found[1].strip("\n") for found in fenced.finditer(README))
    for found in re.finditer(r"(?:^    .*\n)+", fenced.sub("", README), re.MULTILINE):
        yield re.sub(r"^    ", "", found[0], flags=re.MULTILINE).strip("\n")


def commands_of(block: str) -> Iterator[str]:
    """Its commands; one goes on over a backslash, and as long as a quote is open."""
    held = ""
    for line in block.splitlines():
        held = f"{held}\n{line}" if held else line
        try:
            words = shlex.split(held.replace("\\\n", " "), comments=True)
        except ValueError:
            continue
        if not held.endswith("\\"):
            if words:
                yield held
            held = ""
    assert not held, f"a command that does not end: {held}"


def all_commands() -> list[str]:
    found = []
    for block in blocks():
        if not block.startswith(OUTPUTS):
            found += list(commands_of(block))
    # In the running text those that can be typed: a whole command line between backquotes.
    inline = re.findall(r"`([^`\n]+)`", README)
    return found + [
        text for text in inline if re.match(r"(make|python3?|cd|lci-\w+|pip|\./) ?\S+ ?.*", text) and " " in text
    ]


def plain(command: str) -> str:
    """The command as the tables have it: without comment, Python's path, and what stands for an address."""
    if command.startswith("curl"):
        return "curl"
    text = " ".join(shlex.split(command, comments=True))
    text = re.sub(r"^(\.venv/bin/python|python3)\b", "python", text)
    text = re.sub(r"ENDPOINT=\S*", "ENDPOINT", text)
    return re.sub(r"(?<= )(URL|https?://\S*)(?= |$)", "ENDPOINT", text)


COMMANDS = sorted({plain(command): command for command in all_commands()}.items())


def unproved(name: str) -> str:
    """Why no test runs a command; empty when one does."""
    if name in HERE:
        return "" if callable(globals().get(HERE[name])) else f"{HERE[name]} is not in this file"
    if name not in ELSEWHERE:
        return f"{name!r} is in the README, and no test is said to run it"
    path, _, test = ELSEWHERE[name].test.partition("::")
    text = (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).is_file() else ""
    if f"def {test}(" not in text:
        return f"{ELSEWHERE[name].test} is not there"
    return "" if ELSEWHERE[name].holds in text else f"{path} does not hold {ELSEWHERE[name].holds}"


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_a_command_of_the_readme_is_run_by_a_test(name: str, command: str) -> None:
    assert PROGRAMS.match(command), f"neither a command nor the beginning of an output in OUTPUTS: {command}"
    assert not unproved(name)


@pytest.mark.parametrize(
    ("by", "why"),
    [
        pytest.param(None, "no test is said to run it", id="unknown"),
        pytest.param(By("tests/integration/test_nowhere.py::test_x", ""), "is not there", id="no-file"),
        pytest.param(By("tests/integration/test_check.py::test_x", ""), "is not there", id="no-test"),
        pytest.param(By(MAIN_JOB.test, "a text that it lacks"), "does not hold", id="another-thing"),
    ],
)
def test_a_command_that_no_test_runs_is_told(by: By | None, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not unproved("make check")
    if by:
        monkeypatch.setitem(ELSEWHERE, "make nothing", by)
    assert why in unproved("make nothing")


def test_commands_are_found_as_they_stand() -> None:
    (found,) = commands_of("make nothing ENDPOINT=https://…/x   # does not exist\n")
    assert plain(found) == "make nothing ENDPOINT"
    assert [plain(one) for one in commands_of("curl -d '{\n  1}' \\\n  URL\nmake check  # all\n")] == [
        "curl",
        "make check",
    ]
    assert len(COMMANDS) > 20, "the README's blocks are not found any more"


# -- those that are run here -------------------------------------------------------------------------------------------


def expansion(*words: str) -> str:
    """The shell line that make would run, and nothing of its setting up."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def elsewhere(tmp_path: Path, **settings: str) -> dict[str, str]:
    """A directory in which such a line runs, with its records there; returns the environment for it."""
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MCP_", "OPS_", "P_FN_"))}
    return kept | {"PYTHONPATH": str(ROOT)} | settings


def for_boto3(stack: LocalStack) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": stack.ready["aws_endpoint_url"],
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@pytest.mark.parametrize("name", [name for name, _ in COMMANDS if name.startswith("make ")])
def test_make_knows_the_target(name: str) -> None:
    words = ["ENDPOINT=http://endpoint.invalid/" if word == "ENDPOINT" else word for word in name.split()[1:]]
    line = expansion(*words)
    assert line
    assert "ENDPOINT" not in name or "http://endpoint.invalid/" in line, "the target does not use its ENDPOINT"


def test_make_test_runs_all_tests() -> None:
    lines = expansion("test").splitlines()
    runs = [line for line in lines if "-m pytest" in line]
    assert [line.split()[-1] for line in runs] == ["tests", "tests"]
    assert "not alone" in runs[0]
    assert "alone" in runs[1]
    assert any("mypy" in line for line in lines)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        pytest.param("make -s help", "make check", id="make-help"),
        pytest.param(".venv/bin/python -m tests.bench --help", "interpreter", id="make-bench"),
        pytest.param(".venv/bin/python -m ops tune --help", "concurrency", id="tune"),
        pytest.param(".venv/bin/python -m conformance requirements", "requirements have checks", id="requirements"),
    ],
)
def test_help_is_printed(line: str, told: str) -> None:
    done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout


def test_the_call_answers_with_what_is_printed_below_it(product: LocalStack) -> None:
    (command,) = (one for one in all_commands() if one.startswith("curl"))
    assert "http://127.0.0.1:8000/dev/lambda/mcp/" in command
    command = command.replace("http://127.0.0.1:8000/dev/lambda/mcp/", product.ready["endpoint"])
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    data = next(line[5:] for line in done.stdout.splitlines() if line.startswith("data:"))
    answer = json.loads(data)["result"]["structuredContent"]
    (printed,) = (block for block in blocks() if block.startswith('{"success": true'))
    shown = json.loads(re.sub(r", \.\.\.", "", printed))
    assert list(shown) == list(answer)
    assert {key: shown[key] for key in ("success", "result", "stdout")} == {
        key: answer[key] for key in ("success", "result", "stdout")
    }


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(["smoke", "ENDPOINT"], "MUST    3 passed", id="smoke"),
        pytest.param(["report"], "invocations", id="report"),
        pytest.param(["doctor"], "0 wrong", id="doctor"),
    ],
)
def test_make_runs_it_on_the_local_stack(words: list[str], told: str, product: LocalStack, tmp_path: Path) -> None:
    endpoint = product.ready["endpoint"]
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "get_environment_info", "arguments": {}},
    }
    # Something for the report to count.
    headers = {"Content_Type": "application/json", "Accept": "application/json, text/event-stream"}
    assert product.call(call, **headers).status == 200
    product.log_lines("platform.report")
    line = expansion(*(f"ENDPOINT={endpoint}" if word == "ENDPOINT" else word for word in words))
    environment = elsewhere(tmp_path, MCP_ENDPOINT_URL=endpoint, **for_boto3(product))
    done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert told in done.stdout, done.stdout


def test_logs_are_followed_until_ctrl_c(product: LocalStack, tmp_path: Path) -> None:
    line = expansion("logs")
    assert product.call(method="GET").status == 405
    product.log_lines("platform.report")
    with subprocess.Popen(
        shlex.split(line),
        cwd=tmp_path,
        env=elsewhere(tmp_path, **for_boto3(product)),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "the first line of the log"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130


def test_the_example_settings_can_be_copied(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    example = ROOT / "etc" / "environment.sh.example"
    (tmp_path / "etc" / example.name).write_text(example.read_text())
    (command,) = (one for name, one in COMMANDS if name.startswith("cp "))
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    said = subprocess.run(
        ["sh", "-eu", "-c", ". etc/environment.sh; echo $P_FN_MEMORY"], cwd=tmp_path, capture_output=True, text=True
    )
    assert said.stdout.strip().isdecimal(), said.stderr


@pytest.mark.alone  # another test may be installing the same tool at the same time
def test_the_templates_are_valid() -> None:
    for tool in ("sam", "checkov"):
        made = subprocess.run(["sh", "sam/tool.sh", tool], cwd=ROOT, capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"{tool} cannot be installed here: {made.stderr.strip()[-300:]}")
    done = subprocess.run(expansion("validate"), shell=True, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "templates are valid" in done.stderr
