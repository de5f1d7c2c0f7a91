"""The calls of the original's README and the promises about an environment, on the real function behind the stack."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from local_stack import ROOT, Answer, LocalStack, call, local_stack

SUM = 'result = 2 + 3\nprint(f"计算结果: {result}")'
THREADS = 20  # more than any process of ours has


@pytest.mark.parametrize("slash", [pytest.param(True, id="slash"), pytest.param(False, id="no-slash")])
@pytest.mark.parametrize("modern", [pytest.param(False, id="bare"), pytest.param(True, id="2026-07-28")])
def test_the_readmes_sum(product: LocalStack, modern: bool, slash: bool) -> None:
    answer, result = call(product, SUM, modern=modern, slash=slash)
    assert answer.status == 200
    assert (result["success"], result["stdout"], result["result"]) == (True, "计算结果: 5\n", "5")
    text = answer.body["result"]["content"][0]["text"]
    assert json.loads(text) == result
    assert '"success": true' in text


def test_headers_tell_cold_from_warm(product: LocalStack) -> None:
    first, _ = call(product, "1")
    second, _ = call(product, "1")
    assert first.headers["X-Lambda-Environment-Id"] == second.headers["X-Lambda-Environment-Id"]
    assert int(second.headers["X-Lambda-Invocation"]) == int(first.headers["X-Lambda-Invocation"]) + 1
    assert second.headers["X-Lambda-Init-Type"] == "on-demand"
    assert "exec;dur=" in second.headers["Server-Timing"]
    assert "init;dur=" not in second.headers["Server-Timing"]


def test_a_resumed_environment_does_not_tell_the_snapshots_init_as_its_own(tmp_path: Path) -> None:
    template = ("--template", str(ROOT / "sam" / "template.yaml"))
    with local_stack(tmp_path, *template, "--parameter", "PIsolation=snap_start") as stack:
        answer, result = call(stack, SUM)
    assert result["result"] == "5"
    assert (answer.headers["X-Lambda-Init-Type"], answer.headers["X-Lambda-Invocation"]) == ("snap-start", "1")
    assert "exec;dur=" in answer.headers["Server-Timing"]
    assert "init;dur=" not in answer.headers["Server-Timing"]


def test_a_get_is_refused_at_once(product: LocalStack) -> None:
    answer = product.call(method="GET", Accept="text/event-stream")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("modern", [pytest.param(False, id="handshake-era"), pytest.param(True, id="2026-07-28")])
def test_a_hundred_warm_calls_leave_nothing_behind(product: LocalStack, modern: bool) -> None:
    call(product, "import matplotlib.pyplot", modern=modern)  # the last that the template imports
    answer, _ = call(product, "1", modern=modern)
    environment = answer.headers["X-Lambda-Environment-Id"]
    before = settled(product.process.pid)
    open_files = descriptors(before)
    for number in range(100):
        code = (SUM, "import numpy", "1 / 0", "import threading\nthreading.Thread(target=print).start()")[number % 4]
        answer, _ = call(product, code, modern=modern)
        assert answer.status == 200, (number, answer.body)
        assert answer.headers["X-Lambda-Environment-Id"] == environment
    after = settled(product.process.pid)
    assert sorted(after.values()) == sorted(before.values()), "no process, no thread"
    assert len(after.keys() - before.keys()) == 1, "the child that waits for the next call is a new one"
    lasting = before.keys() & after.keys()
    assert descriptors(lasting) == {pid: open_files[pid] for pid in lasting}
    _, listed = call(product, "import os\n(os.listdir('.'), os.getcwd())", modern=modern)
    assert listed["result"].startswith("([],")


def test_a_killed_environment_costs_that_call_only(product: LocalStack) -> None:
    answers: list[tuple[Answer, Any]] = []
    before, _ = call(product, "1")
    code = f"""import threading, time
for _ in range({THREADS}):
    threading.Thread(target=time.sleep, args=(20,)).start()"""
    caller = threading.Thread(target=lambda: answers.append(call(product, code)))
    caller.start()
    while not (victims := with_so_many_threads(product.process.pid)):
        pass
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    caller.join(timeout=15)
    assert [answer.status for answer, _ in answers] == [502]
    after, result = call(product, SUM)
    assert (after.status, result["result"]) == (200, "5")
    assert after.headers["X-Lambda-Invocation"] == "1"
    assert after.headers["X-Lambda-Environment-Id"] != before.headers["X-Lambda-Environment-Id"]


def below(pid: int) -> dict[int, int]:
    """Threads of every process below `pid`, by process."""
    parents = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                fields = (directory / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(directory.name)] = (int(fields[1]), int(fields[17]))
    found: dict[int, int] = {}
    generation = {pid}
    while generation:
        generation = {child for child, (parent, _) in parents.items() if parent in generation}
        found |= {child: parents[child][1] for child in generation}
    return found


def settled(pid: int) -> dict[int, int]:
    """`below`, once it has stayed the same for a while: the runtime's own threads end just after the answer."""
    same, found = 0, below(pid)
    while same < 5:
        time.sleep(0.05)
        again = below(pid)
        same, found = (same + 1, found) if again == found else (0, again)
    return found


def descriptors(pids: Iterable[int]) -> dict[int, int]:
    return {pid: len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids}


def with_so_many_threads(pid: int) -> list[int]:
    """The Lambda runtime processes below `pid` whose code has started THREADS threads."""
    found = []
    for candidate in below(pid):
        try:
            command = Path(f"/proc/{candidate}/cmdline").read_bytes()
        except OSError:
            continue
        if b"awslambdaric" in command and any(threads > THREADS for threads in below(candidate).values()):
            found.append(candidate)
    return found


def test_a_call_leaves_a_record_without_its_code(product: LocalStack) -> None:
    secret = "not_to_be_logged"
    call(product, f"import os\n{secret} = 1\nos.system('x')")
    lines = [json.loads(line) for line in product.log_lines(digest(f"import os\n{secret} = 1\nos.system('x')"))]
    record = next(line for line in lines if line.get("violations") == ["os.system"])
    assert (record["tool"], record["outcome"], record["error_type"]) == ("execute_python", "error", "security")
    assert record["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "CodeInterpreter"
    assert record["requestId"]
    assert "taskName" not in record, "the name of a task of the SDK's"
    assert not any(secret in json.dumps(line) for line in lines)


def digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()
