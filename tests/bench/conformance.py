"""How long the protocol part takes on the warm product, and whether run after run comes to the same verdicts.

`python -m tests.bench.conformance [--runs 50] [--url URL]`: each run is started as a person starts it, start-up
included. Without --url the product is started on the local stack of this machine.

`python -m tests.bench.conformance --resource-runs 10`: only the programs that take too much, so often in a row, on the
product with a limit of 3 s: each is answered within the limit and a second, and the call after it works.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.rows import append, row

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

from local_stack import local_stack  # noqa: E402


def one_run(url: str, workers: int) -> tuple[float, dict[str, str], int]:
    """(seconds, check id -> status, retries) of one run of the protocol part."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "conformance", url, "--only", "protocol", "--out", out, "--json"]
        started = time.perf_counter()
        done = subprocess.run([*command, "-n", str(workers)], cwd=ROOT, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        path = Path(out) / "report.json"
        if not path.is_file():
            sys.exit(f"The run made no report: {done.stderr.strip()[-300:]}")
        report = json.loads(path.read_text())
    return seconds, {check["id"]: check["status"] for check in report["checks"]}, report["retries"]


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
def endpoint(given: str | None, *options: str) -> Iterator[str]:
    """The given URL, else that of the product, started for this."""
    if given:
        yield given
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        local_stack(Path(folder), "--template", str(ROOT / "sam" / "template.yaml"), *options) as running,
    ):
        yield running.ready["endpoint"]


def measure(url: str, runs: int, out: Path | None) -> None:
    """Writes rows: seconds at -n 4, seconds in one process, and how many checks did not come to the same each time."""
    one_run(url, 4)  # so that the environments are warm
    parallel = [one_run(url, 4) for _ in range(runs)]
    append(out, row("protocol run at -n 4", [one[0] for one in parallel], goal=20.0, judged="ours", unit="s"))
    serial = one_run(url, 0)
    append(out, row("protocol run in one process", [serial[0]], goal=45.0, judged="ours", unit="s"))
    verdicts = [one[1] for one in (*parallel, serial)]
    names = set().union(*verdicts)
    differing = sorted(name for name in names if len({one.get(name) for one in verdicts}) > 1)
    told = f"checks of {len(names)} that differ in {len(verdicts)} runs"
    append(out, row(told, [float(len(differing))], goal=0.0, judged="ours", unit=""))
    append(out, row("retries in them", [float(sum(one[2] for one in (*parallel, serial)))], unit=""))
    for name in differing:
        print(f"  differs: {name}", file=sys.stderr)


def main() -> None:
    """Entry point."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--runs", type=int, default=10, help="runs at -n 4 (10); 50 for the claim of no flake")
    command.add_argument("--resource-runs", type=int, help="only the programs that take too much, so often in a row")
    command.add_argument("--url", help="an endpoint that is up already")
    command.add_argument("--quick", action="store_true", help="three runs")
    command.add_argument("--out", type=Path, help="append the rows to this file as JSON lines")
    arguments = command.parse_args()
    if arguments.resource_runs:
        with endpoint(arguments.url, "--env", "INTERPRETER_TIMEOUT_S=3") as url:
            measure_resources(url, arguments.resource_runs, arguments.out)
        return
    with endpoint(arguments.url) as url:
        measure(url, 3 if arguments.quick else arguments.runs, arguments.out)


if __name__ == "__main__":
    main()
