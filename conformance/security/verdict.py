"""Decides what a program did from what came back, by the marker it could only print after seeing its effect."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from conformance.interpreter import Outcome
from conformance.security.programs import Program

Verdict = Literal["BLOCKED", "CONTAINED", "LEAKED", "CRASHED", "UNSUPPORTED", "OK", "REFUSED"]
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
            "unsupported = lambda why: print('UNSUPPORTED:' + why)\n"
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
    """A refusal the caller can tell apart from an ordinary failure."""
    said = str(outcome.data.get("result", "")) if outcome.data else outcome.text
    return outcome.error.get("type") == "security" or bool(outcome.violations) or said.startswith("Security Error")


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
    """The verdict on a requirement nobody may ask for: taken, tried by the installer, or refused unseen."""
    if outcome.reply.answer.status >= 500 or outcome.reply.message is None:
        return "CRASHED", f"HTTP {outcome.reply.answer.status}"
    if outcome.data.get("success") is True or "ran" in outcome.stdout.split():
        return "LEAKED", "the code ran with this requirement"
    usage = outcome.data.get("usage")
    tried_ms = usage.get("install_ms", 0) if isinstance(usage, dict) else 0
    if isinstance(tried_ms, int | float) and tried_ms > INSTALLER_START_MS:
        return "CONTAINED", f"the installer tried it for {tried_ms} ms and failed"
    return "BLOCKED", str(outcome.error.get("message") or outcome.text)[:200]


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


def judge_resource(outcome: Outcome) -> tuple[Verdict, str]:
    """Whether a program that takes too much was still answered; its own success or failure is not the point."""
    if outcome.reply.answer.status >= 500 or outcome.reply.message is None:
        return "CRASHED", f"HTTP {outcome.reply.answer.status}"
    kind = outcome.error.get("type")
    if kind:
        return "CONTAINED", f"{kind}: {str(outcome.error.get('message', ''))[:150]}"
    return "CONTAINED", f"ran, truncated {outcome.data.get('truncated')}"
