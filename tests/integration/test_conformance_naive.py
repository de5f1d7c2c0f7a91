"""The easy interpreter, an exec with forbidden words, fails the security checks by name: the programs really attack."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conformance.__main__ import run

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
# What needs more than an open server: root, a resolver, IPv6, /dev/shm, a main thread, a framing of one's own to break.
NOT_HERE = {
    f"security.corpus.program[{name}]"
    for name in (
        "answer-event-in-the-output",
        "answer-unencodable-output",
        "credentials-credential-files",
        "credentials-proc-parent-memory",
        "credentials-settings-of-the-deployment",
        "file-read-through-a-hard-link",
        "file-write-bytecode-of-a-library",
        "file-write-in-shared-memory",
        "file-write-into-the-libraries",
        "file-write-mode-of-a-library",
        "file-write-nameless-file",
        "native-terminal-fork",
        "network-dns-by-name",
        "network-dns-lookup",
        "network-host-name",
        "network-packet-socket",
        "network-raw-ipv6",
        "network-reverse-name",
        "network-service-by-name",
        "persistence-module-on-the-path",
        "persistence-shared-memory-segment",
        "persistence-signal-handler",
        "process-cffi-libc-system",
        "signal-core-dump-filter",
        "signal-first-to-be-killed",
        "signal-new-namespaces",
        "signal-priority-of-the-group",
    )
}
LEAST_LEAKED = 0.95
REFUSED = {
    "benign-words-in-a-string",
    "benign-words-in-a-comment",
    "benign-words-in-a-docstring",
    "benign-method-named-system",
    "benign-pandas-eval-and-query",
    "benign-import-subprocess-unused",
}


@dataclass(frozen=True, slots=True)
class Running:
    """A server of tests/broken_servers: the group of its processes, and its URL."""

    process: subprocess.Popen[str]
    url: str
    folder: Path

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        shutil.rmtree(self.folder)


def started(arguments: list[str], **environment: str) -> Running:
    """Starts a server on a port of its own, as a user without rights whose parent is a shell of that user."""
    folder = Path(tempfile.mkdtemp(prefix="broken-server-"))  # that user can come here, unlike to pytest's directories
    folder.chmod(0o755)
    command = [sys.executable, "-P", str(SERVERS / arguments[0]), "0", *arguments[1:]]
    process = subprocess.Popen(
        ["sh", str(SERVERS / "confined.sh"), str(folder), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    return Running(process, process.stdout.readline().strip(), folder)


@contextmanager
def judged(options: list[str], out: Path, *arguments: str) -> Iterator[dict[str, Any]]:
    """The report of a security run on the naive server, which finds an HTTP server where the Runtime API would be."""
    stand_in = started(["reference.py"])
    naive = started(
        ["naive.py", *options],
        AWS_LAMBDA_RUNTIME_API=stand_in.url.removeprefix("http://"),
        AWS_ACCESS_KEY_ID="not-a-real-name-of-anyone",
        AWS_SECRET_ACCESS_KEY="not-a-real-secret-of-anyone",
        LAMBDA_TASK_ROOT=str(SERVERS),
    )
    try:
        code = run([naive.url, "--only", "security", "--json", "--out", str(out / "results"), *arguments])
        yield json.loads((out / "results" / "report.json").read_text()) | {
            "returned": code,
            "results": str(out / "results"),
        }
    finally:
        naive.stop()
        stand_in.stop()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The naive server with its forbidden words."""
    with judged([], tmp_path_factory.mktemp("naive")) as found:
        yield found


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


def test_forbidden_words_are_counted_as_blocked_and_explain_nothing_of_where(report: dict[str, Any]) -> None:
    found = {check["security"]["program"]: check["security"] for check in report["checks"] if check["security"]}
    assert found["process-os-system"]["verdict"] == "BLOCKED"
    assert found["process-os-system"]["explains"] == "operation"


def test_scorecard_names_what_got_through(report: dict[str, Any]) -> None:
    page = (Path(report["results"]) / "scorecard.md").read_text()
    assert all(f"| {program} | LEAKED |" in page for program in LEAKED)
    assert all(f"- {program}: " in page for program in REFUSED)


def test_secret_itself_is_in_no_report(report: dict[str, Any]) -> None:
    assert "not-a-real-secret" not in json.dumps(report)


def test_every_attack_works_where_nothing_is_forbidden(tmp_path: Path) -> None:
    """The corpus attacks: on an open server each program of the default set sees its effect and proves it, and none
    makes the server ill, though nothing protects it."""
    with judged(["--no-words", "--same-seed"], tmp_path, "--profile", "kernel") as found:
        told = [check["security"] | {"id": check["id"]} for check in found["checks"] if check["security"]]
    attacks = {one["id"]: one for one in told if one["kind"] in ("attack", "persistence")}
    tried = {name: one for name, one in attacks.items() if one["verdict"] != "UNSUPPORTED"}
    failed = {name: f"{one['verdict']} {one['evidence']}" for name, one in tried.items() if one["verdict"] != "LEAKED"}
    assert {name: why for name, why in failed.items() if name not in NOT_HERE} == {}
    assert len(tried) > 450
    assert len(failed) <= (1 - LEAST_LEAKED) * len(tried)
    assert [one["id"] for one in told if one["lost"]] == []
