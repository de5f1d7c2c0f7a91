"""`make bench`: every figure of the product in one table. Raw rows are kept in `out/bench-<UTC time>/rows.jsonl`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
HELPERS = {"__init__", "__main__", "rows"}


def benches() -> list[str]:
    """Modules of this directory that measure something, each run by itself."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in HELPERS)


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="NAME", help=f"some of: {', '.join(benches())} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer measurements; for a look, not for a claim")
    arguments = parser.parse_args(argv)
    unknown = sorted(set(arguments.only) - set(benches()))
    if unknown:
        print(f"bench: there is no {unknown[0]!r}; there are {', '.join(benches())}", file=sys.stderr)
        return 2
    out = Path("out") / f"bench-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    out.mkdir(parents=True)
    rows = out / "rows.jsonl"
    broken = []
    for name in arguments.only or benches():
        print(f"bench: {name}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", f"tests.bench.{name}", "--out", str(rows.resolve())]
        if subprocess.run([*command, *(["--quick"] if arguments.quick else [])]).returncode:
            broken.append(name)
    found = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    show(found)
    print(f"{rows}: {len(found)} figures, {sum(row['verdict'] == 'short' for row in found)} short of their goal")
    for name in broken:
        print(f"bench: {name} broke off", file=sys.stderr)
    return 1 if broken or any(row["verdict"] == "short" for row in found) else 0


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("figure", "ours", "peer", "ratio", "95 %", "goal", "n", "verdict"):
        table.add_column(heading, justify="left" if heading in ("figure", "peer", "verdict") else "right")
    for row in rows:
        peer = f"{row['peer']:g} {row['peer_name']}" if row.get("peer") is not None else row.get("peer_name") or ""
        interval = row.get("interval")
        table.add_row(
            row["name"],
            f"{row['ours']:g} {row.get('unit', '')}",
            peer[:48],
            f"{row['ratio']:.3f}" if row.get("ratio") is not None else "",
            f"{interval[0]:g} to {interval[1]:g}" if interval else "",
            f"{row['goal']:g}" if row.get("goal") is not None else "",
            str(row.get("n", "")),
            row["verdict"],
        )
    Console(width=None if sys.stdout.isatty() else 180).print(table)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
