"""What every ops command shares: its surroundings, the flags that choose groups and a range, progress, and run folders.

It must not know any one command.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from heapq import merge
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ops.aws import Account, aws_sentences, find_account, logs_client, split_name
from ops.failures import Inconclusive, UsageError
from ops.logs import CALLS_PER_SECOND, LogEvent, Pace, Seen, groups_there, pull
from ops.times import parse_moment, show, to_ms

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

LAMBDA_PREFIX = "/aws/lambda/"
# Inside this machine no quota holds.
_LOCAL_CALLS_PER_SECOND = 10_000.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The world a command runs in; tests give their own."""

    now: Callable[[], datetime]
    zone: tzinfo
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)

    def say(self, sentence: str) -> None:
        """One line for the person, on standard error."""
        print(sentence, file=self.err, flush=True)


@dataclass(frozen=True, slots=True)
class Selection:
    """The log groups and the range [start, end) that a command reads, and the client to read them with."""

    account: Account
    client: "CloudWatchLogsClient"
    groups: tuple[str, ...]
    start: datetime
    end: datetime
    pace: Pace

    @property
    def source(self) -> str:
        """Where the logs are, for a report's head."""
        return self.account.endpoint_url or f"AWS {self.account.region}"

    def batches(
        self, pattern: str | None = None, since: datetime | None = None, seen: Seen | None = None
    ) -> Iterator[list[LogEvent]]:
        """Every event of the selection from `since` on, once each and none that `seen` has."""
        start_ms, end_ms = to_ms(max(since, self.start) if since else self.start), to_ms(self.end)
        with aws_sentences(self.account):
            yield from pull(self.client, self.groups, start_ms, end_ms, self.pace, pattern=pattern, seen=seen)

    def in_order_of_time(self, pattern: str | None = None) -> Iterator[list[LogEvent]]:
        """The same, several groups' events among one another as they happened."""
        if len(self.groups) == 1:
            return self.batches(pattern)
        each = (chain.from_iterable(replace(self, groups=(group,)).batches(pattern)) for group in self.groups)
        return ([event] for event in merge(*each, key=attrgetter("timestamp_ms")))


def add_account_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that say which AWS."""
    group = parser.add_argument_group("where")
    group.add_argument("--region", help="AWS region (else AWS_REGION, AWS_DEFAULT_REGION, the profile's)")
    group.add_argument("--profile", help="AWS profile (else AWS_PROFILE)")
    group.add_argument("--endpoint-url", help="another AWS, such as the local stack (else AWS_ENDPOINT_URL)")


def add_group_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that say which log groups."""
    parser.add_argument(
        "--group",
        action="append",
        default=[],
        metavar="NAME",
        help="log group; may be given again (else OPS_LOG_GROUP)",
    )
    parser.add_argument("--function", metavar="NAME", help="function whose log group to read (else P_FN_NAME)")


def add_range_flags(parser: argparse.ArgumentParser, since: str = "1h") -> None:
    """Flags that say which time."""
    parser.add_argument(
        "--since", default=since, metavar="TIME", help=f"90s, 2h30m, yesterday, 14:30, ISO (default {since})"
    )
    parser.add_argument("--until", default="now", metavar="TIME", help="end of the range (default now)")


def account_of(args: argparse.Namespace, around: Surroundings) -> Account:
    """The account the flags and the environment name; says so when the region is nobody's choice."""
    account = find_account(args.region, args.profile, args.endpoint_url)
    if account.region_is_default:
        around.say(f"No region is configured; using {account.region} on {account.endpoint_url}.")
    return account


def selection_of(args: argparse.Namespace, around: Surroundings, *, goes_on: bool = False) -> Selection:
    """The selection the flags and the environment name, echoed as absolute times; with `goes_on` it has no end."""
    now = around.now()
    start = parse_moment(args.since, now, around.zone)
    end = parse_moment(args.until, now, around.zone)
    if start >= end:
        raise UsageError(
            f"The range is empty: --since is {show(start, around.zone)} and --until is {show(end, around.zone)}; "
            "--since must name the earlier time."
        )
    account = account_of(args, around)
    pace = pace_of(account)
    client = logs_client(account)
    groups = find_groups(args, client, account, pace)
    until = "on" if goes_on else f"to {show(end, around.zone)}"
    around.say(f"{', '.join(groups)} from {show(start, around.zone)} {until}")
    return Selection(account, client, groups, start, end, pace)


def pace_of(account: Account) -> Pace:
    """The one pace of a command's calls to `account`."""
    return Pace(_LOCAL_CALLS_PER_SECOND if account.is_local else CALLS_PER_SECOND)


def find_groups(
    args: argparse.Namespace, client: "CloudWatchLogsClient", account: Account, pace: Pace
) -> tuple[str, ...]:
    """--group, else --function, else OPS_LOG_GROUP, else P_FN_NAME, else the only Lambda log group there is."""
    if args.group:
        return tuple(dict.fromkeys(args.group))
    if args.function:
        return (LAMBDA_PREFIX + split_name(args.function)[0],)
    if os.environ.get("OPS_LOG_GROUP"):
        return tuple(os.environ["OPS_LOG_GROUP"].split(","))
    if os.environ.get("P_FN_NAME"):
        return (LAMBDA_PREFIX + split_name(os.environ["P_FN_NAME"])[0],)
    with aws_sentences(account):
        there = groups_there(client, LAMBDA_PREFIX, pace)
    if len(there) == 1:
        return (there[0],)
    where = account.endpoint_url or account.region
    if not there:
        raise Inconclusive(
            f"There is no log group under {LAMBDA_PREFIX} on {where}; call the function once, or give --group."
        )
    shown = ", ".join(there[:10]) + (f" and {len(there) - 10} more" if len(there) > 10 else "")
    raise UsageError(f"{where} has {len(there)} Lambda log groups; choose with --group: {shown}.")


def run_folder(out: str | None, kind: str, now: datetime) -> Path:
    """`out/<kind>-<UTC time>/`, or `out` as given; made if it is not there."""
    folder = Path(out) if out else Path("out") / f"{kind}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UsageError(f"Cannot make the folder {folder} ({problem.strerror}); give another with --out.") from None
    return folder


def with_progress(counts: Iterable[int], what: str, around: Surroundings) -> int:
    """Runs `counts` to its end and returns the last; after two seconds says how far it is."""
    is_terminal = around.err.isatty()
    said_at, last, shown = time.monotonic(), 0, False
    every_s = 0.2 if is_terminal else 10.0
    started = said_at
    for last in counts:
        now = time.monotonic()
        if now - started > 2 and now - said_at >= every_s:
            print(f"{last:,} {what}", end="\r" if is_terminal else "\n", file=around.err, flush=True)
            said_at, shown = now, is_terminal
    if shown:
        print(" " * 60, end="\r", file=around.err, flush=True)
    return last
