"""Runs the corpus, one check per program, and looks after each whether the endpoint still answers."""

import pytest

from conformance.client import Client, Discovery
from conformance.finding import NonConformance, serves
from conformance.interpreter import TOOL, execute, need_interpreter
from conformance.plugin import VERDICT
from conformance.records import SecurityVerdict
from conformance.security.programs import Program, load
from conformance.security.verdict import (
    Marker,
    Verdict,
    judge_attack,
    judge_benign,
    judge_package,
    judge_pair,
    judge_resource,
    new_marker,
)
from conformance.wire import WireError

# Other workers may be served by the environment between the two calls of a probe; then both are made anew.
SAME_ENVIRONMENT_ROUNDS = 12
SECOND_CALLS = 3
# Programs that take too much are answered when the endpoint's own time limit ends them.
PATIENCE_S = 120.0


def _params() -> list[object]:
    return [
        pytest.param(
            program,
            id=f"{program.group}-{program.id}",
            marks=serves(f"{__name__}.{program.group}-{program.id}", f"SEC-{program.claim}"),
        )
        for program in load()
    ]


@pytest.mark.parametrize("program", _params())
def test_program(
    program: Program,
    client: Client,
    discovery: Discovery,
    request: pytest.FixtureRequest,
    pytestconfig: pytest.Config,
) -> None:
    need_interpreter(discovery)
    if program.claim not in client.target.profile.claims:
        pytest.skip(f"profile {client.target.profile.name} does not claim {program.claim}")
    if not program.safe and not pytestconfig.getoption("--full"):
        pytest.skip("could make the endpoint slow or ill; run with --full")
    verdict, evidence = _verdict(program, client, discovery)
    if program.kind != "benign" and not _is_well(client, discovery):
        verdict, evidence = "CRASHED", f"{verdict} ({evidence}), and then the endpoint did not compute 6 * 7"
    request.node.stash[VERDICT] = SecurityVerdict(
        kind=program.kind, group=program.group, verdict=verdict, evidence=evidence, why=program.why
    )
    if verdict == "UNSUPPORTED":
        pytest.skip(evidence)
    if verdict in ("LEAKED", "CRASHED", "REFUSED"):
        raise NonConformance(
            f"{verdict}: {evidence}", expected=f"{program.why} {program.cwe}".strip(), got=program.program[:600]
        )


def _verdict(program: Program, client: Client, discovery: Discovery) -> tuple[Verdict, str]:
    era = discovery.call_era
    marker = new_marker()
    try:
        if program.requirements is not None:
            if "requirements" not in str(discovery.tools[TOOL].get("inputSchema")):
                return "UNSUPPORTED", "execute_python takes no requirements"
            return judge_package(execute(client, era, program.program, requirements=program.requirements, timeout_s=60))
        if program.kind == "benign":
            return judge_benign(program, execute(client, era, program.program))
        code = marker.prelude() + program.program
        if program.kind == "resource":
            return judge_resource(execute(client, era, code, timeout_s=PATIENCE_S))
        if program.second is not None:
            return _two_calls(program, client, discovery, marker)
        return judge_attack(execute(client, era, code), marker)
    except WireError as error:
        return "CRASHED", str(error)


def _two_calls(program: Program, client: Client, discovery: Discovery, marker: Marker) -> tuple[Verdict, str]:
    """Makes both calls until one environment has served both, where environments have names."""
    assert program.second is not None
    for _ in range(SAME_ENVIRONMENT_ROUNDS):
        first = execute(client, discovery.call_era, marker.prelude() + program.program)
        for _ in range(SECOND_CALLS):
            second = execute(client, discovery.call_era, marker.prelude() + program.second)
            verdict, evidence = judge_pair(program, first, second, marker)
            if verdict == "LEAKED" or first.environment_id is None or first.environment_id == second.environment_id:
                return verdict, evidence
    return "UNSUPPORTED", f"no environment served both calls in {SAME_ENVIRONMENT_ROUNDS} rounds"


def _is_well(client: Client, discovery: Discovery) -> bool:
    try:
        return execute(client, discovery.call_era, "6 * 7").data.get("result") == "42"
    except WireError:
        return False
