"""`ops report`: pulls a range of logs to disk, then makes every figure, table and picture from those files.

It must not summarise what it has not written down first.
"""

import argparse
import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ops import insights, tables
from ops.aws import aws_sentences
from ops.command import (
    Selection,
    Surroundings,
    add_account_flags,
    add_group_flags,
    add_range_flags,
    run_folder,
    selection_of,
    with_progress,
)
from ops.comparison import compare
from ops.failures import EXIT_PASS, Inconclusive, UsageError
from ops.invocations import Ledger, fold
from ops.logs import LATE_MS, Seen, read_events, write_events
from ops.pricing import FREE_TMP_MB, Bill, Kept
from ops.summary import Request, Summary, summarise
from ops.times import parse_moment, show, to_ms

HELP = "invocations, cold starts, durations, memory, errors and cost of a range"
EXAMPLES = """examples:
  python -m ops report                                  the last hour of the only Lambda log group
  python -m ops report --since 2h30m --group /aws/lambda/code-interpreter
  python -m ops report --since yesterday --until today --json > yesterday.json
  AWS_ENDPOINT_URL=http://127.0.0.1:8080 python -m ops report     the local stack's logs
  python -m ops report --since today --compare yesterday..today
  python -m ops report --from out/report-20261124T061500Z         the same report again, without AWS
  python -m ops report --since 30d --insights           too much to pull: AWS counts, at $0.005 a GB and query
"""

EVENTS = "events.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ops report`."""
    add_group_flags(parser)
    add_range_flags(parser)
    parser.add_argument(
        "--settle", type=float, default=0.0, metavar="S", help="wait so long after the range's end for late events"
    )
    parser.add_argument(
        "--from", dest="from_run", metavar="DIR", help="make the report again from an earlier run's files"
    )
    parser.add_argument(
        "--compare", metavar="DIR|START..END", help="also compare with an earlier run's folder, or with another range"
    )
    parser.add_argument(
        "--insights", action="store_true", help="by Logs Insights queries, for a range too large to pull"
    )
    parser.add_argument("--out", metavar="DIR", help="folder for the files (default out/report-<UTC time>)")
    parser.add_argument("--json", action="store_true", help="print summary.json instead of tables")
    bill = parser.add_argument_group("what the bill depends on beside the logs")
    bill.add_argument("--arch", choices=("x86_64", "arm64"), default="x86_64", help="architecture (default x86_64)")
    bill.add_argument("--gateway", choices=("rest", "http", "none"), default="rest", help="API Gateway (default rest)")
    bill.add_argument("--tmp-mb", type=float, default=FREE_TMP_MB, metavar="MB", help="ephemeral storage (default 512)")
    bill.add_argument(
        "--provisioned", type=int, metavar="N", help="environments kept by provisioned concurrency through the range"
    )
    bill.add_argument("--snapstart-versions", type=int, metavar="N", help="versions whose snapshot is kept")
    add_account_flags(parser)


def run(args: argparse.Namespace, around: Surroundings) -> int:
    """Makes the report. Raises Inconclusive when no invocation was reported in the range."""
    if args.insights or (args.from_run and (Path(args.from_run) / insights.ROWS).exists()):
        return _by_insights(args, around)
    if args.compare:
        _check_comparison(args.compare, around)
    if args.from_run:
        folder = Path(args.from_run)
        asked = read_request(folder)
    else:
        selection = selection_of(args, around)
        folder = run_folder(args.out, "report", around.now())
        asked = pull_to(folder, selection, around, args.settle)
    summary, ledger = summary_of(folder, asked, args, around)
    if args.compare:
        summary = _compared(summary, ledger, args, around, folder)
    as_json = write(summary, ledger, folder, around)
    around.out.write(as_json if args.json else tables.text(summary, around.zone, **_terminal(around)))
    around.say(f"Files in {folder}: {EVENTS}, summary.json, summary.md, report.html, report.png")
    return EXIT_PASS


def _by_insights(args: argparse.Namespace, around: Surroundings) -> int:
    """The report without the events: rows first, then tables. Pictures and comparisons take every invocation."""
    if args.compare or args.settle:
        raise UsageError("--compare and --settle take every event; they do not go with --insights.")
    if args.from_run:
        folder = Path(args.from_run)
        asked = read_request(folder)
    else:
        selection = selection_of(args, around)
        folder = run_folder(args.out, "report", around.now())
        asked = _write_request(folder, selection)
        span = to_ms(selection.start), to_ms(selection.end)
        with aws_sentences(selection.account):
            done = insights.write_rows(
                selection.client, selection.groups, *span, selection.pace, folder / insights.ROWS
            )
            with_progress(done, f"of {len(insights.QUERIES)} queries", around)
    summary = insights.summarise(insights.read_rows(folder / insights.ROWS), asked, _bill(args))
    if not summary.invocations:
        raise Inconclusive(f"{', '.join(asked.groups)} has no finished invocation in the range; widen --since.")
    as_json = summary.model_dump_json(by_alias=True, indent=2) + "\n"
    (folder / "summary.json").write_text(as_json, encoding="utf-8")
    (folder / "summary.md").write_text(tables.markdown(summary, around.zone), encoding="utf-8")
    around.out.write(as_json if args.json else tables.text(summary, around.zone, **_terminal(around)))
    around.say(f"Files in {folder}: {insights.ROWS}, summary.json, summary.md")
    return EXIT_PASS


def summary_of(folder: Path, asked: Request, args: argparse.Namespace, around: Surroundings) -> tuple[Summary, Ledger]:
    """The figures of a run's files. Raises Inconclusive when they hold no finished invocation."""
    ledger = fold(read_events(folder / EVENTS))
    if not len(ledger.invocations):
        raise Inconclusive(_nothing(ledger, asked, around))
    return summarise(ledger, asked, _bill(args)), ledger


def _bill(args: argparse.Namespace) -> Bill:
    return Bill(args.arch, args.gateway, args.tmp_mb, Kept(args.provisioned, args.snapstart_versions))


def write(summary: Summary, ledger: Ledger, folder: Path, around: Surroundings) -> str:
    """Writes the report's files beside the events and returns the JSON."""
    from ops import plot  # here, because matplotlib takes a second that the other commands need not wait

    as_json = summary.model_dump_json(by_alias=True, indent=2) + "\n"
    picture = folder / "report.png"
    (folder / "summary.json").write_text(as_json, encoding="utf-8")
    (folder / "summary.md").write_text(tables.markdown(summary, around.zone), encoding="utf-8")
    plot.draw(ledger.invocations, picture, around.zone, ", ".join(summary.groups))
    (folder / "report.html").write_text(tables.html(summary, around.zone, picture.read_bytes()), encoding="utf-8")
    return as_json


def _check_comparison(text: str, around: Surroundings) -> None:
    """Raises UsageError for what cannot be compared with, before anything is pulled."""
    start, dots, end = text.partition("..")
    if dots and not Path(text).is_dir():
        for moment in (start, end):
            parse_moment(moment, around.now(), around.zone)
    else:
        read_request(Path(text))


def _compared(
    summary: Summary, ledger: Ledger, args: argparse.Namespace, around: Surroundings, folder: Path
) -> Summary:
    """`summary` with its comparison against `--compare`: an earlier run's folder, or a range START..END pulled now."""
    start, dots, end = args.compare.partition("..")
    if dots and not Path(args.compare).is_dir():
        before = folder / "before"
        before.mkdir(exist_ok=True)
        earlier = argparse.Namespace(**vars(args) | {"since": start, "until": end, "group": summary.groups})
        asked = pull_to(before, selection_of(earlier, around), around)
    else:
        before = Path(args.compare)
        asked = read_request(before)
    then, ledger_then = summary_of(before, asked, args, around)
    changes = compare(ledger_then.invocations, ledger.invocations)
    return summary.model_copy(update={"compared_with": then.range, "comparison": changes})


def pull_to(folder: Path, selection: Selection, around: Surroundings, settle_s: float = 0.0) -> Request:
    """Writes the request and every event of `selection` to `folder`; what came stays there on Ctrl-C.

    With `settle_s`, waits until that long after the range's end and sweeps up what CloudWatch received late.
    """
    asked = _write_request(folder, selection)
    seen = Seen()
    with_progress(write_events(selection.batches(seen=seen), folder / EVENTS), "events", around)
    settled = selection.end + timedelta(seconds=settle_s or LATE_MS / 1000)
    if settle_s:
        _sweep(folder, selection, around, seen, settled)
    elif around.now() < settled and not selection.account.is_local:
        around.say("CloudWatch may still receive events of the last 90 s; --settle 90 waits for them.")
    return asked


def _write_request(folder: Path, selection: Selection) -> Request:
    asked = Request(source=selection.source, groups=list(selection.groups), start=selection.start, end=selection.end)
    (folder / "request.json").write_text(asked.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return asked


def _sweep(folder: Path, selection: Selection, around: Surroundings, seen: Seen, settled: datetime) -> None:
    """Adds late events in their places: a line without a request id belongs to the invocation it stands in."""
    wait_s = (settled - around.now()).total_seconds()
    if wait_s > 0:
        around.say(f"waiting {wait_s:.0f} s for late events ...")
        selection.pace.sleep(wait_s)
    since = selection.end - timedelta(milliseconds=LATE_MS)
    late = [event for batch in selection.batches(since=since, seen=seen) for event in batch]
    around.say(f"{len(late)} late events")
    if late:
        everything = sorted([*read_events(folder / EVENTS), *late], key=lambda event: event.timestamp_ms)
        sorted_events = folder / f"{EVENTS}.sorted"
        for _ in write_events([everything], sorted_events):
            pass
        sorted_events.replace(folder / EVENTS)


def read_request(folder: Path) -> Request:
    """What an earlier run asked for. Raises UsageError if `folder` holds no such run."""
    try:
        return Request.model_validate_json((folder / "request.json").read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        raise UsageError(f"{folder} holds no run of ops; name a folder with request.json and {EVENTS}.") from None


def _nothing(ledger: Ledger, asked: Request, around: Surroundings) -> str:
    span = f"from {show(asked.start, around.zone)} to {show(asked.end, around.zone)}"
    if not ledger.lines:
        return f"{', '.join(asked.groups)} has no events {span}; widen --since or call the function."
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(ledger.lines.items()))
    return f"{', '.join(asked.groups)} has no finished invocation {span}, only {kinds}; widen --since."


def _terminal(around: Surroundings) -> dict[str, Any]:
    if not around.out.isatty():
        return {"colour": False, "width": 120}
    return {"colour": "NO_COLOR" not in os.environ, "width": shutil.get_terminal_size((120, 24)).columns}
