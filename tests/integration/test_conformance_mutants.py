"""Every check is seen failing on a server that is broken in just that way, and passing on the correct one."""

import json
import re
from pathlib import Path

import pytest

from conformance.__main__ import run
from conformance.plugin import declare_markers
from conformance.report.coverage import import_checks
from tests.broken_servers import mutants, plain

# Which part each table's checks are in; the rich server's are protocol too.
TABLES = [("protocol", mutants.PROTOCOL), ("tools", mutants.TOOLS), ("protocol", mutants.RICH)]
MATRIX = [pytest.param(part, fault, check, id=fault) for part, faults in TABLES for fault, check in faults.items()]


def checks_of(url: str, part: str, keyword: str, out: Path) -> tuple[int, list[dict[str, object]]]:
    """Runs some checks against a server; returns the exit code and the records."""
    code = run([url, "--only", part, "-k", keyword, "--strict", "--json", "--timeout", "6", "--out", str(out)])
    report = json.loads((out / "report.json").read_text())
    return code, report["checks"]


@pytest.mark.parametrize(("part", "fault", "check"), MATRIX)
def test_check_fails_on_its_mutant(reference: str, tmp_path: Path, part: str, fault: str, check: str) -> None:
    keyword = "absent_origin or original_keys" if check == "results_fit_their_schema" else check
    code, records = checks_of(f"{reference}/{fault}/mcp/", part, keyword, tmp_path)
    judged = {record["status"] for record in records if check in str(record["id"])}
    assert code == 1
    assert judged & {"failed", "warning"}, f"{check} did not notice {fault}: {judged}"
    assert "error" not in judged, [record["message"] for record in records if record["status"] == "error"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [pytest.param("keyed", 0, id="keyed"), *(pytest.param(key, 1, id=key) for key in mutants.KEYS)],
)
def test_credentials(
    reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, expected: int
) -> None:
    monkeypatch.setenv("MCP_API_KEY", "the-right-key")
    code, records = checks_of(f"{reference}/{fault}/mcp/", "protocol", "other_credentials_are_refused", tmp_path)
    assert code == expected
    assert len(records) == 5


@pytest.mark.parametrize(("fault", "check"), [("oauth", "credentials"), *mutants.TOKENS.items()])
def test_bearer_tokens(reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, check: str) -> None:
    monkeypatch.setenv("TOKEN", "Bearer the-right-token")
    monkeypatch.setenv("EXPIRED", "Bearer the-expired-token")
    url = f"{reference}/{fault}/mcp/"
    tokens = ["--header", "Authorization=env:TOKEN", "--refused-header", "Authorization=env:EXPIRED"]
    out = [*tokens, "--json", "--out", str(tmp_path)]
    code = run([url, "--only", "protocol", "-k", check, "--strict", *out])
    assert code == (0 if fault == "oauth" else 1)
    for path in tmp_path.iterdir():
        assert not {"the-right-token", "the-expired-token"} & set(re.findall(r"[\w-]+", path.read_text())), path.name


@pytest.mark.parametrize("fault", plain.FAULTS)
def test_check_fails_on_its_plain_mutant(tmp_path: Path, fault: str) -> None:
    answer, check = plain.FAULTS[fault]
    with plain.serving(answer) as url:
        code, records = checks_of(url, "protocol", check, tmp_path)
    assert code == 1
    assert {record["status"] for record in records} & {"failed", "warning"}


def test_refusals_are_believed_only_where_a_right_request_is_served(tmp_path: Path) -> None:
    """A server that answers 404 to everything refuses what is wrong as well; no check may pass it for that."""
    with plain.serving(plain.refuses_all_else) as url:
        _, records = checks_of(url, "protocol", "both_eras or malformed or unacceptable or invalid_version", tmp_path)
    assert [record["id"] for record in records if record["status"] == "passed"] == []
    skipped = [record["id"] for record in records if "is not served either" in str(record["message"])]
    assert len(skipped) > 25


@pytest.mark.parametrize(("server", "part"), [("correct", "protocol"), ("correct", "tools"), ("rich", "protocol")])
def test_correct_server_passes_every_check(reference: str, tmp_path: Path, server: str, part: str) -> None:
    code = run([f"{reference}/{server}/mcp/", "--only", part, "--strict", "--json", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "report.json").read_text())
    assert [check["message"] for check in report["checks"] if check["status"] not in ("passed", "skipped")] == []
    ids = [check["id"] for check in report["checks"]]
    assert len(ids) == len(set(ids))
    assert code == 0


def test_every_check_has_a_mutant_or_a_reason(pytestconfig: pytest.Config) -> None:
    declare_markers(pytestconfig)
    names = {
        name.rpartition(".")[2].removeprefix("test_")
        for checks in import_checks().values()
        for name in checks
        if ".security." not in name
    }
    tables = (mutants.PROTOCOL, mutants.TOOLS, mutants.KEYS, mutants.RICH, mutants.TOKENS)
    covered = {check for table in tables for check in table.values()}
    covered |= {check for _, check in plain.FAULTS.values()}
    assert names - covered == set(mutants.WITHOUT_MUTANT)
    assert covered <= names
