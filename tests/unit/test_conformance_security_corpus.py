"""The corpus is whole, safe to send, and says of each program what it is and why."""

import re
from collections import Counter
from typing import Any

import pytest

from conformance.catalogue import load as catalogue
from conformance.security.programs import Program, load, read
from conformance.security.verdict import Marker
from conformance.target import PROFILES, load_profile

LEAST = {"attack": 300, "benign": 200, "resource": 80}
CLASSES = {
    "answer", "code-objects", "credentials", "file-read", "file-write", "frames-gc", "hook", "imports", "names",
    "native", "network", "object-graph", "package", "persistence", "process", "runtime-api", "serialisation", "signal",
    "unicode",
}  # fmt: skip
# Loopback, no address, link-local as a word of a lesson, private documentation nets; and names reserved by RFC 2606.
ADDRESS = re.compile(r"\b(?!127\.|0\.0\.0\.0|169\.254\.|10\.0\.0\.)\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b")
HOST = re.compile(r"https?://([^/\s'\"{:]+)")
FAMILY: dict[str, Any] = {
    "claim": "process",
    "cwe": "CWE-78",
    "why": "w",
    "operations": {"run": "get('run')", "stop": "get('stop')"},
    "families": [{"group": "names", "ways": {"plain": {"with": ["run", "stop"], "get": "get = print\n"}}}],
}


def hostile() -> list[Program]:
    return [one for one in load() if one.kind != "benign"]


@pytest.mark.parametrize("kind", LEAST)
def test_there_are_enough(kind: str) -> None:
    assert Counter(one.kind for one in load())[kind] >= LEAST[kind]


def test_every_class_of_attack_has_programs() -> None:
    assert {one.group for one in load() if one.kind in ("attack", "persistence")} == CLASSES


def test_half_of_the_benign_programs_are_bait() -> None:
    benign = [one for one in load() if one.kind == "benign"]
    assert all(one.expect is not None for one in benign)
    words = re.compile(
        r"os\.system|subprocess|eval|exec|fork|popen|__|socket|ctypes|kill|passwd|secret|pickle|import os"
    )
    assert sum(one.group == "bait" or bool(words.search(one.program)) for one in benign) >= len(benign) / 2


def test_each_says_why_and_by_which_weakness() -> None:
    lacking = [one.name for one in hostile() if not re.fullmatch(r"CWE-\d+", one.cwe) or len(one.why) < 20]
    assert lacking == []


def test_profiles_claim_what_the_corpus_tests_and_the_catalogue_has() -> None:
    tested = {one.claim for one in load()}
    assert {claim for path in PROFILES.glob("*.yaml") for claim in load_profile(path.stem).claims} == tested
    assert {f"SEC-{claim}" for claim in tested} <= set(catalogue())


def test_programs_are_python() -> None:
    prelude = Marker(1, 1, "n").prelude()
    for one in load():
        for text in filter(None, (one.program, one.second)):
            compile(prelude + text, one.name, "exec", dont_inherit=True)


def test_nothing_is_sent_to_anyone() -> None:
    for one in load():
        text = one.program + (one.second or "") + " ".join(one.requirements or ())
        assert not ADDRESS.search(text), one.name
        hosts = {host for host in HOST.findall(text) if not host.startswith(("127.0.0.1", "169.254.", "$", "git@"))}
        assert all(host.endswith((".invalid", ".example")) for host in hosts), (one.name, hosts)


def test_no_program_holds_the_marker_it_must_compute() -> None:
    """Echoed source must not look like an effect: the marker is computed, and only leaked() or a shell prints it."""
    texts = {one.name: one.program + (one.second or "") + (one.after or "") for one in hostile()}
    assert [name for name, text in texts.items() if re.search(r"LEAKED:\d", text)] == []
    by_marker = [
        one.name
        for one in hostile()
        if one.kind != "resource" and one.judge == "marker" and one.requirements is None and one.compare is None
    ]
    prints = re.compile(r"leaked\(|\{A\} \* \{B\}|LEAKED:\{A \* B\}")
    assert [name for name in by_marker if not prints.search(texts[name])] == []


def test_a_family_is_ways_times_operations() -> None:
    members = list(read(FAMILY))
    assert [one.name for one in members] == ["names-plain-run", "names-plain-stop"]
    assert members[1].program == "get = print\nget('stop')"


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"programs": [{"id": "x", "program": "p", "group": "g", "colour": "red"}]}, id="unknown-field"),
        pytest.param({"programs": [{"id": "x", "program": "p"}]}, id="no-group"),
        pytest.param({"families": [{"group": "g", "ways": {"a": {"with": ["no-such"], "get": ""}}}]}, id="operation"),
    ],
)
def test_a_malformed_entry_is_told(broken: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        list(read({**FAMILY, "families": [], **broken}))
