"""Runs pip in a process that may write to its own directory only, start no process, and use the network.

Run as `python -I pip_confined.py CONFIG_JSON PIP_ARGUMENT...`. Unpacking a wheel runs none of its code; this is for the
wheel, the index or pip itself being worse than that.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

MAX_FILE_MB, MAX_MEMORY_MB = 256, 1024


def main(config: dict[str, list[str]]) -> int:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from interpreter import kernel

    sys.path[:] = config["path"]
    sys.dont_write_bytecode = True
    for which, megabytes in ((resource.RLIMIT_FSIZE, MAX_FILE_MB), (resource.RLIMIT_AS, MAX_MEMORY_MB)):
        resource.setrlimit(which, (megabytes << 20, megabytes << 20))
    available = kernel.probe()
    if available.whole:
        readable = (*config["readable"], sys.prefix, sys.base_prefix)
        kernel.apply(available, readable=readable, writable=[str(config["home"])], network=True)
    _wheels_by_name_only()
    from pip._internal.cli.main import main as pip  # type: ignore[import-not-found]

    return int(pip())


def _wheels_by_name_only() -> None:
    """What --only-binary does not cover: a dependency given by its address, which pip would fetch and build."""
    from pip._internal.distributions.sdist import SourceDistribution  # type: ignore[import-not-found]
    from pip._internal.exceptions import InstallationError  # type: ignore[import-not-found]
    from pip._internal.req import constructors  # type: ignore[import-not-found]
    from pip._vendor.packaging.requirements import Requirement  # type: ignore[import-not-found]

    named = constructors.install_req_from_req_string

    def by_name(text: str, *more: Any, **others: Any) -> Any:
        if Requirement(text).url:
            raise InstallationError(f"{text} is given by its address; packages come by name from the index")
        return named(text, *more, **others)

    def refuse(self: Any, *_more: Any, **_others: Any) -> None:
        raise InstallationError(f"{self.req} is a source distribution; only wheels are installed")

    constructors.install_req_from_req_string = by_name
    SourceDistribution.prepare_distribution_metadata = refuse


if __name__ == "__main__":
    settings = json.loads(sys.argv.pop(1))
    sys.exit(main(settings))
