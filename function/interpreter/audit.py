"""The audit hook (PEP 578): first to speak, names what it refused, and is not a boundary.

It judges what the code does when it runs, never words in its text. Code that reaches C without an event (machine code
of its own, a library that opens files in C) goes past it; what holds then is the kernel and the environment (see
`confinement`). The code shares a process with it, so it is made of what the code can see and not change (`judges`).
"""

from __future__ import annotations

import gc
import os
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

from interpreter.judges import REFUSED_MODULES, Judge, Policy, attachments, exact, judges
from interpreter.pipes import MAX_NAME, REFUSED, UNTOLD

_SLOTS = 128


class SecurityError(PermissionError):
    """A refused operation. It is an OSError so that code which copes with missing permissions copes with this."""

    def __init__(self, operation: str) -> None:
        super().__init__(f"Blocked dangerous operation: {operation}")
        self.operation = operation


SecurityError.__module__ = "builtins"  # tracebacks name it as users know it


def install(policy: Policy, trace_fd: int) -> None:
    """Refuse, from now on and for the life of this process, what `policy` does not allow.

    Each refusal is told on `trace_fd` at once, from where the code cannot take it back, and raised. One that cannot be
    told, since the code has closed or exchanged that descriptor, ends the process with UNTOLD.
    """
    table = _table(judges(policy) | {"object.__setattr__": _our_functions()})
    _refuse_unaudited(policy)
    sys.addaudithook(_hook(table, trace_fd))
    gc.freeze()  # what makes up the hook is then not among gc.get_objects() and get_referrers()


def _table(judges: dict[str, Judge]) -> tuple[tuple[tuple[str, Judge], ...], ...]:
    """A hash table that cannot be changed."""
    return tuple(
        tuple((event, judge) for event, judge in judges.items() if hash(event) % _SLOTS == slot)
        for slot in range(_SLOTS)
    )


def _hook(table: Any, trace_fd: int) -> Callable[[str, tuple[Any, ...]], None]:
    pipe = os.fstat(trace_fd)

    def hook(
        event: str, args: tuple[Any, ...], table: Any = table, slots: int = _SLOTS, hash_of: Any = hash,
        trace_fd: int = trace_fd, inode: int = pipe.st_ino, device: int = pipe.st_dev, fstat: Any = os.fstat,
        write: Any = os.write, tells: bytes = b"\n" + REFUSED, most: int = MAX_NAME, encode: Any = str.encode,
        error: Any = SecurityError, any_error: Any = BaseException, leave: Any = os._exit, untold: int = UNTOLD,
    ) -> None:  # fmt: skip
        for name, judge in table[hash_of(event) % slots]:
            if name == event:
                operation = judge(args)
                if operation is not None:
                    try:
                        found = fstat(trace_fd)
                        if found.st_ino != inode or found.st_dev != device:
                            leave(untold)
                        write(trace_fd, tells + encode(operation[:most], "utf-8", "replace") + b"\n")
                    except any_error:
                        leave(untold)
                    raise error(operation)

    return hook


def _our_functions() -> Judge:
    """Code, defaults and keyword defaults of a function can be assigned; those of the hook and its judges cannot."""
    files = (judges.__code__.co_filename, install.__code__.co_filename)

    def assigns(
        args: tuple[Any, ...], kind: Any = type, function: Any = types.FunctionType, files: Any = files
    ) -> str | None:
        ours = kind(args[0]) is function and args[0].__code__.co_filename in files
        return "object.__setattr__" if ours else None

    return assigns


def _refuse_unaudited(policy: Policy) -> None:
    """Replace what raises no event of its own by what raises ours. A replacement holds no original.

    Only the first to speak, as the hook is; RLIMIT_NPROC and seccomp hold it where it is circumvented.
    """
    import _imp
    import _posixsubprocess
    import mmap
    import posix
    import signal
    import socket
    import sqlite3
    import subprocess

    subprocess._fork_exec = _posixsubprocess.fork_exec = _refused("_posixsubprocess.fork_exec")  # type: ignore[attr-defined]
    for name in (
        "mkfifo",
        "mknod",
        "pidfd_open",
        "sched_setaffinity",
        "sched_setparam",
        "sched_setscheduler",
        "setns",
        "setpriority",
        "unshare",
    ):
        original = getattr(posix, name, None)
        for functions in (os.supports_dir_fd, os.supports_effective_ids, os.supports_fd, os.supports_follow_symlinks):
            functions.discard(original)
        for module in (posix, os):
            if hasattr(module, name):
                setattr(module, name, _refused(f"os.{name}"))
    for name in ("if_nameindex", "if_nametoindex", "if_indextoname"):
        for module in (socket, sys.modules["_socket"]):
            setattr(module, name, _refused(f"socket.{name}"))
    for module in (signal, sys.modules["_signal"]):
        setattr(module, "pidfd_send_signal", _refused("signal.pidfd_send_signal"))  # noqa: B010  # not on every system
    sys.activate_stack_trampoline = _refused("sys.activate_stack_trampoline")  # writes /tmp/perf-<pid>.map
    backend = sys.modules.get("_cffi_backend")  # the templates import it, so that this holds for every import of it
    if backend is not None:
        setattr(backend, "load_library", _refused("cffi.dlopen"))  # noqa: B010  # no stub has it
    for name in REFUSED_MODULES:
        sys.modules.pop(name, None)
    _imp.create_builtin = _refused("_imp.create_builtin")  # the templates have imported all there are
    gc.unfreeze = _nothing  # what was frozen stays out of sight
    mmap.mmap = _without_execution(mmap.mmap)  # type: ignore[misc,assignment]
    sqlite3.connect = sqlite3.dbapi2.connect = _watched(sqlite3.connect, attachments(policy))


def _refused(name: str) -> Any:
    return partial(sys.audit, "interpreter.refused", name)


def _nothing() -> None:
    """In place of what must do nothing."""


def _watched(connect: Any, authorizer: Callable[..., int]) -> Callable[..., Any]:
    """`sqlite3.connect` that has further files judged, and reads a path object first, since only a str is believed."""

    def watched(database: Any, *args: Any, **more: Any) -> Any:
        connection = connect(exact(os.fspath(database)), *args, **more)
        connection.set_authorizer(authorizer)
        return connection

    return watched


def _without_execution(mmap: Any) -> type:
    """`mmap.mmap` that maps nothing executable: memory with machine code in it needs no C function to be called by."""

    def __new__(cls: type, fileno: int, length: int, *args: Any, **more: Any) -> Any:
        if (args[1] if len(args) > 1 else more.get("prot", 0)) & 4:  # PROT_EXEC
            sys.audit("interpreter.refused", "mmap.mmap(PROT_EXEC)")
        return mmap.__new__(cls, fileno, length, *args, **more)

    return type("mmap", (mmap,), {"__new__": __new__, "__module__": "mmap", "__doc__": mmap.__doc__})
