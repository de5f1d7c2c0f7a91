"""The command line turns mistakes into one sentence and the right exit code, and asks before it spends."""

import io
import socket
import sys
from pathlib import Path

import pytest
from load_rows import plan, record, rows

from load.__main__ import run, unused
from load.budget import check_budget
from load.rows import RowWriter, write_run
from load.settings import SettingsError, check_endpoint, read_dot_env, setting, without_secrets


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["run", "smok", "http://127.0.0.1:1/"], "no profile 'smok'", id="unknown-profile"),
        pytest.param(["run", "smoke", "127.0.0.1:1"], "give a URL", id="no-url"),
        pytest.param(["run", "smoke", "http://me:pw@127.0.0.1/"], "MCP_API_KEY", id="credentials-in-the-url"),
        pytest.param(["run", "smoke", "http://127.0.0.1:1/", "--rate", "-3"], "above 0", id="negative-rate"),
        pytest.param(["run", "smoke", "http://127.0.0.1:1/", "--rate", "inf"], "no number above 0", id="endless-rate"),
        pytest.param(["run", "smoke", "http://127.0.0.1:1/", "--rate", "fast"], "no number above 0", id="no-number"),
        pytest.param(["run", "smoke", "http://127.0.0.1:1/", "--rate", "1e9"], "more than one run", id="absurd-rate"),
        pytest.param(["run", "soak", "http://127.0.0.1:1/", "--duration", "1e300"], "more than one run", id="for-ever"),
        pytest.param(["run", "soak", "http://127.0.0.1:1/", "--rate", "1e308"], "more than one run", id="overflow"),
        pytest.param(["run", "smoke", "http://127.0.0.1:99999/"], "out of range", id="no-port"),
        pytest.param(["coldstart", "--function", "f", "--memory", "big"], "sizes in MB", id="no-size"),
        pytest.param(["run", "soak", "http://192.0.2.1/", "--rate", "500"], "budget", id="over-budget"),
        pytest.param(["run", "smoke"], "MCP_ENDPOINT_URL", id="no-endpoint"),
        pytest.param(["run", "smoke", "http://127.0.0.1:1/", "--workers", "0"], "--workers 0", id="no-workers"),
        pytest.param(
            ["ab", "smoke", "http://127.0.0.1:1/", "http://127.0.0.1:2/", "--rounds", "1"], "turns", id="one-round"
        ),
        pytest.param(["coldstart", "http://127.0.0.1:1/", "-n", "0"], "no burst", id="no-burst"),
        pytest.param(["coldstart", "http://127.0.0.1:1/", "--memory", "512"], "--function", id="memory-of-no-function"),
        pytest.param(["coldstart", "http://127.0.0.1:1/", "--rounds", "2"], "--function", id="rounds-of-no-function"),
        pytest.param(["coldstart", "http://127.0.0.1:1/", "--min-cold", "11"], "10 calls cannot", id="too-many-cold"),
        pytest.param(["compare", "/proc/self/cmdline", "nowhere"], "holds no run.json", id="a-file-is-no-run"),
        pytest.param(["report", "nowhere"], "holds no", id="no-run"),
        pytest.param(["frobnicate"], "invalid choice", id="unknown-command"),
        pytest.param([], "required", id="no-command"),
    ],
)
def test_usage_errors_are_one_sentence(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MCP_ENDPOINT_URL", raising=False)
    monkeypatch.chdir(tmp_path)  # away from a .env
    assert run(arguments) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("taken", "says"),
    [
        pytest.param("out", "cannot write to .*out: File exists", id="a-file"),
        pytest.param("out/requests-w1.jsonl", "rows of another run", id="a-run"),
        pytest.param("out/base/round-0/requests.jsonl", "rows of another run", id="a-comparison"),
    ],
)
def test_a_directory_that_cannot_be_written_or_is_taken(taken: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / taken
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(SettingsError, match=says):
        unused(tmp_path / "out")


def test_no_region_is_a_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    assert run(["mix", "/aws/lambda/f"]) == 2
    assert "set AWS_REGION" in capsys.readouterr().err


def test_help_shows_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    assert "python -m load run smoke" in said
    assert "inconclusive" in said
    assert "python -m locust -f load/locustfile.py --worker --master-host" in said


def test_a_file_that_cannot_be_written_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The reports of a run whose directory lets nobody write: here one of them is a directory."""
    writer = RowWriter(tmp_path / "requests.jsonl")
    writer.close()
    write_run(tmp_path / "run.json", record(0))
    (tmp_path / "summary.md").mkdir()
    assert run(["report", str(tmp_path)]) == 2
    assert f"cannot use {tmp_path}/summary.md: Is a directory" in capsys.readouterr().err


def test_a_dead_url_is_unreachable(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert run(["run", "smoke", f"http://127.0.0.1:{port}/mcp", "--out", str(tmp_path / "out")]) == 3
    assert f"127.0.0.1:{port}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("count", "other", "code"),
    [
        pytest.param(100, {}, 0, id="passed"),
        pytest.param(100, {"outcome": "tool_error"}, 1, id="failed"),
        pytest.param(100, {"outcome": "connect_error", "status": None, "error": "refused"}, 3, id="unreachable"),
        pytest.param(60, {}, 4, id="inconclusive"),
    ],
)
def test_report_returns_the_verdict(tmp_path: Path, count: int, other: dict[str, str], code: int) -> None:
    writer = RowWriter(tmp_path / "requests.jsonl")
    for one in rows(count, **other):
        writer.write(one)
    writer.close()
    write_run(tmp_path / "run.json", record(100))
    assert run(["report", str(tmp_path)]) == code
    assert run(["report", str(tmp_path), "--json"]) == code


BIG = plan(stages=[{"kind": "constant", "rate_per_s": 100, "duration_s": 200}])


@pytest.mark.parametrize(
    ("endpoint", "yes", "budget"),
    [
        pytest.param("http://127.0.0.1:1/", False, {}, id="this-machine-costs-nothing"),
        pytest.param("https://example.com/", True, {}, id="yes"),
        pytest.param("https://example.com/", False, {"requests": 20_000}, id="within-a-larger-budget"),
    ],
)
def test_within_budget(endpoint: str, yes: bool, budget: dict[str, float]) -> None:
    check_budget(plan(stages=BIG.model_dump()["stages"], budget=budget), endpoint, yes)


@pytest.mark.parametrize(
    "budget", [pytest.param({}, id="requests"), pytest.param({"requests": 20_000, "dollars": 0.1}, id="dollars")]
)
def test_over_budget(budget: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    big = plan(stages=BIG.model_dump()["stages"], budget=budget)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(SettingsError, match=r"20000 requests, about \$0\.41"):
        check_budget(big, "https://example.com/", False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    check_budget(BIG, "https://example.com/", False)
    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    with pytest.raises(SettingsError):
        check_budget(BIG, "https://example.com/", False)


def test_settings_come_from_the_environment_then_from_dot_env(tmp_path: Path) -> None:
    dot_env = tmp_path / ".env"
    dot_env.write_text(
        "# key\nexport MCP_API_KEY='from file'\nMCP_ENDPOINT_URL=http://x/\nPATH=/evil\nAWS_REGION=eu-north-1\n"
    )
    assert read_dot_env(dot_env) == {
        "MCP_API_KEY": "from file",
        "MCP_ENDPOINT_URL": "http://x/",
        "AWS_REGION": "eu-north-1",
    }
    assert setting("MCP_API_KEY", {}, dot_env) == "from file"
    assert setting("MCP_API_KEY", {"MCP_API_KEY": "from env"}, dot_env) == "from env"
    assert setting("MCP_API_KEY", {}, tmp_path / "none") is None


def test_a_key_no_header_can_carry_is_told_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MCP_API_KEY", "s3cret\nkey")
    assert run(["run", "smoke", "http://127.0.0.1:1/", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "MCP_API_KEY" in said
    assert "s3cret" not in said


@pytest.mark.parametrize("url", [None, "", "example.com/mcp", "ftp://example.com/", "https://me:pw@example.com/"])
def test_endpoints_that_are_none(url: str | None) -> None:
    with pytest.raises(SettingsError) as caught:
        check_endpoint(url)
    assert "pw" not in str(caught.value)


def test_reports_name_the_endpoint_without_its_secrets() -> None:
    assert without_secrets("https://me:pw@h.example:8443/dev/mcp/?key=1#x") == "https://h.example:8443/dev/mcp/"
    assert without_secrets("http://[::1]:80/mcp") == "http://[::1]:80/mcp"
