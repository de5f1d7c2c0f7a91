"""The command line, `python -m conformance URL`: reads options, runs pytest with the plugin, prints one report."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conformance import COMMAND, baseline, exits
from conformance.plugin import PARTS
from conformance.preflight import NotJudged, preflight
from conformance.report import coverage, formats, progress, results, scorecard_compare, terminal
from conformance.stdio import bridged
from conformance.target import UsageFault, read_target, read_target_file

PACKAGE = Path(__file__).parent
# Plugins that happen to be installed and patch the process, or cost time (unraisableexception collects garbage at the
# end of every run) for what the suite does not use.
UNWANTED_PLUGINS = (
    "locust",
    "hypothesispytest",
    "anyio",
    "cacheprovider",
    "junitxml",
    "pastebin",
    "faulthandler",
    "unraisableexception",
)

EXAMPLES = """\
examples:
  python -m conformance https://example.test/prod/lambda/mcp/
  python -m conformance URL -n 4 --only protocol --strict
  python -m conformance URL --header Authorization=@token.txt
  python -m conformance URL --header x-api-key=env:STAGING_KEY --profile kernel --full
  python -m conformance URL --header Authorization=@token.txt --refused-header Authorization=@expired.txt
  python -m conformance URL --smoke
  python -m conformance URL --baseline known-failures.yaml
  python -m conformance --target mine.yaml --only security
  python -m conformance requirements
  python -m conformance compare out/conformance-A out/conformance-B
  python -m conformance report out/conformance-20261124T061500Z

exit codes: 0 pass, 1 a check failed, 2 usage, 3 unreachable or credentials refused, 4 nothing was judged,
            5 stale baseline, 130 interrupted
"""


def build_parser() -> argparse.ArgumentParser:
    """The options; the endpoint may also come from MCP_ENDPOINT_URL or .env."""
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Judge an MCP endpoint: the protocol, the interpreter's tools, and its blocking by effect.",
        epilog=EXAMPLES.replace("python -m conformance", COMMAND),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("endpoint", nargs="?", metavar="URL", help="the endpoint; or `requirements`, or `report DIR`")
    parser.add_argument("folder", nargs="?", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", action="append", choices=PARTS, help="a part of the suite; repeatable")
    parser.add_argument("-k", dest="keyword", metavar="EXPRESSION", help="checks whose name matches, as in pytest")
    parser.add_argument("--smoke", action="store_true", help="only the three checks of the deployment test")
    parser.add_argument("--profile", default="lambda", help="what is claimed: lambda, kernel, open or a .yaml file")
    parser.add_argument(
        "--header", action="append", default=[], metavar="NAME=@FILE|env:VAR", help="a header to send; repeatable"
    )
    parser.add_argument(
        "--refused-header",
        action="append",
        default=[],
        metavar="NAME=@FILE|env:VAR",
        help="a credential that must be refused: expired, made for another server; repeatable",
    )
    parser.add_argument("-n", dest="workers", type=int, default=0, metavar="N", help="run in N processes")
    parser.add_argument("--strict", action="store_true", help="SHOULD and derived requirements fail the run too")
    parser.add_argument("--full", action="store_true", help="also run what can make an endpoint slow or ill")
    parser.add_argument("--target", type=Path, metavar="FILE", help="target.yaml of a foreign interpreter")
    parser.add_argument(
        "--baseline", type=Path, metavar="FILE", help="known failures: a new one exits 1, a stale one 5"
    )
    parser.add_argument("--baseline-update", action="store_true", help="write the baseline from this run")
    parser.add_argument("--timeout", type=float, default=20.0, metavar="S", help="seconds for one answer (20)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where records and reports go (out/conformance-<time>)")
    parser.add_argument("--json", action="store_true", help="the report's summary as JSON on stdout")
    return parser


def run(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    if argv[:1] == ["compare"]:
        return scorecard_compare.run(argv[1:])
    try:
        options = build_parser().parse_args(argv)
    except SystemExit as stop:
        return exits.USAGE if stop.code else exits.PASS
    if options.endpoint == "requirements":
        print(coverage.render())
        return exits.PASS
    if options.endpoint == "report":
        return _report_again(options.folder or options.out)
    try:
        with _reachable(options):
            return _judge(options)
    except UsageFault as fault:
        return _complain(fault, exits.USAGE)


@contextmanager
def _reachable(options: argparse.Namespace) -> Iterator[None]:
    """Starts the target's server where it is one of stdio, and makes its URL the endpoint.

    Raises:
        UsageFault
    """
    file = read_target_file(options.target) if options.target else None
    if file is None or not file.command:
        yield
        return
    if options.endpoint:
        raise UsageFault(f"{options.target} names a command, so there is no URL to give.")
    with bridged(file.command, file.environment) as url:
        options.endpoint = url
        yield


def _judge(options: argparse.Namespace) -> int:
    try:
        if options.workers < 0:
            raise UsageFault(f"-n {options.workers} must be 0 or more.")
        if options.folder:
            raise UsageFault(f"One URL at a time: {str(options.folder)!r} is left over.")
        if options.baseline_update and not options.baseline:
            raise UsageFault("--baseline-update needs --baseline FILE, the file to write.")
        if options.baseline and not options.baseline_update:
            baseline.read(options.baseline)
        target = read_target(
            options.endpoint,
            profile=options.profile,
            headers=options.header,
            refused_headers=options.refused_header,
            timeout_s=options.timeout,
            file=read_target_file(options.target) if options.target else None,
        )
        preflight(target)
    except UsageFault as fault:
        return _complain(fault, exits.USAGE)
    except NotJudged as why:
        return _complain(why, exits.UNREACHABLE)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    out = options.out or Path("out") / f"conformance-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    code = _run_pytest(options, out.absolute())
    _report(out, as_json=options.json)
    return code


def _report_again(out: Path | None) -> int:
    """Makes the reports of a finished run again from its records."""
    if out is None or not (out / "run.json").is_file():
        return _complain(
            UsageFault(f"{out} holds no run; give the directory of one, with run.json in it."), exits.USAGE
        )
    formats.write_all(out)
    _report(out, as_json=False)
    return exits.PASS


def _complain(fault: Exception, code: int) -> int:
    print(fault, file=sys.stderr)
    return code


def _run_pytest(options: argparse.Namespace, out: Path) -> int:
    arguments = [
        *(f"-pno:{name}" for name in UNWANTED_PLUGINS),
        *("-p", "conformance.plugin", "-c", str(PACKAGE / "pytest.ini"), "--rootdir", str(PACKAGE)),
        *("--results", str(out), "--profile", options.profile, "--request-timeout", str(options.timeout)),
        *(f"--header={header}" for header in options.header),
        *(f"--refused-header={header}" for header in options.refused_header),
        *(f"--{name}" for name in ("full", "smoke") if getattr(options, name)),
        *(["--fail-warnings"] if options.strict else []),
        *(["--target", str(options.target.absolute())] if options.target else []),
        *(["--baseline", str(options.baseline.absolute())] if options.baseline else []),
        *(["--baseline-update"] if options.baseline_update else []),
    ]
    if options.endpoint:
        arguments += ["--endpoint", options.endpoint]
    arguments += [f"--only={part}" for part in options.only or ()]
    if options.keyword:
        arguments += ["-k", options.keyword]
    if options.workers:
        arguments += ["-n", str(options.workers), "--dist", "worksteal"]
    parts = sorted(set(options.only)) if options.only else ["tools"] if options.smoke else PARTS
    code = pytest.main([*arguments, *(str(PACKAGE / part) for part in parts)], plugins=[progress.Progress()])
    if (out / "run.json").is_file():
        return results.read_run(out).exit_code
    return exits.USAGE if code == pytest.ExitCode.USAGE_ERROR else int(code)


def _report(out: Path, *, as_json: bool) -> None:
    if not (out / "run.json").is_file():
        return
    if as_json:
        print(json.dumps({k: v for k, v in results.build(out).items() if k != "checks"}, ensure_ascii=False))
        return
    print(terminal.render(out, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ))


def main() -> None:
    """Entry point."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
