"""Coverage-guided fuzzing (atheris, libFuzzer) of the request path and of what a child's pipes bring.

    python -m tests.bench.fuzz request --minutes 60      one surface, for a claim; the corpus is kept and grows
    python -m tests.bench.fuzz --quick                    both for a few seconds, as `make bench` does for 30

Exit code 1 when an input broke a property: it lies in out/fuzz-<time>/<surface>/, and the same command with
`--input FILE` runs it alone. No code of an input is run; as root it all happens as a user without rights.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.rows import append, row

ROOT = Path(__file__).parents[2]
SEEDS = Path(__file__).parent / "fuzz_corpus"
CONFINED = ROOT / "tests" / "broken_servers" / "confined.sh"
SURFACES = ("request", "pipe")
BENCH_S, QUICK_S = 30, 5
LONGEST_INPUT = 20_000
ONE_INPUT_S = 20
MEMORY_MB = 3000
TOLD_EVERY_S = 15.0


def fuzz(surface: str, seconds: int, out: Path, corpus: Path, alone: Path | None = None) -> tuple[int, bool]:
    """(inputs tried, whether one broke a property) of `seconds` on `surface`; the corpus takes what was new."""
    place = (out / surface).resolve()
    work = place / "run"
    work.mkdir(parents=True)
    (work / "corpus").mkdir()
    for known in (SEEDS / surface, corpus):
        if known.is_dir():
            shutil.copytree(known, work / "corpus", dirs_exist_ok=True)
    arguments = [f"-timeout={ONE_INPUT_S}", f"-rss_limit_mb={MEMORY_MB}", "-print_final_stats=1"]
    if alone is not None:
        shutil.copy(alone, work / "input")
        arguments += ["input"]
    else:
        arguments += [f"-max_total_time={seconds}", f"-max_len={LONGEST_INPUT}", "-artifact_prefix=./", "corpus"]
    if os.geteuid() == 0:
        _give_away(place)
    command = ["sh", str(CONFINED), str(place), sys.executable, "-m", "tests.bench.fuzzing", surface, *arguments]
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "TMPDIR": str(work),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    log = place / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=environment)
        try:
            _wait(process, surface, log)
        finally:
            process.terminate()
            process.wait()
    corpus.mkdir(parents=True, exist_ok=True)
    shutil.copytree(work / "corpus", corpus, dirs_exist_ok=True)
    text = log.read_text(errors="replace")
    tried = re.findall(r"number_of_executed_units: (\d+)|^#(\d+)", text, re.MULTILINE)
    # confined.sh keeps a shell as the parent, which ends well whatever the command does: libFuzzer's last word counts.
    broke = not re.search(r"^(Done \d+ runs in|Executed \S+ in) ", text, re.MULTILINE)
    if broke:
        print(_why(text), file=sys.stderr)
        for found in sorted(work.glob("*-*")):
            print(f"fuzz: {found} broke a property of the {surface} surface; {log} has its traceback", file=sys.stderr)
    return max((int(one) for pair in tried for one in pair if one), default=0), broke


def _give_away(place: Path) -> None:
    """What the unprivileged user of confined.sh is to write to."""
    for one in (place, *place.rglob("*")):
        os.chown(one, 64999, 64999)


def _wait(process: subprocess.Popen[bytes], surface: str, log: Path) -> None:
    told = time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        if time.monotonic() - told > TOLD_EVERY_S:
            told = time.monotonic()
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("#")]
            print(f"  {surface}: {lines[-1] if lines else 'starting'}", file=sys.stderr, flush=True)


def _why(text: str) -> str:
    """The part of the log that says what went wrong."""
    lines = text.splitlines()
    marks = [number for number, line in enumerate(lines) if "Uncaught Python exception" in line or "ERROR:" in line]
    return "\n".join(lines[marks[0] : marks[0] + 40] if marks else lines[-20:])


def run(argv: list[str]) -> int:
    command = argparse.ArgumentParser(
        prog="python -m tests.bench.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("surface", nargs="?", choices=SURFACES, help="one of them (default: both)")
    command.add_argument("--minutes", type=float, help=f"how long each (default: {BENCH_S} s)")
    command.add_argument("--corpus", type=Path, help="where inputs that reach something new are kept (out/fuzz-corpus)")
    command.add_argument("--input", type=Path, help="run this one input")
    command.add_argument("--quick", action="store_true", help=f"{QUICK_S} seconds each")
    command.add_argument("--out", type=Path, help="append the rows to this file as JSON lines")
    arguments = command.parse_args(argv)
    if arguments.input is not None and (arguments.surface is None or not arguments.input.is_file()):
        print("fuzz: --input needs the surface before it and a file that is there", file=sys.stderr)
        return 2
    seconds = round(arguments.minutes * 60) if arguments.minutes else QUICK_S if arguments.quick else BENCH_S
    out = Path("out") / f"fuzz-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    any_broke = False
    for surface in (arguments.surface,) if arguments.surface else SURFACES:
        kept = (arguments.corpus or Path("out") / "fuzz-corpus") / surface
        try:
            tried, broke = fuzz(surface, seconds, out, kept, arguments.input)
        except KeyboardInterrupt:
            print(f"fuzz: interrupted; {out / surface} has what there is", file=sys.stderr)
            return 130
        if not tried and arguments.input is None:
            print(f"fuzz: the {surface} surface was not tried once; {out / surface / 'log'} says why", file=sys.stderr)
            return 4
        any_broke |= broke
        append(arguments.out, row(f"fuzz {surface}: inputs tried in {seconds} s", [float(tried)], unit=""))
        name = f"fuzz {surface}: inputs that break a property"
        append(arguments.out, row(name, [float(broke)], goal=0.0, judged="ours", unit=""))
    return int(any_broke)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
