"""Starting template processes (`zygote`), and what they and the code may see of this machine.

A template is exec'd with a clean environment. It is not forked from this process, whose memory holds more than the
code may know.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MATPLOTLIB = ".matplotlib"  # its directory below the scratch directory


class TemplateLost(Exception):
    """The template process died before it took the request; a new one takes its place."""


class Template:
    """A running template process (`zygote`) and the socket it takes requests on."""

    def __init__(self, preload: Sequence[str], scratch: Path, *, execute_only: bool) -> None:
        """Start one. `execute_only`: from a copy of Python that nobody may read (see `execute_only_python`)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        config = {
            "root": str(ROOT),
            "sys_path": template_path(),
            "preload": tuple(preload),
            "executable": sys.executable,
        }
        zygote = [str(ROOT / "interpreter" / "zygote.py"), str(theirs.fileno()), json.dumps(config)]
        environment = template_environment(scratch / MATPLOTLIB)
        python: contextlib.AbstractContextManager[list[str]] = contextlib.nullcontext([sys.executable, "-I"])
        if execute_only:
            # -I would ignore PYTHONHOME, which a copy needs to find its library; -P and -s are the rest of it.
            python = execute_only_python(scratch)
            environment |= {"PYTHONHOME": sys.base_prefix, "PYTHONNOUSERSITE": "1"}
        with theirs, python as command:
            self.process = subprocess.Popen(
                [*command, *zygote],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
            )
        self.socket = ours

    def fork(self, fds: list[int]) -> None:
        """Have it fork a child that gets `fds`. Raises TemplateLost."""
        try:
            socket.send_fds(self.socket, [b"!"], fds)
        except OSError as error:
            raise TemplateLost(str(error)) from error

    def close(self) -> None:
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def execute_only_python(scratch: Path) -> Iterator[list[str]]:
    """The command of a copy of Python that may be executed and not read, removed once the process runs.

    The kernel makes a process non-dumpable whose program its user may not read (execve(2), "would_dump"), without any
    prctl: its memory, environment and descriptors in /proc are closed to the same uid, hence to the code.
    """
    directory = tempfile.mkdtemp(prefix=".python-", dir=scratch)
    copy = os.path.join(directory, "python")
    try:
        shutil.copyfile(os.path.realpath(sys.executable), copy)
        os.chmod(copy, 0o111)
        yield [copy, "-P", "-s"]
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def template_path() -> list[str]:
    """sys.path of the templates: ours without the directory of the function's own code."""
    own = {str(ROOT), os.getcwd(), ""}
    return [entry for entry in sys.path if entry not in own]


def template_environment(matplotlib: Path) -> dict[str, str]:
    """The whole environment of the templates, and so of the code: nothing of the handler's but what Python needs."""
    kept = ("TZ", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    libraries = [os.environ.get("LD_LIBRARY_PATH", ""), f"{sys.base_prefix}/lib"]  # a copy has no $ORIGIN of its own
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": str(matplotlib),
        "OPENBLAS_NUM_THREADS": "1",  # a template must be free of threads when it forks
        "MALLOC_ARENA_MAX": "2",  # each arena reserves 64 MB of address space, which RLIMIT_AS counts
    }


def readable_directories(matplotlib: Path) -> tuple[str, ...]:
    """What any program needs to read: Python, its libraries, time zones, fonts, and facts about the machine."""
    paths = sysconfig.get_paths()
    libraries = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")} | set(template_path())
    system = (
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/etc/ld.so.cache",
        "/usr/share/zoneinfo",
        "/usr/share/fonts",
        "/etc/localtime",
        "/etc/mime.types",
        "/etc/fonts",
        "/etc/ssl/certs",
        "/dev/null",
        "/dev/zero",
        "/dev/urandom",
        "/dev/random",
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/self/maps",
        "/proc/self/status",
        "/proc/self/statm",
        "/proc/self/stat",
        "/sys/fs/cgroup",
        "/sys/devices/system/cpu",
    )
    named = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    loader = [directory for directory in named if not directory.startswith(str(ROOT))]  # Lambda's names the task root
    venv = (sys.prefix + "/lib", sys.base_prefix + "/lib", sys.prefix + "/pyvenv.cfg")
    return tuple(sorted({*libraries, *loader, *venv, *system, str(matplotlib)}))


def shipped_font_lists() -> list[Path]:
    """The font lists that `sam/dependencies/fontcache.py` left in matplotlib's data, found without importing it."""
    spec = importlib.util.find_spec("matplotlib")
    return list(Path(spec.origin).parent.glob("mpl-data/fontlist-*.json")) if spec and spec.origin else []
