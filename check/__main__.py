"""`python -m check [URL]`: conformance, load with a cold-start burst, and the logs of that very run, in one verdict."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from check import COMMAND, gate, page
from check.steps import MEANING, Step, StepFailed, Target, gravest, local_stack, read_dotenv, run_step
from check.verdict import rows, verdict_of

EPILOG = """examples:
  python -m check                    the local stack, started and ended here
  python -m check https://…/prod/lambda/mcp/
                                     a deployed endpoint (MCP_API_KEY is sent as x-api-key; with P_FN_NAME or
                                     OPS_LOG_GROUP and AWS credentials its logs are reported too; all of these
                                     may stand in .env, where make apigw writes them)
  python -m check gate --help        judge a new version beside the one that serves, promote it or leave all as it is

exit codes: 0 pass, 1 gate failed, 2 usage or configuration, 3 unreachable or credentials refused,
            4 inconclusive, 5 stale baseline, 130 interrupted
"""


# Statuses that say something of the key or the address, and nothing of the interpreter behind it.
REFUSALS = {
    401: "MCP_API_KEY, in the environment or .env",
    403: "MCP_API_KEY, in the environment or .env, and that the URL has the stage and /lambda/mcp/",
    404: "the URL: https://host/stage/lambda/mcp/",
    405: "the URL: https://host/stage/lambda/mcp/",
}


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description=__doc__.replace("python -m check", COMMAND),
        epilog=EPILOG.replace("python -m check", COMMAND),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "url", nargs="?", metavar="URL", help="the endpoint; without one, in the repository, the local stack"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where everything goes (default: out/check-<UTC time>)")
    parser.add_argument("--json", action="store_true", help="verdict.json on stdout instead of the screen")
    return parser.parse_args(argv)


def run(argv: list[str]) -> int:
    if argv[:1] == ["gate"]:
        return gate.run(argv[1:])
    arguments = parse(argv)
    if arguments.url is None and importlib.util.find_spec("sam") is None:
        print("check: the local stack is in the repository only; give the URL of an endpoint", file=sys.stderr)
        return 2
    if arguments.url is not None and not re.match(r"https?://[^/\s]+", arguments.url):
        print(f"check: {arguments.url!r} is no URL; give one like https://host/stage/lambda/mcp/", file=sys.stderr)
        return 2
    started = datetime.now().astimezone()
    out = arguments.out or Path("out") / f"check-{started.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    out.mkdir(parents=True, exist_ok=True)
    steps: dict[str, Step] = {}
    info: dict[str, Any] | None = None
    endpoint = arguments.url or "the local stack"
    problem: StepFailed | None = None
    try:
        with target_of(arguments.url, out) as target:
            endpoint = target.endpoint
            info = all_steps(target, out, steps)
    except StepFailed as failed:
        problem = failed
    except KeyboardInterrupt:
        problem = StepFailed("interrupted; what was measured is kept", 130)
    code = gravest([step.exit_code for step in steps.values()] + ([problem.code] if problem else []))
    table = rows(steps, info)
    index = page.write(
        out,
        endpoint=endpoint,
        verdict=MEANING[code],
        started=started,
        rows=table,
        steps=list(steps.values()),
        problem=str(problem or ""),
    )
    latest = Path("out") / "index.html"
    if out.parent == latest.parent:
        # The page of the newest run at a fixed place; its links are relative to its own directory.
        page.point(latest, index)
    record = verdict_of(endpoint, code, str(problem or ""), started, table, list(steps.values()))
    (out / "verdict.json").write_text(record.to_json() + "\n", encoding="utf-8")
    if arguments.json:
        print(record.to_json())
    else:
        show(table, MEANING[code], problem, index)
    return code


@contextlib.contextmanager
def target_of(url: str | None, out: Path) -> Iterator[Target]:
    if url:
        read_dotenv(Path(".env"))
        yield Target(url, {}, os.environ.get("OPS_LOG_GROUP"), local=False)
        return
    say("1/5 local stack: the function under the Lambda runtime client, API Gateway and CloudWatch Logs")
    began = time.monotonic()
    with local_stack(out / "local-stack.log") as target:
        say(f"    ready in {time.monotonic() - began:.1f} s at {target.endpoint}")
        yield target


def all_steps(target: Target, out: Path, steps: dict[str, Step]) -> dict[str, Any]:
    """Run the steps in order into `steps`; returns what the endpoint says of its environment."""
    if not target.local:
        say("1/5 the endpoint: whether it lets us in, and is this interpreter")
        ask(target.endpoint)
    # First, while there is no warm environment: the burst then shows what it is for.
    say("2/5 cold starts: a burst of calls that need an environment each")
    step(steps, "coldstart", ["load", "coldstart", target.endpoint, "-n", "5"], out, target)
    if steps["coldstart"].exit_code == 3:
        raise StepFailed(f"{target.endpoint} cannot be reached or refuses the credentials", 3)
    say("3/5 conformance: hundreds of programs are sent, so this takes up to a minute")
    step(steps, "conformance", ["conformance", target.endpoint, "-n", "4"], out, target)
    say("4/5 load: 18 s of arrivals at intended times")
    step(steps, "load", ["load", "run", "smoke", target.endpoint, "--yes"], out, target)
    if target.local or target.log_group or os.environ.get("P_FN_NAME"):
        say("5/5 the logs of this very run")
        group = ["--group", target.log_group] if target.log_group else []
        step(steps, "report", ["ops", "report", "--since", "1h", *group], out, target)
    else:
        say("5/5 no log report: set P_FN_NAME or OPS_LOG_GROUP to name the function's logs")
    return environment_info(target.endpoint)


def step(steps: dict[str, Step], name: str, arguments: list[str], out: Path, target: Target) -> None:
    done = steps[name] = run_step(name, arguments, out / name, target.environment)
    say(f"    {done.verdict} in {done.seconds:.0f} s")
    if done.exit_code == 130:
        raise KeyboardInterrupt


def environment_info(endpoint: str) -> dict[str, Any]:
    """The endpoint's own `get_environment_info`; nothing where it does not answer."""
    try:
        return ask(endpoint)
    except StepFailed:
        return {}


def ask(endpoint: str) -> dict[str, Any]:
    """What `get_environment_info` answers to a bare call; {} while the endpoint answers 5xx, which the steps explain.

    Raises StepFailed where nobody is there, we are not let in, or it is something else that answers.
    """
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "get_environment_info", "arguments": {}},
    }
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if key := os.environ.get("MCP_API_KEY"):
        headers["x-api-key"] = key
    try:
        with urllib.request.urlopen(
            urllib.request.Request(endpoint, json.dumps(call).encode(), headers), timeout=30
        ) as answer:
            body = answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            return {}
        if error.code in REFUSALS:
            raise StepFailed(f"{endpoint} answered {error.code}; check {REFUSALS[error.code]}", 3) from None
        body = ""
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise StepFailed(f"{endpoint} cannot be reached: {reason}; check the URL and that it is up", 3) from None
    data = next((line[5:] for line in body.splitlines() if line.startswith("data:")), body)
    try:
        found: dict[str, Any] = json.loads(data)["result"]["structuredContent"]
    except (ValueError, KeyError, TypeError):
        other = COMMAND.removesuffix("check") + "conformance"
        raise StepFailed(f"{endpoint} is not this interpreter; {other} URL judges any MCP server", 2) from None
    return found


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def show(table: list[Any], verdict: str, problem: StepFailed | None, index: Path) -> None:
    console = Console(width=min(shutil.get_terminal_size((110, 24)).columns, 140))
    colours = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for row in table:
        grid.add_row(row.name, f"[{colours.get(row.standing, 'yellow')}]{row.standing}[/]", row.figures)
    console.print(grid)
    if problem is not None:
        console.print(str(problem), markup=False)
    console.print(f"verdict: [{colours.get(verdict, 'red')}]{verdict}[/]   {index}")


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
