"""Given the local stack, ops run as commands agrees with the client, and leaves it as it was."""

import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from ministack_server import made_ready
from ops_stack import ROOT, call, client_of, environment_of, ops, running

from ops.logs import read_events


@pytest.fixture(scope="module")
def stack():
    with running() as ready:
        yield ready


@pytest.fixture(scope="module")
def calls(stack):
    """[(request id, invocation number)] of six calls, and the range that holds them and no other."""
    began = datetime.now(UTC)
    made = [call(stack["endpoint"], f"print('call', {n})\n{n} + 1") for n in range(6)]
    return made, ["--since", began.isoformat(), "--until", datetime.now(UTC).isoformat()]


def test_the_report_counts_what_the_client_saw(stack, calls, tmp_path):
    made, span = calls
    done = ops(stack, "report", *span, "--json", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["groups"] == [stack["log_group"]]
    assert summary["invocations"] == len(made)
    assert summary["cold"]["count"] == sum(invocation == 1 for _, invocation in made)
    assert summary["failures"]["error"]["count"] == 0
    assert summary["memory"][0]["max_used_mb"] > 0
    assert summary["calls"]["tools"] == [{"tool": "execute_python", "calls": len(made), "failed": 0}]
    assert summary["calls"]["cpu_ms"]["max"] > 0
    reported = (tmp_path / "events.jsonl").read_text()
    assert all(request_id in reported for request_id, _ in made)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_show_finds_the_request_of_a_response(stack, calls):
    made, _ = calls
    request_id, _ = made[-1]
    done = ops(stack, "logs", "show", request_id)
    assert done.returncode == 0, done.stderr
    began, called, ended = done.stdout.splitlines()
    assert f"START {request_id}" in began
    assert f"CALL {request_id} execute_python ok" in called
    assert f"REPORT {request_id} success" in ended
    assert made[0][0] not in done.stdout


IN_BATCHES = "import ops.parquet; ops.parquet.ROWS_AT_ONCE = 4; from ops.__main__ import main; main()"
AS_JSON = """
import json, sys
from pyarrow import parquet
table = parquet.read_table(sys.argv[1])
rows = [{**row, "time": int(row["time"].timestamp() * 1000)} for row in table.to_pylist()]
print(json.dumps({"types": [str(column.type) for column in table.schema], "rows": rows}, default=str))
"""


def test_pull_as_parquet_keeps_every_event(stack, calls, tmp_path):
    """With a pyarrow that lies outside .venv: the interpreter's templates, which the stack runs on it, import pandas,
    and pandas any pyarrow that it finds."""
    made_ready("pyarrow")
    libraries = next((ROOT / ".tools" / "pyarrow" / "lib").glob("python3*")) / "site-packages"
    env = environment_of(stack) | {"PYTHONPATH": str(libraries)}
    pull = ["logs", "pull", "--output", "parquet", "--out", str(tmp_path), *calls[1]]
    for command in ([IN_BATCHES, *pull], [AS_JSON, str(tmp_path / "events.parquet")]):
        done = subprocess.run(
            [sys.executable, "-c", *command], cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    events = list(read_events(tmp_path / "events.jsonl"))
    assert len(events) > 8
    assert read["types"][0] == "timestamp[ms, tz=UTC]"
    kept = [(row["time"], row["group"], row["stream"], row["id"], row["message"]) for row in read["rows"]]
    assert kept == [(one.timestamp_ms, one.group, one.stream, one.id, one.message) for one in events]


def test_a_range_before_the_first_call_is_inconclusive(stack, calls, tmp_path):
    done = ops(stack, "report", "--since", "2h", "--until", "1h", "--out", str(tmp_path))
    assert done.returncode == 4
    assert "has no events" in done.stderr


@pytest.fixture
def client(stack):
    return lambda service: client_of(stack, service)


@pytest.fixture(scope="module")
def both_reports(stack, tmp_path_factory):
    """The pulled report and the one by Insights of the same calls: good, failed, refused, and some on cold starts."""
    began = datetime.now(UTC)
    codes = [
        "print(1)",
        "1 / 0",
        "import os\nos.system('true')",
        "import numpy\nnumpy.arange(9).sum()",
        "raise SystemExit(3)",
    ]
    for code in codes * 6:
        call(stack["endpoint"], code)
    with ThreadPoolExecutor(3) as together:
        numbers = [
            n for _, n in together.map(lambda code: call(stack["endpoint"], code), ["import time; time.sleep(1)"] * 3)
        ]
    assert 1 in numbers
    span = ["--since", began.isoformat(), "--until", datetime.now(UTC).isoformat()]
    found = []
    for flag in ([], ["--insights"]):
        done = ops(stack, "report", *flag, *span, "--json", "--out", str(tmp_path_factory.mktemp("report")))
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    return found


def test_the_report_by_insights_agrees_with_the_pulled_one(both_reports):
    pulled, asked = both_reports
    same = ("range", "groups", "invocations", "failures", "unfinished", "failed_inits", "cold", "cold_by")
    assert pulled["invocations"] == 33
    assert pulled["cold"]["count"] >= 1
    assert {name: asked[name] for name in (*same, "blocked_operations")} == {
        name: pulled[name] for name in (*same, "blocked_operations")
    }
    assert pulled["blocked_operations"]
    for name in ("tools", "failures", "callers"):
        assert sorted(asked["calls"][name], key=str) == sorted(pulled["calls"][name], key=str)
    assert asked["concurrency"]["environments"] == pulled["concurrency"]["environments"]
    mine, theirs = asked["cost"], pulled["cost"]
    assert mine.pop("left_out") == theirs.pop("left_out")
    assert mine == pytest.approx(theirs)
    for row, other in zip(asked["memory"], pulled["memory"], strict=True):
        assert {**row, "p95_used_mb": 0} == {**other, "p95_used_mb": 0}


@pytest.mark.parametrize("part", ["all", "warm", "cold"])
def test_percentiles_by_insights_lie_within_the_pulled_intervals(both_reports, part):
    pulled, asked = (report["duration_ms"][part] for report in both_reports)
    assert (asked["n"], asked["max"]) == (pulled["n"], pulled["max"])
    for mine, theirs in zip(asked["quantiles"], pulled["quantiles"], strict=True):
        assert (mine["name"], mine["refused"]) == (theirs["name"], theirs["refused"])
        if theirs["value"] is not None:
            assert (theirs["low"] or 0.0) <= mine["value"] <= (theirs["high"] or float("inf"))


def test_a_line_is_told_by_live_tail_and_ctrl_c_is_130(stack, tmp_path):
    argv = [
        sys.executable,
        "-m",
        "ops",
        "logs",
        "tail",
        "--live",
        "--group",
        stack["log_group"],
        "--out",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        argv, cwd=ROOT, env=environment_of(stack), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    told = iter(process.stderr.readline, "")
    assert any("Live from now on" in line for line in told)
    # The session begins a moment after it is announced: calls go on until one of them is seen.
    stop, asked = threading.Event(), []

    def keep_calling():
        while not stop.wait(0.3):
            asked.append(call(stack["endpoint"], "1")[0])

    caller = threading.Thread(target=keep_calling)
    caller.start()
    try:
        line = process.stdout.readline()
    finally:
        stop.set()
        caller.join()
        process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert any(request_id in line + rest for request_id in asked)
    assert any(request_id in (tmp_path / "events.jsonl").read_text() for request_id in asked)


@pytest.fixture
def memory(client):
    """{function: its memory in MB} of every function there is, asked anew each time."""
    return lambda: {f["FunctionName"]: f["MemorySize"] for f in client("lambda").list_functions()["Functions"]}


def test_tuning_measures_a_copy_of_the_real_function_and_deletes_it(stack, memory, tmp_path):
    before = memory()
    argv = ["tune", "memory", "--function", stack["function_name"], "--sizes", "768,1536", "--most", "5", "--json"]
    done = ops(stack, *argv, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    advice = json.loads(done.stdout)
    assert {o["memory_mb"] for o in advice["options"] if o["measured"]} == {768, 1536}
    assert advice["chosen_mb"] in {768, 1536}
    assert set(advice["init_ms"]) == {"768", "1536"}
    assert memory() == before


def test_tuning_ended_by_ctrl_c_deletes_the_copy_and_keeps_its_samples(stack, memory, tmp_path):
    before = memory()
    argv = [sys.executable, "-m", "ops", "tune", "memory", "--function", stack["function_name"], "--out", str(tmp_path)]
    process = subprocess.Popen(
        [*argv, "--sizes", "768,1536,2048"], cwd=ROOT, env=environment_of(stack), stderr=subprocess.PIPE, text=True
    )
    said = iter(process.stderr.readline, "")
    assert any("at 1536 MB" in line for line in said)  # 768 is done, so its samples are there
    process.send_signal(signal.SIGINT)
    process.stderr.read()
    assert process.wait(60) == 130
    assert memory() == before
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert {row["memory_mb"] for row in samples} >= {768}
