"""Runs pip in a process that may write to its own directory only, start no process, and use the network.

Run as `python -I pip_confined.py CONFIG_JSON PIP_ARGUMENT...`. Unpacking a wheel runs none of its code; this is for the
wheel, the index or pip itself being worse than that.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

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
    from pip._internal.cli.main import main as pip  # type: ignore[import-not-found]

    return int(pip())


if __name__ == "__main__":
    settings = json.loads(sys.argv.pop(1))
    sys.exit(main(settings))
