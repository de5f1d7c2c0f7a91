"""What `pip install` puts on a machine: the commands lci-conformance, lci-load, lci-ops and lci-check.

The rooms keep their short names, and packages called `load` or `ops` would clash in somebody's environment. So the
wheel holds them inside this package, and a command makes this directory the first place to import from, for itself and
for the processes it starts. It must do nothing else: what a command does is in its room.
"""

import importlib
import os
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
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOMS), os.environ.get("PYTHONPATH"))))
    # A child started with -m would look into the current directory first, where a user may have a `load` of their own.
    os.environ["PYTHONSAFEPATH"] = "1"
    return int(importlib.import_module(f"{room}.__main__").run(sys.argv[1:]))
