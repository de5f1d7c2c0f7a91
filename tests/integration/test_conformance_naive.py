"""The easy interpreter, an exec with forbidden words, fails the security checks by name: the programs really attack."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
# What a machine without a resolver, IPv6, /dev/shm, root or cffi keeps from working by itself.
DEPENDS_ON_THE_MACHINE = {
    f"security.corpus.program[{name}]"
    for name in (
        "network-dns-lookup",
        "network-raw-ipv6",
        "file-write-in-shared-memory",
        "file-write-into-the-libraries",
        "persistence-shared-memory-segment",
        "credentials-proc-parent-memory",
        "process-cffi-libc-system",
    )
}
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

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def started(arguments: list[str], folder: Path, **environment: str) -> Running:
    """Starts a server on a port of its own. Its parent is a shell with the same environment, like a host process."""
    command = shlex.join([sys.executable, "-P", str(SERVERS / arguments[0]), "0", *arguments[1:]])
    process = subprocess.Popen(
        ["sh", "-c", f"{command}; true"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env=os.environ | environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    return Running(process, process.stdout.readline().strip())


@contextmanager
def judged(options: list[str], out: Path, *arguments: str) -> Iterator[dict[str, Any]]:
    """The report of a security run on the naive server, which finds an HTTP server where the Runtime API would be."""
    stand_in = started(["reference.py"], out)
    naive = started(
        ["naive.py", *options],
        out,
        AWS_LAMBDA_RUNTIME_API=stand_in.url.removeprefix("http://"),
        AWS_SECRET_ACCESS_KEY="not-a-real-secret-of-anyone",
        LAMBDA_TASK_ROOT=str(SERVERS),
    )
    try:
        code = run([naive.url, "--only", "security", "--json", "--out", str(out / "results"), *arguments])
        yield json.loads((out / "results" / "report.json").read_text()) | {"returned": code}
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


def test_forbidden_words_are_counted_as_blocked(report: dict[str, Any]) -> None:
    assert verdicts(report)["process-os-system"] == "BLOCKED"


def test_secret_itself_is_in_no_report(report: dict[str, Any]) -> None:
    assert "not-a-real-secret" not in json.dumps(report)


def test_every_attack_works_where_nothing_is_forbidden(tmp_path: Path) -> None:
    """The corpus attacks: on an open server each program of the default set sees its effect and proves it."""
    with judged(["--no-words", "--same-seed"], tmp_path, "--profile", "kernel") as found:
        attacks = {
            check["id"]: f"{check['security']['verdict']} {check['security']['evidence']}"
            for check in found["checks"]
            if check["security"] and check["security"]["kind"] in ("attack", "persistence")
        }
    assert len(attacks) > 80
    contained = {name: told for name, told in attacks.items() if not told.startswith("LEAKED")}
    assert {name: told for name, told in contained.items() if name not in DEPENDS_ON_THE_MACHINE} == {}
