"""The main job as a person runs it: `python -m check`, its one screen, its page and its exit codes."""

from __future__ import annotations

import contextlib
import html.parser
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from local_stack import LocalStack

from check import __main__ as main
from check.steps import GRAVITY, Step, gravest
from check.verdict import rows
from tests.published_schemas import validated

ROOT = Path(__file__).resolve().parents[2]


class Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if (tag, name) == ("a", "href") and value]


@pytest.mark.alone
def test_the_main_job_passes_and_its_page_links_every_report(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "check", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("protocol", "tools", "security", "load", "cold starts", "logs and cost", "confinement"):
        assert any(line.startswith(name) for line in done.stdout.splitlines()), name
    assert "verdict: pass" in done.stdout
    attacks = json.loads((tmp_path / "conformance" / "scorecard.json").read_text())["attacks"]
    told = f"attacks: {attacks['blocked']} blocked, {attacks['contained']} contained, 0 got through;"
    assert told in " ".join(done.stdout.split()), "the screen and the scorecard it links count alike"
    links = Links()
    links.feed((tmp_path / "index.html").read_text())
    assert len(links.found) > 10
    assert all((tmp_path / link).is_file() for link in links.found)
    counted = json.loads((tmp_path / "report" / "summary.json").read_text())["invocations"]
    sent = len((tmp_path / "load" / "requests.jsonl").read_text().splitlines())
    assert counted > sent, "the logs are of this very run"
    documents = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
    held = {validated(document) for document in documents if isinstance(document.get("schema"), str)}
    assert held == {
        "check/1",
        "conformance/1",
        "security-scorecard/1",
        "load/1",
        "load-run/1",
        "coldstart/1",
        "ops-report/1",
    }


def test_a_dead_endpoint_is_3_and_not_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "check", "http://127.0.0.1:9/lambda/mcp/", "--json", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (validated(told), told["exit_code"], "cannot be reached" in told["problem"]) == ("check/1", 3, True)
    assert told == json.loads((tmp_path / "verdict.json").read_text())
    assert (tmp_path / "index.html").exists()


def test_a_deployed_endpoint_goes_through_the_same_steps(
    product: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The steps' commands are only written down here; the main job above runs them."""
    ran: list[list[str]] = []

    def run_step(name: str, arguments: list[str], directory: Path, environment: Mapping[str, str]) -> Step:
        ran.append(arguments)
        return Step(name, " ".join(arguments), 0, 1.0, directory)

    url = product.ready["endpoint"]
    monkeypatch.setattr(main, "run_step", run_step)
    monkeypatch.setenv("P_FN_NAME", "")
    for function, last in (("", ["load", "run", "smoke", url, "--yes"]), ("f", ["ops", "report", "--since", "1h"])):
        monkeypatch.setenv("P_FN_NAME", function)
        assert main.run([url, "--out", str(tmp_path), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["endpoint"], told["rows"][-1]["name"], told["rows"][-1]["standing"]) == (
            url,
            "confinement",
            "pass",
        )
        assert ran[-1] == last
    assert [arguments[0] for arguments in ran] == ["load", "conformance", "load", "load", "conformance", "load", "ops"]


@pytest.mark.parametrize("bad", ["not-a-url", "ftp://127.0.0.1/", "http://", ""])
def test_what_is_no_url_is_2_before_anything_runs(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.run([bad]) == 2
    assert f"{bad!r} is no URL; give one like https://" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("status", "body", "code", "told"),
    [
        pytest.param(403, '{"message": "Forbidden"}', 3, "answered 403; check MCP_API_KEY", id="no-key"),
        pytest.param(404, "", 3, "answered 404; check the URL", id="another-path"),
        pytest.param(200, "<html>", 2, "is not this interpreter", id="a-web-page"),
        pytest.param(400, '{"error": {"code": -32600}}', 2, "is not this interpreter", id="wants-a-session"),
        pytest.param(
            200, '{"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "Unknown tool"}}', 2,
            "conformance URL judges any MCP server", id="another-mcp-server",
        ),
    ],
)  # fmt: skip
def test_what_is_not_this_interpreter_is_told_before_minutes_are_spent(
    status: int, body: str, code: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(status, body) as url:
        assert main.run([url, "--out", str(tmp_path), "--json"]) == code
    record = json.loads(capsys.readouterr().out)
    assert (told in record["problem"], record["steps"]) == (True, [])


def test_an_interpreter_that_is_ill_is_judged_all_the_same() -> None:
    with answering(502, '{"message": "Internal server error"}') as url:
        assert main.ask(url) == {}
    with answering(200, 'event: message\ndata: {"result": {"structuredContent": {"memory_mb": 512}}}\n\n') as url:
        assert main.ask(url) == {"memory_mb": 512}


@contextlib.contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """The URL of a server that has one answer to everything."""

    class One(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), One) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_deployed_endpoint_is_asked_as_the_deployment_wrote_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("MCP_API_KEY", "P_FN_NAME", "AWS_DEFAULT_REGION", "AWS_PROFILE")
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is as it was afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    (tmp_path / ".env").write_text("MCP_API_KEY='k'\nP_FN_NAME=f\nAWS_DEFAULT_REGION=us-east-1\nAWS_PROFILE=\n")
    with main.target_of("http://127.0.0.1:9/", tmp_path):
        found = {name: os.environ.get(name) for name in names}
    assert found == {"MCP_API_KEY": "k", "P_FN_NAME": "f", "AWS_DEFAULT_REGION": "eu-west-1", "AWS_PROFILE": None}


def test_interrupted_it_keeps_what_it_has_and_ends_what_it_started(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "check", "--out", str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        while "cold starts" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130
    assert (tmp_path / "index.html").exists()
    deadline = time.monotonic() + 60
    while (left := of_group(process.pid)) and time.monotonic() < deadline:
        pass  # a killed process takes a moment to go
    assert left == "", "nothing it started goes on"


def of_group(group: int) -> str:
    return subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        pytest.param([0, 0], 0, id="all-pass"),
        pytest.param([0, 4, 1], 1, id="a-failure-speaks-louder-than-doubt"),
        pytest.param([1, 3], 3, id="unreachable"),
        pytest.param([0, -11], 2, id="a-crash"),
        pytest.param([], 4, id="nothing-ran"),
    ],
)
def test_the_gravest_code_speaks_for_the_whole(codes: list[int], code: int) -> None:
    assert gravest(codes) == code
    assert set(GRAVITY) == {0, 1, 2, 3, 4, 5, 130}


@pytest.mark.parametrize(
    ("name", "code", "standing", "figures"),
    [
        pytest.param("load", 2, "fail", "usage or configuration", id="usage"),
        pytest.param("load", 130, "inconclusive", "interrupted", id="interrupted"),
        pytest.param("coldstart", 130, "inconclusive", "interrupted", id="interrupted-burst"),
        pytest.param("conformance", 130, "inconclusive", "interrupted", id="interrupted-suite"),
    ],
)
def test_a_step_that_left_nothing_is_told(name: str, code: int, standing: str, figures: str, tmp_path: Path) -> None:
    step = Step(name, f"python -m {name}", code, 1.0, tmp_path / name)
    (row, layers) = rows({name: step}, None)
    assert (row.standing, row.figures) == (standing, figures)
    assert (layers.standing, layers.figures) == ("not run", "the run ended before this")


@pytest.mark.parametrize(("code", "standing"), [(0, "pass"), (130, "inconclusive")])
def test_a_part_of_a_suite_that_was_interrupted_has_not_passed(code: int, standing: str, tmp_path: Path) -> None:
    step = Step("conformance", "python -m conformance", code, 1.0, tmp_path)
    (tmp_path / "report.json").write_text(json.dumps({"parts": {"protocol": {"passed": 4}}, "eras": {}}))
    assert rows({"conformance": step}, {})[0].standing == standing
