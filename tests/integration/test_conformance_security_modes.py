"""What gets through our own function in each mode is exactly what tests/integration/residue.yaml says, with its reason.

More than it is a hole that nobody has judged; less is a line there that is not true any more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_stack import ROOT, local_stack

from conformance.__main__ import run
from conformance.security.programs import Program, load
from conformance.target import load_profile

# One after another on one worker: together they are two thousand calls.
RESIDUE = yaml.safe_load((Path(__file__).parent / "residue.yaml").read_text(encoding="utf-8"))
THROUGH = ("LEAKED", "CRASHED", "LATE")
# Ordinary and runaway programs are judged where the suite itself is run on the product.
HOSTILE = "not bait and not benign and not resource"


def judged(mode: str) -> list[Program]:
    """The hostile programs of the default corpus that the mode's profile claims to hold."""
    claims = load_profile(RESIDUE[mode]["profile"]).claims
    return [one for one in load() if one.safe and one.kind in ("attack", "persistence") and one.claim in claims]


def residue(mode: str) -> set[str]:
    """The programs that a mode is said to let through; `all_but` is every program of a class except some."""
    safe = judged(mode)
    found: set[str] = set()
    for group, entry in (RESIDUE[mode]["residue"] or {}).items():
        if "all_but" in entry:
            found |= {one.name for one in safe if one.group == group} - set(entry["all_but"])
        found |= set(entry.get("programs", ()))
    return found


def through(report: dict[str, Any]) -> set[str]:
    """The programs that got through, by the report of a run."""
    told = [check["security"] for check in report["checks"] if check["security"]]
    return {one["program"] for one in told if one["verdict"] in THROUGH}


@pytest.mark.parametrize("mode", list(RESIDUE))
def test_only_the_residue_gets_through(mode: str, tmp_path: Path) -> None:
    template = ("--template", str(ROOT / "sam" / "template.yaml"))
    with local_stack(tmp_path, *template, *RESIDUE[mode]["stack"]) as stack:
        if not stack.isolated:
            pytest.skip("this host gives environments no mounts and processes of their own")
        results = str(tmp_path / "results")
        arguments = ["--only", "security", "-n", "3", "-k", HOSTILE, "--profile", RESIDUE[mode]["profile"]]
        code = run([stack.ready["endpoint"], *arguments, "--json", "--out", results])
    report = json.loads((tmp_path / "results" / "report.json").read_text())
    assert report["counts"]["error"] == 0
    ran = report["counts"]["passed"] + report["counts"]["failed"]
    assert ran > 0.9 * len(judged(mode)), "most of it is supported here"
    assert sorted(through(report)) == sorted(residue(mode))
    assert code == (1 if residue(mode) else 0)


@pytest.mark.parametrize("mode", list(RESIDUE))
def test_every_line_of_the_residue_has_a_reason_and_a_program(mode: str) -> None:
    names = {one.name for one in load()}
    for group, entry in (RESIDUE[mode]["residue"] or {}).items():
        assert len(entry["reason"]) > 30, (mode, group)
        assert set(entry.get("programs", ())) | set(entry.get("all_but", ())) <= names, (mode, group)
