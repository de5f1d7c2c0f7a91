"""`make bench`: every figure of the product in one table.

Each bench runs by itself, so that one that breaks off hides no other. `out/bench-<UTC time>/rows.jsonl` gets every
figure with the samples behind it as soon as it is measured, and the table is made from that file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

HERE = Path(__file__).parent
HELPERS = {"__init__", "__main__", "rows"}
CLEAN_UP_S = 30.0  # what a bench may take to end what it started, after Ctrl-C
EPILOG = """examples:
  python -m tests.bench                       all of them, some 15 minutes of two cores that do nothing else
  python -m tests.bench --quick interpreter   a look at one
  python -m tests.bench.load --help           what one of them can do beside

exit codes: 0 every goal is met, 1 a figure is short of its goal or a bench broke off, 2 usage, 130 interrupted (the
            table then has what was measured)
"""


def benches() -> list[str]:
    """Modules of this directory that measure something, each run by itself."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in HELPERS)


def command_of(name: str) -> list[str]:
    return [sys.executable, "-m", f"tests.bench.{name}"]


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("only", nargs="*", metavar="NAME", help=f"some of: {', '.join(benches())} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer measurements; for a look, not for a claim")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the rows go (default: out/bench-<UTC time>)")
    arguments = parser.parse_args(argv)
    if unknown := sorted(set(arguments.only) - set(benches())):
        print(f"bench: there is no {unknown[0]!r}; there are {', '.join(benches())}", file=sys.stderr)
        return 2
    out = arguments.out or Path("out") / f"bench-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    out.mkdir(parents=True, exist_ok=True)
    rows = (out / "rows.jsonl").resolve()
    rows.unlink(missing_ok=True)
    asked = ["--out", str(rows), *(["--quick"] if arguments.quick else [])]
    began, broken, interrupted = time.monotonic(), [], False
    names = arguments.only or benches()
    for number, name in enumerate(names, 1):
        say(f"{number}/{len(names)} {name}")
        started = time.monotonic()
        try:
            code = see_through([*command_of(name), *asked])
        except KeyboardInterrupt:
            say(f"interrupted in {name}; what was measured is kept")
            interrupted = True
            break
        say(f"{name} took {minutes(time.monotonic() - started)}, {minutes(time.monotonic() - began)} in all")
        if code:
            broken.append(f"{name} broke off with exit code {code}; python -m tests.bench.{name} runs it alone")
    found = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    show(found)
    short = sum(row["verdict"] == "short" for row in found)
    print(f"{rows}: {len(found)} figures, {short} short of their goal, in {minutes(time.monotonic() - began)}")
    for sentence in broken:
        say(sentence)
    return 130 if interrupted else int(bool(broken or short or not found))


def see_through(command: list[str]) -> int:
    """The exit code of a bench. Ctrl-C reaches it once, and it is given time to end what it started."""
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(timeout=CLEAN_UP_S)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            raise


def minutes(seconds: float) -> str:
    whole, rest = divmod(round(seconds), 60)
    return f"{whole} min {rest:02} s"


def say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    # The interval is of what the goal is for: the ratio, the difference (with a +), or ours.
    for heading in ("figure", "ours", "peer", "ratio", "95 %", "goal", "n", "verdict"):
        table.add_column(heading, justify="left" if heading in ("figure", "peer", "verdict") else "right")
    colours = {"pass": "green", "short": "red"}
    for row in rows:
        peer = f"{row['peer']:g} {row['peer_name']}" if row.get("peer") is not None else row.get("peer_name") or ""
        interval, verdict, unit = row.get("interval"), row["verdict"], row.get("unit", "")
        beside = f"{row['ratio']:.3f}" if row.get("ratio") is not None else ""
        goal = f"{row['goal']:.4g}" if row.get("goal") is not None else ""
        if row["judged"] == "difference":
            beside, goal = f"+{row['ours'] - row['peer']:.3g} {unit}", f"+{goal} {unit}" if goal else ""
        elif row["judged"] == "ours":
            goal = f"{goal} {unit}" if goal else ""
        table.add_row(
            escape(row["name"]),
            f"{row['ours']:g} {unit}",
            escape(peer[:48]),
            beside,
            f"{interval[0]:g} to {interval[1]:g}" if interval else "",
            goal,
            str(row.get("n", "")),
            f"[{colours[verdict]}]{verdict}[/]" if verdict in colours else verdict,
        )
    Console(width=None if sys.stdout.isatty() else 180).print(table)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
