"""`python -m ops`: the command line of the person on call. Parses, hands over, and turns failures into exit codes."""

import argparse
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
