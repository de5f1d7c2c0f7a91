"""Starts Locust on a plan in a process of its own and waits for it; turns Ctrl-C into a clean, recorded end.

The parent never imports gevent. It leaves the verdict to the reports, which are made from the files left behind.
"""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from load.plan import Plan
from load.rows import BadRecord, read_runs, write_run

ROOT = Path(__file__).resolve().parent.parent
LOCUSTFILE = Path(__file__).resolve().parent / "locustfile.py"
KILL_AFTER_S = 20.0


class Unreachable(Exception):
    """The endpoint does not even accept a connection; the message says where and why."""


class LaunchFailed(Exception):
    """Locust ended in a way that left no run behind; the message says what it said."""


def check_reachable(endpoint: str, timeout_s: float = 10.0) -> None:
    """Opens and closes one connection, with its TLS: an MCP call would use up a cold start. Raises Unreachable."""
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=timeout_s) as opened:
            if parts.scheme == "https":
                ssl.create_default_context().wrap_socket(opened, server_hostname=parts.hostname).close()
    except OSError as error:
        raise Unreachable(
            f"cannot reach {parts.hostname}:{port}: {error.strerror or error}; is the endpoint up and its URL right?"
        ) from error


def launch(plan: Plan, endpoint: str, out: Path, workers: int = 1, environment: Mapping[str, str] = os.environ) -> bool:
    """Runs the plan against the endpoint, raw records to `out`. Returns whether it was interrupted.

    With more than one worker Locust forks that many and one master. Raises LaunchFailed.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "plan.json").write_text(plan.model_dump_json(indent=1) + "\n", encoding="utf-8")
    # -P: with -m alone the current directory comes first, where a user may have a `load` of their own.
    command = [sys.executable, "-P", "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--host", endpoint, "--plan-json", f"@{out / 'plan.json'}", "--out", str(out), "--raw-only"]
    command += ["--loglevel", "WARNING", "--logfile", str(out / "locust.log")]
    if workers > 1:
        command += ["--processes", str(workers), "--expect-workers-max-wait", "30", "--stop-timeout", "5"]
        # A port of our own: on Locust's fixed one a second run's workers would join the first run's master.
        port = str(_free_port())
        command += ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
    env = {**environment, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))}
    with (out / "locust.txt").open("w", encoding="utf-8") as said:
        process = subprocess.Popen(command, stdout=said, env=env, start_new_session=True)
        interrupted = _wait(process)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if interrupted:
        _mark_interrupted(out)
    elif not (out / "run.json").exists():
        raise LaunchFailed(
            f"Locust ended with code {process.returncode} before it sent anything; see {out / 'locust.log'}"
        )
    return interrupted


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes]) -> bool:
    """Waits for Locust; a first Ctrl-C or SIGTERM asks it to close its books, a second one kills it."""
    asked = 0

    def ask(signum: int, frame: object) -> None:
        nonlocal asked
        asked += 1
        _signal_all(process, signal.SIGTERM if asked == 1 else signal.SIGKILL)

    previous = {signum: signal.signal(signum, ask) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        while process.poll() is None:
            try:
                process.wait(timeout=KILL_AFTER_S if asked else 0.5)
            except subprocess.TimeoutExpired:
                if asked:
                    _signal_all(process, signal.SIGKILL)
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    return asked > 0


def _signal_all(process: subprocess.Popen[bytes], signum: int) -> None:
    """Signals Locust and its workers, which share the session started for them: a master that is interrupted alone
    leaves its workers behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signum)


def _mark_interrupted(out: Path) -> None:
    """Says in the run record that a person ended it, so that reports made later say so too."""
    try:
        record = read_runs(out)[0]
    except BadRecord:
        return
    record.ended = "interrupted"
    write_run(out / "run.json", record)
