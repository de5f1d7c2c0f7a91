"""`python -m check gate`: publish what was deployed, judge that version beside the one that serves, move the alias.

The alias moves only after conformance and load have passed, and moves back if the endpoint then fails its smoke checks.
It starts the other rooms as commands, and changes one thing in AWS: where the alias points.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError, WaiterError
from pydantic import BaseModel, ConfigDict, Field

from check import COMMAND
from check.bridge import bridge
from check.steps import Step, StepFailed, gravest, read_dotenv, run_step
from check.verdict import StepRecord, step_records

EPILOG = """examples:
  python -m check gate --function code-interpreter
  python -m check gate --function code-interpreter --endpoint https://…/prod/lambda/mcp/ --suite="-n 4 --strict"
  python -m check gate --function code-interpreter --candidate 12 --ab="smoke --rate 10 --duration 120 --effect 10"
  python -m check gate --candidate https://…/candidate/lambda/mcp/ --previous https://…/prod/lambda/mcp/

What is judged is $LATEST, published, or the version that --candidate names. Put new code there without a deploy, which
would move the alias by itself: aws lambda update-function-code. The alias must be the one that the API calls; this
project's template calls `live`. It needs lambda:GetFunctionConfiguration, PublishVersion, InvokeFunction, GetAlias and
UpdateAlias. A version that was refused stays, to be looked at; with SnapStart it costs until it is deleted. With two
URLs nothing is moved: two deployments are judged, and what follows is the caller's.

exit codes: 0 promoted (of two URLs: passed), 1 a gate failed or the promotion was rolled back, 2 usage or
            configuration, 3 unreachable or refused, 4 inconclusive (also: nothing new to judge), 130 interrupted.
            Only after 0 has the alias moved.
"""
GATEWAY_S = 29  # how long API Gateway would wait for the function
SUITE = "-n 4"
MOST_FAILED = 0.01  # the share of calls that may fail under load, whatever the version that serves does
NOT_JUDGED = ("in_flight", "dropped")  # outcomes that say something of the generator only
AB = "smoke --duration 60 --rounds 8 --effect 20"

Outcome = Literal["promoted", "passed", "refused", "rolled back"]
RunStep = Callable[..., Step]


class GateRecord(BaseModel):
    """gate.json, schema deploy-gate/1. `previous` and `candidate` are versions of `function`, or two URLs.

    `serves` is the version behind the alias when the gate ended; of two URLs nothing is known or moved.
    """

    model_config = ConfigDict(extra="forbid")

    schema_: Literal["deploy-gate/1"] = Field(default="deploy-gate/1", alias="schema")
    function: str | None
    alias: str | None
    previous: str
    candidate: str
    serves: str | None
    outcome: Outcome
    exit_code: int
    reason: str
    started_at: datetime
    steps: list[StepRecord]

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=1)


@dataclass(slots=True)
class Release:
    """The alias and the two versions; `revision` guards against somebody else moving it meanwhile."""

    client: Any
    function: str
    alias: str
    previous: str
    candidate: str
    revision: str

    def point_at(self, version: str) -> None:
        """Move the alias. Raises ClientError, also where it was moved by somebody else."""
        told = self.client.update_alias(
            FunctionName=self.function, Name=self.alias, FunctionVersion=version, RevisionId=self.revision
        )
        self.revision = told["RevisionId"]


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"{COMMAND} gate",
        description="Gate a deploy: judge a new version beside the one that serves, then promote it or change nothing.",
        epilog=EPILOG.replace("python -m check", COMMAND),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--function", metavar="NAME", help="the Lambda function")
    parser.add_argument("--alias", default="live", help="the alias that the API calls (live)")
    parser.add_argument(
        "--candidate", metavar="N|URL", help="a published version (default: $LATEST is published), or an endpoint"
    )
    parser.add_argument("--previous", metavar="URL", help="the endpoint that a candidate's URL is judged beside")
    parser.add_argument(
        "--endpoint", metavar="URL", help="checked after the promotion (default MCP_ENDPOINT_URL, else by Invoke)"
    )
    parser.add_argument("--suite", default=SUITE, metavar="OPTIONS", help=f"of the conformance suite ({SUITE!r})")
    parser.add_argument("--ab", default=AB, metavar="OPTIONS", help=f"profile and options of load ab ({AB!r})")
    parser.add_argument("--out", type=Path, metavar="DIR", help="records and reports (default out/gate-<UTC time>)")
    parser.add_argument("--json", action="store_true", help="gate.json on stdout instead of lines")
    options = parser.parse_args(argv)
    by_url = bool(options.candidate and options.candidate.startswith(("http://", "https://")))
    if by_url == bool(options.function) or by_url != bool(options.previous):
        parser.error("give --function NAME, or both --candidate URL and --previous URL")
    return options


def run(argv: list[str]) -> int:
    """Runs the gate and returns its exit code."""
    try:
        options = parse(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    read_dotenv(Path(".env"))
    started = datetime.now(UTC)
    out: Path = options.out or Path("out") / f"gate-{started:%Y%m%dT%H%M%SZ}"
    try:
        record = judge(options, out, started)
    except StepFailed as failed:
        say(str(failed))
        return failed.code
    except KeyboardInterrupt:
        say("interrupted before anything was judged")
        return 130
    (out / "gate.json").write_text(record.to_json() + "\n", encoding="utf-8")
    if options.json:
        print(record.to_json())
    else:
        for step in record.steps:
            print(f"{step.name:<12} {step.verdict}")
        serves = f"; {record.alias} is version {record.serves}" if record.alias else ""
        print(f"{record.outcome}: {record.reason}{serves}   {out}")
    return record.exit_code


def judge(options: argparse.Namespace, out: Path, started: datetime) -> GateRecord:
    """All of it. Raises StepFailed where it cannot begin."""
    if not options.function:
        out.mkdir(parents=True, exist_ok=True)
        steps, outcome, reason = decide(None, (options.previous, options.candidate), "", options, out, run_step)
        return record_of(options.previous, options.candidate, started, steps, outcome, reason)
    with aws_sentences():
        client = lambda_client()
        release, per_tenant = release_of(client, options.function, options.alias, options.candidate)
    out.mkdir(parents=True, exist_ok=True)
    say(f"{release.function}: version {release.candidate} is judged beside {release.previous}, which serves")
    with bridge(client, release.function, per_tenant=per_tenant) as bridged:
        endpoint = options.endpoint or os.environ.get("MCP_ENDPOINT_URL") or bridged.endpoint(release.alias)
        urls = (bridged.endpoint(release.previous), bridged.endpoint(release.candidate))
        steps, outcome, reason = decide(release, urls, endpoint, options, out, run_step)
    return record_of(release.previous, release.candidate, started, steps, outcome, reason, release)


def record_of(
    previous: str,
    candidate: str,
    started: datetime,
    steps: list[Step],
    outcome: Outcome,
    reason: str,
    release: Release | None = None,
) -> GateRecord:
    """What is written down of a gate that has ended."""
    code = gravest([step.exit_code for step in steps])
    if (outcome == "rolled back" and code != 130) or (outcome == "refused" and code == 0):
        code = 1
    return GateRecord(
        schema="deploy-gate/1",
        function=release.function if release else None,
        alias=release.alias if release else None,
        previous=previous,
        candidate=candidate,
        serves=(candidate if outcome == "promoted" else previous) if release else None,
        outcome=outcome,
        exit_code=code,
        reason=reason,
        started_at=started,
        steps=step_records(steps),
    )


def decide(
    release: Release | None,
    urls: tuple[str, str],
    endpoint: str,
    options: argparse.Namespace,
    out: Path,
    run_step: RunStep,
) -> tuple[list[Step], Outcome, str]:
    """Run the gates until one does not pass; after all, promote, check what clients now get, and roll back if need be.

    `urls` are the previous version's endpoint and the candidate's; `endpoint` is the one that clients call. Without a
    release there is nothing to promote.
    """
    previous, candidate = urls
    profile, *ab = shlex.split(options.ab)
    gates: list[tuple[str, list[str]]] = [
        ("conformance", ["conformance", candidate, *shlex.split(options.suite)]),
        ("load ab", ["load", "ab", profile, previous, candidate, "--yes", *ab]),
    ]
    steps: list[Step] = []
    for name, arguments in gates:
        say(f"{name} ...")
        steps.append(run_step(name, arguments, out / name.replace(" ", "-"), {}, records="records"))
        if steps[-1].exit_code:
            return steps, "refused", f"{name}: {steps[-1].verdict}"
    if failing := more_failures(out / "load-ab" / "records"):
        return steps, "refused", failing
    if release is None:
        return steps, "passed", "conformance and load passed"
    with aws_sentences():
        release.point_at(release.candidate)
    say(f"{release.alias} points at version {release.candidate}; smoke checks at {endpoint} ...")
    passed = False
    try:
        steps.append(run_step("smoke", ["conformance", endpoint, "--smoke"], out / "smoke", {}, records="records"))
        passed = steps[-1].exit_code == 0
    finally:
        if not passed:
            with aws_sentences(f"{release.alias} still points at version {release.candidate}, which failed; "):
                release.point_at(release.previous)
    if passed:
        return steps, "promoted", "conformance, load and smoke checks passed"
    return steps, "rolled back", f"smoke checks after the promotion: {steps[-1].verdict}"


def more_failures(directory: Path) -> str:
    """Why the candidate's calls failed too often under load; empty when they did not.

    The comparison of the two sides is of good answers alone: a version that fails half of its calls may be fast.
    """
    (base_failed, base), (failed, all_) = (failures(directory / side) for side in ("base", "candidate"))
    share, base_share = failed / max(all_, 1), base_failed / max(base, 1)
    if share <= MOST_FAILED or share <= 2 * base_share:
        return ""
    return (
        f"load ab: {failed} of {all_} calls of the candidate failed, {base_failed} of {base} of the version that serves"
    )


def failures(directory: Path) -> tuple[int, int]:
    """Calls that the endpoint failed, and all that it was sent, by the raw rows of every round."""
    outcomes = [
        json.loads(line)["outcome"]
        for path in sorted(directory.rglob("requests*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    judged = [outcome for outcome in outcomes if outcome not in NOT_JUDGED]
    return sum(outcome != "ok" for outcome in judged), len(judged)


def release_of(client: Any, function: str, alias: str, candidate: str | None) -> tuple[Release, bool]:
    """The two versions, and whether the function isolates tenants. Raises StepFailed, ClientError, BotoCoreError."""
    found = client.get_function_configuration(FunctionName=function)
    pointed = client.get_alias(FunctionName=function, Name=alias)
    if (pointed.get("RoutingConfig") or {}).get("AdditionalVersionWeights"):
        raise StepFailed(f"alias {alias} of {function} splits its calls between versions; let it point at one", 2)
    if candidate is None:
        client.get_waiter("function_updated_v2").wait(FunctionName=function)
        candidate = str(client.publish_version(FunctionName=function)["Version"])
    if candidate == pointed["FunctionVersion"]:
        told = f"version {candidate} of {function} serves already, so there is nothing to judge; update its code first"
        raise StepFailed(told, 4)
    client.get_waiter("published_version_active").wait(FunctionName=function, Qualifier=candidate)
    release = Release(client, function, alias, pointed["FunctionVersion"], candidate, pointed["RevisionId"])
    return release, (found.get("TenancyConfig") or {}).get("TenantIsolationMode") == "PER_TENANT"


def lambda_client() -> Any:
    """boto3's, with the environment's credentials; a call waits as long as API Gateway would, and is not repeated."""
    config = Config(read_timeout=GATEWAY_S, retries={"total_max_attempts": 1}, max_pool_connections=64)
    return boto3.client("lambda", config=config)


@contextmanager
def aws_sentences(before: str = "") -> Iterator[None]:
    """Turns what AWS refuses into one sentence, with `before` in front, and an exit code (StepFailed)."""
    try:
        yield
    except ClientError as error:
        said = error.response["Error"]
        code = 2 if said["Code"] in ("ResourceNotFoundException", "ValidationException") else 3
        raise StepFailed(f"{before}Lambda said {said['Code']}: {said.get('Message', '')}", code) from error
    except NoRegionError as error:
        raise StepFailed("no AWS region is set; set AWS_DEFAULT_REGION, in the environment or .env", 2) from error
    except NoCredentialsError as error:
        raise StepFailed("no AWS credentials were found; set AWS_PROFILE, or run aws configure", 2) from error
    except WaiterError as error:
        raise StepFailed(f"{before}the version did not become ready: {error}", 3) from error
    except BotoCoreError as error:
        raise StepFailed(f"{before}AWS cannot be asked: {error}", 3) from error


def say(line: str) -> None:
    print(f"gate: {line}", file=sys.stderr, flush=True)
