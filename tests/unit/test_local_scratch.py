"""Given stacks that ended badly, what they left goes with the next start, and nothing else does."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sam.local.scratch import remove_abandoned, scratch

KILLED = """
import os, signal, tempfile
from sam.local.scratch import scratch
tempfile.tempdir = {parent!r}
with scratch() as directory:
    (directory / "environment-1").mkdir()
    print(directory.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_directory_is_gone_with_its_stack(parent: Path) -> None:
    with scratch() as directory:
        (directory / "file").write_text("x")
        assert directory.parent == parent
        assert directory.stat().st_mode & 0o777 == 0o711
    assert list(parent.iterdir()) == []


def test_the_next_start_removes_what_a_killed_stack_left_and_nothing_else(parent: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED.format(parent=str(parent))], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -9, killed.stderr
    left = parent / killed.stdout.strip()
    assert (left / "environment-1").is_dir()
    (parent / "sam-local-of-somebody").mkdir()
    (parent / "other").mkdir()
    with scratch() as living:
        assert not left.exists()
        assert remove_abandoned(parent) == []
        assert living.is_dir()
    assert sorted(path.name for path in parent.iterdir()) == ["other", "sam-local-of-somebody"]
