"""The easy interpreter, an exec with forbidden words, fails the security checks by name: the programs really attack."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.__main__ import run

# One worker runs the server and all that looks at its report.
pytestmark = pytest.mark.xdist_group("conformance-naive")
SERVERS = Path(__file__).resolve().parents[1] / "broken_servers"

LEAKED = {
    "process-os-system-getattr",
    "process-posix-system",
    "process-os-system-alias",
    "process-unicode-spelling",
    "process-pickle-reduce",
    "process-os-popen",
    "process-os-fork",
    "process-posix-spawn",
    "process-object-graph-walk",
    "process-ctypes-libc-system",
    "signal-zero-to-the-parent",
    "credentials-os-environ",
    "credentials-proc-self-environ",
    "credentials-gc-walk",
    "credentials-getenv-native",
    "network-tcp-loopback",
    "network-udp-loopback",
    "network-listening",
    "runtime-api-urllib",
    "runtime-api-http-client",
    "file-write-beside-the-run-directory",
    "persistence-file-in-tmp",
    "persistence-environment-variable",
    "persistence-patched-module",
    "persistence-thread",
    "persistence-forked-process",
}
REFUSED = {
    "benign-words-in-a-string",
    "benign-words-in-a-comment",
    "benign-words-in-a-docstring",
    "benign-method-named-system",
    "benign-pandas-eval-and-query",
    "benign-import-subprocess-unused",
}


def started(script: str, folder: Path, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """A server of tests/broken_servers on a port of its own, and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-P", str(SERVERS / script), "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env=os.environ | environment,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The security part run on the naive server, which finds an HTTP server where the Runtime API would be."""
    out = tmp_path_factory.mktemp("naive")
    stand_in, api = started("reference.py", out)
    naive, url = started(
        "naive.py",
        out,
        AWS_LAMBDA_RUNTIME_API=api.removeprefix("http://"),
        AWS_SECRET_ACCESS_KEY="not-a-real-secret-of-anyone",
    )
    try:
        code = run([url, "--only", "security", "--json", "--out", str(out / "results")])
        yield json.loads((out / "results" / "report.json").read_text()) | {"returned": code}
    finally:
        for process in (naive, stand_in):
            process.kill()
            process.wait(10)
            assert process.stdout is not None
            process.stdout.close()


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    """Program name -> verdict, for every program that ran."""
    found = {}
    for check in report["checks"]:
        if check["security"]:
            name = check["id"].partition("[")[2].rstrip("]")
            found[name] = check["security"]["verdict"]
    return found


def test_gate_fails(report: dict[str, Any]) -> None:
    assert report["returned"] == 1
    assert report["counts"]["error"] == 0


@pytest.mark.parametrize("program", sorted(LEAKED))
def test_attack_gets_through(report: dict[str, Any], program: str) -> None:
    assert verdicts(report)[program] == "LEAKED"


@pytest.mark.parametrize("program", sorted(REFUSED))
def test_word_matching_refuses_ordinary_code(report: dict[str, Any], program: str) -> None:
    assert verdicts(report)[program] == "REFUSED"


def test_forbidden_words_are_counted_as_blocked(report: dict[str, Any]) -> None:
    assert verdicts(report)["process-os-system"] == "BLOCKED"


def test_secret_itself_is_in_no_report(report: dict[str, Any]) -> None:
    assert "not-a-real-secret" not in json.dumps(report)
