"""A baseline accepts exactly what it lists: a new failure is 1, an entry that passes or has no check any more is 5."""

from pathlib import Path

import pytest

from conformance import baseline, exits
from conformance.records import CheckRecord, count
from conformance.target import UsageFault


def checks(**statuses: str) -> list[CheckRecord]:
    return [CheckRecord.model_validate({"id": name, "part": "p", "status": told}) for name, told in statuses.items()]


@pytest.mark.parametrize(
    ("entries", "found", "strict", "whole", "expected"),
    [
        pytest.param(["a"], checks(a="failed", b="passed"), False, True, exits.PASS, id="known-failure"),
        pytest.param([], checks(a="failed"), False, True, exits.GATE_FAILED, id="new-failure"),
        pytest.param(["a"], checks(a="passed"), False, True, exits.STALE_BASELINE, id="passes-now"),
        pytest.param(["a"], checks(a="passed", b="failed"), False, True, exits.GATE_FAILED, id="new-before-stale"),
        pytest.param(["gone"], checks(a="passed"), False, True, exits.STALE_BASELINE, id="no-such-check"),
        pytest.param(["gone"], checks(a="passed"), False, False, exits.PASS, id="not-selected"),
        pytest.param(["a"], checks(a="skipped", b="passed"), False, True, exits.PASS, id="skipped-says-nothing"),
        pytest.param(["a"], checks(a="error"), False, True, exits.GATE_FAILED, id="broken-check-is-never-accepted"),
        pytest.param(["a"], checks(a="warning"), False, True, exits.PASS, id="warning-is-not-stale"),
        pytest.param([], checks(a="warning"), True, True, exits.GATE_FAILED, id="warning-when-strict"),
        pytest.param(["a"], checks(a="warning"), True, True, exits.PASS, id="known-warning-when-strict"),
        pytest.param([], checks(a="skipped"), False, True, exits.INCONCLUSIVE, id="nothing-judged"),
    ],
)
def test_the_gate_accepts_what_is_listed_and_nothing_else(
    entries: list[str], found: list[CheckRecord], strict: bool, whole: bool, expected: int
) -> None:
    compared = baseline.compare(Path("b"), dict.fromkeys(entries, "why"), found, strict=strict, whole=whole)
    assert baseline.gate(compared, count(found)) == expected


def test_update_keeps_reasons_adds_failures_and_drops_what_is_stale(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "baseline.yaml"
    entries = {"kept": "upstream issue 7", "gone": "old", "unseen": "other part"}
    found = checks(kept="failed", gone="passed", new="failed")
    compared = baseline.compare(path, entries, found, strict=False, whole=False)
    baseline.write(path, baseline.updated(entries, found, strict=False, stale=compared.stale))
    assert baseline.read(path) == {"kept": "upstream issue 7", "new": baseline.UNEXPLAINED, "unseen": "other part"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("- a\n", "is not `expected:`", id="a-list"),
        pytest.param("expected:\n- ids: a\n", "is not `expected:`", id="misspelt-member"),
        pytest.param("expected: [{id: a}, {id: a}]\n", "lists a check twice", id="twice"),
        pytest.param("expected: [", "is not `expected:`", id="not-yaml"),
        pytest.param(None, "--baseline-update", id="no-file"),
    ],
)
def test_unusable_files_are_usage_faults(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "baseline.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageFault, match=words):
        baseline.read(path)
