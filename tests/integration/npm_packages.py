"""Installs what a test takes from the npm registry, at the versions of a committed lock; skips where it cannot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def installed(sources: Path, target: Path) -> Path:
    """Directory of the commands of `sources`' lock, installed into `target` unless they are there already."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    lock = sources / "package-lock.json"
    stamp = target / "package-lock.json.done"
    if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
        target.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(sources / name, target)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--prefix", str(target)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            pytest.skip("the npm registry did not answer within 300 s")
        if done.returncode != 0:
            pytest.skip(f"the npm registry did not give {sources.name}: {done.stderr.strip().splitlines()[-1:]}")
        stamp.write_bytes(lock.read_bytes())
    return target / "node_modules" / ".bin"
