"""The failures a person sees as one sentence, each with its exit code (DESIGN.md, "Exit codes").

    OpsError
    ├── UsageError         2   a flag or a setting is wrong
    ├── Unreachable        3   AWS or the endpoint does not answer, or refuses our credentials
    └── Inconclusive       4   there is nothing, or too little, to judge by

A traceback is for a bug: code here must raise one of these for whatever an operator can mend.
"""

from typing import Final

EXIT_PASS: Final = 0
EXIT_GATE_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_INCONCLUSIVE: Final = 4
EXIT_INTERRUPTED: Final = 130


class OpsError(Exception):
    """What is wrong, with what value, and what to do, in one sentence."""

    exit_code: int = EXIT_GATE_FAILED


class UsageError(OpsError):
    """A flag, a setting or a name that cannot be used as given."""

    exit_code = EXIT_USAGE


class Unreachable(OpsError):
    """AWS, the local stack or the endpoint does not answer, or refuses our credentials."""

    exit_code = EXIT_UNREACHABLE


class Inconclusive(OpsError):
    """Nothing was found to judge by, or too little of it."""

    exit_code = EXIT_INCONCLUSIVE
