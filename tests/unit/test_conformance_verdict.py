"""A verdict comes from an effect: echoed source and tracebacks prove nothing, a computed marker does."""

import random
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from conformance.interpreter import Outcome, read_outcome
from conformance.messages import Reply
from conformance.security.programs import Program
from conformance.security.verdict import (
    Marker,
    judge_attack,
    judge_benign,
    judge_package,
    judge_pair,
    judge_resource,
    new_marker,
)
from conformance.wire import Answer

MARKER = Marker(1234, 5678, "0a1b2c")


def outcome(data: Mapping[str, Any] | None = None, *, status: int = 200) -> Outcome:
    structured = {"success": True, "stdout": "", "result": "", **(data or {})}
    message = {"jsonrpc": "2.0", "id": 1, "result": {"content": [], "structuredContent": structured}}
    return read_outcome(Reply(Answer(status, (), b"", 1.0), message if status < 500 else None))


def program(**fields: Any) -> Program:
    return Program(**{"id": "x", "group": "g", "claim": "c", "why": "w", "cwe": "", "program": "p", **fields})


@pytest.mark.parametrize(
    ("came_back", "verdict"),
    [
        pytest.param(outcome({"stdout": f"LEAKED:{1234 * 5678}:os.system\n"}), "LEAKED", id="marker"),
        pytest.param(outcome({"stderr": f"x\nLEAKED:{1234 * 5678}:"}), "LEAKED", id="marker-on-stderr"),
        pytest.param(outcome({"stdout": MARKER.prelude()}), "CONTAINED", id="echoed-source"),
        pytest.param(outcome({"stdout": "LEAKED:1:"}), "CONTAINED", id="another-number"),
        pytest.param(outcome({"error": {"type": "security"}}), "BLOCKED", id="typed-refusal"),
        pytest.param(outcome({"violations": ["os.fork"]}), "BLOCKED", id="violation"),
        pytest.param(outcome({"result": "Security Error: no"}), "BLOCKED", id="refusal-in-words"),
        pytest.param(outcome({"error": {"type": "runtime", "message": "EPERM"}}), "CONTAINED", id="plain-error"),
        pytest.param(outcome({"stdout": "UNSUPPORTED:no cffi\n"}), "UNSUPPORTED", id="unsupported"),
        pytest.param(outcome(status=502), "CRASHED", id="bad-gateway"),
        pytest.param(
            outcome({"stdout": f"LEAKED:{1234 * 5678}:", "error": {"type": "security"}}),
            "LEAKED",
            id="leak-then-refusal",
        ),
    ],
)
def test_attacks(came_back: Outcome, verdict: str) -> None:
    assert judge_attack(came_back, MARKER)[0] == verdict


def test_marker_is_in_no_prelude_and_never_the_same() -> None:
    made = [new_marker(partial(random.Random, seed)) for seed in range(50)]
    assert all(marker.text not in marker.prelude() for marker in made)
    assert len({marker.text for marker in made}) == 50
    assert all(marker.prelude().count("\n") == 1 for marker in made)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        pytest.param("STATE:0.5\n", "STATE:0.5\n", "LEAKED", id="same-draw"),
        pytest.param("STATE:0.5\n", "STATE:0.7\n", "CONTAINED", id="other-draw"),
        pytest.param("", "STATE:0.7\n", "CRASHED", id="no-state"),
        pytest.param("UNSUPPORTED:no numpy\n", "", "UNSUPPORTED", id="unsupported"),
    ],
)
def test_random_state_is_compared(first: str, second: str, verdict: str) -> None:
    pair = program(kind="persistence", second="s", compare="equal")
    assert judge_pair(pair, outcome({"stdout": first}), outcome({"stdout": second}), MARKER)[0] == verdict


def test_a_pair_is_judged_by_its_second_call() -> None:
    pair = program(kind="persistence", second="s")
    refused = outcome({"violations": ["os.fork"]})
    leaked = outcome({"stdout": f"LEAKED:{1234 * 5678}:still there"})
    assert judge_pair(pair, refused, leaked, MARKER)[0] == "LEAKED"
    assert judge_pair(pair, refused, outcome(), MARKER)[0] == "BLOCKED"
    assert judge_pair(pair, outcome(), outcome(), MARKER)[0] == "CONTAINED"


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        pytest.param({"success": True, "stdout": "ran\n"}, "LEAKED", id="ran"),
        pytest.param({"success": False, "usage": {"install_ms": 900}}, "CONTAINED", id="installer-tried"),
        pytest.param({"success": False, "usage": {"install_ms": 0.3}}, "BLOCKED", id="refused-unseen"),
    ],
)
def test_packages(data: Mapping[str, Any], verdict: str) -> None:
    assert judge_package(outcome(data))[0] == verdict


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        pytest.param({"stdout": "42\n"}, "OK", id="as-expected"),
        pytest.param({"stdout": "41\n"}, "REFUSED", id="other-output"),
        pytest.param({"success": False, "error": {"type": "security"}}, "REFUSED", id="refused"),
        pytest.param(
            {"success": False, "error": {"name": "ModuleNotFoundError", "message": "No module named 'm'"}},
            "UNSUPPORTED",
            id="module-not-there",
        ),
    ],
)
def test_benign(data: Mapping[str, Any], verdict: str) -> None:
    assert judge_benign(program(kind="benign", expect="42", module="m"), outcome(data))[0] == verdict


def test_resources_must_be_answered() -> None:
    assert judge_resource(outcome({"success": False, "error": {"type": "timeout"}}))[0] == "CONTAINED"
    assert judge_resource(outcome(status=502))[0] == "CRASHED"


def test_text_block_is_read_when_there_is_no_structured_content() -> None:
    result = {"content": [{"type": "text", "text": '{"success": true, "stdout": "x"}'}]}
    read = read_outcome(Reply(Answer(200, (), b"", 1.0), {"jsonrpc": "2.0", "id": 1, "result": result}))
    assert (read.stdout, read.error, list(read.violations)) == ("x", {}, [])
    plain = {"content": [{"type": "text", "text": "just words"}]}
    read = read_outcome(Reply(Answer(200, (), b"", 1.0), {"jsonrpc": "2.0", "id": 1, "result": plain}))
    assert (dict(read.data), read.text) == ({}, "just words")
