"""Whole runs of `python -m load` against an endpoint with one known fault: no false pass, and the right exit code."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from load.rows import Row, read_rows, read_runs
from load.summary import timed

ROOT = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).with_name("load_fake_endpoint.py")


@contextmanager
def endpoint(*arguments: str) -> Iterator[str]:
    """The fake endpoint's URL while it runs."""
    process = subprocess.Popen([sys.executable, str(FAKE), *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["endpoint"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Callable[..., str]:
    def start(*arguments: object) -> str:
        opened = endpoint(*map(str, arguments))
        url = opened.__enter__()
        request.addfinalizer(lambda: opened.__exit__(None, None, None))
        return url

    return start


def profile(directory: Path, **other: Any) -> Path:
    """A quick plan; the send-lag limit is wide because tests share their machine."""
    plan: dict[str, Any] = {
        "stages": [{"kind": "constant", "name": "steady", "rate_per_s": 20, "duration_s": 1}],
        "scenarios": {"print": 2, "numpy": 1, "pandas": 1, "figure": 1, "packages": 1, "error": 1},
        "eras": {"2025-11-25": 1, "2026-07-28": 1},
        "request_timeout_s": 10,
        "drain_s": 10,
        "limits": {"send_lag_p99_ms": 2000, "cpu_share": 1.0},
        "thresholds": ["count(errors) == 0"],
    }
    path = directory / "quick.yaml"
    path.write_text(yaml.safe_dump({**plan, **other}), encoding="utf-8")
    return path


def load(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "load", *map(str, arguments)]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=90, check=False)


def outcomes(out: Path) -> Counter[str]:
    return Counter(row.outcome for row in read_rows(out))


def test_a_good_endpoint_passes_with_a_row_for_every_arrival(serve: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = load("run", profile(tmp_path), serve("--init-s", "0.1"), "--out", out, "--json", MCP_API_KEY="s3cret-key")
    assert done.returncode == 0, done.stderr + done.stdout
    summary = json.loads(done.stdout)
    assert summary["schema"] == "load/1"
    assert summary["counts"]["planned"] == summary["counts"]["ok"] == 20
    rows = read_rows(out)
    assert [row.index for row in rows] == list(range(20))
    assert {row.scenario for row in rows} == {"print", "numpy", "pandas", "figure", "packages", "error"}
    cold = [row for row in rows if row.cold]
    assert len(cold) == summary["counts"]["environments"] == len({row.environment_id for row in rows})
    assert all(row.timing("init") == 100 for row in cold)
    assert all(row.timing("init") is None for row in rows if not row.cold)
    for row in rows:
        assert row.sent_s is not None
        assert row.first_byte_s is not None
        assert row.done_s is not None
        assert row.latency_ms is not None
        assert row.intended_s <= row.sent_s <= row.first_byte_s <= row.done_s
        assert row.latency_ms == pytest.approx((row.done_s - row.intended_s) * 1000, abs=0.01)
    assert not [path for path in out.iterdir() if "s3cret-key" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize(
    ("fault", "outcome", "code"),
    [
        pytest.param("tool-error", "tool_error", 1, id="tool-error-behind-a-200"),
        pytest.param("wrong-answer", "wrong_answer", 1, id="success-that-is-no-answer"),
        pytest.param("rpc-error", "rpc_error", 1, id="rpc-error"),
        pytest.param("http-500", "http_error", 1, id="every-answer-a-500"),
        pytest.param("forbidden", "http_error", 3, id="our-key-is-refused"),
        pytest.param("cut", "connect_error", 3, id="connections-cut-before-any-answer"),
    ],
)
def test_faults(serve: Callable[..., str], tmp_path: Path, fault: str, outcome: str, code: int) -> None:
    out = tmp_path / "out"
    plan = profile(tmp_path, scenarios={"print": 1}, stages=[{"kind": "burst", "size": 5, "every_s": 0.2}])
    done = load("run", plan, serve("--fault", fault), "--out", out)
    assert done.returncode == code, done.stderr + done.stdout
    assert outcomes(out) == {outcome: 5}
    assert all(row.error for row in read_rows(out))


def test_unanswered_requests_are_recorded_and_inconclusive(serve: Callable[..., str], tmp_path: Path) -> None:
    """Locust alone drops them silently and exits 0."""
    out = tmp_path / "out"
    plan = profile(tmp_path, drain_s=0.2, request_timeout_s=60)
    done = load("run", plan, serve("--fault", "hang"), "--out", out)
    assert done.returncode == 4, done.stderr + done.stdout
    assert outcomes(out) == {"in_flight": 20}
    assert "20 requests were still unanswered" in done.stdout
    assert min(row.latency_ms or 0 for row in read_rows(out)) >= 200


def test_timeouts_fail(serve: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = profile(tmp_path, request_timeout_s=0.3)
    done = load("run", plan, serve("--fault", "hang"), "--out", out)
    assert done.returncode == 1, done.stderr + done.stdout
    assert outcomes(out) == {"timeout": 20}
    assert all((row.service_ms or 0) >= 300 for row in read_rows(out))


def test_arrivals_that_could_not_be_sent_are_rows_and_inconclusive(serve: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = profile(tmp_path, max_in_flight=3, scenarios={"hold": 1})
    done = load("run", plan, serve(), "--out", out)
    assert done.returncode == 4, done.stderr + done.stdout
    found = outcomes(out)
    assert found["ok"] + found["dropped"] == 20
    assert found["dropped"] >= 10
    assert "max_in_flight" in done.stdout


def test_a_late_generator_is_inconclusive(serve: Callable[..., str], tmp_path: Path) -> None:
    """A limit no machine can keep stands for a machine that cannot keep the limit."""
    out = tmp_path / "out"
    plan = profile(tmp_path, limits={"send_lag_p99_ms": 0.001, "send_lag_share": 0})
    done = load("run", plan, serve(), "--out", out)
    assert done.returncode == 4, done.stderr + done.stdout
    assert "the generator was saturated" in done.stdout


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_the_rows(serve: Callable[..., str], tmp_path: Path, signum: int) -> None:
    out = tmp_path / "out"
    plan = profile(tmp_path, stages=[{"kind": "constant", "rate_per_s": 20, "duration_s": 60}])
    command = [sys.executable, "-m", "load", "run", str(plan), serve(), "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    # the first progress line says that it is sending
    ready, _, _ = select.select([process.stderr], [], [], 60)
    assert ready
    process.send_signal(signum)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stdout + stderr
    assert len(read_rows(out)) >= 1
    assert read_runs(out)[0].ended == "interrupted"
    assert json.loads((out / "summary.json").read_text(encoding="utf-8"))["verdict"] == "interrupted"


def test_ctrl_c_ends_the_workers_too(serve: Callable[..., str], tmp_path: Path) -> None:
    """A Locust master that is interrupted alone leaves its workers sending."""
    out = tmp_path / "out"
    plan = profile(tmp_path, stages=[{"kind": "constant", "rate_per_s": 20, "duration_s": 60}])
    process = _two_workers_at_work(plan, serve(), out)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert [run.ended for run in read_runs(out)] == ["interrupted"] * 3
    assert not _processes_naming(str(out))


def _two_workers_at_work(plan: Path, url: str, out: Path) -> "subprocess.Popen[str]":
    """`load run` with two workers, once both have written rows."""
    command = [sys.executable, "-m", "load", "run", str(plan), url, "--out", str(out), "--workers", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    files = [out / "requests-w0.jsonl", out / "requests-w1.jsonl"]
    _wait_for(lambda: all(file.exists() and file.stat().st_size for file in files))
    return process


def _wait_for(condition: Callable[[], bool], limit_s: float = 60) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "it never came to that"
        select.select([], [], [], 0.1)


def _processes_naming(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


def test_a_dead_url_is_unreachable(tmp_path: Path) -> None:
    (port,) = _free_ports(1)
    done = load("run", "smoke", f"http://127.0.0.1:{port}/mcp", "--out", tmp_path / "out")
    assert done.returncode == 3
    assert f"127.0.0.1:{port}" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_endpoint_without_the_tls_of_its_url_is_unreachable_before_anything_is_sent(
    serve: Callable[..., str], tmp_path: Path
) -> None:
    done = load("run", "smoke", serve().replace("http:", "https:"), "--out", tmp_path / "out")
    assert (done.returncode, "SSL" in done.stderr) == (3, True), done.stderr
    assert not (tmp_path / "out").exists()


def test_a_usage_error_is_one_sentence() -> None:
    done = load("run", "smok", "http://127.0.0.1:1/")
    assert done.returncode == 2
    assert "no profile 'smok'" in done.stderr
    assert "Traceback" not in done.stderr


def test_workers_share_one_schedule(serve: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = profile(tmp_path, stages=[{"kind": "constant", "rate_per_s": 20, "duration_s": 2}])
    done = load("run", plan, serve(), "--out", out, "--workers", 2)
    assert done.returncode == 0, done.stderr + done.stdout
    assert [row.index for row in read_rows(out)] == list(range(40))
    runs = read_runs(out)
    assert [run.role for run in runs] == ["master", "worker", "worker"]
    assert [run.dispatched for run in runs] == [40, 20, 20]
    assert len({run.anchor_unix_s for run in runs}) == 1, "Locust alone starts one worker a second"


def test_users_wait_for_their_answers_beside_a_schedule(serve: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    users = {"kind": "users", "name": "people", "users": 3, "think_s": 0.05, "ramp_s": 0.3, "duration_s": 1.5}
    stages = [users, {"kind": "constant", "name": "steady", "rate_per_s": 10, "duration_s": 1}]
    scenarios = {"print": 3, "blocked": 1, "install": 1}
    done = load(
        "run", profile(tmp_path, stages=stages, scenarios=scenarios), serve("--work-s", "0.1"), "--out", out,
        "--workers", 2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Closed loop" in done.stdout
    rows = read_rows(out)
    people = [row for row in rows if row.stage == "people"]
    assert len(rows) - len(people) == 10
    assert [row.index for row in rows if row.stage == "steady"] == list(range(10))
    assert len({row.index for row in rows}) == len(rows)
    # each user needs 0.15 s a turn at the least, so three of them can ask no more than thirty times in 1.5 s
    assert 6 <= len(people) <= 30
    assert max(_open_at(people, row.sent_s or 0.0) for row in people) <= 3
    assert {row.scenario for row in people} == set(scenarios)


def test_a_lost_worker_is_inconclusive(serve: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = profile(tmp_path, stages=[{"kind": "constant", "rate_per_s": 20, "duration_s": 1}])
    assert load("run", plan, serve(), "--out", out, "--workers", 2).returncode == 0
    elsewhere = tmp_path / "another-machine"
    elsewhere.mkdir()
    for name in ("requests-w1.jsonl", "run-w1.json"):
        (out / name).rename(elsewhere / name)
    done = load("report", out)
    assert done.returncode == 4, done.stderr + done.stdout
    assert "10 of 20 planned arrivals left no row" in done.stdout
    assert "inconclusive: the rows of 1 of 2 workers are here; copy requests-w*.jsonl and run-w*.json" in done.stdout
    for file in elsewhere.iterdir():
        file.rename(out / file.name)
    done = load("report", out)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "20/20 sent" in done.stdout


def test_a_worker_that_is_killed_does_not_hold_up_the_run(serve: Callable[..., str], tmp_path: Path) -> None:
    """Nor does it pass: the master knows that one of two never told it was done."""
    out = tmp_path / "out"
    plan = profile(tmp_path, stages=[{"kind": "constant", "rate_per_s": 20, "duration_s": 6}])
    process = _two_workers_at_work(plan, serve(), out)
    (master,) = _children(process.pid)
    os.kill(_children(master)[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 4, said
    assert "inconclusive: 1 of 2 workers finished their share" in said


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    ("abort", "fault", "by"),
    [
        pytest.param({"error_share": 0.5}, ("--fault", "http-500"), "rate(errors) <= 50% failed", id="errors"),
        pytest.param(
            {"thresholds": ["p95(latency) < 50ms"]}, ("--work-s", "0.2"), "p95(latency) < 50ms failed", id="latency"
        ),
    ],
)
def test_a_hopeless_run_stops_early_and_fails(
    serve: Callable[..., str], tmp_path: Path, abort: dict[str, Any], fault: tuple[str, str], by: str
) -> None:
    out = tmp_path / "out"
    stages = [{"kind": "constant", "rate_per_s": 40, "duration_s": 120}]
    plan = profile(tmp_path, stages=stages, abort=abort | {"after_s": 1}, thresholds=[], scenarios={"print": 1})
    done = load("run", plan, serve(*fault), "--out", out)
    assert done.returncode == 1, done.stderr + done.stdout
    assert f"stopped early by the plan's abort: {by}" in done.stdout
    assert read_runs(out)[0].ended == "aborted"
    assert 20 <= len(read_rows(out)) < 40 * 60


def test_workers_stop_at_what_only_their_sum_has_failed(serve: Callable[..., str], tmp_path: Path) -> None:
    """Six failures for each of two workers, nine allowed in all; and the person waiting sees the sum."""
    out = tmp_path / "out"
    stages = [{"kind": "burst", "size": 12, "every_s": 1}, {"kind": "constant", "rate_per_s": 10, "duration_s": 59}]
    abort = {"thresholds": ["count(errors) <= 9"], "after_s": 5.5}
    plan = profile(tmp_path, stages=stages, abort=abort, thresholds=[], scenarios={"print": 1})
    done = load("run", plan, serve("--fault", "http-500", "--faulty", 12), "--out", out, "--workers", 2)
    assert done.returncode == 1, done.stderr + done.stdout
    why = "stopped early by the plan's abort: count(errors) <= 9 failed, 12 of 12 were past it"
    assert why in done.stdout
    assert [(run.ended, run.aborted_by) for run in read_runs(out)] == [("aborted", why)] * 3
    assert Counter(row.outcome for row in read_rows(out) if row.index < 12) == {"http_error": 12}
    assert len(read_rows(out)) < 12 + 300
    said = re.search(r"load: \d+/60 s · (\d+)/602 sent · \d+ open · (\d+) ok · 12 not ok", done.stderr)
    assert said is not None, done.stderr
    assert int(said[1]) > 30


def test_an_abort_that_cannot_be_is_a_usage_error(tmp_path: Path) -> None:
    plan = profile(tmp_path, abort={"thresholds": ["count(cold) >= 10"]})
    done = load("run", plan, "http://127.0.0.1:1/", "--out", tmp_path / "out")
    assert (done.returncode, "what comes later may mend it" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("workers", [pytest.param(1, id="alone"), pytest.param(2, id="two-workers")])
def test_the_web_ui_starts_a_profile_and_keeps_its_page(
    serve: Callable[..., str], tmp_path: Path, workers: int
) -> None:
    """As a person does it: open the page, start, look at the statistics, start again."""
    port, master_port = _free_ports(2)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "locust", "-f", "load/locustfile.py", "--host", serve(), "--out", str(out)]
    command += ["--web-host", "127.0.0.1", "--web-port", str(port), "--profile", str(profile(tmp_path))]
    if workers > 1:
        ports = ["--master-bind-port", str(master_port), "--master-port", str(master_port)]
        command += ["--processes", str(workers), "--master-bind-host", "127.0.0.1", *ports]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    page, users = f"http://127.0.0.1:{port}", f"user_count={workers}&spawn_rate={workers}".encode()

    def ask(path: str, form: bytes | None = None) -> str:
        with urllib.request.urlopen(page + path, data=form, timeout=10) as answer:
            return str(answer.read().decode())

    def counted() -> int:
        stats = json.loads(ask("/stats/requests"))["stats"]
        return sum(entry["num_requests"] for entry in stats if entry["name"] != "Aggregated")

    def is_up() -> bool:
        try:
            found = json.loads(ask("/stats/requests")).get("workers", [{"state": "ready"}])
            return [one["state"] for one in found] == ["ready"] * workers
        except OSError:
            return False

    try:
        _wait_for(is_up)
        assert json.loads(ask("/swarm", users))["success"]
        _wait_for(lambda: json.loads(ask("/stats/requests"))["state"] == "stopped")
        _wait_for(lambda: counted() == 20)  # workers tell Locust's statistics every three seconds
        _wait_for(is_up)  # Locust starts nothing with workers that are still stopping
        again = tmp_path / "out-2"
        if workers == 1:
            assert json.loads(ask("/swarm", users + b"&rate=nan"))["success"], "Locust says so; nothing is run"
            _wait_for(lambda: bool(ask("/swarm", users + b"&rate=10&duration=2")) and again.exists())
        else:
            assert json.loads(ask("/swarm", users + b"&rate=10&duration=2"))["success"]
        _wait_for(lambda: (again / "run.json").exists() and read_runs(again)[0].ended == "complete")
        _wait_for(lambda: json.loads(ask("/stats/requests"))["state"] == "stopped")
        assert is_up()
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert ("a rate of nan cannot be sent" in said) == (workers == 1)
    for directory, rate_per_s in ((out, 20), (again, 10)):
        assert [row.index for row in read_rows(directory)] == list(range(20)), "the rows of two runs are no run"
        assert read_runs(directory)[0].plan["stages"][0]["rate_per_s"] == rate_per_s
        assert (directory / "report.html").exists()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as open_:
        probes = [open_.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def test_two_endpoints_in_turns(serve: Callable[..., str], tmp_path: Path) -> None:
    """The candidate works 60 ms a call, the base 5: the verdict is certain on any machine."""
    out = tmp_path / "out"
    stages = [{"kind": "constant", "rate_per_s": 25, "duration_s": 2}]
    plan = profile(tmp_path, stages=stages, scenarios={"print": 1})
    slow, fast = serve("--work-s", "0.06"), serve("--work-s", "0.005")
    done = load("ab", plan, fast, slow, "--rounds", 4, "--out", out, "--json")
    assert done.returncode == 1, done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert report["verdict"] == "slower"
    assert {one["rounds"] for one in report["overall"] if one["temperature"] == "warm"} == {4}
    assert len(list(out.glob("*/round-*/requests.jsonl"))) == 8
    assert report["overall"][0]["base_n"] <= 4 * 13, "the round before the others is not compared"
    assert len(list(out.glob("warm-up/*/requests.jsonl"))) == 2
    again = load("compare", out / "candidate", out / "base", "--json")
    assert (again.returncode, json.loads(again.stdout)["verdict"]) == (0, "faster")


def test_cold_start_burst(serve: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = load("coldstart", serve("--init-s", "0.4"), "-n", 16, "--gap", 3, "--min-cold", 16, "--out", out, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert (report["burst"], report["confirmed"], report["environments"], report["shared"]) == (16, 16, 16, 0)
    assert report["init_ms"]["p50"] == 400
    assert 300 < report["first_call_penalty_ms"] < 1500


def test_locust_itself_runs_the_locustfile_and_its_exit_code_is_the_verdict(
    serve: Callable[..., str], tmp_path: Path
) -> None:
    """Locust's own code is 0 for the third, whose percentile twenty requests cannot carry."""
    command = [sys.executable, "-m", "locust", "-f", "load/locustfile.py", "--headless"]
    cases = (
        ("none", "count(errors) == 0", 0),
        ("tool-error", "count(errors) == 0", 1),
        ("none", "p99(latency) < 60s", 4),
    )
    for number, (fault, threshold, code) in enumerate(cases):
        out = tmp_path / str(number)
        plan = profile(tmp_path, thresholds=[threshold])
        arguments = [*command, "--profile", str(plan), "--host", serve("--fault", fault), "--out", str(out)]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        assert len(read_rows(out)) == 20
        assert (out / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["--profile", "nope"], "no profile 'nope'", id="no-plan"),
        pytest.param(
            ["--profile", "soak", "--rate", "500", "--host", "http://192.0.2.1/"], "its budget is", id="budget"
        ),
    ],
)
def test_locust_refuses_what_cannot_be_run(arguments: list[str], says: str) -> None:
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        "load/locustfile.py",
        "--headless",
        "--host",
        "http://127.0.0.1:1/",
    ]
    done = subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert says in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["-t", "2s"], "still unanswered", id="requests-in-flight-at-its-time-limit"),
        pytest.param(["-t", "2s", "-u", "0"], "no request was sent", id="nobody-to-send"),
    ],
)
def test_locusts_own_false_passes(serve: Callable[..., str], tmp_path: Path, arguments: list[str], says: str) -> None:
    """It ends both with 0: it forgets what is in flight at -t, and no request is no failure (research, finding 3)."""
    out, plan = tmp_path / "out", profile(tmp_path, request_timeout_s=60)
    command = [sys.executable, "-m", "locust", "-f", "load/locustfile.py", "--headless", "--profile", str(plan)]
    command += ["--host", serve("--fault", "hang"), "--out", str(out), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4, done.stderr
    assert says in (out / "summary.md").read_text(encoding="utf-8")


AFTER_THE_END = """
import load.locustfile as l
from load.plan import load_plan
from load.rows import RowWriter, RunRecord
from pathlib import Path

plan, path = load_plan("smoke"), Path("run.json")
record = RunRecord(profile="x", endpoint="x", plan={}, anchor_unix_s=0, planned=1)
drive = l.Drive(None, plan, "x", Path(), record, path, RowWriter(Path("requests.jsonl")), 0, 1, "s3cret-key", False)
drive.requests["print", "2025-11-25"] = b"x-api-key: s3cret-key"
drive.finish("interrupted")
try:
    drive._launch(l.Job(next(plan.arrivals())[0], "print", "2025-11-25"))
except l.Aborted:
    print("nothing is sent after the end of", drive)
"""


def test_what_a_failing_greenlet_prints_holds_no_key_and_none_starts_after_the_end(tmp_path: Path) -> None:
    """gevent prints the repr of the object whose method failed: after Ctrl-C one did, for its file was closed."""
    command, env = [sys.executable, "-c", AFTER_THE_END], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "nothing is sent after the end of" in done.stdout, done.stderr
    assert "s3cret" not in done.stdout


STALL_S, EVERY_S = 0.6, 2.0


def stalled_quantile(q: float) -> float:
    """The truth for evenly spread arrivals on a server frozen STALL_S of every EVERY_S, ms: those who meet the freeze
    wait what is left of it, evenly spread from 0 to STALL_S; the others wait nothing."""
    met = STALL_S / EVERY_S
    return max(0.0, STALL_S * (q - (1 - met)) / met) * 1000


def test_a_frozen_server_is_seen_as_its_callers_see_it(serve: Callable[..., str], tmp_path: Path) -> None:
    """Locust's closed loop reports p95 = 12 ms here, because a waiting user sends nothing (research, stall test)."""
    out = tmp_path / "out"
    stages = [{"kind": "constant", "rate_per_s": 50, "duration_s": 3 * EVERY_S}]
    plan = profile(tmp_path, stages=stages, scenarios={"print": 1})
    done = load(
        "run", plan, serve("--fault", "stall", "--stall-s", str(STALL_S), "--stall-every-s", str(EVERY_S)), "--out", out
    )
    assert done.returncode == 0, done.stderr + done.stdout
    rows = read_rows(out)
    assert max(_open_at(rows, row.sent_s or 0.0) for row in rows) >= 20, (
        "a closed loop would have waited for the answers"
    )
    latencies = sorted(timed(rows, lambda row: row.latency_ms))
    assert len(latencies) == 300
    for q in (0.80, 0.90, 0.95, 0.99):
        truth = stalled_quantile(q)
        measured = latencies[int(q * 300) - 1]
        assert truth * 0.9 - 20 <= measured, f"p{q * 100:g} is {measured:.0f} ms, truth {truth:.0f} ms"
        # a busy test machine adds, it never takes away
        assert measured <= truth * 1.1 + 250, f"p{q * 100:g} is {measured:.0f} ms, truth {truth:.0f} ms"


def _open_at(rows: list[Row], moment_s: float) -> int:
    return sum((row.sent_s or 0.0) <= moment_s < (row.done_s or 0.0) for row in rows)


def test_the_fake_endpoint_really_stalls(serve: Callable[..., str]) -> None:
    """The stall test proves nothing on a server that does not freeze."""
    url = serve("--fault", "stall", "--stall-s", "0.6", "--stall-every-s", "2.0")
    worst, until = 0.0, time.monotonic() + 2.5
    while time.monotonic() < until:
        start = time.monotonic()
        with urllib.request.urlopen(urllib.request.Request(url, data=b'{"id": 2}', method="POST")) as answer:
            answer.read()
        worst = max(worst, time.monotonic() - start)
    assert worst >= 0.5
