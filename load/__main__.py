"""The command line of load: runs a profile, bursts for cold starts, compares runs, remakes reports.

It sends nothing itself: Locust does, in a process of its own (`launch`).
"""

import argparse
import errno
import math
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from load import COMMAND, aws
from load.ab import BASE, CANDIDATE, run_in_turns
from load.abort import tallies
from load.budget import check_budget
from load.call_log import NoLog, client, events
from load.coldstart import cold_start_plan, print_cold_starts, write_cold_start_report
from load.compare import LEAST_ROUNDS, CompareReport, compare_directories, print_comparison
from load.forced import Forcing, force, forced_plan
from load.fresh_version import JOURNAL, Journal, restore
from load.gate import (
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    EXIT_PASS,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    ThresholdError,
    check_lines,
)
from load.launch import LOCUSTFILE, ROOT, LaunchFailed, Unreachable, check_reachable, launch
from load.mix import PATTERN, NoCalls, profile_of, read_calls
from load.plan import Plan, PlanError, load_plan, profile_names
from load.report import print_summary, write_reports
from load.rows import BadRecord, read_rows
from load.scenarios import ERAS
from load.server_side import LATE_S, join_directory, print_server_side, read_server_side
from load.settings import SettingsError, api_key, apply_aws_settings, check_endpoint, is_loopback, setting

EXAMPLES = """\
examples:
  python -m load run smoke http://127.0.0.1:8000/dev/lambda/mcp/
  python -m load run spike --rate 100 --duration 120        the endpoint from MCP_ENDPOINT_URL, the key from MCP_API_KEY
  python -m load run ./my-profile.yaml URL --workers 4      more than one core
  python -m load coldstart URL -n 20                        twenty environments at once, init against first-call latency
  python -m load coldstart --function code-interpreter --memory 1024,2048      forced on versions of its own
  python -m load compare out/load-A out/load-B              faster, slower, same or inconclusive; warm and cold apart
  python -m load ab smoke URL-A URL-B --duration 120        both endpoints in turns, then the comparison
  python -m load logs out/load-A --log-group /aws/lambda/code-interpreter      what the function's log says of each call
  python -m load mix /aws/lambda/code-interpreter --hours 24 --write mix.yaml      a profile of what callers really did
  python -m load report out/load-20261124T061500Z           make the reports again

on several machines, whose clocks agree:
  python -m locust -f load/locustfile.py --headless --profile spike --host URL --master --expect-workers 2   on one
  python -m locust -f load/locustfile.py --worker --master-host THAT_ONE      on each of two others
  python -m load report DIR     with the others' requests-w*.jsonl and run-w*.json copied into the run's directory

exit codes:
  0 passed · 1 a threshold failed · 2 usage or configuration · 3 endpoint unreachable or refused our key ·
  4 inconclusive (too few requests, generator saturated, answers lost) · 130 interrupted
"""


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Runs one command; returns the exit code. Mistakes of the caller are one sentence on stderr and code 2 or 3."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as ended:  # argparse has said what is wrong, or printed the help
        return int(ended.code or 0)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except (PlanError, SettingsError, ThresholdError, BadRecord, LaunchFailed) as error:
        return _complain(str(error), EXIT_USAGE)
    except (Unreachable, NoLog, aws.AwsRefused) as error:
        return _complain(str(error), EXIT_UNREACHABLE)
    except NoCalls as error:
        return _complain(str(error), EXIT_INCONCLUSIVE)
    except OSError as error:
        if error.filename is None:
            raise
        return _complain(f"cannot use {error.filename}: {error.strerror}", EXIT_USAGE)
    except KeyboardInterrupt:
        return _complain("interrupted", EXIT_INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Open-loop load and cold-start tests of an MCP endpoint, judged by thresholds.",
        epilog=EXAMPLES.replace("python -m load", COMMAND).replace("load/locustfile.py", _locustfile()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run_ = commands.add_parser("run", help="send a profile's load to an endpoint and judge the answers")
    run_.add_argument("profile", metavar="PROFILE", help=f"{', '.join(profile_names())}, or a YAML file like theirs")
    run_.add_argument(
        "--rate", type=_positive, metavar="R", help="highest arrival rate per second, in the profile's shape"
    )
    run_.add_argument(
        "--duration", type=_positive, metavar="S", help="seconds the whole plan lasts, in the profile's shape"
    )
    run_.add_argument("--seed", type=int, metavar="N", help="another draw of arrivals and scenarios")
    run_.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="sending processes on this machine, one core each (default 1)",
    )
    run_.add_argument(
        "--thresholds", type=Path, metavar="FILE", help="judge by this file instead of load/thresholds.yaml"
    )
    _add_common(run_)
    run_.set_defaults(command=_run)

    cold = commands.add_parser("coldstart", help="a burst wider than the warm pool: init and what a first call costs")
    cold.add_argument("-n", type=int, default=10, metavar="N", dest="burst", help="simultaneous calls (default 10)")
    cold.add_argument("--min-cold", type=int, metavar="K", help="cold starts the burst must bring (default 1)")
    cold.add_argument("--gap", type=_positive, default=10.0, metavar="S", help="seconds to the warm burst (default 10)")
    cold.add_argument(
        "--function", metavar="NAME", help="force them: publish a version of this function, call it, put all back"
    )
    cold.add_argument("--rounds", type=int, default=1, metavar="N", help="with --function: versions a size (default 1)")
    cold.add_argument(
        "--memory", type=_sizes, metavar="MB,MB", help="with --function: sizes to try; $LATEST has them meanwhile"
    )
    cold.add_argument("--restore", type=Path, metavar="DIR", help="put back what a killed run in DIR had changed")
    cold.add_argument("--era", choices=ERAS, default=ERAS[0], help=f"MCP revision of the calls (default {ERAS[0]})")
    _add_common(cold)
    cold.set_defaults(command=_coldstart)

    compare_ = commands.add_parser("compare", help="judge one run against another, warm and cold apart")
    compare_.add_argument("base", type=Path, metavar="BASE", help="directory of the run to compare with")
    compare_.add_argument("candidate", type=Path, metavar="CANDIDATE", help="directory of the run in question")
    _add_comparison(compare_)
    compare_.set_defaults(command=_compare)

    ab = commands.add_parser("ab", help="run a profile on two endpoints in turns and compare them")
    ab.add_argument("profile", metavar="PROFILE", help=f"{', '.join(profile_names())}, or a YAML file")
    ab.add_argument("base", metavar="BASE_URL", help="the endpoint to compare with")
    ab.add_argument("candidate", metavar="CANDIDATE_URL", help="the endpoint in question; the same one shows the noise")
    ab.add_argument(
        "--rounds", type=int, default=8, metavar="N",
        help=f"turns each side gets (default 8) after one to warm up; from {LEAST_ROUNDS} on drift between them counts",
    )  # fmt: skip
    ab.add_argument("--rate", type=_positive, metavar="R", help="highest arrival rate per second")
    ab.add_argument("--duration", type=_positive, metavar="S", help="seconds for each side, all rounds together")
    ab.add_argument("--out", type=Path, metavar="DIR", help="where the raw records go (default out/ab-<UTC time>)")
    ab.add_argument("--yes", action="store_true", help="do not ask when the plan is over its budget of requests")
    _add_comparison(ab)
    ab.set_defaults(command=_ab)

    logs = commands.add_parser("logs", help="join a run with the function's log: cold by header against cold by REPORT")
    logs.add_argument("directory", type=Path, metavar="DIR")
    logs.add_argument("--log-group", required=True, metavar="NAME", help="e.g. /aws/lambda/code-interpreter")
    logs.add_argument("--wait", type=_positive, default=LATE_S, metavar="S", help="seconds for late lines (default 90)")
    logs.add_argument("--json", action="store_true", help="print server.json instead of lines")
    logs.set_defaults(command=_logs)

    mix = commands.add_parser("mix", help="make a profile from the function's own call records: arrivals and mix")
    mix.add_argument("log_group", metavar="LOG_GROUP", help="e.g. /aws/lambda/code-interpreter")
    mix.add_argument("--hours", type=_positive, default=24.0, metavar="H", help="look back so long (default 24)")
    mix.add_argument("--poisson", action="store_true", help="keep the mean rate only, not each call's own time")
    mix.add_argument("--write", type=Path, metavar="FILE", help="write the profile there instead of printing it")
    mix.set_defaults(command=_mix)

    report = commands.add_parser("report", help="make the reports of a run again from its raw files")
    report.add_argument("directory", type=Path, metavar="DIR")
    report.add_argument("--json", action="store_true", help="print summary.json instead of a table")
    report.set_defaults(command=_report)
    return parser


def _locustfile() -> str:
    """As a person in the repository writes it, or where `pip install` has put it."""
    return os.path.relpath(LOCUSTFILE, ROOT) if COMMAND.startswith("python") else str(LOCUSTFILE)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", nargs="?", help="the MCP endpoint (default MCP_ENDPOINT_URL)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the raw records go (default out/load-<UTC time>)"
    )
    parser.add_argument("--json", action="store_true", help="print summary.json instead of a table")
    parser.add_argument("--yes", action="store_true", help="do not ask when the plan is over its budget of requests")


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--effect", type=_positive, default=5.0, metavar="PCT", help="smallest change that matters (5)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the bootstrap (default 1)")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON instead of a table")


def _run(arguments: argparse.Namespace) -> int:
    plan = load_plan(arguments.profile, *([arguments.thresholds] if arguments.thresholds else []))
    plan = plan.scaled(arguments.rate, arguments.duration)
    if arguments.seed is not None:
        plan = plan.model_copy(update={"seed": arguments.seed})
    if arguments.workers < 1:
        raise SettingsError(f"--workers {arguments.workers} sends nothing; give 1 or more")
    return send(plan, arguments)


def _coldstart(arguments: argparse.Namespace) -> int:
    if arguments.burst < 1:
        raise SettingsError(f"-n {arguments.burst} is no burst; give 1 or more")
    if arguments.restore is not None:
        return _restore(arguments.restore)
    if arguments.function is not None:
        return _force(arguments)
    if arguments.memory is not None or arguments.rounds != 1:
        raise SettingsError("--memory and --rounds are of versions that --function NAME publishes; give it, not a URL")
    min_cold = 1 if arguments.min_cold is None else arguments.min_cold
    if not 0 <= min_cold <= arguments.burst:
        raise SettingsError(f"{arguments.burst} calls cannot bring {min_cold} cold starts; give 0 to {arguments.burst}")
    plan = cold_start_plan(arguments.burst, arguments.gap, min_cold, arguments.era)
    arguments.out = arguments.out or new_directory("coldstart")
    return send(plan, arguments)


def _force(arguments: argparse.Namespace) -> int:
    """Cold starts on versions of our own; needs AWS, not the endpoint."""
    if arguments.url is not None:
        raise SettingsError(f"--function calls Lambda itself; leave out the URL {arguments.url}")
    if arguments.rounds < 1:
        raise SettingsError(f"--rounds {arguments.rounds} publishes nothing; give 1 or more")
    apply_aws_settings()
    sizes: list[int | None] = arguments.memory or [None]
    forcing = Forcing(arguments.function, sizes, arguments.burst, arguments.rounds, arguments.era)
    where = os.environ.get("AWS_ENDPOINT_URL") or "https://lambda.amazonaws.com"
    plan = forced_plan(forcing)
    check_budget(plan, where, arguments.yes)
    if arguments.memory and not (arguments.yes or is_loopback(where)):
        raise SettingsError(
            f"a stage that points to $LATEST of {arguments.function} would serve with the sizes tried; give --yes if "
            f"none does, or if it may"
        )
    out = unused(arguments.out or new_directory("coldstart"))
    client = aws.client("lambda", connections=arguments.burst, read_timeout_s=plan.request_timeout_s)
    force(client, forcing, out, lambda line: print(f"load: {line}", file=sys.stderr, flush=True))
    code = show(out, arguments.json)
    joined = read_server_side(out)
    if joined is None or code:
        return code
    if not arguments.json:
        print_server_side(joined, console())
    return joined.exit_code


def _restore(directory: Path) -> int:
    apply_aws_settings()
    path = directory / JOURNAL
    try:
        journal = Journal.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} says nothing of a forced cold start; give the directory of that run") from error
    if journal.clean:
        print(f"load: {journal.function} was put back already", file=sys.stderr)
        return EXIT_PASS
    restore(aws.client("lambda"), journal, path)
    print(f"load: {journal.function} is put back", file=sys.stderr)
    return EXIT_PASS


def _compare(arguments: argparse.Namespace) -> int:
    report = compare_directories(arguments.base, arguments.candidate, arguments.effect / 100, arguments.seed)
    return _show_comparison(report, arguments)


def _ab(arguments: argparse.Namespace) -> int:
    plan = load_plan(arguments.profile).scaled(arguments.rate, arguments.duration)
    if arguments.rounds < 2:
        raise SettingsError(f"--rounds {arguments.rounds} takes no turns; give 2 or more")
    urls = [check_endpoint(url) for url in (arguments.base, arguments.candidate)]
    for url in urls:
        check_budget(plan, url, arguments.yes)
        check_reachable(url)
    out = unused(arguments.out or new_directory("ab"))
    if run_in_turns(plan, urls[0], urls[1], arguments.rounds, out):
        return _complain(f"interrupted; the rounds so far are in {out}", EXIT_INTERRUPTED)
    report = compare_directories(out / BASE, out / CANDIDATE, arguments.effect / 100, arguments.seed)
    (out / "compare.json").write_text(report.to_json() + "\n", encoding="utf-8")
    print(f"load: raw rows of every round and compare.json in {out}", file=sys.stderr)
    return _show_comparison(report, arguments)


def _show_comparison(report: CompareReport, arguments: argparse.Namespace) -> int:
    if arguments.json:
        print(report.to_json())
    else:
        print_comparison(report, console())
    return report.exit_code


def _logs(arguments: argparse.Namespace) -> int:
    apply_aws_settings()
    report = join_directory(arguments.directory, arguments.log_group, arguments.wait)
    write_reports(arguments.directory)  # the page shows the join
    if arguments.json:
        print(report.to_json())
    else:
        print_server_side(report, console())
    return report.exit_code


def send(plan: Plan, arguments: argparse.Namespace) -> int:
    """Runs a plan on the endpoint of the arguments, prints its summary, returns the exit code."""
    endpoint = check_endpoint(arguments.url or setting("MCP_ENDPOINT_URL"))
    check_lines(plan)
    tallies(plan.abort)
    api_key()
    check_budget(plan, endpoint, arguments.yes)
    check_reachable(endpoint)
    out = unused(arguments.out or new_directory("load"))
    interrupted = launch(plan, endpoint, out, getattr(arguments, "workers", 1))
    if interrupted and not any(out.glob("requests*.jsonl")):
        return _complain("interrupted before anything was sent", EXIT_INTERRUPTED)
    return show(out, arguments.json)


def show(directory: Path, as_json: bool) -> int:
    """Makes the reports of a directory, prints one of them, returns the run's exit code."""
    summary = write_reports(directory)
    cold = write_cold_start_report(directory, read_rows(directory)) if summary.profile == "coldstart" else None
    if as_json and cold is not None:
        print(cold.to_json())
    elif as_json:
        print(summary.to_json())
    else:
        print_summary(summary, console())
        if cold is not None:
            print_cold_starts(cold, console())
    print(f"load: raw rows, summary.json, summary.md, report.html and histograms.hlog in {directory}", file=sys.stderr)
    return summary.exit_code


def _mix(arguments: argparse.Namespace) -> int:
    apply_aws_settings()
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    start_ms = now_ms - int(arguments.hours * 3_600_000)
    calls = read_calls(events(client(), arguments.log_group, start_ms, now_ms, PATTERN))
    text = profile_of(calls, arguments.log_group, arguments.poisson)
    if arguments.write is None:
        print(text, end="")
        return EXIT_PASS
    arguments.write.write_text(text, encoding="utf-8")
    print(f"load: {len(calls)} calls; {COMMAND} run {arguments.write} URL plays them", file=sys.stderr)
    return EXIT_PASS


def _report(arguments: argparse.Namespace) -> int:
    return show(arguments.directory, arguments.json)


def new_directory(kind: str) -> Path:
    return Path("out") / f"{kind}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def unused(out: Path) -> Path:
    """The directory, made; no run or comparison has left its rows there. Raises SettingsError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        taken = any(path for name in ("requests*.jsonl", "*/*/requests*.jsonl") for path in out.glob(name))
        if not os.access(out, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise SettingsError(f"cannot write to {out}: {error.strerror}; give another --out") from error
    if taken:
        raise SettingsError(f"{out} holds the rows of another run; give another --out")
    return out


def console() -> Console:
    """Standard output; wide enough for the tables when it goes to a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else 130)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} are no sizes in MB; write them as 1024,2048") from None
    if bad := [size for size in sizes if not 128 <= size <= 10240]:
        raise argparse.ArgumentTypeError(f"Lambda has no {bad[0]} MB; sizes go from 128 to 10240")
    return sizes


def _complain(sentence: str, code: int) -> int:
    print(f"load: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
