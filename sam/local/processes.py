"""What the kernel says about the processes of one environment, read from /proc; it signals only what it is told to."""

import contextlib
import os
import signal
from collections.abc import Iterable

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_HAS_CHILDREN_FILES = os.path.exists(f"/proc/self/task/{os.getpid()}/children")  # needs CONFIG_PROC_CHILDREN


def children(pid: int) -> list[int]:
    """Pids of the direct children of `pid`; empty once it is gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
            found.extend(int(child) for child in file.read().split())
    return found


def _parents() -> dict[int, int]:
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
                # The command name may hold spaces and brackets; what follows its last bracket is plain.
                parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    return parents


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, without it. A process whose parent died is below whoever reaps it."""
    if _HAS_CHILDREN_FILES:
        found = children(pid)
        for child in found:  # grows while it is walked
            found.extend(children(child))
        return found
    parents = _parents()
    found = [child for child, parent in parents.items() if parent == pid]
    for child in found:
        found.extend(grandchild for grandchild, parent in parents.items() if parent == child)
    return found


def resident_bytes(pids: Iterable[int]) -> int:
    """Sum of resident set sizes; pages shared by fork count once for every process that maps them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", "rb") as file:
            total += int(file.read().split()[1]) * PAGE_BYTES
    return total


def proportional_bytes(pids: Iterable[int]) -> int:
    """Sum of proportional set sizes: a shared page counts once in all. Slower than resident_bytes by the page.

    Falls back to the resident size of a process that may not be looked into.
    """
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith(b"Pss:")) * 1024
        except (OSError, StopIteration):
            total += resident_bytes([pid])
    return total


def kill_below(pid: int) -> None:
    """SIGKILL everything below `pid`, again until nothing new has appeared; `pid` itself lives to reap it."""
    known: set[int] = set()
    while living := {child for child in descendants(pid) if not is_gone(child)} - known:
        known |= living
        for child in living:
            kill(child)


def kill_tree(pid: int) -> None:
    """SIGKILL everything below `pid`, then `pid`."""
    kill_below(pid)
    kill(pid)


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def stop_below(pid: int) -> list[int]:
    """SIGSTOP everything below `pid`, again until nothing new has appeared; returns what was stopped."""
    stopped: list[int] = []
    known: set[int] = set()
    while new := [child for child in descendants(pid) if child not in known]:
        send(new, signal.SIGSTOP)
        known.update(new)
        stopped += new
    return stopped


def kill(pid: int) -> None:
    """SIGKILL `pid`; nothing happens when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def is_gone(pid: int) -> bool:
    """Whether `pid` has ended, reaped or not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return True
