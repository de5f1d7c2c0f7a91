"""The interpreter's figures: a warm call against a fresh Python and in-process exec, layers, import, memory.

python -m tests.bench.interpreter [--quick] [--soak N] [--out FILE]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "function"))

from interpreter.confinement import Limits  # noqa: E402
from interpreter.engine import Interpreter  # noqa: E402
from tests.bench.rows import append, in_turns, row  # noqa: E402

PROGRAMS = {
    "print(1)": ("print(1)", 1 / 4),
    "import numpy": ("import numpy as np\nnp.arange(3).sum()", 1 / 8),
    "pandas describe": ("import pandas as pd\nprint(pd.DataFrame({'a': range(100)}).describe())", 1 / 10),
    "figure to PNG": (
        "import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt, io\nplt.plot([1, 2])\n"
        "plt.gcf().savefig(io.BytesIO(), format='png')\nplt.close('all')",
        1 / 6,
    ),
}
SLOW = ("pandas describe", "figure to PNG")  # measured half as often: fresh they take up to half a second each


def timed(action: Any) -> float:
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def fresh(code: str) -> None:
    subprocess.run([sys.executable, "-I", "-c", code], check=True, stdout=subprocess.DEVNULL)


def in_process(code: str) -> None:
    with redirect_stdout(io.StringIO()):
        exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})


def warm_calls(interpreter: Interpreter, n: int, out: Path | None) -> None:
    for name, (code, goal) in PROGRAMS.items():
        assert interpreter.run(code).execution.success
        pairs = {
            "ours": lambda code=code: timed(lambda: interpreter.run(code)),
            "fresh": lambda code=code: timed(lambda: fresh(code)),
            "exec": lambda code=code: timed(lambda: in_process(code)),
        }
        found = in_turns(pairs, n // 2 if name in SLOW else n)
        append(out, row(f"warm {name}", found["ours"], found["fresh"], "fresh python -c", goal=goal))
        goal_ms = 12.0 if name == "print(1)" else None
        label = f"warm {name}, beyond in-process exec"
        append(out, row(label, found["ours"], found["exec"], "in-process exec", goal=goal_ms, judged="difference"))


def layers(interpreter: Interpreter, bare: Interpreter, n: int, out: Path | None) -> None:
    """CPU of the child with every layer against a fork with none but its rlimits."""
    pairs = {
        "ours": lambda: interpreter.run("1").execution.usage.cpu_ms,
        "bare": lambda: bare.run("1").execution.usage.cpu_ms,
    }
    found = in_turns(pairs, n)
    append(out, row("CPU of all layers", found["ours"], found["bare"], "bare fork", goal=2.0, judged="difference"))


def path_without_execution(n: int, out: Path | None) -> None:
    """tools/list through handler.handler: Mangum, guard, SDK, both eras. In a process of its own, as in Lambda."""
    script = f"""
import json, sys, time
sys.path.insert(0, {str(ROOT / "function")!r})
import handler
from types import SimpleNamespace
context = SimpleNamespace(aws_request_id="r", get_remaining_time_in_millis=lambda: 60000)
def event(modern):
    headers = {{"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Host": "h"}}
    params = {{}}
    if modern:
        headers |= {{"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}}
        meta = "io.modelcontextprotocol"
        params = {{"_meta": {{meta + "/protocolVersion": "2026-07-28", meta + "/clientCapabilities": {{}}}}}}
    body = json.dumps({{"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}})
    return {{"resource": "/lambda/mcp", "path": "/lambda/mcp", "httpMethod": "POST", "headers": headers,
            "multiValueHeaders": {{k: [v] for k, v in headers.items()}}, "body": body, "isBase64Encoded": False,
            "requestContext": {{"identity": {{"sourceIp": "127.0.0.1"}}, "stage": "dev"}}}}
time.sleep(3)
found = {{"legacy": [], "modern": []}}
for number in range({n} + 5):
    for era in found:
        given = event(era == "modern")
        started = time.perf_counter()
        answer = handler.handler(given, context)
        elapsed = (time.perf_counter() - started) * 1000
        assert answer["statusCode"] == 200, answer
        if number >= 5:
            found[era].append(elapsed)
print(json.dumps(found))
handler.interpreter.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/")
    for era, samples in json.loads(done.stdout.splitlines()[-1]).items():
        append(out, row(f"tools/list through the handler, {era}", samples, goal=1.5, judged="ours"))


def import_time(n: int, out: Path | None) -> None:
    """CPU of importing the handler (its templates are processes of their own) against the plain imports."""

    def cpu(code: str) -> float:
        tail = "\nimport time; print(time.process_time() * 1000, flush=True)\n"
        tail += "import sys\nif 'handler' in sys.modules: sys.modules['handler'].interpreter.close()"
        command = [sys.executable, "-c", code + tail]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT / "function")
        return float(done.stdout.split()[-1])

    plain = "import fastapi, mcp.server.lowlevel, mangum"
    pairs = {"ours": lambda: cpu("import handler"), "plain": lambda: cpu(plain)}
    found = in_turns(pairs, n)
    append(out, row("import of the handler, CPU", found["ours"], found["plain"], plain, goal=0.6))
    levers = {
        "no FastAPI": "import starlette.applications, mcp.server.lowlevel, mangum",
        "and no uvicorn": "import sys; sys.modules['uvicorn'] = None\n"
        "import starlette.applications, mcp.server.lowlevel, mangum",
        "and validators on first use, no SDK package files": "import lean; lean.trim()\n"
        "import starlette.applications, mcp.server.lowlevel, mangum",
    }
    for name, code in levers.items():
        found = in_turns({"ours": lambda code=code: cpu(code), "plain": lambda: cpu(plain)}, max(n // 4, 3))
        append(out, row(f"import lever: {name}", found["ours"], found["plain"], plain))


def memory(out: Path | None) -> None:
    """Resident set of the handler with the bare template and the child that waits for the next call, in MB."""
    script = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "function")!r})
import handler
from pathlib import Path
def rss(pid):
    fields = Path(f"/proc/{{pid}}/smaps_rollup").read_text().split()
    return int(fields[fields.index("Pss:") + 1]) / 1024
bare = handler.interpreter._templates["bare"].process.pid
handler.interpreter.run("1")
waiting = handler.interpreter._next
waiting.forked(time.monotonic() + 60)
print(rss("self") + rss(bare) + rss(waiting.pid))
handler.interpreter.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/")
    samples = [float(done.stdout.split()[-1])]
    append(
        out,
        row(
            "handler, bare template and its next child, proportional set", samples, goal=130.0, judged="ours", unit="MB"
        ),
    )


def soak(calls: int, out: Path | None) -> None:
    """`calls` good and hostile programs in one environment: what grows in it, and whether each was answered."""
    programs = [
        "print(1)",
        "import numpy as np\nnp.arange(10).sum()",
        "1 / 0",
        "import os\nos.system('true')",
        "open('/etc/passwd')",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
        "open('f', 'wb').write(bytes(1 << 20))",
        "bytearray(1 << 40)",
        "print('x' * (1 << 20))",
        "import os\nos._exit(3)",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        interpreter = Interpreter(Limits(timeout_s=10), scratch=Path(scratch))
        state: list[SimpleNamespace] = []
        answered = 0
        for number in range(calls):
            answered += interpreter.run(programs[number % len(programs)]).execution is not None
            if number in (calls // 10, calls - 1):
                state.append(_state(interpreter))
        interpreter.close()
    before, after = state
    append(
        out, row(f"soak of {calls}: calls unanswered", [float(calls - answered)], goal=0, judged="ours", unit="calls")
    )
    for name, unit in (("rss_mb", "MB"), ("descriptors", ""), ("processes", ""), ("files", "")):
        grown = float(getattr(after, name) - getattr(before, name))
        goal = 2.0 if name == "rss_mb" else 0.0
        append(out, row(f"soak of {calls}: growth of {name}", [grown], goal=goal, judged="ours", unit=unit))


def _state(interpreter: Interpreter) -> SimpleNamespace:
    pids = [os.getpid(), *(template.process.pid for template in interpreter._templates.values())]
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    children = sum(len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) for pid in pids)
    return SimpleNamespace(
        rss_mb=pages * os.sysconf("SC_PAGESIZE") / (1 << 20),
        descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
        processes=children,
        files=sum(len(files) for _, _, files in os.walk(interpreter.scratch)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 measurements each instead of 200")
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="also N calls in one environment (10000)")
    parser.add_argument("--out", type=Path, help="append the rows to this file as JSON lines")
    arguments = parser.parse_args()
    n = 20 if arguments.quick else 200
    with tempfile.TemporaryDirectory() as scratch:
        interpreter = Interpreter(Limits(timeout_s=10), scratch=Path(scratch))
        (Path(scratch) / "bare").mkdir()
        bare = Interpreter(Limits(timeout_s=10), hook=False, kernel_layer=False, scratch=Path(scratch) / "bare")
        time.sleep(3)  # the heavy templates warm
        warm_calls(interpreter, n, arguments.out)
        layers(interpreter, bare, n, arguments.out)
        interpreter.close()
        bare.close()
    path_without_execution(n, arguments.out)
    import_time(max(n // 8, 5), arguments.out)
    memory(arguments.out)
    if arguments.soak:
        soak(arguments.soak, arguments.out)


if __name__ == "__main__":
    main()
