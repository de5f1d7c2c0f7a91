"""Runs the corpus, one check per program, and looks after each whether the endpoint still answers."""

import re
from dataclasses import dataclass

import pytest

from conformance.client import Client, Discovery
from conformance.finding import VERDICT, NonConformance, serves
from conformance.interpreter import Outcome, execute, need_interpreter
from conformance.messages import Malformed
from conformance.records import Explains, SecurityVerdict, Verdict
from conformance.security.programs import Program, load
from conformance.security.verdict import (
    Marker,
    explains,
    is_refusal,
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
from conformance.target import Target
from conformance.wire import WireError

# What 6 * 7 is, also where what was printed comes back inside a text of JSON.
ANSWER = re.compile(r"(?<![\d.])42(?![\d.])")
ENVIRONMENT_INFO = "get_environment_info"
# Other workers may be served by the environment between the two calls of a probe; then both are made anew.
SAME_ENVIRONMENT_ROUNDS = 12
SECOND_CALLS = 3
# Programs that take too much are answered when the endpoint's own time limit ends them; this bounds the wait where it
# has none. Everything else is bound by the time for one answer, an installer by its own.
PATIENCE_S = 120.0
INSTALL_PATIENCE_S = 60.0


@dataclass(slots=True)
class Trial:
    """What one program did: filled step by step, so that a call that dies leaves what was known before it."""

    program: Program
    verdict: Verdict = "CRASHED"
    evidence: str = ""
    explains: Explains = ""
    elapsed_ms: float = 0.0
    lost: bool = False
    cold_after: bool = False

    def record(self) -> SecurityVerdict:
        """For checks.jsonl, from which the scorecard is made."""
        program = self.program
        return SecurityVerdict(
            kind=program.kind,
            group=program.group,
            verdict=self.verdict,
            evidence=self.evidence,
            why=program.why,
            program=program.name,
            claim=program.claim,
            cwe=program.cwe,
            explains=self.explains,
            elapsed_ms=round(self.elapsed_ms, 1),
            lost=self.lost,
            cold_after=self.cold_after,
        )


def _params() -> list[object]:
    return [
        pytest.param(program, id=program.name, marks=serves(f"{__name__}.{program.name}", f"SEC-{program.claim}"))
        for program in load()
    ]


@pytest.fixture(scope="session")
def time_limit_s(target: Target, discovery: Discovery) -> float | None:
    """The time limit of a run, as the endpoint tells it; None where it tells none."""
    if ENVIRONMENT_INFO not in discovery.tools:
        return None
    try:
        reply = Client(target).tool(discovery.call_era, ENVIRONMENT_INFO, {})
    except (WireError, Malformed):
        return None
    structured = (reply.result or {}).get("structuredContent")
    limits = structured.get("limits") if isinstance(structured, dict) else None
    told = limits.get("timeout_s") if isinstance(limits, dict) else None
    return float(told) if isinstance(told, int | float) else None


@pytest.mark.parametrize("program", _params())
def test_program(
    program: Program,
    client: Client,
    discovery: Discovery,
    time_limit_s: float | None,
    request: pytest.FixtureRequest,
    pytestconfig: pytest.Config,
) -> None:
    need_interpreter(discovery)
    if program.claim not in client.target.profile.claims:
        pytest.skip(f"profile {client.target.profile.name} does not claim {program.claim}")
    if not program.safe and not pytestconfig.getoption("--full"):
        pytest.skip("could make the endpoint slow or ill; run with --full")
    trial = Trial(program)
    try:
        trial.verdict, trial.evidence = _run(trial, client, discovery, time_limit_s)
    except Malformed as fault:
        # An answer that cannot be read any more is the code's doing, and for a forgery the very effect it is after.
        trial.verdict = "LEAKED" if program.judge == "answer" else "CRASHED"
        trial.evidence = f"the answer is malformed: {fault.message}"
    except WireError as error:
        trial.verdict, trial.evidence, trial.lost = "CRASHED", str(error), True
    if program.kind != "benign":
        _look_after(trial, client, discovery)
    request.node.stash[VERDICT] = trial.record()
    if trial.verdict == "UNSUPPORTED":
        pytest.skip(trial.evidence)
    if trial.verdict in ("LEAKED", "CRASHED", "LATE", "REFUSED"):
        raise NonConformance(
            f"{trial.verdict}: {trial.evidence}",
            expected=f"{program.why} {program.cwe}".strip(),
            got=program.program[:600],
        )


def _run(trial: Trial, client: Client, discovery: Discovery, limit_s: float | None) -> tuple[Verdict, str]:
    program, era, marker = trial.program, discovery.call_era, new_marker()

    def call(code: str, *, patience_s: float | None = None) -> Outcome:
        outcome = execute(client, era, code, timeout_s=patience_s, requirements=program.requirements)
        trial.elapsed_ms = outcome.reply.answer.elapsed_ms
        trial.lost = trial.lost or outcome.reply.answer.status >= 500
        if is_refusal(outcome):
            trial.explains = explains(code, outcome)
        return outcome

    if program.requirements is not None:
        if not _takes_requirements(discovery):
            return "UNSUPPORTED", "execute_python takes no requirements"
        return judge_package(call(program.program, patience_s=INSTALL_PATIENCE_S))
    if program.kind == "benign":
        return judge_benign(program, call(program.program))
    code = marker.prelude() + program.program
    if program.kind == "resource":
        return judge_resource(call(code, patience_s=PATIENCE_S), limit_s)
    if program.second is not None:
        return _two_calls(program, client, discovery, marker)
    if program.judge == "answer":
        return judge_answer(call(code), marker)
    if program.judge == "usage":
        return judge_usage(call(code))
    if program.judge == "refusal":
        return judge_hidden_refusal(call(code), marker)
    return judge_attack(call(code), marker)


def _takes_requirements(discovery: Discovery) -> bool:
    return "requirements" in str(discovery.tools[discovery.interpreter.tool].get("inputSchema"))


def _two_calls(program: Program, client: Client, discovery: Discovery, marker: Marker) -> tuple[Verdict, str]:
    """Makes both calls until one environment has served both, where environments have names, and the one after them."""
    assert program.second is not None
    era, prelude = discovery.call_era, marker.prelude()
    given = program.second_requirements
    if given is not None and not _takes_requirements(discovery):
        return "UNSUPPORTED", "execute_python takes no requirements"
    requirements = None if given is None else tuple(one.format(nonce=marker.nonce) for one in given)
    patience_s = None if given is None else INSTALL_PATIENCE_S
    for _ in range(SAME_ENVIRONMENT_ROUNDS):
        first = execute(client, era, prelude + program.program)
        for _ in range(SECOND_CALLS):
            code = prelude + program.second
            second = execute(client, era, code, timeout_s=patience_s, requirements=requirements)
            if program.after is not None:
                after = execute(client, era, prelude + program.after)
                verdict, evidence = judge_pair(program, first, after, marker)
                if verdict == "LEAKED":
                    return verdict, evidence
            verdict, evidence = judge_pair(program, first, second, marker)
            if verdict == "LEAKED" or first.environment_id is None or first.environment_id == second.environment_id:
                return verdict, evidence
    return "UNSUPPORTED", f"no environment served both calls in {SAME_ENVIRONMENT_ROUNDS} rounds"


def _look_after(trial: Trial, client: Client, discovery: Discovery) -> None:
    """Asks for 6 * 7 after a hostile program: an endpoint that cannot print it has been made ill."""
    told = f"{trial.verdict} ({trial.evidence}), and then the endpoint"
    try:
        after = execute(client, discovery.call_era, "print(6 * 7)")
    except (WireError, Malformed) as error:
        trial.verdict, trial.evidence, trial.lost = "CRASHED", f"{told} gave no answer: {error}", True
        return
    trial.cold_after = after.reply.answer.header("x-lambda-invocation") == "1"
    if not ANSWER.search(after.text):
        trial.verdict, trial.evidence = "CRASHED", f"{told} did not compute 6 * 7"
