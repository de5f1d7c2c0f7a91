"""Reports are made from the records alone, and the gate cannot pass on nothing."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from conformance import exits
from conformance.records import CheckRecord, RunRecord, SecurityVerdict, count, exit_code, read_checks
from conformance.report import junit, results, terminal

EXCHANGE = {"request": "curl -X POST http://h/", "status": 200, "body": "{}"}
CHECKS = [
    CheckRecord(id="protocol.good", part="protocol", requirements=("T26-01",), sources=("a.mdx X",), status="passed"),
    CheckRecord(
        id="protocol.bad",
        part="protocol",
        requirements=("T26-13",),
        sources=("b.mdx Y",),
        status="failed",
        message="Status 200.\x00",
        expected="400",
        got="200",
        exchanges=(EXCHANGE,),
    ),
    CheckRecord(id="protocol.soft", part="protocol", level="SHOULD", status="warning", message="soft"),
    CheckRecord(id="tools.none", part="tools", status="skipped", message="no such tool"),
    CheckRecord(id="tools.broke", part="tools", status="error", message="The check itself broke."),
    CheckRecord(
        id="security.x",
        part="security",
        status="failed",
        message="LEAKED",
        security=SecurityVerdict(kind="attack", group="process", verdict="LEAKED"),
    ),
    CheckRecord(
        id="security.y",
        part="security",
        status="failed",
        message="REFUSED",
        security=SecurityVerdict(kind="benign", group="benign", verdict="REFUSED"),
    ),
]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The files a run leaves."""
    run = RunRecord(
        endpoint="http://h/mcp",
        profile="lambda",
        started="2026-01-02T03:04:05+00:00",
        duration_s=1.5,
        exit_code=1,
        verdict="fail",
        strict=False,
        selection="all",
        eras={"2026-07-28": "spoken"},
    )
    (tmp_path / "run.json").write_text(run.model_dump_json())
    lines = "".join(check.model_dump_json() + "\n" for check in CHECKS)
    (tmp_path / "checks.jsonl").write_text(lines + '{"id": "cut off by an inter')
    return tmp_path


def test_a_record_cut_short_is_left_out(out: Path) -> None:
    assert [check.id for check in read_checks(out / "checks.jsonl")] == [check.id for check in CHECKS]


def test_json_report_counts_and_scores(out: Path) -> None:
    report = json.loads(results.write(out).read_text())
    assert report["schema"] == "conformance/1"
    assert report["counts"] == {"passed": 1, "failed": 3, "error": 1, "warning": 1, "skipped": 1}
    assert report["levels"]["SHOULD"]["warning"] == 1
    assert report["security"]["classes"] == {"process": {"leaked": 1}}
    assert report["security"]["leaked"] == ["security.x"]
    assert report["security"]["benign"] == {"programs": 1, "false_positives": ["security.y"]}


def test_junit_is_xml_with_the_failures(out: Path) -> None:
    suite = ElementTree.parse(junit.write(out)).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "7",
        "3",
        "1",
        "1",
    )
    failure = suite.find("testcase[@name='protocol.bad']/failure")
    assert failure is not None
    assert failure.text is not None
    assert "b.mdx Y" in failure.text
    assert "curl -X POST" in failure.text


def test_terminal_shows_failures_first_with_source_and_request(out: Path) -> None:
    text = terminal.render(out, colour=False)
    assert text.startswith("FAIL protocol.bad  [MUST]")
    assert text.index("FAIL security.x") < text.index("ERROR tools.broke") < text.index("WARN protocol.soft")
    for part in (
        "T26-13: b.mdx Y",
        "expected: 400",
        "$ curl -X POST http://h/",
        "skipped 1: no such tool",
        "verdict: fail",
    ):
        assert part in text
    assert "\x1b[" not in text
    assert "\x1b[31mFAIL" in terminal.render(out, colour=True)


def statuses(*names: str) -> dict[str, int]:
    return count(CheckRecord.model_validate({"id": "x", "part": "p", "status": name}) for name in names)


@pytest.mark.parametrize(
    ("names", "strict", "expected"),
    [
        pytest.param(("passed",), False, exits.PASS, id="pass"),
        pytest.param(("passed", "failed"), False, exits.GATE_FAILED, id="failure"),
        pytest.param(("passed", "error"), False, exits.GATE_FAILED, id="broken-check"),
        pytest.param(("passed", "warning"), False, exits.PASS, id="warning"),
        pytest.param(("passed", "warning"), True, exits.GATE_FAILED, id="warning-strict"),
        pytest.param((), False, exits.INCONCLUSIVE, id="nothing"),
        pytest.param(("skipped", "skipped"), True, exits.INCONCLUSIVE, id="only-skips"),
    ],
)
def test_gate(names: tuple[str, ...], strict: bool, expected: int) -> None:
    assert exit_code(statuses(*names), strict=strict) == expected
