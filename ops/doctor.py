"""`ops doctor`: walks the list of known troubles and prints what is wrong and the command that mends it.

It must not change anything: it calls the endpoint four times and asks AWS read-only questions.
"""

import argparse
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.text import Text

from ops import COMMAND
from ops.aws import Account, aws_sentences, logs_client
from ops.command import LAMBDA_PREFIX, Surroundings, account_of, add_account_flags, pace_of, run_folder
from ops.diagnosis import Finding, diagnose
from ops.failures import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, EXIT_PASS, EXIT_UNREACHABLE, UsageError
from ops.logs import Pace, groups_there
from ops.probes import Facts, ask_aws, ask_bucket, ask_endpoint
from ops.reading import printable
from ops.settings_file import read_setting
from ops.times import parse_moment, to_ms

HELP = "find what is wrong with an endpoint and its function, and how to mend it"
EXAMPLES = """examples:
  python -m ops doctor --endpoint https://ID.execute-api.us-east-1.amazonaws.com/dev/lambda/mcp/
  python -m ops doctor --function code-interpreter           AWS's side only
  AWS_ENDPOINT_URL=http://127.0.0.1:8080 MCP_ENDPOINT_URL=http://127.0.0.1:8080/dev/lambda/mcp/ python -m ops doctor
"""
_SETTINGS = Path("etc/environment.sh")
_MARKS = {"ok": ("ok     ", "green"), "wrong": ("WRONG  ", "bold red"), "unknown": ("unknown", "yellow")}
# Troubles that mean nobody let us in, as opposed to something found wrong inside.
_SHUT_OUT = {"endpoint", "key", "stage"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ops doctor`."""
    parser.add_argument("--endpoint", metavar="URL", help="MCP endpoint (else MCP_ENDPOINT_URL)")
    parser.add_argument(
        "--function",
        metavar="NAME",
        help="Lambda function, with or without :ALIAS (else P_FN_NAME, else the only log group's)",
    )
    parser.add_argument(
        "--since", default="24h", metavar="TIME", help="judge memory by invocations since (default 24h)"
    )
    parser.add_argument(
        "--bucket", metavar="NAME", help="S3 bucket of deployments (else BUCKET, also of etc/environment.sh)"
    )
    parser.add_argument("--no-aws", action="store_true", help="look at the endpoint only")
    parser.add_argument("--out", metavar="DIR", help="folder for findings.jsonl (default out/doctor-<UTC time>)")
    parser.add_argument("--json", action="store_true", help="findings as JSON Lines")
    add_account_flags(parser)


def run(args: argparse.Namespace, around: Surroundings) -> int:
    """Prints the findings; 0 nothing wrong, 1 something wrong, 3 nobody let us in, 4 nothing could be judged."""
    url = args.endpoint or os.environ.get("MCP_ENDPOINT_URL")
    facts: dict[str, Any] = {"asks_aws": not args.no_aws}
    if url:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"The endpoint {url!r} is no URL; write it like https://HOST/dev/lambda/mcp/.")
        around.say(f"calling {url} ...")
        with httpx.Client(follow_redirects=False) as client:
            facts |= ask_endpoint(url, os.environ.get("MCP_API_KEY") or None, client)
    if not args.no_aws:
        facts |= _aws_facts(args, around)
    findings = diagnose(Facts(**facts))
    folder = run_folder(args.out, "doctor", around.now())
    lines = "".join(finding.as_json() + "\n" for finding in findings)
    (folder / "findings.jsonl").write_text(lines, encoding="utf-8")
    if args.json:
        around.out.write(lines)
    else:
        _print(findings, around)
    return exit_code(findings)


def exit_code(findings: list[Finding]) -> int:
    """The verdict of `findings` by DESIGN.md's table."""
    levels = {finding.level for finding in findings}
    if any(f.level == "wrong" and f.id in _SHUT_OUT for f in findings):
        return EXIT_UNREACHABLE
    if "wrong" in levels:
        return EXIT_GATE_FAILED
    return EXIT_PASS if "ok" in levels else EXIT_INCONCLUSIVE


def _aws_facts(args: argparse.Namespace, around: Surroundings) -> dict[str, Any]:
    account = account_of(args, around)
    now = around.now()
    since = parse_moment(args.since, now, around.zone)
    pace = pace_of(account)
    with aws_sentences(account):
        name = args.function or os.environ.get("P_FN_NAME") or _only_function(account, pace)
        if name:
            around.say(f"asking AWS about {name} ...")
        facts = ask_aws(account, name, to_ms(since), to_ms(now + timedelta(seconds=1)), pace) if name else {}
        bucket = args.bucket or os.environ.get("BUCKET") or read_setting(_SETTINGS, "BUCKET")
        return facts | (ask_bucket(account, bucket) if bucket else {})


def _only_function(account: Account, pace: Pace) -> str | None:
    there = groups_there(logs_client(account), LAMBDA_PREFIX, pace)
    return there[0].removeprefix(LAMBDA_PREFIX) if len(there) == 1 else None


def _print(findings: list[Finding], around: Surroundings) -> None:
    colour = around.out.isatty() and "NO_COLOR" not in os.environ
    console = Console(file=around.out, force_terminal=colour, no_color=not colour, highlight=False, soft_wrap=True)
    for finding in findings:
        mark, style = _MARKS[finding.level]
        console.print(Text.assemble((mark, style), f"  {finding.id}: {printable(finding.says)}"))
        if finding.mend:
            console.print(Text(f"           mend: {finding.mend.replace('python -m ops', COMMAND)}"))
    wrong = sum(finding.level == "wrong" for finding in findings)
    console.print(Text(f"{wrong} wrong, {len(findings)} findings"))
