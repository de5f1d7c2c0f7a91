"""`make bench` as one table: whatever becomes of a bench, what the others measured is shown and kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench.rows import Row, append, row

PASSES = row("quick enough", [1.0, 2.0, 3.0], [10.0], "a fresh one", goal=0.5)
SHORT = row("too [slow]", [20.0], [10.0], "a fresh one", goal=0.5, judged="difference")


def fake(*rows: Row, then: str = "") -> list[str]:
    """The command of a bench that writes these rows and then does something."""
    lines = [
        "import os, pathlib, signal, sys",
        "from tests.bench.rows import Row, append",
        *(f"append(pathlib.Path(sys.argv[2]), {one!r})" for one in rows),
        then,
    ]
    return [sys.executable, "-c", "\n".join(lines)]


@pytest.mark.parametrize(
    ("commands", "code", "kept", "told"),
    [
        pytest.param({"a": fake(PASSES)}, 0, 1, "1 figures, 0 short", id="all-pass"),
        pytest.param({"a": fake(PASSES, SHORT)}, 1, 2, "2 figures, 1 short", id="one-short"),
        pytest.param(
            {"a": fake(PASSES, then="sys.exit(3)"), "b": fake(PASSES)}, 1, 2, "a broke off with exit code 3", id="dies"
        ),
        pytest.param({"a": fake()}, 1, 0, "0 figures", id="nothing-measured"),
        pytest.param(
            # Ctrl-C while `a` runs: it hears of it, and `b` is not begun.
            {"a": fake(PASSES, then="os.kill(os.getppid(), signal.SIGINT)\nsignal.pause()"), "b": fake(PASSES)},
            130, 1, "interrupted in a", id="interrupted",
        ),
    ],
)  # fmt: skip
def test_what_was_measured_is_shown(
    commands: dict[str, list[str]], code: int, kept: int, told: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(bench, "benches", lambda: list(commands))
    monkeypatch.setattr(bench, "command_of", lambda name: commands[name])
    assert bench.run(["--out", str(tmp_path)]) == code
    said = capfd.readouterr()
    assert told in said.out + said.err
    found = (tmp_path / "rows.jsonl").read_text().splitlines() if kept else []
    assert len(found) == kept
    assert ("+10 ms" in said.out, "+0.5 ms" in said.out) == (SHORT.name in said.out,) * 2
    if kept:
        assert "0.200" in said.out
        assert json.loads(found[0])["samples"] == [1.0, 2.0, 3.0]


def test_an_unknown_bench_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run(["speed"]) == 2
    assert "there is no 'speed'; there are conformance, " in capsys.readouterr().err


def test_a_row_is_kept_with_its_samples(tmp_path: Path) -> None:
    append(tmp_path / "rows.jsonl", PASSES)
    kept = json.loads((tmp_path / "rows.jsonl").read_text())
    assert (kept["ratio"], kept["verdict"], kept["n"], kept["peer_samples"]) == (0.2, "pass", 3, [10.0])
