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
    explains,
    judge_answer,
    judge_attack,
    judge_benign,
    judge_hidden_refusal,
    judge_package,
    judge_pair,
    judge_resource,
    judge_usage,
    new_marker,
)
from conformance.wire import Answer

MARKER = Marker(1234, 5678, "0a1b2c")


def outcome(
    data: Mapping[str, Any] | None = None, *, status: int = 200, elapsed_ms: float = 1.0, is_error: bool = False
) -> Outcome:
    structured = {"success": True, "stdout": "", "result": "", **(data or {})}
    result = {"content": [], "structuredContent": structured, "isError": is_error}
    message = {"jsonrpc": "2.0", "id": 1, "result": result}
    return read_outcome(Reply(Answer(status, (), b"", elapsed_ms), message if status < 500 else None))


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
        pytest.param(outcome({"success": False, "result": "Security Error: no"}), "BLOCKED", id="original-refusal"),
        pytest.param(outcome({"result": "Security Error: no"}), "CONTAINED", id="words-of-a-success"),
        pytest.param(
            outcome({"success": False, "result": "Security Error: no", "error": {"type": "runtime"}}),
            "CONTAINED",
            id="words-beside-another-type",
        ),
        pytest.param(outcome({"stderr": "Security Error: os.system"}), "CONTAINED", id="words-on-stderr"),
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
def test_an_attack_leaks_only_by_its_marker(came_back: Outcome, verdict: str) -> None:
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
        pytest.param({"success": False, "error": {"type": "package"}}, "BLOCKED", id="refused-unseen"),
        pytest.param({"success": False}, "CONTAINED", id="failed-without-a-type"),
    ],
)
def test_a_requirement_is_refused_before_the_installer_starts(data: Mapping[str, Any], verdict: str) -> None:
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
def test_an_ordinary_program_must_run_and_print_what_it_must(data: Mapping[str, Any], verdict: str) -> None:
    assert judge_benign(program(kind="benign", expect="42", module="m"), outcome(data))[0] == verdict


@pytest.mark.parametrize(
    ("came_back", "limit_s", "verdict"),
    [
        pytest.param(outcome({"error": {"type": "timeout"}}, elapsed_ms=25_900), 25.0, "CONTAINED", id="in-time"),
        pytest.param(outcome({"error": {"type": "timeout"}}, elapsed_ms=26_100), 25.0, "LATE", id="late"),
        pytest.param(outcome({"error": {"type": "timeout"}}, elapsed_ms=90_000), None, "CONTAINED", id="no-limit-told"),
        pytest.param(outcome(status=502), 25.0, "CRASHED", id="not-answered"),
    ],
)
def test_resources_must_be_answered_in_time(came_back: Outcome, limit_s: float | None, verdict: str) -> None:
    assert judge_resource(came_back, limit_s)[0] == verdict


FORGED = f"LEAKED:{1234 * 5678}:x"


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        pytest.param({"stdout": FORGED, "result": FORGED, "warnings": FORGED}, "CONTAINED", id="its-own-words"),
        pytest.param({"forged": FORGED}, "LEAKED", id="a-field-of-its-own"),
        pytest.param({"usage": {"cpu_ms": 1234 * 5678}}, "LEAKED", id="usage"),
        pytest.param({"outputs": [{"mime_type": FORGED}]}, "LEAKED", id="outputs"),
    ],
)
def test_an_answer_is_forged_where_only_the_host_may_speak(data: Mapping[str, Any], verdict: str) -> None:
    assert judge_answer(outcome(data), MARKER)[0] == verdict


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        pytest.param({"usage": {"cpu_ms": 260.0}}, "CONTAINED", id="measured"),
        pytest.param({"usage": {"cpu_ms": 0.0}}, "LEAKED", id="believed"),
        pytest.param({}, "UNSUPPORTED", id="none-told"),
    ],
)
def test_usage_is_measured(data: Mapping[str, Any], verdict: str) -> None:
    assert judge_usage(outcome(data))[0] == verdict


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        pytest.param({"stdout": "went on\n", "violations": ["os.system"]}, "BLOCKED", id="on-record"),
        pytest.param({"stdout": "went on\n", "violations": []}, "LEAKED", id="hidden"),
        pytest.param({"stdout": "was let through\n"}, "LEAKED", id="nothing-refused"),
    ],
)
def test_a_caught_refusal_stays_on_record(data: Mapping[str, Any], verdict: str) -> None:
    assert judge_hidden_refusal(outcome(data), MARKER)[0] == verdict


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param({"violations": ["os.system"], "error": {"line": 2}}, "operation and line", id="both"),
        pytest.param({"violations": ["os.system"], "error": {"line": 1}}, "operation", id="line-of-the-prelude"),
        pytest.param({"violations": ["os.system"], "error": {"line": 3}}, "operation", id="line-of-a-comment"),
        pytest.param({"violations": ["os.system"], "error": {"line": 9}}, "operation", id="line-past-the-end"),
        pytest.param({"error": {"type": "security", "line": 2}}, "line", id="no-operation"),
        pytest.param({"error": {"type": "security"}}, "nothing", id="neither"),
        pytest.param(
            {"result": "Security Error: Blocked dangerous operation: os.system"}, "operation", id="original-words"
        ),
    ],
)
def test_what_a_refusal_explains(data: Mapping[str, Any], told: str) -> None:
    assert explains("prelude\nos.system('x')\n# done\n", outcome(data)) == told


def test_text_block_is_read_when_there_is_no_structured_content() -> None:
    result = {"content": [{"type": "text", "text": '{"success": true, "stdout": "x"}'}]}
    read = read_outcome(Reply(Answer(200, (), b"", 1.0), {"jsonrpc": "2.0", "id": 1, "result": result}))
    assert (read.stdout, read.error, list(read.violations)) == ("x", {}, [])
    plain = {"content": [{"type": "text", "text": "just words"}]}
    read = read_outcome(Reply(Answer(200, (), b"", 1.0), {"jsonrpc": "2.0", "id": 1, "result": plain}))
    assert (dict(read.data), read.text) == ({}, "just words")
