"""What `pip install` puts on a machine: the commands lci-conformance, lci-load, lci-ops and lci-check.

The rooms keep their short names, and packages called `load` or `ops` would clash in somebody's environment. So the
wheel holds them inside this package, and a command makes this directory the first place to import from. It must do
nothing else, and leave the environment alone: a server that the suite is told to start inherits it.
"""

import importlib
import sys
from importlib.metadata import version
from pathlib import Path

DISTRIBUTION = "lambda-code-interpreter"
ROOMS = Path(__file__).resolve().parent


def conformance() -> None:
    """The command lci-conformance."""
    sys.exit(_run("conformance"))


def load() -> None:
    """The command lci-load."""
    sys.exit(_run("load"))


def ops() -> None:
    """The command lci-ops."""
    sys.exit(_run("ops"))


def check() -> None:
    """The command lci-check."""
    sys.exit(_run("check"))


def _run(room: str) -> int:
    if sys.argv[1:] == ["--version"]:
        print(f"lci-{room} {version(DISTRIBUTION)}")
        return 0
    sys.path.insert(0, str(ROOMS))
    return int(importlib.import_module(f"{room}.__main__").run(sys.argv[1:]))
