"""Given a function whose init fails, takes too long or eats too much, Lambda's second try and its lines follow.

And every shape of a real log line that this stack can make is made here, and read back by `ops.records`.
"""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from local_stack import DEADLINE_S, LocalStack, Start

from ops import records
from sam.local import processes

NOTHING = {"do": "nothing"}
ID = r"[0-9a-f-]{36}"
START = rf"START RequestId: {ID} Version: \$LATEST\n"
END = rf"END RequestId: {ID}\n"


def lines_of(stack: LocalStack) -> list[str]:
    return [line for line in stack.settled_log() if re.match(r"INIT_|START|END|REPORT|.*Task timed|RequestId", line)]


def assert_lines(lines: list[str], *patterns: str) -> None:
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line, re.DOTALL), (line, pattern)


def report(more: str) -> str:
    figures = r"Duration: [\d.]+ ms\tBilled Duration: \d+ ms\tMemory Size: 256 MB\tMax Memory Used: \d+ MB"
    return rf"REPORT RequestId: {ID}\t{figures}\t{more}"


def test_an_init_past_its_limit_is_cut_and_tried_again_in_the_invocation(start: Start):
    stack = start("--init-limit", "1.5", "--env", "SLOW=first", PHandler="slow.handler")
    assert stack.call(NOTHING).status == 200
    assert_lines(
        lines_of(stack),
        r"INIT_START .*",
        r"INIT_REPORT Init Duration: 15\d\d\.\d\d ms\tPhase: init\tStatus: timeout\n",
        START,
        END,
        report(r"\n"),
    )


def test_an_init_that_never_ends_ends_with_the_functions_timeout(start: Start):
    stack = start("--init-limit", "0.5", "--timeout", "1", "--env", "SLOW=always", PHandler="slow.handler")
    assert stack.call(NOTHING).status == 502
    assert_lines(
        lines_of(stack),
        r"INIT_START .*",
        r"INIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: init\tStatus: timeout\n",
        r"INIT_REPORT Init Duration: 1\d\d\d\.\d\d ms\tPhase: invoke\tStatus: timeout\n",
        START,
        rf"\S+Z {ID} Task timed out after 1\.00 seconds\n\n",
        END,
        rf"REPORT RequestId: {ID}\tDuration: 1000\.00 ms\tBilled Duration: 1000 ms\t.*\tStatus: timeout\n",
    )


def test_an_init_that_fails_is_tried_once_more_and_both_are_told(start: Start):
    stack = start("--env", "BROKEN=always", PHandler="slow.handler")
    failed = stack.client("lambda").invoke(FunctionName="echo", Payload=b"{}")
    told = json.loads(failed["Payload"].read())
    assert (failed["FunctionError"], told["errorType"], told["errorMessage"]) == (
        "Unhandled", "RuntimeError", "broken on purpose",
    )  # fmt: skip
    kind = r"Status: error\tError Type: RuntimeError\n"
    assert_lines(
        lines_of(stack),
        r"INIT_START .*",
        rf"INIT_REPORT Init Duration: [\d.]+ ms\tPhase: init\t{kind}",
        rf"INIT_REPORT Init Duration: [\d.]+ ms\tPhase: invoke\t{kind}",
        START,
        END,
        report(kind),
    )


def test_an_init_that_works_the_second_time_serves_without_an_init_duration(start: Start):
    stack = start("--env", "BROKEN=first", PHandler="slow.handler")
    first = stack.call(NOTHING)
    assert (first.status, first.body["invocation"]) == (200, 1)
    assert stack.call(NOTHING).body["environment"] == first.body["environment"]
    assert not any("\tInit Duration" in line for line in stack.settled_log() if line.startswith("REPORT"))


def test_memory_holds_during_init_too(start: Start):
    stack = start("--env", "HUNGRY=first", PHandler="slow.handler")
    assert stack.call(NOTHING).status == 200
    assert any(
        re.fullmatch(r"INIT_REPORT .*\tPhase: init\tStatus: error\tError Type: Runtime\.OutOfMemory\n", line)
        for line in stack.settled_log()
    )


def test_the_call_after_a_crash_pays_for_its_init_in_its_duration(start: Start):
    stack = start()
    stack.call(NOTHING)
    assert stack.call({"do": "kill"}).status == 502
    assert stack.call(NOTHING).body["invocation"] == 1
    lines = lines_of(stack)
    assert sum(line.startswith("INIT_START") for line in lines) == 1
    reports = [records.parse(line) for line in lines if line.startswith("REPORT")]
    assert all(isinstance(each, records.Report) for each in reports)
    cold, _, again = reports
    assert isinstance(cold, records.Report)
    assert isinstance(again, records.Report)
    assert cold.init_ms is not None
    assert again.init_ms is None
    assert again.duration_ms > cold.init_ms / 4


def states(stack: LocalStack) -> set[str]:
    """Of what runs in the environments: T is stopped."""
    found = set()
    for launcher in processes.children(stack.process.pid):
        for init in processes.children(launcher):
            for pid in processes.descendants(init):
                found.add(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
    return found


def test_between_calls_everything_is_stopped(start: Start):
    stack = start()
    if not stack.isolated:
        pytest.skip(stack.said)
    stack.call({"do": "leave-behind"})
    deadline = time.monotonic() + DEADLINE_S
    while states(stack) != {"T"}:
        assert time.monotonic() < deadline, states(stack)
        time.sleep(0.01)
    assert stack.call(NOTHING).body["invocation"] == 2
    free = start("--no-freeze")
    free.call(NOTHING)
    assert "T" not in states(free)


def kind_of(record: Any) -> tuple[str, ...]:
    """A record's type and the members that a line of its shape has."""
    named = {name: getattr(record, name) for name in type(record).__slots__}
    shape = {"status", "error_type", "init_ms", "restore_ms", "trace_id", "phase"}
    return (type(record).__name__, *sorted(name for name in shape & set(named) if named[name] is not None))


DATA = json.loads((Path(__file__).parents[1] / "data" / "lambda-log-lines.json").read_text())


def test_every_shape_of_a_real_line_is_made_and_read_back(start: Start):
    made: set[tuple[str, ...]] = set()
    stacks = [
        start(PTracing="Active"),
        start(PLogFormat="JSON", PSystemLogLevel="DEBUG"),
        start(PSnapStart="yes"),
        start(PSnapStart="yes", PLogFormat="JSON"),
        start("--init-limit", "0.5", "--env", "SLOW=first", PHandler="slow.handler"),
        start(PSnapStart="yes", PHandler="unrestorable.handler"),
    ]
    for stack in stacks:
        for ask in (NOTHING, NOTHING, {"do": "exit", "code": 0}, {"do": "fail"}):
            stack.call(ask)
    stacks.append(start("--timeout", "1"))
    for ask in (NOTHING, {"do": "sleep", "seconds": 600}):
        stacks[-1].call(ask)
    for stack in stacks:
        for line in stack.settled_log() if "PLogFormat=JSON" not in str(stack.process.args) else json_log(stack):
            made.add(kind_of(records.parse(line)))
    wanted = {kind_of(records.parse(each["line"])): each for each in DATA}
    missing = {shape: wanted[shape]["note"] for shape in set(wanted) - made}
    assert not missing


def json_log(stack: LocalStack) -> list[str]:
    return stack.log_lines('"platform.report"', 4)
