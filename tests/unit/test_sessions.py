"""Sessions: names stay between calls, nothing runs in between, and what is gone is said plainly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from interpreter.confinement import Limits
from interpreter.engine import Interpreter
from interpreter.sessions import IDLE_S


@pytest.fixture
def interpreter(tmp_path: Path) -> Iterator[Interpreter]:
    made = Interpreter(Limits(timeout_s=10), preload=(), sessions=2, scratch=tmp_path)
    yield made
    made.close()


def start(interpreter: Interpreter, code: str) -> str:
    execution = interpreter.run(code, session_id="new").execution
    assert execution.success, execution
    assert execution.session_id
    return execution.session_id


def test_names_functions_and_files_stay(interpreter: Interpreter) -> None:
    code = "x = 40\ndef f(n):\n    return x + n\nopen('kept', 'w').write('k')\nprint('first')"
    session = start(interpreter, code)
    second = interpreter.run("print('second')\nresult = f(2)", session_id=session).execution
    assert (second.result, second.stdout, second.session_id) == ("42", "second\n", session)
    third = interpreter.run("open('kept').read()", session_id=session, return_files=["kept"])
    assert (third.execution.result, third.files[0].data) == ("k", b"k")


def test_a_result_is_not_carried_over(interpreter: Interpreter) -> None:
    session = start(interpreter, "result = 1")
    assert interpreter.run("y = 2", session_id=session).execution.result == "Code executed successfully"


def test_sessions_do_not_see_each_other(interpreter: Interpreter) -> None:
    one, other = start(interpreter, "x = 1"), start(interpreter, "y = 2")
    assert interpreter.run("'y' in globals()", session_id=one).execution.result == "False"
    assert interpreter.run("y", session_id=other).execution.result == "2"
    assert interpreter.run("'x' in globals()").execution.result == "False"


def test_nothing_runs_between_calls(interpreter: Interpreter) -> None:
    code = """import threading, time
ticks = []
def tick():
    while True:
        ticks.append(1)
        time.sleep(0.001)
threading.Thread(target=tick, daemon=True).start()"""
    session = start(interpreter, code)
    held = interpreter.sessions._kept[session].held
    stopped = time.monotonic() + 30
    while thread_states(held.pid) != {"T"} and time.monotonic() < stopped:
        pass  # the signal reaches every thread at its own time
    assert thread_states(held.pid) == {"T"}
    assert int(interpreter.run("len(ticks)", session_id=session).execution.result) > 0


def thread_states(pid: int) -> set[str]:
    """States of a process's threads (proc(5)); none once it is gone."""
    return {path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")}


def test_refusals_and_errors_are_of_their_own_call(interpreter: Interpreter) -> None:
    session = start(interpreter, "x = 1")
    refused = interpreter.run("import os\nos.system('true')", session_id=session).execution
    assert (refused.violations, refused.session_id) == (["os.system"], session)
    failed = interpreter.run("print('before')\n1 / 0", session_id=session).execution
    assert (failed.stdout, failed.violations, failed.session_id) == ("before\n", [], session)
    assert interpreter.run("x", session_id=session).execution.result == "1"


@pytest.mark.parametrize(
    ("code", "type_"),
    [
        pytest.param("while True: pass", "timeout", id="timeout"),
        pytest.param("import os; os._exit(1)", "exit", id="exit"),
        pytest.param("import ctypes; ctypes.string_at(0)", "crashed", id="crash"),
    ],
)
def test_a_call_that_does_not_end_in_order_is_the_last(interpreter: Interpreter, code: str, type_: str) -> None:
    session = start(interpreter, "x = 1")
    execution = interpreter.run(code, session_id=session, deadline_s=1.0).execution
    assert execution.error is not None
    assert (execution.error.type, execution.session_id) == (type_, None)
    gone = interpreter.run("x", session_id=session).execution
    assert gone.error is not None
    assert gone.error.name == "SessionError"
    assert "start again with session_id 'new'" in gone.error.message
    assert [list(directory.iterdir()) for directory in interpreter.scratch.glob("run-*")] == [[]], "the next call's"


def test_closing_the_report_early_gains_nothing(interpreter: Interpreter) -> None:
    session = start(interpreter, "x = 1")
    execution = interpreter.run("import os\nos.close(3)\nwhile True: pass", session_id=session).execution
    assert not execution.success, "no report, no success"
    assert interpreter.run("x", session_id=session, deadline_s=1.0).execution.result != "1"


def test_the_one_unused_for_longest_makes_room(interpreter: Interpreter) -> None:
    first, second = start(interpreter, "x = 1"), start(interpreter, "x = 2")
    interpreter.run("x", session_id=first)
    start(interpreter, "x = 3")
    assert interpreter.run("x", session_id=second).execution.error is not None
    assert interpreter.run("x", session_id=first).execution.result == "1"


def test_an_idle_one_ends(interpreter: Interpreter) -> None:
    session = start(interpreter, "x = 1")
    later = interpreter.sessions._now() + IDLE_S + 1
    interpreter.sessions._now = lambda: later
    assert interpreter.run("x", session_id=session).execution.error is not None


def test_requirements_come_with_the_first_call(interpreter: Interpreter) -> None:
    session = start(interpreter, "x = 1")
    execution = interpreter.run("x", ["six"], session_id=session).execution
    assert execution.error is not None
    assert "with the call that starts a session" in execution.error.message


def test_off_by_default(tmp_path: Path) -> None:
    interpreter = Interpreter(Limits(), preload=(), scratch=tmp_path)
    execution = interpreter.run("1", session_id="new").execution
    interpreter.close()
    assert execution.error is not None
    assert "sessions are off" in execution.error.message


def test_closing_ends_them(interpreter: Interpreter) -> None:
    session = start(interpreter, "x = 1")
    pid = interpreter.sessions._kept[session].held.pid
    interpreter.close()
    ended = time.monotonic() + 30
    while not thread_states(pid) <= set("ZX") and time.monotonic() < ended:
        pass
    assert thread_states(pid) <= set("ZX")
