"""The steps of a check: each is a command of another room, with its output kept and its exit code read."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from check import COMMAND

ROOMS = Path(__file__).resolve().parents[1]
READY_S = 60  # how long the local stack may take to say that it listens

# Which of several exit codes speaks for the whole (DESIGN: exit codes), the gravest first.
GRAVITY = (130, 2, 3, 1, 5, 4, 0)
MEANING = {
    0: "pass",
    1: "gate failed",
    2: "usage or configuration",
    3: "target unreachable or credentials refused",
    4: "inconclusive",
    5: "stale baseline",
    130: "interrupted",
}


class StepFailed(Exception):
    """A step that cannot go on; the sentence is for a person, `code` is the exit code."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True, slots=True)
class Step:
    """One command that was run, its exit code, how long it took, and where its output and files are."""

    name: str
    command: str
    exit_code: int
    seconds: float
    directory: Path

    @property
    def verdict(self) -> str:
        return MEANING.get(self.exit_code, f"broke off with {self.exit_code}")


@dataclass(frozen=True, slots=True)
class Target:
    """What is checked: an endpoint, and for the log report an AWS endpoint and a log group where they are known."""

    endpoint: str
    environment: Mapping[str, str]
    log_group: str | None = None
    local: bool = True


@contextlib.contextmanager
def local_stack(log: Path) -> Iterator[Target]:
    """The local stack on a free port, ended with everything it started. Raises StepFailed where it does not come up."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "sam.local", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C reaches us, and we end it in order
        )
    try:
        ready = _ready_line(process, log)
        credentials = {
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        environment = credentials | {"AWS_ENDPOINT_URL": ready["aws_endpoint_url"]}
        yield Target(ready["endpoint"], environment, ready["log_group"])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        if process.poll() is None:
            process.kill()


def _ready_line(process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    assert process.stdout is not None
    timer = _kill_after(process, READY_S)
    line = process.stdout.readline()
    timer()
    if not line:
        raise StepFailed(f"the local stack did not come up; its last words are in {log}", 2)
    ready: dict[str, Any] = json.loads(line)
    return ready


def _kill_after(process: subprocess.Popen[bytes], seconds: float) -> Callable[[], None]:
    import threading

    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    return timer.cancel


def run_step(
    name: str, arguments: list[str], directory: Path, environment: Mapping[str, str], records: str = "."
) -> Step:
    """Run `python -m ARGUMENTS --out DIRECTORY/records`; its progress goes to the terminal, its report to a file."""
    directory.mkdir(parents=True, exist_ok=True)
    # -P: with -m alone the current directory comes first, where a user may have a `load` of their own.
    command = [sys.executable, "-P", "-m", *arguments, "--out", str(directory / records)]
    path = os.pathsep.join(filter(None, (str(ROOMS), os.environ.get("PYTHONPATH"))))
    started = time.monotonic()
    with (directory / "terminal.txt").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, env=os.environ | {"PYTHONPATH": path} | dict(environment))
        try:
            code = process.wait()
        except KeyboardInterrupt:
            # The terminal sent it to the step too: it keeps what it has and ends.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            code = 130
    shown = f"{COMMAND.removesuffix('check')}{shlex.join(arguments)}"
    return Step(name, shown, code, time.monotonic() - started, directory)


def read_dotenv(path: Path) -> None:
    """What a .env file says of the endpoint, its function and AWS, where the environment has none of that name."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, value = (part.strip() for part in line.removeprefix("export ").partition("="))
        if value and name.startswith(("MCP_", "AWS_", "P_FN_", "OPS_")):
            os.environ.setdefault(name, value.strip("\"'"))


def gravest(codes: list[int]) -> int:
    """The exit code of the whole; a code outside the table (a crash) counts as 2."""
    known = [code if code in GRAVITY else 2 for code in codes]
    return min(known, key=GRAVITY.index, default=4)


def read(step: Step, name: str) -> dict[str, Any]:
    """A JSON file that a step left, or nothing: a step that broke off leaves none."""
    try:
        found: dict[str, Any] = json.loads((step.directory / name).read_text())
    except (OSError, ValueError):
        return {}
    return found
