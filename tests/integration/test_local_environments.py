"""Given calls through the local gateway, environments start, are reused, are lost and are replaced as on Lambda."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from local_stack import DEADLINE_S, LocalStack, Start, local_stack

from sam.local import processes


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with local_stack(tmp_path_factory.mktemp("stack"), "--timeout", "2", "--memory", "256") as running:
        yield running


def environment_of(answer: Any) -> tuple[str, int]:
    assert answer.status == 200, answer.body
    return answer.headers["X-Lambda-Environment-Id"], int(answer.headers["X-Lambda-Invocation"])


def test_the_first_call_is_cold_and_the_next_is_warm(start: Start):
    stack = start()
    first, second = (environment_of(stack.call({"do": "nothing"})) for _ in range(2))
    assert (first[1], second[1]) == (1, 2)
    assert first[0] == second[0]


def test_concurrent_calls_get_an_environment_each_and_past_the_limit_a_500(start: Start):
    stack = start("--concurrency", "2")
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(stack.call, [{"do": "sleep", "seconds": 2}] * 3))
    served = [environment_of(answer) for answer in answers if answer.status == 200]
    assert len({environment for environment, _ in served}) == 2
    refused = [answer for answer in answers if answer.status != 200]
    assert [(answer.status, answer.body) for answer in refused] == [(500, {"message": "Internal server error"})]


@pytest.mark.parametrize(
    ("ask", "lines"),
    [
        pytest.param(
            {"do": "kill"},
            [
                r"RequestId: ID Error: Runtime exited with error: signal: killed\nRuntime\.ExitError\n",
                r"END RequestId: ID\n",
                r"REPORT RequestId: ID\t.*\tStatus: error\tError Type: Runtime\.ExitError\n",
            ],
            id="killed",
        ),
        pytest.param(
            {"do": "exit", "code": 3},
            [
                r"RequestId: ID Error: Runtime exited with error: exit status 3\nRuntime\.ExitError\n",
                r"END RequestId: ID\n",
                r"REPORT RequestId: ID\t.*\tStatus: error\tError Type: Runtime\.ExitError\n",
            ],
            id="exited",
        ),
        pytest.param(
            {"do": "sleep", "seconds": 600},
            [
                r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ID Task timed out after 2\.00 seconds\n\n",
                r"END RequestId: ID\n",
                r"REPORT RequestId: ID\tDuration: 2000\.00 ms\tBilled Duration: 2000 ms\t.*\tStatus: timeout\n",
            ],
            id="timed-out",
        ),
        pytest.param(
            {"do": "eat", "mb": 500},
            [
                r"RequestId: ID Error: Runtime exited with error: signal: killed\nRuntime\.OutOfMemory\n",
                r"END RequestId: ID\n",
                r"REPORT RequestId: ID\t.*\tMemory Size: 256 MB\tMax Memory Used: 256 MB\t"
                r"Status: error\tError Type: Runtime\.OutOfMemory\n",
            ],
            id="out-of-memory",
        ),
    ],
)
def test_a_lost_environment_is_a_502_its_lines_and_a_fresh_one(
    stack: LocalStack, ask: dict[str, Any], lines: list[str]
):
    before, _ = environment_of(stack.call({"do": "nothing"}))
    told = stack.settled_log()
    lost = stack.call(ask)
    assert (lost.status, lost.body) == (502, {"message": "Internal server error"})
    after, invocation = environment_of(stack.call({"do": "nothing"}))
    assert (after != before, invocation) == (True, 1)
    new = stack.settled_log()[len(told) :]
    started = re.fullmatch(r"START RequestId: (\S+) Version: \$LATEST\n", new[0])
    assert started is not None
    of_the_lost = [line for line in new[1:] if started.group(1) in line]
    assert len(of_the_lost) == len(lines)
    for line, pattern in zip(of_the_lost, lines, strict=True):
        assert re.fullmatch(pattern.replace("ID", started.group(1), 1), line, re.DOTALL), (line, pattern)


def test_memory_below_the_limit_is_left_alone_and_reported(stack: LocalStack):
    assert stack.call({"do": "eat", "mb": 150, "hold": 0.2}).status == 200
    used = re.search(r"Max Memory Used: (\d+) MB", stack.settled_log()[-1])
    assert used is not None
    assert 150 <= int(used.group(1)) < 200


def test_an_environment_that_died_while_idle_is_replaced_without_a_word(stack: LocalStack):
    before, _ = environment_of(stack.call({"do": "nothing"}))
    for launcher in processes.children(stack.process.pid):
        processes.kill_below(launcher)
    wait_until_gone(processes.descendants(stack.process.pid))
    after, invocation = environment_of(stack.call({"do": "nothing"}))
    assert (after != before, invocation) == (True, 1)


def test_an_init_that_fails_is_a_502_with_its_reason_in_the_log(start: Start):
    stack = start(PHandler="missing.handler")
    assert stack.call({"do": "nothing"}).status == 502
    messages = stack.log_lines("REPORT RequestId")
    kind = r"Status: error\tError Type: Runtime\.ImportModuleError\n"
    assert any(re.fullmatch(rf"INIT_REPORT Init Duration: [\d.]+ ms\tPhase: init\t{kind}", line) for line in messages)
    assert re.search(kind, messages[-1])


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        pytest.param({"do": "fail"}, 502, id="the-handler-raised"),
        pytest.param({"do": "nothing", "raw": "no response"}, 502, id="no-proxy-response"),
        pytest.param({"do": "nothing", "raw": {"statusCode": 418, "body": "null"}}, 418, id="its-own-status"),
    ],
)
def test_what_the_function_says_decides_what_the_client_sees(stack: LocalStack, ask: dict[str, Any], status: int):
    before, invocation = environment_of(stack.call({"do": "nothing"}))
    assert stack.call(ask).status == status
    assert environment_of(stack.call({"do": "nothing"})) == (before, invocation + 2)  # an error is no loss


def resources(stack: LocalStack, scratch: Path) -> dict[str, Any]:
    pid = stack.process.pid
    tree = processes.descendants(pid)
    return {
        "processes": tree,
        "threads": sum(len(os.listdir(f"/proc/{each}/task")) for each in [pid, *tree]),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "files": sorted(path.name for path in scratch.rglob("*")),
    }


def test_a_hundred_warm_calls_leave_nothing_behind(start: Start, tmp_path: Path):
    stack = start()
    for _ in range(3):
        stack.call({"do": "nothing"})
    before = resources(stack, tmp_path)
    for _ in range(100):
        stack.call({"do": "nothing"})
    after = resources(stack, tmp_path)
    assert after.pop("descriptors") <= before.pop("descriptors") + 1  # an HTTP connection on its way out
    assert after == before


def test_lost_environments_leave_nothing_behind(start: Start, tmp_path: Path):
    stack = start()
    stack.call({"do": "nothing"})
    before = resources(stack, tmp_path)
    for _ in range(10):
        assert stack.call({"do": "kill"}).status == 502
    stack.call({"do": "nothing"})
    stack.log_lines("REPORT", 12)
    after = resources(stack, tmp_path)
    assert len(after["processes"]) == len(before["processes"])
    assert len(after["files"]) == len(before["files"])
    assert after["descriptors"] <= before["descriptors"] + 1  # an HTTP connection on its way out


def test_a_daemon_in_a_session_of_its_own_ends_with_its_environment(start: Start):
    stack = start()
    stack.call({"do": "leave-behind"})
    tree = processes.descendants(stack.process.pid)
    assert any(_name(pid) == "sleep" for pid in tree)
    assert stack.call({"do": "kill"}).status == 502
    environment_of(stack.call({"do": "nothing"}))
    assert not any(_name(pid) == "sleep" for pid in tree)
    assert stack.stop() == 0


def _name(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
        return file.read().strip()
    return ""


@pytest.mark.parametrize(
    "with_signal", [pytest.param(signal.SIGTERM, id="term"), pytest.param(signal.SIGINT, id="int")]
)
def test_the_end_takes_everything_along_even_amid_a_call(start: Start, tmp_path: Path, with_signal: signal.Signals):
    stack = start()
    stack.call({"do": "leave-behind"})
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(stack.call, {"do": "sleep", "seconds": 600})
        stack.log_lines("START", 2)
        tree = processes.descendants(stack.process.pid)
        assert len(tree) >= 2
        assert stack.stop(with_signal) == {signal.SIGTERM: 0, signal.SIGINT: 130}[with_signal]
        with contextlib.suppress(OSError):  # a 502, or the connection closed under it
            assert call.result().status == 502
    assert not [pid for pid in tree if os.path.exists(f"/proc/{pid}")]
    assert not list(tmp_path.glob("sam-local-*"))


def test_killed_without_warning_it_leaves_no_process(start: Start):
    stack = start()
    if not stack.isolated:
        pytest.skip("without namespaces the launcher dies and what is below it stays")
    stack.call({"do": "leave-behind"})
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(stack.call, {"do": "sleep", "seconds": 600})
        stack.log_lines("START", 2)
        tree = processes.descendants(stack.process.pid)
        stack.process.kill()
        stack.process.wait()
        assert isinstance(call.exception(), OSError)  # the connection went with it
    wait_until_gone(tree)


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while living := [pid for pid in pids if _state(pid) not in ("", "Z")]:
        assert time.monotonic() < deadline, f"still there: {living}"
        time.sleep(0.01)


def _state(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]
    return ""
