"""Reports are made from the records alone, and the gate cannot pass on nothing."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from conformance import exits
from conformance.records import Baseline, CheckRecord, RunRecord, SecurityVerdict, count, exit_code, read_checks
from conformance.report import badge, formats, html, junit, markdown, results, sarif, terminal

HOSTILE = "<script>alert(1)</script> | `x` \x00"
EXCHANGE = {"request": "curl -X POST http://h/", "status": 200, "body": HOSTILE}
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
        "next: mend what failed (",
        "next: checks that broke (1)",
        "verdict: fail",
    ):
        assert part in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)
    assert r"Status 200.\x00" in text
    assert "\x1b[31mFAIL" in terminal.render(out, colour=True)


def test_every_report_is_made_from_the_records_alone(out: Path) -> None:
    formats.write_all(out)
    assert {path.name for path in out.iterdir()} >= {"run.json", "checks.jsonl", *formats.WRITERS}


def test_json_report_fits_its_published_schema_which_is_current(out: Path) -> None:
    published = json.loads(results.SCHEMA_FILE.read_text())
    assert published == results.json_schema()
    report = json.loads(results.write(out).read_text())
    jsonschema.validate(report, published)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report | {"schema": "conformance/2"}, published)


def test_sarif_has_a_result_for_each_finding_under_its_requirement(out: Path) -> None:
    log = json.loads(sarif.write(out).read_text())
    (run,) = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    found = {one["locations"][0]["logicalLocations"][0]["fullyQualifiedName"]: one for one in run["results"]}
    assert set(found) == {"protocol.bad", "protocol.soft", "tools.broke", "security.x", "security.y"}
    assert rules[found["protocol.bad"]["ruleIndex"]] == found["protocol.bad"]["ruleId"] == "T26-13"
    assert (found["protocol.bad"]["level"], found["protocol.soft"]["level"]) == ("error", "warning")
    assert run["invocations"][0]["executionSuccessful"] is False
    prints = [one["partialFingerprints"]["check/v1"] for one in run["results"]]
    assert len(set(prints)) == len(prints)


def test_what_an_endpoint_says_is_never_markup(out: Path) -> None:
    page = html.write(out).read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    (out / "checks.jsonl").write_text(CHECKS[1].model_copy(update={"message": HOSTILE}).model_dump_json() + "\n")
    summary = markdown.write(out).read_text()
    assert "<script>" not in summary.partition("```text")[0]


def test_markdown_summary_counts_and_tells_findings_first(out: Path) -> None:
    text = markdown.write(out).read_text()
    assert text.startswith("## MCP conformance: fail\n")
    assert "| 3 | 1 | 0 | 0 | 1 | 1 | 1 |" in text
    assert text.index("protocol.bad") < text.index("tools.broke") < text.index("protocol.soft")
    assert "- no such tool" in text


@pytest.mark.parametrize(
    ("code", "verdict", "counts", "value"),
    [
        pytest.param(exits.PASS, "pass", {"passed": 9, "warning": 1}, "10/10", id="pass"),
        pytest.param(exits.GATE_FAILED, "fail", {"passed": 9, "failed": 1}, "9/10", id="fail"),
        pytest.param(exits.STALE_BASELINE, "stale baseline", {"passed": 1}, "stale baseline", id="stale"),
        pytest.param(exits.INCONCLUSIVE, "inconclusive: nothing", {}, "inconclusive", id="nothing"),
    ],
)
def test_badge_tells_the_verdict(out: Path, code: int, verdict: str, counts: dict[str, int], value: str) -> None:
    run = results.read_run(out).model_copy(update={"exit_code": code, "verdict": verdict})
    image = ElementTree.fromstring(badge.render(run, {**count([]), **counts}))
    assert image.get("aria-label") == f"MCP conformance: {value}"


def test_a_baseline_shows_in_every_report_as_what_it_is(out: Path) -> None:
    run = results.read_run(out).model_copy(
        update={"baseline": Baseline(file="b.yaml", expected=("protocol.bad",), stale=("protocol.good", "gone"))}
    )
    (out / "run.json").write_text(run.model_dump_json())
    formats.write_all(out)
    text = terminal.render(out, colour=False)
    assert "known failure protocol.bad" in text
    assert "STALE protocol.good" in text
    assert "stale, no check has this name: gone" in text
    assert "known failure: <code>protocol.bad</code>" in (out / "summary.md").read_text()
    suite = ElementTree.parse(out / "junit.xml").getroot()
    assert suite.find("testcase[@name='protocol.bad']/failure") is None
    assert suite.find("testcase[@name='protocol.good']/failure") is not None
    log = json.loads((out / "report.sarif").read_text())
    suppressed = [one for one in log["runs"][0]["results"] if "suppressions" in one]
    assert [one["level"] for one in suppressed] == ["note"]


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
def test_the_gate_passes_what_was_judged_and_did_not_fail(names: tuple[str, ...], strict: bool, expected: int) -> None:
    assert exit_code(statuses(*names), strict=strict) == expected
