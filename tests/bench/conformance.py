"""How long the protocol part takes on the warm product, and whether run after run comes to the same verdicts.

`python -m tests.bench.conformance [--runs 50] [--url URL]`: each run is started as a person starts it, start-up
included. Without --url the product is started on the local stack of this machine, and its log tells at the end whether
an environment was lost.

`python -m tests.bench.conformance --resource-runs 10`: only the programs that take too much, so often in a row, on the
product with a limit of 3 s: each is answered within the limit and a second, and the call after it works.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.bench.rows import Row, append, row

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

from local_stack import LocalStack, local_stack  # noqa: E402


@dataclass(frozen=True, slots=True)
class Ran:
    """One run: seconds from start to exit, what was told of each check by its id, connections tried again."""

    seconds: float
    told: dict[str, tuple[str, str]]
    retries: int


def one_run(url: str, workers: int, *parts: str) -> Ran:
    """One run of these parts, started as a person starts it."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "conformance", url, *(f"--only={part}" for part in parts)]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "-n", str(workers), "--out", out, "--json"], cwd=ROOT, capture_output=True, text=True
        )
        seconds = time.perf_counter() - started
        path = Path(out) / "report.json"
        if not path.is_file():
            sys.exit(f"The run made no report: {done.stderr.strip()[-300:]}")
        report = json.loads(path.read_text())
    # The sentence too: a check that fails or skips for another reason than before is not the same.
    told = {check["id"]: (check["status"], check["message"]) for check in report["checks"]}
    return Ran(seconds, told, report["retries"])


def resource_run(url: str) -> tuple[float, list[dict[str, Any]]]:
    """(seconds, what became of each program) of one run of everything that takes too much, two at a time."""
    with tempfile.TemporaryDirectory() as out:
        command = [
            sys.executable,
            "-m",
            "conformance",
            url,
            "--only",
            "security",
            "--full",
            "-n",
            "2",
            "-k",
            "resource-",
        ]
        started = time.perf_counter()
        done = subprocess.run([*command, "--out", out, "--json"], cwd=ROOT, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        path = Path(out) / "report.json"
        if not path.is_file():
            sys.exit(f"The run made no report: {done.stderr.strip()[-300:]}")
        told = [check["security"] for check in json.loads(path.read_text())["checks"]]
    return seconds, [one for one in told if one and one["kind"] == "resource"]


def measure_resources(url: str, runs: int, out: Path | None) -> None:
    """Writes rows: how many programs were not answered in time, left the endpoint ill, or cost an environment."""
    seconds, late, ill, lost, slowest = [], 0, 0, 0, 0.0
    for number in range(runs):
        took, programs = resource_run(url)
        seconds.append(took)
        for one in programs:
            late += one["verdict"] == "LATE"
            ill += one["verdict"] == "CRASHED"
            lost += one["lost"] or one["cold_after"]
            slowest = max(slowest, one["elapsed_ms"] / 1000)
            if one["verdict"] in ("LATE", "CRASHED"):
                print(f"  run {number + 1}: {one['program']}: {one['verdict']}, {one['evidence']}", file=sys.stderr)
        print(f"  run {number + 1}: {len(programs)} programs in {took:.0f} s", file=sys.stderr)
    append(out, row("resource programs: a run at -n 2", seconds, unit="s"))
    append(
        out, row("resource programs: slowest answer at a limit of 3 s", [slowest], goal=4.0, judged="ours", unit="s")
    )
    for name, count in (("answered late", late), ("that leave it ill", ill), ("that cost an environment", lost)):
        append(out, row(f"resource programs {name}, {runs} runs", [float(count)], goal=0.0, judged="ours", unit=""))


@contextmanager
def endpoint(given: str | None, *options: str) -> Iterator[tuple[str, LocalStack | None]]:
    """The given URL, else that of the product, started for this, with its stack."""
    if given:
        yield given, None
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        local_stack(Path(folder), "--template", str(ROOT / "sam" / "template.yaml"), *options) as running,
    ):
        yield running.ready["endpoint"], running


@contextmanager
def far_away(url: str, delay_s: float) -> Iterator[str]:
    """The endpoint behind a link of that round trip: a new connection costs one, and each thing sent another."""
    parts = urlsplit(url)
    place = (str(parts.hostname), parts.port or 80)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait_s: float) -> None:
        while data := await reader.read(65536):
            await asyncio.sleep(wait_s)
            writer.write(data)
        writer.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(delay_s)
        there, onward = await asyncio.open_connection(*place)
        with suppress(OSError):
            await asyncio.gather(carry(reader, onward, delay_s / 2), carry(there, writer, delay_s / 2))
        for one in (onward, writer):
            one.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield parts._replace(netloc=f"127.0.0.1:{server.sockets[0].getsockname()[1]}").geturl()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def lost_environments(stack: LocalStack) -> tuple[int, int]:
    """(invocations that ended their environment, all of them) since the stack's start, by Lambda's own reports."""
    pages = stack.client("logs").get_paginator("filter_log_events")
    asked = {"logGroupName": stack.ready["log_group"], "filterPattern": '{ $.type = "platform.report" }'}
    ends = [
        json.loads(one["message"])["record"]["status"] for page in pages.paginate(**asked) for one in page["events"]
    ]
    return sum(status != "success" for status in ends), len(ends)


def measure(url: str, runs: int, out: Path | None, stack: LocalStack | None) -> None:
    """Writes rows: seconds of a protocol run in three ways; then, run after run of protocol and tools, how many checks
    did not come to the same each time, and what that cost in retries and environments."""
    one_run(url, 4, "protocol")  # so that the environments are warm
    alone = [one_run(url, 4, "protocol") for _ in range(3)]
    append(out, row("protocol run at -n 4", [one.seconds for one in alone], goal=20.0, judged="ours", unit="s"))
    serial = one_run(url, 0, "protocol")
    append(out, row("protocol run in one process", [serial.seconds], goal=45.0, judged="ours", unit="s"))
    with far_away(url, 0.3) as distant:
        far = one_run(distant, 8, "protocol")
    append(out, row("protocol run at -n 8, 300 ms away", [far.seconds], goal=120.0, judged="ours", unit="s"))
    append(out, _differing("whose verdict differs in one process or 300 ms away", [*alone, serial, far], words=False))
    both = []
    for number in range(1, runs + 1):
        both.append(one_run(url, 4, "protocol", "tools"))
        print(f"\r  run {number} of {runs}: {both[-1].seconds:.1f} s ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    append(out, row("protocol and tools at -n 4", [one.seconds for one in both], unit="s"))
    append(out, _differing(f"that differ in {runs} runs of protocol and tools", both, words=True))
    append(out, row("retries in them", [float(sum(one.retries for one in both))], goal=0.0, judged="ours", unit=""))
    if stack is not None:
        died, invocations = lost_environments(stack)
        told = f"environments lost in all {invocations} invocations"
        append(out, row(told, [float(died)], goal=0.0, judged="ours", unit=""))


def _differing(which: str, runs: list[Ran], *, words: bool) -> Row:
    """How many checks were not told the same in all of the runs; with `words` their sentences count, too."""
    names = set().union(*(one.told for one in runs))

    def told(one: Ran, name: str) -> tuple[str, ...] | None:
        found = one.told.get(name)
        return found if words or found is None else found[:1]

    differing = sorted(name for name in names if len({told(one, name) for one in runs}) > 1)
    for name in differing:
        print(f"  differs: {name}: {sorted({str(told(one, name)) for one in runs})}", file=sys.stderr)
    return row(f"checks of {len(names)} {which}", [float(len(differing))], goal=0.0, judged="ours", unit="")


def main() -> None:
    """Entry point."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--runs", type=int, default=5, help="runs of protocol and tools (5); 50 for the claim")
    command.add_argument("--resource-runs", type=int, help="only the programs that take too much, so often in a row")
    command.add_argument("--url", help="an endpoint that is up already")
    command.add_argument("--quick", action="store_true", help="three runs")
    command.add_argument("--out", type=Path, help="append the rows to this file as JSON lines")
    arguments = command.parse_args()
    if arguments.resource_runs:
        with endpoint(arguments.url, "--env", "INTERPRETER_TIMEOUT_S=3") as (url, _):
            measure_resources(url, arguments.resource_runs, arguments.out)
        return
    # The log of every call is asked for at the end, so none may be let go.
    with endpoint(arguments.url, "--keep-logs", "1000") as (url, stack):
        measure(url, 3 if arguments.quick else arguments.runs, arguments.out, stack)


if __name__ == "__main__":
    main()
