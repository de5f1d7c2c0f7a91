"""Decides what a program did from what came back, by the marker it could only print after seeing its effect."""

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from conformance.interpreter import Outcome
from conformance.records import Explains, Verdict
from conformance.security.programs import Program

# Beside these a structured result holds nothing that is the code's own to say.
OWN_WORDS = ("stdout", "stderr", "result", "warnings", "error", "violations", "files")
ORIGINAL_REFUSAL = re.compile(r"Security Error: (?:Blocked dangerous operation: )?(.*)", re.DOTALL)
# What a program that burns 0.25 s of CPU must at least be said to have used.
BURNT_MS = 200.0
GRACE_S = 1.0
# No installer starts in less: what took less was refused by looking at the name.
INSTALLER_START_MS = 20.0
MISSING_MODULE = re.compile(r"ModuleNotFoundError|No module named")
STATE = re.compile(r"^STATE:(\S+)", re.MULTILINE)
UNSUPPORTED = re.compile(r"^UNSUPPORTED:(.*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Marker:
    """Two factors and a nonce of one run; only their product proves an effect, and it is in no program's text."""

    a: int
    b: int
    nonce: str

    @property
    def text(self) -> str:
        return f"LEAKED:{self.a * self.b}:"

    def prelude(self) -> str:
        """The line every program starts with; one line, so that line numbers shift by exactly one."""
        return (
            f"A, B, N = {self.a}, {self.b}, {self.nonce!r}; RC = A % 100 + 7; "
            "leaked = lambda what='', a=A, b=B: print(f'LEAKED:{a * b}:{what}', flush=True); "
            "unsupported = lambda why: (print('UNSUPPORTED:' + why, flush=True), "
            "(_ for _ in ()).throw(NotImplementedError(why)))\n"
        )


def new_marker(source: Callable[[], random.Random] = random.SystemRandom) -> Marker:
    """A marker nobody could have seen before."""
    generator = source()
    return Marker(generator.randint(10**5, 10**6), generator.randint(10**5, 10**6), f"{generator.getrandbits(48):012x}")


def judge_attack(outcome: Outcome, marker: Marker) -> tuple[Verdict, str]:
    """The verdict on an attack and its evidence."""
    if outcome.reply.answer.status >= 500 or outcome.reply.message is None:
        return "CRASHED", f"HTTP {outcome.reply.answer.status}"
    text = outcome.text
    if marker.text in text:
        return "LEAKED", text[text.index(marker.text) + len(marker.text) :].split("\n")[0][:200]
    told = UNSUPPORTED.search(text)
    if told:
        return "UNSUPPORTED", told.group(1)
    if is_refusal(outcome):
        return "BLOCKED", f"{outcome.error.get('type', '')} {list(outcome.violations)}".strip()
    return "CONTAINED", str(outcome.error.get("message") or outcome.data.get("result") or "")[:200]


def is_refusal(outcome: Outcome) -> bool:
    """A typed refusal: `error.type` security, names in `violations`, or, in a result that has no `error` at all, the
    original's `success: false` with `Security Error:` at the start of `result`. Words in free text are none."""
    if outcome.error.get("type") == "security" or outcome.violations:
        return True
    data = outcome.data
    original = "error" not in data and data.get("success") is False
    return original and bool(ORIGINAL_REFUSAL.match(str(data.get("result", ""))))


def explains(program: str, outcome: Outcome) -> Explains:
    """What a refusal tells who wrote the code: the operation by its name, and a line of theirs that holds code.

    `program` is the code as it was sent.
    """
    said = ORIGINAL_REFUSAL.match(str(outcome.data.get("result", "")))
    named = bool(outcome.violations) or bool(said and said[1].strip())
    line, lines = outcome.error.get("line"), program.splitlines()
    placed = isinstance(line, int) and 1 < line <= len(lines) and bool(lines[line - 1].partition("#")[0].strip())
    if named and placed:
        return "operation and line"
    return "operation" if named else "line" if placed else "nothing"


def judge_answer(outcome: Outcome, marker: Marker) -> tuple[Verdict, str]:
    """The verdict on code that forges its answer: the marker stands in what only the host may say."""
    if outcome.reply.answer.status >= 500 or outcome.reply.message is None:
        return "CRASHED", f"HTTP {outcome.reply.answer.status}"
    told = {key: value for key, value in outcome.data.items() if key not in OWN_WORDS}
    message = {key: value for key, value in outcome.reply.message.items() if key != "result"}
    usage = outcome.data.get("usage")
    forged_usage = marker.a * marker.b in usage.values() if isinstance(usage, Mapping) else False
    if marker.text in json.dumps([told, message]) or forged_usage:
        return "LEAKED", f"forged: {json.dumps(told)[:200]}"
    return "CONTAINED", "the answer holds nothing forged"


def judge_usage(outcome: Outcome) -> tuple[Verdict, str]:
    """The verdict on code that burnt CPU and then patched every clock it could reach."""
    usage = outcome.data.get("usage")
    if not isinstance(usage, Mapping) or not isinstance(usage.get("cpu_ms"), int | float):
        return "UNSUPPORTED", "the answer tells no usage"
    told = f"{usage['cpu_ms']} ms of CPU told for {BURNT_MS:.0f} or more"
    return ("LEAKED" if usage["cpu_ms"] < BURNT_MS else "CONTAINED"), told


def judge_hidden_refusal(outcome: Outcome, marker: Marker) -> tuple[Verdict, str]:
    """The verdict on code that caught its refusal and went on: the refusal must still be told."""
    verdict, evidence = judge_attack(outcome, marker)
    if verdict == "CONTAINED" and "went on" in outcome.stdout:
        return "LEAKED", "the refusal is not on record"
    if verdict == "CONTAINED" and "was let through" in outcome.stdout:
        return "LEAKED", "nothing was refused"
    return verdict, evidence


def judge_pair(program: Program, first: Outcome, second: Outcome, marker: Marker) -> tuple[Verdict, str]:
    """The verdict on a two-call probe: the second call's effect, or that both calls printed the same state."""
    if program.compare == "equal":
        told = UNSUPPORTED.search(first.text)
        if told:
            return "UNSUPPORTED", told.group(1)
        states = [STATE.search(one.text) for one in (first, second)]
        if states[0] is None or states[1] is None:
            return "CRASHED", "a call did not print its state"
        same = states[0].group(1) == states[1].group(1)
        return ("LEAKED", "both calls drew the same value") if same else ("CONTAINED", "the values differ")
    verdict, evidence = judge_attack(second, marker)
    if verdict == "CONTAINED" and is_refusal(first):
        return "BLOCKED", f"the first call: {list(first.violations)}"
    return verdict, evidence


def judge_package(outcome: Outcome) -> tuple[Verdict, str]:
    """The verdict on a requirement nobody may ask for: taken, tried by the installer, or refused by type, unseen."""
    if outcome.reply.answer.status >= 500 or outcome.reply.message is None:
        return "CRASHED", f"HTTP {outcome.reply.answer.status}"
    if outcome.data.get("success") is True or "ran" in outcome.stdout.split():
        return "LEAKED", "the code ran with this requirement"
    usage = outcome.data.get("usage")
    tried_ms = usage.get("install_ms", 0) if isinstance(usage, dict) else 0
    if isinstance(tried_ms, int | float) and tried_ms > INSTALLER_START_MS:
        return "CONTAINED", f"the installer tried it for {tried_ms} ms and failed"
    said = str(outcome.error.get("message") or outcome.text)[:200]
    typed = outcome.error.get("type") in ("package", "security") or (outcome.reply.result or {}).get("isError") is True
    return "BLOCKED" if typed else "CONTAINED", said


def judge_benign(program: Program, outcome: Outcome) -> tuple[Verdict, str]:
    """Whether an ordinary program ran to its end and printed what it must."""
    said = f"{outcome.error.get('name', '')} {outcome.error.get('message', '')} {outcome.text}"
    if program.module and MISSING_MODULE.search(said):
        return "UNSUPPORTED", f"the endpoint has no {program.module}"
    if outcome.data.get("success") is not True:
        return "REFUSED", said.strip()[:300]
    printed = outcome.stdout.strip()
    if program.expect is not None and printed != program.expect:
        return "REFUSED", f"printed {printed[:200]!r} instead of {program.expect!r}"
    return "OK", printed[:100]


def judge_resource(outcome: Outcome, limit_s: float | None) -> tuple[Verdict, str]:
    """Whether a program that takes too much was answered in time; its own success or failure is not the point.

    `limit_s` is the time limit the endpoint tells, None where it tells none.
    """
    if outcome.reply.answer.status >= 500 or outcome.reply.message is None:
        return "CRASHED", f"HTTP {outcome.reply.answer.status}"
    took_s = outcome.reply.answer.elapsed_ms / 1000
    if limit_s is not None and took_s > limit_s + GRACE_S:
        return "LATE", f"answered after {took_s:.1f} s where the limit is {limit_s:g} s"
    kind = outcome.error.get("type")
    if kind:
        return "CONTAINED", f"{kind}: {str(outcome.error.get('message', ''))[:150]}"
    return "CONTAINED", f"ran, truncated {outcome.data.get('truncated')}"
