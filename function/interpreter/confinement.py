"""The layers around user code: limits set in the child, and what the host side does before and after a run.

Each layer says whether it is active here (`layers`), because inside Lambda several are not to be had. The standard
library only: the template processes import this.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import posix
import resource
import signal
from collections.abc import Iterable
from dataclasses import dataclass

from interpreter.kernel import Available

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN")
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # never through a symlink
SWEEP_ROUNDS = 200  # so that what forks as fast as it is killed does not hold the host for ever
STACK_MB = 8  # what CPython's own limit of recursion in C is made for; more would let a recursion eat the memory


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use. Sizes in MB are of 2**20 bytes."""

    timeout_s: float = 25.0
    memory_mb: int = 512  # address space beyond the template's own
    file_mb: int = 64  # one file
    disk_mb: int = 256  # all files of the run together
    processes: int = 32  # tasks beyond those the environment has: threads of the run
    open_files: int = 256
    stdout_kb: int = 256  # kept; more is counted and cut
    flood_mb: int = 32  # read; more ends the run


# ---- inside the child -------------------------------------------------------------------------------------------


def set_limits(limits: Limits) -> None:
    """rlimits of this process that hold for whatever it runs, hard and soft alike so that they cannot be raised again.

    AS and not DATA: DATA does not count shared anonymous mappings (measured: 3.9 GB under a limit of 512 MB).
    """
    mb = 1 << 20
    _limit(resource.RLIMIT_AS, _address_space_bytes() + limits.memory_mb * mb)
    _limit(resource.RLIMIT_FSIZE, limits.file_mb * mb)
    _limit(resource.RLIMIT_STACK, STACK_MB * mb)
    _limit(resource.RLIMIT_NOFILE, limits.open_files)
    _limit(resource.RLIMIT_CORE, 0)


def limit_call(limits: Limits, timeout_s: float | None, tasks_now: int | None) -> None:
    """rlimits that depend on the call.

    `timeout_s` is None for a session, whose calls would add up to one CPU limit; the wall clock holds each of them.
    NPROC counts every task of the uid, hence `tasks_now`, this process among them; None leaves it alone, where the
    uid is shared.
    """
    if timeout_s is not None:
        _limit(resource.RLIMIT_CPU, math.ceil(timeout_s * (os.cpu_count() or 1)) + 1)
    if tasks_now is not None:
        _limit(resource.RLIMIT_NPROC, tasks_now - 1 + limits.processes)


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def _address_space_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


# ---- the host's side --------------------------------------------------------------------------------------------


def scrub_secrets() -> None:
    """Overwrite the credentials in this process's memory and drop them from its environment.

    Must run before anything copies them (boto3, a subprocess). A child of the same uid can read
    /proc/<pid>/environ and /proc/<pid>/mem of this process where nothing else forbids it.
    """
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    header = bytes.__basicsize__ - 1  # where the payload of a bytes object begins (CPython)
    for name in SECRETS:
        if name not in os.environ:
            continue
        key = name.encode()
        address = libc.getenv(key)
        if address:
            ctypes.memset(address, 0x78, len(ctypes.string_at(address)))
        for mapping in (os.environ._data, posix.environ):  # type: ignore[attr-defined]
            value = mapping.get(key)
            if isinstance(value, bytes) and len(value) > 1:  # CPython shares bytes of length 1
                ctypes.memset(id(value) + header, 0x78, len(value))
        del os.environ[name]


def close_own_memory() -> None:
    """Make this process non-dumpable, so that others of its uid cannot read or write it through /proc.

    Inside Lambda prctl is refused; there `execute-only`, which starts the runtime, has done it.
    """
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE, prctl(2)


def own_memory_closed() -> bool:
    """Whether they cannot: the files in /proc of a process that is not dumpable belong to root (proc(5))."""
    return os.getuid() != 0 and os.stat("/proc/self/environ").st_uid != os.getuid()


@dataclass(frozen=True, slots=True)
class Task:
    pid: int
    parent: int
    threads: int


def own_tasks() -> list[Task]:
    """Processes of our uid that /proc shows, zombies left out."""
    uid = os.getuid()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, LookupError):  # it may end while we look
            with open(f"/proc/{name}/status", "rb") as file:
                fields = dict(line.split(b":", 1) for line in file.read().splitlines() if b":" in line)
            if int(fields[b"Uid"].split()[0]) == uid and not fields[b"State"].strip().startswith(b"Z"):
                found.append(Task(int(name), int(fields[b"PPid"]), int(fields[b"Threads"])))
    return found


def alone() -> bool:
    """Whether every process of our uid is us or an ancestor, inside Lambda or its local stack.

    Only then may everything else of the uid be killed and its files in /tmp removed after a run: on a person's own
    machine those would be the person's. False for root, which Lambda never is.
    """
    if os.getuid() == 0 or not os.environ.get("AWS_EXECUTION_ENV", "").startswith("AWS_Lambda_"):
        return False
    return {task.pid for task in own_tasks()} <= ancestors()


def ancestors() -> set[int]:
    """This process and those above it."""
    parents = {task.pid: task.parent for task in own_tasks()}
    line, pid = {os.getpid()}, os.getppid()
    while pid in parents:
        line.add(pid)
        pid = parents[pid]
    return line


def sweep(spare: Iterable[int]) -> None:
    """Kill every process of the uid but `spare` until two passes find none. See `alone`."""
    spared = set(spare)
    clean = 0
    for _ in range(SWEEP_ROUNDS):
        found = {task.pid for task in own_tasks()} - spared
        clean = clean + 1 if not found else 0
        if clean == 2:
            break
        _kill(found)


def sweep_orphans(known: Iterable[int]) -> None:
    """Kill the children of this process that it did not make itself.

    They are what a run left behind, come to this process as their subreaper; theirs come here in turn.
    """
    own = set(known)
    killed: set[int] = set()
    for _ in range(SWEEP_ROUNDS):
        found = _children() - own - killed
        if not found:
            break
        _kill(found)
        killed |= found
        for pid in found:  # only once it is reaped have its own children come to us
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> set[int]:
    pid = os.getpid()
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return {int(child) for child in file.read().split()}
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return {task.pid for task in own_tasks() if task.parent == pid}


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def wipe(directory: str, keep: Iterable[str] = ()) -> None:
    """Remove what lies in `directory` and is ours, but for the names in `keep`.

    Never follows a symlink (CVE-2024-28185 and its kin): every step is by directory descriptor with O_NOFOLLOW.
    """
    kept = set(keep)
    fd = os.open(directory, OPEN_DIRECTORY)
    try:
        _empty(fd, kept)
    finally:
        os.close(fd)


def _empty(fd: int, keep: set[str]) -> None:
    uid = os.getuid()
    with os.scandir(fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if name in keep:
            continue
        with contextlib.suppress(OSError):
            if not is_directory:
                os.unlink(name, dir_fd=fd)  # another's is kept by the sticky bit of /tmp
                continue
            if os.lstat(name, dir_fd=fd).st_uid != uid:
                continue
            os.chmod(name, 0o700, dir_fd=fd)  # the run may have taken its own permission away
            below = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
            try:
                _empty(below, set())
            finally:
                os.close(below)
            os.rmdir(name, dir_fd=fd)


def remove(directory: str) -> None:
    """Remove a directory of ours and all that is in it, following no symlink."""
    with contextlib.suppress(FileNotFoundError):
        wipe(directory)
        os.rmdir(directory)


def become_subreaper() -> None:
    """Have orphans of this process's children come to it, so that they can be found and killed. Lambda refuses."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER, prctl(2)


# ---- the truth about it -----------------------------------------------------------------------------------------


def layers(alone_here: bool, available: Available, *, network: bool, hook: bool) -> list[tuple[str, bool, str]]:
    """Name, whether active here, and what it does or why not. `get_environment_info` shows this."""
    shared = "not applied: other processes run under this uid"
    absent = "this kernel or the filter around this process refuses it, as inside a Lambda function"
    host_closed = own_memory_closed()
    secrets_here = [name for name in SECRETS if name in os.environ]
    return [
        ("process", True, "each call is a child of a clean template process and ends with the call"),
        ("rlimits", True, "address space, CPU, stack, file size, open files, no core"),
        ("nproc", alone_here, "tasks of the uid are capped" if alone_here else shared),
        (
            "sweep",
            alone_here or available.prctl,
            "whatever a call leaves running is killed"
            if alone_here or available.prctl
            else "not possible: other processes run under this uid and the kernel refuses a subreaper",
        ),
        (
            "wipe",
            True,
            "the run directory" + (" and the rest of /tmp are" if alone_here else " is") + " emptied after each call",
        ),
        (
            "credentials",
            not secrets_here,
            "not in this process's memory or environment" if not secrets_here else "present",
        ),
        (
            "execute-only",
            alone_here,
            "the templates' memory and environment are closed to the code" if alone_here else shared,
        ),
        (
            "execute-only-host",
            host_closed,
            "the handler's memory and environment are closed to the code"
            if host_closed
            else "not applied: set AWS_LAMBDA_EXEC_WRAPPER to /var/task/execute-only",
        ),
        (
            "audit-hook",
            hook,
            "names what it refuses; not a boundary: code that reaches C passes it" if hook else "switched off",
        ),
        (
            "network",
            not network,
            "sockets are refused by the audit hook" if not network else "open by INTERPRETER_NETWORK",
        ),
        (
            "seccomp",
            available.whole,
            "processes, sockets and signals are refused by the kernel" if available.whole else absent,
        ),
        ("landlock", available.whole, f"files, ABI {available.landlock_abi}" if available.whole else absent),
    ]
