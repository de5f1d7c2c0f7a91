"""The scorecard counts what the run's records say, names what got through, and puts runs side by side."""

import json
from pathlib import Path
from typing import Any

import pytest

from conformance.records import CheckRecord, RunRecord, SecurityVerdict
from conformance.report import scorecard, scorecard_compare

RUN = RunRecord(
    endpoint="http://127.0.0.1:1/mcp",
    profile="lambda",
    started="2026-11-24T06:00:00+00:00",
    duration_s=12.5,
    exit_code=1,
    verdict="fail",
    strict=False,
    selection="security",
)


def told(program: str, kind: str, group: str, verdict: str, **more: Any) -> SecurityVerdict:
    values = {"why": "Because it matters.", "cwe": "CWE-1", "claim": "process", **more}
    return SecurityVerdict.model_validate(
        {"program": program, "kind": kind, "group": group, "verdict": verdict, **values}
    )


VERDICTS = [
    told("process-a", "attack", "process", "BLOCKED", explains="operation and line"),
    told("process-b", "attack", "process", "BLOCKED", explains="operation"),
    told("process-c", "attack", "process", "LEAKED", evidence="a|b <script>"),
    told("native-a", "attack", "native", "CRASHED", lost=True),
    told("native-b", "attack", "native", "UNSUPPORTED"),
    told("persistence-a", "persistence", "persistence", "CONTAINED", cold_after=True),
    told("bait-a", "benign", "bait", "REFUSED", evidence="os.system in a string"),
    told("benign-a", "benign", "benign", "OK"),
    told("resource-a", "resource", "resource", "CONTAINED", elapsed_ms=900.0),
    told("resource-b", "resource", "resource", "LATE", elapsed_ms=9000.0),
]


def run_directory(path: Path, verdicts: list[SecurityVerdict], *, profile: str = "lambda") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "run.json").write_text(RUN.model_copy(update={"profile": profile}).model_dump_json())
    checks = [
        CheckRecord(id=f"security.corpus.program[{one.program}]", part="security", status="passed", security=one)
        for one in verdicts
    ]
    checks.append(CheckRecord(id="security.x", part="security", status="skipped", message="run with --full"))
    checks.append(CheckRecord(id="protocol.x", part="protocol", status="failed", message="not of this page"))
    (path / "checks.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in checks))
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return run_directory(tmp_path / "run", VERDICTS)


def test_a_card_counts_what_the_records_say(out: Path) -> None:
    card = scorecard.score(out)
    assert (card.attacks.tried, card.attacks.held) == (4, 0.5)
    assert {one.name: (one.blocked, one.leaked, one.crashed, one.unsupported) for one in card.classes} == {
        "native": (0, 0, 1, 1),
        "process": (2, 1, 0, 0),
    }
    assert (card.persistence.contained, card.persistence.held) == (1, 1.0)
    assert (card.explained.refusals, card.explained.operation_and_line, card.explained.operation) == (2, 1, 1)
    assert (card.benign.programs, card.benign.bait, [one.program for one in card.benign.refused]) == (2, 1, ["bait-a"])
    assert (card.resources.answered, card.resources.late) == (1, 1)
    assert next(iter(card.resources.slowest_ms)) == "resource-b"
    assert (card.environments_lost, card.cold_starts_after) == (1, 1)
    assert card.not_run == {"run with --full": 1}
    assert [one.program for one in card.through] == ["process-c", "native-a", "resource-b"]
    assert card.verdict == "3 got through"


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        pytest.param(VERDICTS[:2], "nothing got through", id="clean"),
        pytest.param([VERDICTS[0], VERDICTS[6]], "nothing got through, ordinary code refused", id="false-positive"),
        pytest.param(VERDICTS[4:5], "nothing was tried", id="untried"),
    ],
)
def test_the_verdict_is_what_a_reviewer_must_look_at_first(
    tmp_path: Path, verdicts: list[SecurityVerdict], verdict: str
) -> None:
    assert scorecard.score(run_directory(tmp_path, verdicts)).verdict == verdict


def test_a_card_comes_in_three_forms_that_say_the_same(out: Path) -> None:
    assert [path.name for path in scorecard.write_all(out)] == ["scorecard.json", "scorecard.md", "scorecard.html"]
    assert scorecard.Scorecard.model_validate(json.loads((out / "scorecard.json").read_text())) == scorecard.score(out)
    page, text = (out / "scorecard.html").read_text(), (out / "scorecard.md").read_text()
    assert "a|b &lt;script&gt;" in page
    assert "<script>" not in page
    assert "a\\|b" in text
    for program in ("process-c", "native-a", "resource-b", "bait-a"):
        assert program in page
        assert program in text


def test_no_card_where_no_program_ran(tmp_path: Path) -> None:
    assert scorecard.write_all(run_directory(tmp_path, [])) == []


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "-"), (1.0, "100 %"), (0.9999, "99.9 %"), (0.5, "50 %")],
    ids=["none", "all", "almost-all", "half"],
)
def test_almost_all_is_not_all(share: float | None, text: str) -> None:
    assert scorecard.percent(share) == text


def test_runs_are_put_side_by_side(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = run_directory(tmp_path / "other", VERDICTS[:2], profile="kernel")
    assert scorecard_compare.run([f"ours={out}", f"theirs={other}"]) == 0
    lines = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert {"profile lambda kernel", "attacks leaked 1 of 4 0 of 2", "leaked: native 0 of 1 -"} <= lines
    assert "ours: native-a, process-c, resource-b" in lines
    assert scorecard_compare.run([f"ours={out}", f"theirs={other}", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"ours", "theirs"}
    assert scorecard_compare.run([f"ours={out}", f"theirs={other}", "--markdown"]) == 0
    assert "| profile | lambda | kernel |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        pytest.param(["{out}"], "two runs or more", id="one"),
        pytest.param(["a={out}", "a={out}"], "called a", id="same-name"),
        pytest.param(["a={out}", "b={out}/nowhere"], "holds no run", id="no-run"),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_sentence(
    out: Path, runs: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scorecard_compare.run([one.format(out=out) for one in runs]) == 2
    assert told in capsys.readouterr().err
