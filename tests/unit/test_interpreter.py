"""Code in, an Execution out: what a user of `execute_python` meets, one row each."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from interpreter.confinement import Limits, own_tasks
from interpreter.engine import Interpreter
from interpreter.execution import Execution
from interpreter.files import collect, left
from interpreter.outputs import figures

Run = Callable[..., Execution]


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    limits = Limits(timeout_s=20, memory_mb=400, file_mb=4, stdout_kb=8, flood_mb=2)
    made = Interpreter(limits, scratch=tmp_path_factory.mktemp("scratch"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def run(interpreter: Interpreter) -> Run:
    return lambda code, **more: interpreter.run(code, **more).execution


@pytest.mark.parametrize(
    ("code", "result", "stdout"),
    [
        pytest.param("result = 2 + 3\nprint(f'计算结果: {result}')", "5", "计算结果: 5\n", id="result-variable"),
        pytest.param("1\n2 + 2", "4", "", id="last-expression"),
        pytest.param("result = 1\n2", "1", "", id="result-variable-before-last-expression"),
        pytest.param("x = 1", "Code executed successfully", "", id="no-value"),
        pytest.param("print('a')", "Code executed successfully", "a\n", id="print-is-no-value"),
        pytest.param("", "Code executed successfully", "", id="empty"),
        pytest.param("'a\\ud800b'", "a?b", "", id="lone-surrogate"),
        pytest.param("if __name__ == '__main__':\n    result = 'main'", "main", "", id="main-guard"),
        pytest.param("import sys\nsys.exit(0)", "Code executed successfully", "", id="exit-0"),
        pytest.param(
            "import inspect\ndef f(): return 1\ninspect.getsource(f)", "def f(): return 1\n", "", id="getsource"
        ),
        pytest.param(
            "import pickle\nclass A: x = 1\npickle.loads(pickle.dumps(A())).x", "1", "", id="pickle-own-class"
        ),
        pytest.param("try:\n    input()\nexcept EOFError:\n    result = 'eof'", "eof", "", id="input-at-eof"),
        pytest.param(
            "import asyncio\nasync def f():\n    return await asyncio.to_thread(lambda: 7)\nasyncio.run(f())",
            "7",
            "",
            id="asyncio",
        ),
        pytest.param(
            "import threading, time\nthreading.Thread(target=lambda: print('late')).start()",
            "Code executed successfully",
            "late\n",
            id="threads-are-waited-for",
        ),
        pytest.param("open('a', 'w').write('b')\nopen('a').read()", "b", "", id="files-of-the-run"),
        pytest.param(
            "import pandas as pd\nint(pd.DataFrame({'os.system': [1, 2]})['os.system'].sum())", "3", "", id="bait"
        ),
        pytest.param(
            "class E:\n    def __str__(self): raise KeyError\nE()",
            "<E object whose __str__ raised KeyError>",
            "",
            id="hostile-str",
        ),
    ],
)
def test_success(run: Run, code: str, result: str, stdout: str) -> None:
    execution = run(code)
    assert (execution.success, execution.result, execution.stdout) == (True, result, stdout), execution
    assert execution.error is None
    assert execution.violations == []


@pytest.mark.parametrize(
    ("code", "type_", "name", "line"),
    [
        pytest.param("x = 1\n1 / 0", "runtime", "ZeroDivisionError", 2, id="runtime"),
        pytest.param("def f(:\n  pass", "syntax", "SyntaxError", 1, id="syntax"),
        pytest.param("import os\nos.system('true')", "security", "SecurityError", 2, id="process"),
        pytest.param(
            "import os\ngetattr(os, 'sys' + 'tem')('true')", "security", "SecurityError", 2, id="process-by-name"
        ),
        pytest.param("import subprocess\nsubprocess.run(['true'])", "security", "SecurityError", 2, id="subprocess"),
        pytest.param("import _posixsubprocess as p\np.fork_exec()", "security", "SecurityError", 2, id="fork-exec"),
        pytest.param("import socket\nsocket.socket()", "security", "SecurityError", 2, id="socket"),
        pytest.param(
            "import requests\nrequests.get('http://127.0.0.1:9')", "security", "SecurityError", 2, id="wrapped"
        ),
        pytest.param("open('/etc/passwd')", "security", "SecurityError", 1, id="file-outside"),
        pytest.param("open('/proc/self/environ')", "security", "SecurityError", 1, id="environ"),
        pytest.param("import os\nos.symlink('../..', 'x')", "security", "SecurityError", 2, id="symlink-out"),
        pytest.param("import os\nos.kill(os.getppid(), 0)", "security", "SecurityError", 2, id="signal"),
        pytest.param("import ctypes\nctypes.CDLL(None).system", "security", "SecurityError", 2, id="ctypes"),
        pytest.param("while True: pass", "timeout", "TimeoutError", 1, id="spin"),
        pytest.param("import time\nx = 1\ntime.sleep(60)", "timeout", "TimeoutError", 3, id="sleep"),
        pytest.param("bytearray(10 ** 10)", "memory", "MemoryError", 1, id="memory"),
        pytest.param("open('a', 'wb').write(bytes(8 << 20))", "disk", "OSError", 1, id="file-size"),
        pytest.param("while True:\n    print('x' * 10 ** 5)", "output_limit", "OutputLimitError", None, id="flood"),
        pytest.param("import os\nos._exit(3)", "exit", "SystemExit", None, id="hard-exit"),
        pytest.param("import sys\nsys.exit('bye')", "exit", "SystemExit", 2, id="exit-with-text"),
        pytest.param("import ctypes\nctypes.string_at(0)", "crashed", "SIGSEGV", None, id="crash"),
        pytest.param("def f(): f()\nf()", "runtime", "RecursionError", 1, id="recursion"),
    ],
)
def test_a_failure_is_told_by_kind_name_and_line(run: Run, code: str, type_: str, name: str, line: int | None) -> None:
    deadline_s = 1.5 if type_ == "timeout" else None
    execution = run(f"print('before')\n{code}" if type_ != "syntax" else code, deadline_s=deadline_s)
    assert not execution.success
    assert execution.error is not None
    assert (execution.error.type, execution.error.name) == (type_, name), execution
    if line is not None:
        assert execution.error.line == line + (type_ != "syntax")
    if type_ != "syntax":
        assert execution.stdout.startswith("before\n"), "what was printed before the failure is kept"


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        pytest.param("STACK", 8 << 20, id="stack"),
        pytest.param("FSIZE", 4 << 20, id="file-size"),
        pytest.param("NOFILE", 256, id="open-files"),
        pytest.param("CORE", 0, id="core"),
    ],
)
def test_a_limit_is_hard(run: Run, limit: str, value: int) -> None:
    assert run(f"import resource\nresource.getrlimit(resource.RLIMIT_{limit})").result == f"({value}, {value})"


def test_a_refusal_names_the_operation(run: Run) -> None:
    execution = run("import os\nos.system('id')")
    assert execution.result == "Security Error: Blocked dangerous operation: os.system"
    assert execution.violations == ["os.system"]


def test_a_caught_refusal_is_told_and_no_failure(run: Run) -> None:
    execution = run("import os\ntry:\n    os.system('id')\nexcept OSError:\n    result = 'coped'")
    assert (execution.success, execution.result, execution.violations) == (True, "coped", ["os.system"])


def test_the_traceback_shows_the_codes_own_frames(run: Run) -> None:
    execution = run("import json\ndef f():\n    json.loads('{')\nf()")
    assert execution.error is not None
    assert 'File "<code>", line 3, in f' in execution.error.traceback
    assert "json/decoder.py" not in execution.error.traceback
    assert "interpreter" not in execution.error.traceback


def test_stdout_is_cut_at_its_cap_and_said_so(run: Run) -> None:
    execution = run("print('x' * 20_000)")
    assert execution.success
    assert (len(execution.stdout), execution.truncated) == (8 << 10, ["stdout"])


def test_warnings_are_told_apart_from_stderr(run: Run) -> None:
    execution = run("import warnings, sys\nwarnings.warn('careful')\nprint('err', file=sys.stderr)")
    assert (execution.warnings, execution.stderr) == ("line 2: UserWarning: careful\n", "err\n")


def test_figures_come_back_as_png(interpreter: Interpreter) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.figure()\nplt.plot([2, 1])\nplt.show()"
    completed = interpreter.run(code)
    assert (completed.execution.warnings, completed.execution.violations) == ("", [])
    assert [rich.mime_type for rich in completed.rich] == ["image/png"] * 2
    data = completed.rich[0].data
    assert data.startswith(b"\x89PNG")
    output = completed.execution.outputs[0]
    assert (output.bytes, output.width, output.height) == (len(data), 640, 480)


def test_a_large_figure_is_drawn_smaller_rather_than_dropped() -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    for _ in range(2):
        pyplot.figure(figsize=(6, 6))
        pyplot.imshow([[(x * y) % 251 for x in range(300)] for y in range(300)])
    whole, _ = figures(budget=10 << 20)
    fitted, dropped = figures(budget=100_000)
    pyplot.close("all")
    assert (len(whole), len(fitted), dropped) == (2, 2, False)
    assert sum(len(one["data"]) for one in fitted) * 3 / 4 <= 100_000 < sum(len(one["data"]) for one in whole) * 3 / 4
    assert 100 < fitted[0]["width"] < whole[0]["width"]


@pytest.mark.parametrize(
    ("code", "mime_type", "starts"),
    [
        pytest.param(
            "import pandas as pd\npd.DataFrame({'a': range(1000)})", "text/html", b"<table", id="table-as-html"
        ),
        pytest.param("from PIL import Image\nImage.new('RGB', (4, 3), 'red')", "image/png", b"\x89PNG", id="pil-image"),
        pytest.param("class S:\n    def _repr_svg_(self): return '<svg/>'\nS()", "image/svg+xml", b"<svg", id="svg"),
        pytest.param(
            "from matplotlib.figure import Figure\nf = Figure()\nf.subplots().plot([1])\nf",
            "image/png",
            b"\x89PNG",
            id="figure-without-pyplot",
        ),
    ],
)
def test_a_last_value_comes_back_in_its_richest_form(
    interpreter: Interpreter, code: str, mime_type: str, starts: bytes
) -> None:
    completed = interpreter.run(code)
    assert completed.execution.success, completed.execution
    assert [(rich.mime_type, rich.data[: len(starts)]) for rich in completed.rich] == [(mime_type, starts)]


def test_a_table_is_a_bounded_text(run: Run) -> None:
    result = run("import pandas as pd\npd.DataFrame({f'c{n}': range(100_000) for n in range(50)})").result
    assert len(result) < 20_000
    assert "99999" in result
    assert "..." in result


def test_files_go_in_and_come_out(interpreter: Interpreter) -> None:
    code = """import pandas as pd
pd.read_csv('data/in.csv').sum().to_json('out.json')
open('raw.bin', 'wb').write(open('given.bin', 'rb').read() * 2)"""
    files = {"data/in.csv": "a,b\n1,2\n3,4\n", "given.bin": {"base64": "AP8="}}
    completed = interpreter.run(code, files=files, return_files=["out.json", "raw.bin"])
    assert [(file.name, file.bytes) for file in completed.execution.files] == [("out.json", 13), ("raw.bin", 4)]
    assert [file.data for file in completed.files] == [b'{"a":4,"b":6}', b"\x00\xff\x00\xff"]


@pytest.mark.parametrize(
    ("leave", "name"),
    [
        pytest.param("import os\nos.mkfifo('x')", "x", id="fifo"),
        pytest.param("import os\nos.mkdir('x')", "x", id="directory"),
        pytest.param("", "x", id="absent"),
        pytest.param("", "../secret", id="outside"),
        pytest.param("", "/etc/passwd", id="absolute"),
        pytest.param("open('x', 'wb').write(bytes(3 << 20))", "x", id="too-large"),
    ],
)
def test_what_is_no_file_of_the_run_is_not_returned(interpreter: Interpreter, leave: str, name: str) -> None:
    completed = interpreter.run(leave, return_files=[name])
    assert completed.files == []
    assert completed.execution.warnings.startswith("return_files: file")


def test_a_symlink_made_past_the_audit_layer_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    run_dir = tmp_path / "run"
    (run_dir / "d").mkdir(parents=True)
    (run_dir / "link").symlink_to(tmp_path / "secret")
    (run_dir / "up").symlink_to(tmp_path)
    assert left(str(run_dir), {}) == ([], False)
    assert collect(str(run_dir), ["link", "up/secret"])[0] == []


@pytest.mark.parametrize(
    ("files", "says"),
    [
        pytest.param({"../x": "a"}, "relative path", id="outside"),
        pytest.param({"/x": "a"}, "relative path", id="absolute"),
        pytest.param({"": "a"}, "relative path", id="empty"),
        pytest.param({"x": {"base64": "!"}}, "cannot be decoded", id="bad-base64"),
        pytest.param({"x": "a", "x/y": "b"}, "directory of another", id="file-as-directory"),
        pytest.param({str(n): "" for n in range(21)}, "at most 20", id="too-many"),
        pytest.param({"x": "a" * (4 << 20)}, "at most", id="too-large"),
    ],
)
def test_files_that_cannot_be_taken(run: Run, files: dict[str, Any], says: str) -> None:
    execution = run("1", files=files)
    assert execution.error is not None
    assert execution.error.name == "FileError"
    assert says in execution.error.message


def test_text_is_told_as_it_is_printed(interpreter: Interpreter) -> None:
    told: list[str] = []
    interpreter.run("print('ä')\nprint('b' * 100_000)", on_stdout=told.append)
    assert "".join(told) == "ä\n" + "b" * (8192 - 3), "up to the cap of stdout"


@pytest.mark.parametrize(
    "first",
    [
        pytest.param("import json\njson.dumps = lambda *a: 'x'", id="patched-module"),
        pytest.param("import builtins\nbuiltins.len = lambda x: 0", id="patched-builtin"),
        pytest.param("import os\nos.environ['X'] = '1'", id="environment"),
        pytest.param("open('left', 'w').write('x')", id="file"),
        pytest.param(
            "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()", id="thread"
        ),
    ],
)
def test_nothing_survives_a_call(run: Run, first: str) -> None:
    assert run(first).success
    probe = """import json, os, threading
(json.dumps(1), len('ab'), os.environ.get('X'), os.listdir('.'), threading.active_count())"""
    assert run(probe).result == "('1', 2, None, [], 1)"


@pytest.mark.parametrize("module", ["random", "numpy.random"])
def test_no_two_calls_draw_the_same_numbers(run: Run, module: str) -> None:
    code = f"import {module}\n{module}.random()"
    assert run(code).result != run(code).result


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param("b'not json'", id="not-json"),
        pytest.param("""b'{"result": "forged"}'""", id="missing-keys"),
        pytest.param("b'[' * 100_000", id="deep"),
        pytest.param("b'x' * (9 << 20)", id="too-large"),
    ],
)
def test_a_forged_report_is_not_believed(run: Run, forged: str) -> None:
    execution = run(f"import os\nos.write(3, {forged})\nos._exit(0)")
    assert not execution.success
    assert execution.error is not None
    assert execution.error.type in ("exit", "output_limit")
    assert "forged" not in execution.result


def test_a_lost_template_is_replaced(interpreter: Interpreter, run: Run) -> None:
    before = interpreter._template("bare").process
    before.kill()
    before.wait()
    assert run("1 + 1").result == "2"
    assert interpreter._template("bare").process.pid != before.pid


def test_a_template_that_does_not_answer_is_replaced_within_the_limit(interpreter: Interpreter, run: Run) -> None:
    stopped = interpreter._template("bare").process
    run("import numpy")  # the child that waits is of the other template
    stopped.send_signal(signal.SIGSTOP)
    execution = run("1", deadline_s=0.5)
    assert execution.error is not None
    assert (execution.error.type, execution.error.message) == (
        "timeout",
        "the interpreter was not ready within the time limit",
    )
    stopped.wait()
    assert run("1 + 1").result == "2"


def test_a_template_that_dies_under_a_run_does_not_make_it_run_again(interpreter: Interpreter, run: Run) -> None:
    code = "import time\nprint('once', flush=True)\ntime.sleep(30)"
    kill = interpreter._template("bare").process.kill
    execution = run(code, on_stdout=lambda _text: kill())
    assert execution.error is not None
    assert (execution.error.type, execution.error.name, execution.stdout) == ("crashed", "TemplateLost", "once\n")
    assert run("1 + 1").result == "2"


def test_the_deadline_of_the_platform_holds_where_it_is_smaller(run: Run) -> None:
    execution = run("while True: pass", deadline_s=0.3)
    assert execution.error is not None
    assert execution.error.type == "timeout"
    assert execution.usage.wall_ms < 10_000, "the configured limit is 20 s"


def test_a_hundred_calls_leave_nothing_behind(interpreter: Interpreter, run: Run) -> None:
    run("1")
    fds, tasks = len(os.listdir("/proc/self/fd")), _below(os.getpid())
    for _ in range(100):
        assert run("1").success
    assert len(os.listdir("/proc/self/fd")) == fds
    assert _below(os.getpid()) == tasks
    assert [list(directory.iterdir()) for directory in interpreter.scratch.glob("run-*")] == [[]], "the next one's"


@pytest.mark.parametrize(
    "first",
    [
        pytest.param("1", id="of-the-same-template"),
        pytest.param("import numpy", id="of-the-other"),
        pytest.param("import os\nos._exit(3)", id="after-a-hard-exit"),
    ],
)
def test_a_child_that_waited_and_was_lost_costs_no_call(interpreter: Interpreter, run: Run, first: str) -> None:
    run(first)
    waiting = interpreter._next
    assert waiting is not None
    assert waiting.forked(time.monotonic() + 60)
    os.kill(waiting.pid or 0, signal.SIGKILL)
    while not waiting.is_lost():
        os.sched_yield()
    assert run("1 + 1").result == "2"


def test_a_child_waits_alone(interpreter: Interpreter, run: Run) -> None:
    """No code runs beside the child of the next call: what comes next uses it or has ended it before it begins."""
    run("1")
    seen: list[Any] = []
    run("print(1)", on_stdout=lambda _text: seen.append(interpreter._next))
    run("import numpy\nprint(1)", on_stdout=lambda _text: seen.append(interpreter._next))
    assert seen == [None, None]


def _below(pid: int) -> int:
    return sum(task.parent == pid for task in own_tasks())
