"""The command as a person runs it: exit codes, credentials, workers, plain pytest, Ctrl-C with the records kept."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from conformance import wire
from conformance.__main__ import run
from conformance.preflight import preflight
from conformance.report import formats
from conformance.target import read_target
from tests.broken_servers import plain

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def correct(reference: str) -> str:
    """The correct reference server."""
    return f"{reference}/correct/mcp/"


@pytest.fixture
def answering() -> Iterator[Callable[[plain.Answering], str]]:
    """Starts a server whose answers are given by a function of the request and its JSON body."""
    with ExitStack() as servers:
        yield lambda answer: servers.enter_context(plain.serving(answer))


def test_smoke_passes_and_writes_its_files(correct: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([correct, "--smoke", "--json", "--out", str(tmp_path)]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["schema"], summary["counts"]["passed"], summary["verdict"]) == ("conformance/1", 3, "pass")
    assert {path.name for path in tmp_path.iterdir()} >= {"checks.jsonl", "run.json", *formats.WRITERS}


def test_dead_endpoint_is_3_before_any_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(["http://127.0.0.1:1/mcp", "--out", str(out)]) == 3
    assert "Connection refused" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        pytest.param(401, "credential is missing", id="unauthorized"),
        pytest.param(403, "credential is missing", id="forbidden"),
        pytest.param(404, "check the path", id="wrong-path"),
        pytest.param(503, "check the path and the deployment", id="unavailable"),
    ],
)
def test_endpoint_that_cannot_be_judged_is_3(
    answering: Any, capsys: pytest.CaptureFixture[str], status: int, words: str
) -> None:
    assert run([answering(lambda _handler, _message: (status, None))]) == 3
    assert words in capsys.readouterr().err


def test_cold_endpoint_is_tried_again_and_told(
    answering: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []

    def cold_at_first(handler: BaseHTTPRequestHandler, message: Any) -> tuple[int, Any]:
        seen.append(1)
        status, payload = plain.handshake_alone(handler, message)
        return (503, None) if len(seen) <= 2 else (status, payload)

    assert run([answering(cold_at_first), "-k", "initialize_introduces", "--out", str(tmp_path)]) == 0
    assert "may be cold; attempt 2 of 3" in capsys.readouterr().err


def test_wrong_credential_is_3_and_not_shown(
    answering: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WRONG_KEY", "wrong-key-value")
    url = answering(lambda handler, _message: (403 if handler.headers["x-api-key"] != "right" else 200, None))
    assert run([url, "--header", "x-api-key=env:WRONG_KEY"]) == 3
    told = capsys.readouterr()
    assert "was refused" in told.err
    assert "wrong-key-value" not in told.out + told.err


def test_credential_is_sent_and_kept_out_of_every_file(
    answering: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RIGHT_KEY", "right-key-value")

    def echoing(handler: BaseHTTPRequestHandler, message: Any) -> tuple[int, Any]:
        key = handler.headers["x-api-key"]
        if key != "right-key-value":
            return 403, None
        return 200, plain.handshake_alone(handler, message)[1] | {"echo": key}

    code = run(
        [answering(echoing), "--header", "x-api-key=env:RIGHT_KEY", "-k", "handshake or ping", "--out", str(tmp_path)]
    )
    assert code == 1
    for path in tmp_path.iterdir():
        assert "right-key-value" not in path.read_text(), path.name
    assert "right-key-value" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["nonsense"], id="url"),
        pytest.param(["http://127.0.0.1:1/", "--profile", "nobody"], id="profile"),
        pytest.param(["http://127.0.0.1:1/", "--header", "X=literal"], id="literal-header"),
        pytest.param(["http://127.0.0.1:1/", "--only", "nothing"], id="part"),
        pytest.param(["http://127.0.0.1:1/", "-n", "-1"], id="workers"),
    ],
)
def test_bad_usage_is_2(arguments: list[str]) -> None:
    assert run(arguments) == 2


def test_selection_that_cannot_be_read_is_2(correct: str, tmp_path: Path) -> None:
    assert run([correct, "-k", "(", "--out", str(tmp_path)]) == 2


def test_nothing_judged_is_4(correct: str, tmp_path: Path) -> None:
    assert run([correct, "-k", "no_check_has_this_name", "--out", str(tmp_path)]) == 4


def test_only_skips_is_4(answering: Any, tmp_path: Path) -> None:
    url = answering(plain.handshake_alone)
    assert run([url, "--only", "tools", "-k", "figure", "--out", str(tmp_path)]) == 4


def test_warnings_fail_only_when_strict(correct: str, tmp_path: Path) -> None:
    faulty = correct.replace("/correct/", "/server-info-untold/")
    assert run([faulty, "-k", "server_info_in_meta", "--out", str(tmp_path / "a")]) == 0
    assert run([faulty, "-k", "server_info_in_meta", "--strict", "--out", str(tmp_path / "b")]) == 1


def test_baseline_is_written_kept_and_found_stale(
    correct: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each step is the command a person types: update, gate, a new failure, a mended server."""
    known = tmp_path / "known.yaml"
    faulty = correct.replace("/correct/", "/ping-has-a-payload/")

    def judge(url: str, *options: str) -> int:
        return run([url, "-k", "ping or origin", "--only", "protocol", "--baseline", str(known), *options,
                    "--out", str(tmp_path / "out")])  # fmt: skip

    assert judge(faulty) == 2
    assert judge(faulty, "--baseline-update") == 0
    assert "protocol.handshake.ping_is_answered_with_an_empty_result" in known.read_text()
    assert judge(faulty) == 0
    assert judge(correct.replace("/correct/", "/origin-unchecked/")) == 1
    capsys.readouterr()
    assert judge(correct) == 5
    assert "STALE protocol.handshake.ping" in capsys.readouterr().out
    assert run([correct, "--baseline-update"]) == 2


def test_reports_are_made_again_from_the_records(correct: str, tmp_path: Path) -> None:
    assert run([correct, "--smoke", "--out", str(tmp_path)]) == 0
    before = {name: (tmp_path / name).read_text() for name in formats.WRITERS}
    for name in formats.WRITERS:
        (tmp_path / name).unlink()
    assert run(["report", str(tmp_path)]) == 0
    assert {name: (tmp_path / name).read_text() for name in formats.WRITERS} == before
    assert run(["report", str(tmp_path / "nowhere")]) == 2


def test_a_result_that_misses_its_schema_is_told_once(correct: str, tmp_path: Path) -> None:
    """Whatever reads the tool list skips with the reason; one record fails, and those about that very member."""
    url = correct.replace("/correct/", "/schema-not-object/")
    assert run([url, "--only", "protocol", "-k", "both_eras", "--json", "--out", str(tmp_path)]) == 1
    records = [json.loads(line) for line in (tmp_path / "checks.jsonl").read_text().splitlines()]
    failed = [record["id"] for record in records if record["status"] == "failed"]
    unjudged = [record for record in records if record["message"].startswith("cannot be judged")]
    assert [name for name in failed if "tool_schemas_are_valid" not in name] == [
        "protocol.schema.results_fit_their_schema[2025-11-25-tools/list]",
        "protocol.schema.results_fit_their_schema[2026-07-28-tools/list]",
    ]
    assert len(unjudged) > 10


def test_connections_that_fail_are_tried_again_and_counted(
    correct: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, failed = wire.exchange, iter([True, True])

    def flaky(*arguments: Any, **options: Any) -> wire.Answer:
        if next(failed, False):
            raise wire.Unreachable("Connection refused.")
        return real(*arguments, **options)

    monkeypatch.setattr("conformance.client.exchange", flaky)
    monkeypatch.setattr("conformance.client.CONNECT_PAUSE_S", 0)
    assert preflight(read_target(correct, profile="lambda", headers=[], timeout_s=5)).retries == 2
    failed = iter([False] * 10 + [True])
    assert run([correct, "--smoke", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "run.json").read_text())["retries"] == 1
    assert "retries: 1" in capsys.readouterr().out


def test_workers_leave_the_same_records_as_one_process(correct: str, tmp_path: Path) -> None:
    def statuses(folder: str, *options: str) -> dict[str, str]:
        out = tmp_path / folder
        run([correct, "--only", "protocol", "-k", "test_modern", "--json", "--out", str(out), *options])
        lines = (out / "checks.jsonl").read_text().splitlines()
        assert len(lines) > 40
        return {record["id"]: record["status"] for record in map(json.loads, lines)}

    assert statuses("one") == statuses("two", "-n", "2")


def test_plain_pytest_runs_the_suite_with_the_same_verdict(correct: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "conformance", "-p", "no:locust", "-p", "no:cacheprovider", "--smoke"]
    good = subprocess.run(
        [*command, "--endpoint", correct, "--results", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert good.returncode == 0, good.stdout
    assert "verdict: pass" in good.stdout
    dead = subprocess.run([*command, "--endpoint", "http://127.0.0.1:1/"], cwd=ROOT, capture_output=True, timeout=60)
    assert dead.returncode == 3


def test_interruption_is_130_and_keeps_the_records(answering: Any, tmp_path: Path) -> None:
    seen: list[int] = []
    process: list[subprocess.Popen[bytes]] = []
    ready = threading.Event()

    def answer(handler: BaseHTTPRequestHandler, message: Any) -> tuple[int, Any]:
        seen.append(1)
        if len(seen) == 30:
            ready.wait(10)
            os.kill(process[0].pid, signal.SIGINT)
        status, payload = plain.handshake_alone(handler, message)
        return status, payload

    command = [sys.executable, "-m", "conformance", answering(answer), "--only", "protocol", "--out", str(tmp_path)]
    process.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
    ready.set()
    out, _ = process[0].communicate(timeout=60)
    assert process[0].returncode == 130
    assert b"verdict: interrupted" in out
    assert (tmp_path / "checks.jsonl").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "interrupted"


def test_coverage_table_is_printed() -> None:
    command = [sys.executable, "-m", "conformance", "requirements"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "T26-13" in done.stdout
