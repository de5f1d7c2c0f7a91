"""The official conformance suite runs against the product, with a baseline of what a tools-only server cannot have.

It is installed from the npm registry at the versions of official/package-lock.json, with the Node that it needs; a
machine that cannot reach the registry skips this and says so.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from local_stack import ROOT, LocalStack
from npm_packages import installed

SOURCES = Path(__file__).parent / "official"
INSTALLED = ROOT / ".tools" / "official"
REVISIONS = ("2025-11-25", "2026-07-28")


@pytest.fixture(scope="session")
def official() -> Path:
    """Directory of the installed suite's commands."""
    return installed(SOURCES, INSTALLED)


def judged(official: Path, endpoint: str, revision: str, out: Path) -> dict[str, str]:
    """scenario:check -> status, of everything the suite has for that revision."""
    command = ["conformance", "server", "--url", endpoint, "--suite", "all", "--spec-version", revision, "-o", str(out)]
    path = f"{official}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=300)
    assert "=== SUMMARY ===" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    found = {}
    for folder in sorted(out.glob("server-*")):
        scenario = re.sub(r"-\d{4}-\d\d-\d\dT[\d-]+Z$", "", folder.name).removeprefix("server-")
        for check in json.loads((folder / "checks.json").read_text()):
            name = f"{scenario}:{check['id']}"
            worst = found.get(name) in ("FAILURE", "WARNING")
            found[name] = found[name] if worst else check["status"]
    return found


@pytest.mark.parametrize("revision", REVISIONS)
def test_product_fails_only_what_a_tools_only_server_cannot_have(
    product: LocalStack, official: Path, tmp_path: Path, revision: str
) -> None:
    found = judged(official, product.ready["endpoint"], revision, tmp_path)
    baseline = set(yaml.safe_load((SOURCES / f"{revision}.yaml").read_text())["server"])
    failing = {name for name, status in found.items() if status in ("FAILURE", "WARNING")}
    assert failing - baseline == set()
    assert baseline - failing == set(), "stale: these pass now"
    assert sum(status == "SUCCESS" for status in found.values()) > 30
