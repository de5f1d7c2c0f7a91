"""The share of a processor that an environment gets for its memory: one vCPU at 1769 MB, as Lambda gives it.

By a cgroup where this host lets us make one, else by stopping and continuing processes; it decides nothing about calls.
Source of 1769: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
"""

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from . import processes

FULL_VCPU_MB = 1769
PERIOD_S = 0.02  # Lambda's own scheduling period, visible there as pauses of up to 20 ms
LOOK_S = 0.002
_CGROUP_PREFIX = "sam-local-"
_serial = itertools.count()


def vcpus(memory_mb: int) -> float:
    """The vCPUs of a function with this memory."""
    return memory_mb / FULL_VCPU_MB


class Share(Protocol):
    """The limit on one environment. Init runs without it, as Lambda lets it burst; `limit` begins it."""

    def take(self, pid: int) -> None:
        """Put this process, which has no children yet, and all that will come of it under the limit."""

    def limit(self, top: int) -> None:
        """From now on: what is below `top` gets its share and no more."""

    def rest(self) -> None:
        """The environment is frozen, or ends: nothing may be continued by us."""

    def wake(self) -> None:
        """The environment runs again."""

    def close(self) -> None:
        """Forget the environment, whose processes have ended. May be called twice."""


def shares() -> tuple[Callable[[int], Share], str]:
    """What makes a share for an amount of memory in MB, and in words how it is done here."""
    parent = find_cgroup()
    if parent is not None:
        remove_left_cgroups(parent)
        return (lambda memory_mb: CgroupShare(parent, vcpus(memory_mb))), f"a cgroup in {parent}"
    governor = Governor()
    return (lambda memory_mb: StoppedShare(governor, vcpus(memory_mb))), "SIGSTOP and SIGCONT"


# -- cgroups ----------------------------------------------------------------------------------------------------------


class CgroupShare:
    """A cgroup of its own under `parent`, of either version."""

    def __init__(self, parent: Path, vcpus: float) -> None:
        self._path = parent / f"{_CGROUP_PREFIX}{os.getpid()}-{next(_serial)}"
        self._path.mkdir()
        self._vcpus = vcpus

    def take(self, pid: int) -> None:
        (self._path / "cgroup.procs").write_text(str(pid))

    def limit(self, top: int) -> None:
        del top  # the cgroup holds it already
        _write_quota(self._path, self._vcpus)

    def rest(self) -> None:
        pass  # what is stopped uses none

    def wake(self) -> None:
        pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._path.rmdir()


def _write_quota(path: Path, share: float) -> None:
    period_us = int(PERIOD_S * 1e6)
    quota_us = max(1000, round(share * period_us))  # the kernel takes no less than 1 ms
    if (path / "cpu.max").exists():
        (path / "cpu.max").write_text(f"{quota_us} {period_us}")
    else:
        (path / "cpu.cfs_period_us").write_text(str(period_us))
        (path / "cpu.cfs_quota_us").write_text(str(quota_us))


def find_cgroup(memberships: str | None = None, mounts: str | None = None) -> Path | None:
    """A cgroup in which this process may make others with a limit on CPU, found by making one; None without.

    `memberships` and `mounts` stand for /proc/self/cgroup and /proc/self/mounts.
    """
    try:
        memberships = Path("/proc/self/cgroup").read_text() if memberships is None else memberships
        mounts = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    except OSError:
        return None
    for parent in _candidates(memberships, mounts):
        trial = parent / f"{_CGROUP_PREFIX}{os.getpid()}-trial"
        try:
            trial.mkdir()
        except OSError:
            continue
        try:
            _write_quota(trial, 1.0)
            return parent
        except OSError:
            continue
        finally:
            with contextlib.suppress(OSError):
                trial.rmdir()
    return None


def _candidates(memberships: str, mounts: str) -> list[Path]:
    paths: dict[str, str] = {}  # by controller; version 2 has the empty name
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    found: list[Path] = []
    for line in mounts.splitlines():
        _, where, kind, options = line.split()[:4]
        if kind == "cgroup" and "cpu" in options.split(",") and "cpu" in paths:
            found.append(Path(where + paths["cpu"]))
        if kind == "cgroup2" and "" in paths:
            own = Path(where + paths[""])
            # A cgroup with processes may not hand controllers down, so ours must be beside our own, not below it.
            found += [own] if own == Path(where) else [own.parent]
    return found


def remove_left_cgroups(parent: Path) -> None:
    """Remove what stacks that were killed without warning left here."""
    for path in parent.glob(f"{_CGROUP_PREFIX}*-*"):
        pid = path.name.removeprefix(_CGROUP_PREFIX).partition("-")[0]
        if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            with contextlib.suppress(OSError):
                path.rmdir()


# -- signals ----------------------------------------------------------------------------------------------------------


class StoppedShare:
    """Processes that used up their share are stopped until it has grown again."""

    def __init__(self, governor: "Governor", vcpus: float) -> None:
        self._governor = governor
        self._vcpus = vcpus
        self._top = 0
        self._used_ns = 0
        self._credit_s = 0.0
        self._looked_s = 0.0
        self._stopped: list[int] = []
        self._lock = threading.Lock()  # the governor looks from a thread of its own

    def take(self, pid: int) -> None:
        pass

    def limit(self, top: int) -> None:
        self._top = top
        self.wake()

    def wake(self) -> None:
        if self._top:
            self._used_ns = cpu_ns(processes.descendants(self._top))
            self._credit_s, self._looked_s = self._vcpus * PERIOD_S, time.monotonic()
            self._governor.watch(self)

    def rest(self) -> None:
        with self._lock:
            self._governor.leave(self)
            processes.send(self._stopped, signal.SIGCONT)
            self._stopped = []

    def close(self) -> None:
        self.rest()

    def look(self, now_s: float) -> None:
        """Count what was used since the last look, and stop or continue accordingly."""
        with self._lock:
            if not self._governor.watches(self):
                return
            pids = processes.descendants(self._top)
            used_ns = cpu_ns(pids)
            # A process that ended takes its time out of the sum; what was used is then unknown, and small.
            spent_s = max(0, used_ns - self._used_ns) / 1e9
            earned_s = self._vcpus * (now_s - self._looked_s)
            self._used_ns, self._looked_s = used_ns, now_s
            self._credit_s = min(self._credit_s + earned_s - spent_s, self._vcpus * PERIOD_S)
            if self._credit_s < 0 and not self._stopped:
                self._stopped = processes.stop_below(self._top)
            elif self._credit_s >= 0 and self._stopped:
                processes.send(self._stopped, signal.SIGCONT)
                self._stopped = []


class Governor:
    """One thread that looks at every share that is awake, every LOOK_S, and sleeps when none is."""

    def __init__(self) -> None:
        self._awake: set[StoppedShare] = set()
        self._some = threading.Event()
        threading.Thread(target=self._run, name="cpu-share", daemon=True).start()

    def watch(self, share: StoppedShare) -> None:
        self._awake.add(share)
        self._some.set()

    def leave(self, share: StoppedShare) -> None:
        self._awake.discard(share)

    def watches(self, share: StoppedShare) -> bool:
        return share in self._awake

    def _run(self) -> None:
        while True:
            if not self._awake:
                self._some.clear()
                if not self._awake:  # one may have come in between
                    self._some.wait()
            for share in list(self._awake):
                share.look(time.monotonic())
            time.sleep(LOOK_S)


def cpu_ns(pids: list[int]) -> int:
    """Processor time that these processes' living threads have used, in nanoseconds."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                    total += int(file.read().split()[0])
    return total
