"""What comes over a child's pipes under hostile bytes: `watch` reads them, `outcome` judges them, and never fails.

An input is a line of JSON that says how the child ended, and after it the bytes of its report.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema

from tests.bench.fuzzing import Fault, expect
from tests.bench.fuzzing.vary import vary

ROOT = Path(__file__).parents[3]
SEEDS = ROOT / "tests" / "bench" / "fuzz_corpus" / "pipe"
INSTRUMENTED = ["interpreter", "tools"]
PIPE_BYTES = 60_000  # fits into a pipe, so that everything is written before anything is read
NOBODY = (1 << 22) + 1  # above the highest pid that Linux gives
MOST_S = 2.0  # of CPU
MOST_REFUSED = 100
PLAIN_EVERY = 256
PLAIN: dict[str, Any] = {"result": "42", "error": None, "warnings": "", "outputs": [], "truncated": []}
STREAMS = ("stdout", "stderr", "report", "trace")


def varied(data: bytes, source: random.Random) -> bytes:
    head, line, report = data.partition(b"\n")
    if not line:
        return vary(data, source)
    return vary(head, source) + b"\n" + report if source.random() < 0.3 else head + b"\n" + vary(report, source)


def _wait_status(told: Any) -> int:
    """A status as wait(2) gives it: an exit's, or a signal's with or without a core dump."""
    number = told if type(told) is int else 0
    return number & 0xFF00 or number % 65 | (number & 0x80 if number % 65 else 0)


class _Process:
    pid = NOBODY

    def kill(self) -> None: ...


class _Template:
    process = _Process()


class Surface:
    """`one` holds one input to every property; `seeds` and `varied` say what is tried."""

    seeds = SEEDS
    varied = staticmethod(varied)

    def __init__(self) -> None:
        sys.path.insert(0, str(ROOT / "function"))
        import tools
        from interpreter import confinement, execution, outcome, watch

        self.tools, self.outcome, self.watch = tools, outcome, watch
        self.limits = confinement.Limits()
        self.runs = 0
        self.schema = jsonschema.Draft202012Validator(tools.schema(execution.Execution))

    def one(self, data: bytes) -> None:
        self.runs += 1
        if self.runs % PLAIN_EVERY == 0:
            self.check_plain()
        head, _, report = data.partition(b"\n")
        try:
            told = json.loads(head)
        except (ValueError, RecursionError):
            told, report = {}, data
        told = told if isinstance(told, dict) else {}
        begun = time.process_time()  # of this process: a busy machine is nobody's fault
        watched = self.watched(told, report)
        completed = self.outcome.complete(watched, 1.0, 0.0)
        self.check(completed)
        took = time.process_time() - begun
        expect(took < MOST_S, "too long for what it is", took)

    def check_plain(self) -> None:
        """An ordinary report is taken as it is."""
        completed = self.outcome.complete(self.watched({"stdout": "hello"}, json.dumps(PLAIN).encode()), 1.0, 0.0)
        taken = completed.execution
        expect((taken.success, taken.result, taken.stdout) == (True, "42", "hello"), "a plain report", taken)

    def watched(self, told: dict[str, Any], report: bytes) -> Any:
        """What `watch` makes of a child that wrote these bytes and ended so."""
        sent = {
            name: str(told.get(name, "")).encode("utf-8", "surrogatepass") for name in ("stdout", "stderr", "trace")
        }
        status = _wait_status(told.get("status"))
        ours: dict[str, int] = {}
        for name in STREAMS:
            ours[name], writer = os.pipe2(os.O_CLOEXEC)
            os.write(writer, {**sent, "report": report}[name][:PIPE_BYTES])
            os.close(writer)
        ours["status"], writer = os.pipe2(os.O_CLOEXEC)
        ended = json.dumps({"status": status, "cpu_ms": 1.0, "max_rss_kb": 1024}).encode() + b"\n"
        # The template's word may come with the pid, or after it, or in pieces.
        begun = len(ended) * (len(report) % 3) // 2
        os.write(writer, ended[begun:])
        os.close(writer)
        printed: list[str] = []
        bounds = self.watch.Bounds(self.limits, 5.0, None, lambda: None, printed.append)
        try:
            template: Any = _Template()
            watch = self.watch._Watch(template, ours, bounds, time.monotonic(), NOBODY, keep=False, told=ended[:begun])
            watched = watch.see_through()
        finally:
            for fd in ours.values():
                os.close(fd)
        expect(bytes(watched.report.data) == report[:PIPE_BYTES], "the report was not read whole", len(report))
        if told.get("killed"):
            watched.killed_for = ("timeout", "TimeoutError", "the time limit of this run was reached")
        return watched

    def check(self, completed: Any) -> None:
        """It is an answer that the tool may give: by schema, in UTF-8, with as many outputs as it says."""
        result = self.tools.result_of(completed.execution, is_error=not completed.execution.success)
        result.content.extend(self.tools.rich_block(number, rich) for number, rich in enumerate(completed.rich))
        faults = [fault.message for fault in self.schema.iter_errors(result.structured_content)]
        expect(not faults, "against the output schema", faults)
        try:
            text = result.model_dump_json(by_alias=True).encode()
        except ValueError as error:
            raise Fault(f"cannot be sent: {error}") from error
        expect(len(text) < 64 << 20, "larger than anyone can be sent", len(text))
        expect(len(completed.rich) == len(completed.execution.outputs), "outputs", completed.execution.outputs)
        told = completed.execution.violations
        expect(len(told) <= MOST_REFUSED and all(len(one) < 2000 for one in told), "refusals without bound", told)
        expect(completed.execution.success == (completed.execution.error is None), "success", completed.execution)
