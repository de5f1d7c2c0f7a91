"""`python -m ops`: the command line of the person on call. Parses, hands over, and turns failures into exit codes."""

import argparse
import codecs
import io
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ops import COMMAND, doctor, log_commands, report, tune
from ops.aws import read_dotenv
from ops.command import Surroundings
from ops.failures import EXIT_INTERRUPTED, OpsError
from ops.times import local_zone

EPILOG = """exit codes: 0 done, 1 found wrong, 2 usage or configuration, 3 AWS or the endpoint unreachable or refusing,
            4 too little to judge by, 130 interrupted
Settings come from flags, then the environment (AWS_*, OPS_LOG_GROUP, P_FN_NAME), then .env."""


# What stands for the signs of our own that a terminal without UTF-8 cannot show.
_PLAIN = {"─": "-", "×": "x", "…": "..."}


def plain(problem: UnicodeError) -> tuple[str, int]:
    """An error handler for streams: signs that their encoding lacks, spelt so that text reads and JSON stays JSON."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    return "".join(_spelt(sign) for sign in problem.object[problem.start : problem.end]), problem.end


def _spelt(sign: str) -> str:
    units = sign.encode("utf-16-be", "surrogatepass")
    escaped = "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
    return _PLAIN.get(sign, escaped)


codecs.register_error("ops-plain", plain)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog=COMMAND,
        description="Logs, reports and tuning of a deployed interpreter, on AWS or on the local stack.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in (("logs", log_commands), ("report", report), ("tune", tune), ("doctor", doctor)):
        sub = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog=module.EXAMPLES.replace("python -m ops", COMMAND),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return top


def run(argv: Sequence[str], around: Surroundings | None = None) -> int:
    """Runs one command and returns its exit code; never raises for what an operator can mend."""
    try:
        args = parser().parse_args(argv)
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    if around is None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="ops-plain")
    read_dotenv(Path(".env"), os.environ)
    try:
        surroundings = around or Surroundings(lambda: datetime.now(UTC), local_zone(os.environ.get("TZ")))
        return int(args.run(args, surroundings))
    except OpsError as problem:
        print(f"ops: {problem}", file=(around.err if around else sys.stderr))
        return problem.exit_code
    except KeyboardInterrupt:
        print("ops: interrupted; what was written so far is kept.", file=(around.err if around else sys.stderr))
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has what it wanted; keep Python from complaining when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def main() -> None:
    """Entry point."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
