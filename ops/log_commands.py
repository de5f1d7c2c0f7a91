"""`ops logs pull|tail|search|show|errors`: what a person looking for one line, or for the pattern in many, types.

It must not summarise durations or cost; that is `ops report`.
"""

import argparse
import json
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from ops import error_groups, exports, parquet
from ops.aws import aws_sentences
from ops.command import (
    Selection,
    Surroundings,
    add_account_flags,
    add_group_flags,
    add_range_flags,
    run_folder,
    selection_of,
)
from ops.failures import EXIT_PASS, Inconclusive, UsageError
from ops.filters import make_filter
from ops.invocations import fold
from ops.live_tail import DOLLARS_PER_MINUTE, live
from ops.logs import LogEvent, event_line, follow, pull, read_events
from ops.one_request import AFTER_MS, INIT_REACH_MS, client_rows, lines_of, request_ids
from ops.reading import printable
from ops.report import EVENTS, pull_to
from ops.times import of_ms, show, to_ms

HELP = "pull, follow, search and group log events"
EXAMPLES = """examples:
  python -m ops logs tail -f --since 5m                         follow, without loss or duplicates, until Ctrl-C
  python -m ops logs tail --live                                within a second; AWS leaves lines out when many come
  python -m ops logs search --since yesterday --grep Traceback --output csv
  python -m ops logs search --where 'duration_ms>1000' --where kind=Report
  python -m ops logs show 3f6c1a52-0b1e-4b35-9d3c-1f1c7f1f8a11 --run out/load-20261124T061500Z
  python -m ops logs errors --since 24h                         grouped by message, with a sample id each
  python -m ops logs pull --since 2026-11-24T03:00 --until 2026-11-24T04:00 --out night
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ops logs` and of each of its commands."""
    commands = parser.add_subparsers(dest="logs_command", required=True, metavar="COMMAND")
    for name, (help_text, since, arguments, command) in _COMMANDS.items():
        sub = commands.add_parser(
            name, help=help_text, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        arguments(sub)
        add_group_flags(sub)
        add_range_flags(sub, since)
        add_account_flags(sub)
        sub.set_defaults(logs_run=command)


def run(args: argparse.Namespace, around: Surroundings) -> int:
    """Runs the chosen command."""
    return int(args.logs_run(args, around))


def _output_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        choices=tuple(exports.WRITERS),
        default="text",
        help="text, JSON records in words (default); jsonl and csv as written",
    )
    parser.add_argument("--out", metavar="DIR", help="also keep the raw events in this folder")


def _filter_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--grep", action="append", default=[], metavar="REGEX", help="only messages with a match")
    parser.add_argument(
        "--not", dest="unwanted", action="append", default=[], metavar="REGEX", help="none with a match"
    )
    parser.add_argument(
        "--where", action="append", default=[], metavar="COND", help="field condition: duration_ms>1000, level=ERROR"
    )
    parser.add_argument("--pattern", metavar="PATTERN", help="CloudWatch filter pattern, for AWS to apply first")


def _pull_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", help="folder for the files (default out/logs-<UTC time>)")
    parser.add_argument(
        "--output", choices=("text", "csv", "parquet"), help="beside events.jsonl, the same; Parquet takes pyarrow"
    )


def _tail_flags(parser: argparse.ArgumentParser) -> None:
    _output_flags(parser)
    _filter_flags(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C, without loss or duplicates")
    how.add_argument(
        "--live", action="store_true",
        help=f"go on from now by CloudWatch Live Tail: sooner, but at most 500 lines a second, and on AWS "
        f"${DOLLARS_PER_MINUTE:g} a minute",
    )  # fmt: skip


def _search_flags(parser: argparse.ArgumentParser) -> None:
    _output_flags(parser)
    _filter_flags(parser)
    parser.set_defaults(follow=False, live=False)


def _show_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request_id", metavar="REQUEST_ID", help="X-Lambda-Request-Id of a response, or its beginning")
    parser.add_argument("--run", dest="client_run", metavar="DIR", help="folder of a load run, for the client's row")
    parser.add_argument("--json", action="store_true", help="the lines as JSON Lines")


def _errors_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the groups as JSON")
    parser.add_argument("--out", metavar="DIR", help="folder for the raw events (default out/errors-<UTC time>)")


def _pull(args: argparse.Namespace, around: Surroundings) -> int:
    if args.output == "parquet":
        parquet.require()
    selection = selection_of(args, around)
    folder = run_folder(args.out, "logs", around.now())
    pull_to(folder, selection, around)
    count = sum(1 for _ in read_events(folder / EVENTS))
    if args.output == "parquet":
        parquet.write(read_events(folder / EVENTS), folder / "events.parquet")
    elif args.output:
        target = folder / f"events.{args.output}"
        with target.open("w", encoding="utf-8", newline="") as file:
            file.write(exports.HEADS[args.output])
            exports.WRITERS[args.output](read_events(folder / EVENTS), file, around.zone)
    around.say(f"{count} events in {folder}")
    if not count:
        raise Inconclusive("The range holds no events; widen --since.")
    return EXIT_PASS


def _tail(args: argparse.Namespace, around: Surroundings) -> int:
    if (args.follow or args.live) and args.until != "now":
        raise UsageError("--follow and --live have no end, so --until cannot be given with them.")
    chosen = make_filter(args.grep, args.unwanted, args.where)
    selection = selection_of(args, around, goes_on=args.follow)
    batches: Iterable[list[LogEvent]]
    if args.follow:
        batches = follow(
            selection.client,
            selection.groups,
            to_ms(selection.start),
            selection.pace,
            now_ms=lambda: to_ms(around.now()),
            pattern=args.pattern,
        )
    elif args.live:
        around.say("Live from now on; Ctrl-C ends it.")
        batches = live(selection.client, selection.groups, selection.pace, around.say, pattern=args.pattern)
    else:
        batches = selection.in_order_of_time(args.pattern)
    write, count = exports.WRITERS[args.output], 0
    if args.output == "text" and len(selection.groups) > 1:
        write = exports.write_text_of_groups
    kept = run_folder(args.out, "logs", around.now()) / EVENTS if args.out else None
    around.out.write(exports.HEADS[args.output])
    with kept.open("w", encoding="utf-8") if kept else nullcontext() as file, aws_sentences(selection.account):
        for batch in batches:
            if file:  # kept before it is shown, so that a Ctrl-C between the two loses nothing
                file.write("".join(event_line(event) for event in batch))
                file.flush()
            shown = [event for event in batch if chosen.chooses(event)]
            write(shown, around.out, around.zone)
            around.out.flush()
            count += len(shown)
    around.say(f"{count} events")
    if not count:
        raise Inconclusive("Nothing matched in the range; widen --since or the filters.")
    return EXIT_PASS


def _show(args: argparse.Namespace, around: Surroundings) -> int:
    selection = selection_of(args, around)
    wanted = args.request_id.strip().lower()
    if not wanted:
        raise UsageError("No request id was given; it is the X-Lambda-Request-Id of a response, or its beginning.")
    hits = [event for batch in selection.batches(f'"{wanted}"') for event in batch]
    ids = request_ids(hits, wanted)
    if not ids:
        raise Inconclusive(f"No line names the request {args.request_id} in this range; widen --since or give --group.")
    if len(ids) > 1:
        raise UsageError(f"{args.request_id} begins several request ids: {', '.join(ids[:5])}; give more of it.")
    lines = _whole(selection, [e for e in hits if ids[0] in e.message], ids[0])
    for event in lines:
        around.out.write(event_line(event) if args.json else exports.text_line(event, around.zone))
    if not args.json:
        _verdict(lines, around)
    for found in client_rows(Path(args.client_run), ids[0]) if args.client_run else ():
        row = json.dumps(found.row, ensure_ascii=False)
        around.out.write(row + "\n" if args.json else f"client, {found.file}:\n    {row}\n")
    return EXIT_PASS


def _whole(selection: Selection, hits: list[LogEvent], request_id: str) -> list[LogEvent]:
    lines: list[LogEvent] = []
    for group, stream in dict.fromkeys((e.group, e.stream) for e in hits):
        times = [e.timestamp_ms for e in hits if (e.group, e.stream) == (group, stream)]
        span = (min(times) - INIT_REACH_MS, max(times) + AFTER_MS)
        with aws_sentences(selection.account):
            batches = pull(selection.client, [group], *span, selection.pace, streams=[stream])
            events = sorted((e for batch in batches for e in batch), key=lambda e: e.timestamp_ms)
        lines += lines_of(events, request_id)
    return lines


def _verdict(lines: list[LogEvent], around: Surroundings) -> None:
    ledger = fold(lines)
    if not len(ledger.invocations):
        around.out.write("No REPORT yet: still running, or its environment was lost.\n")
    for problem in (p for p in ledger.problems if p.kind != "call"):  # its line has said so
        around.out.write(f"{problem.kind}: {printable(error_groups.normalise(problem.message))}\n")


def _errors(args: argparse.Namespace, around: Surroundings) -> int:
    selection = selection_of(args, around)
    folder = run_folder(args.out, "errors", around.now())
    pull_to(folder, selection, around)
    ledger = fold(read_events(folder / EVENTS))
    groups = error_groups.group(ledger.problems)
    if args.json:
        told = {"schema": "ops-errors/1"} | asdict(error_groups.ErrorReport(groups))
        around.out.write(json.dumps(told, ensure_ascii=False, indent=2) + "\n")
    else:
        _print_groups(groups, around)
    failed = sum(problem.kind == "call" for problem in ledger.problems)
    around.say(
        f"{len(ledger.problems) - failed} problems in {len(ledger.invocations)} invocations, "
        f"{failed} calls whose code failed, {len(groups)} groups"
    )
    if not ledger.lines:
        raise Inconclusive("The range holds no events; widen --since.")
    return EXIT_PASS


def _print_groups(groups: list[error_groups.ErrorGroup], around: Surroundings) -> None:
    for g in groups:
        first, last = (show(of_ms(ms, around.zone), around.zone) for ms in (g.first_ms, g.last_ms))
        sample = f"sample {g.sample.request_id}" if g.sample.request_id else f"stream {g.sample.stream}"
        around.out.write(f"{g.count} × {g.kind}: {printable(g.message)}\n    first {first}, last {last}, {sample}\n")


_COMMANDS = {
    "pull": ("download a range to disk", "1h", _pull_flags, _pull),
    "tail": ("print a range, and follow it", "10m", _tail_flags, _tail),
    "search": ("print what matches", "1h", _search_flags, _tail),
    "show": ("one invocation from START to REPORT, with the client's row", "24h", _show_flags, _show),
    "errors": ("what went wrong, grouped by message", "1h", _errors_flags, _errors),
}
