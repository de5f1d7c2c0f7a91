"""The audit hook (PEP 578): first to speak, names what it refused, and is not a boundary.

It judges what the code does when it runs, never words in its text. Code that reaches C without an event (cffi, raw
memory through numpy) goes past it; what holds then is the kernel and the environment (see `confinement`).
The hook body uses only what it captured before user code ran, so patched builtins do not reach it.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_VIOLATIONS = 100

_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class SecurityError(PermissionError):
    """A refused operation. It is an OSError so that code which copes with missing permissions copes with this."""

    def __init__(self, operation: str) -> None:
        super().__init__(f"Blocked dangerous operation: {operation}")
        self.operation = operation


SecurityError.__module__ = "builtins"  # tracebacks name it as users know it


@dataclass(frozen=True, slots=True)
class Policy:
    """What the code may reach. Paths are absolute and normalized; a directory covers what is below it."""

    writable: tuple[str, ...]
    readable: tuple[str, ...]
    hidden: tuple[str, ...] = ()  # below a readable directory and yet refused
    network: bool = False


# Refused whatever the arguments: a new process, another interpreter (hooks are per interpreter), another machine.
_ALWAYS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
    "subprocess.Popen",
    "os.killpg",
    "cpython.PyInterpreterState_New",
    "sqlite3.enable_load_extension",
    "sqlite3.load_extension",
    "os.setxattr",
    "os.removexattr",
)
_NETWORK = (
    "urllib.Request",
    "http.client.connect",
    "ftplib.connect",
    "smtplib.connect",
    "imaplib.open",
    "poplib.connect",
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
    "socket.getservbyname",
    "socket.sethostname",
)
# C functions that make processes, sockets, signals or shared memory, under all their names, and the loader's own
# look-up that would give them under another. numpy, scipy and threadpoolctl need ctypes, so ctypes stays.
_C_SYMBOLS = frozenset(
    "system __libc_system popen execl execlp execle execv execve execvp execvpe fexecve fork __fork _Fork __libc_fork "
    "vfork forkpty daemon clone clone3 posix_spawn __posix_spawn posix_spawnp wordexp syscall ptrace process_vm_readv "
    "process_vm_writev socket connect bind sendto sendmsg getaddrinfo gethostbyname if_nameindex kill killpg tgkill "
    "pidfd_open pidfd_send_signal pidfd_getfd prlimit prlimit64 setpriority sched_setaffinity sched_setscheduler "
    "sched_setparam ioprio_set open open64 openat openat64 creat fopen fopen64 freopen freopen64 shm_open shmget shmat "
    "shmctl semget msgget memfd_create mount umount unshare setns chroot prctl dlopen dlmopen dlsym dlvsym "
    "__libc_dlsym __libc_dlopen_mode mmap mmap64 mprotect pkey_mprotect".split()
)
# Modules that were replaced in part; made anew they would have their originals again.
_NOT_ANEW = frozenset(("posix", "_posixsubprocess", "_socket", "_cffi_backend", "_imp", "_ctypes"))


def install(policy: Policy, violations: list[str]) -> None:
    """Refuse, from now on and for the life of this process, what `policy` does not allow; names go to `violations`."""
    checks = _checks(policy)
    find, append, count, limit = checks.get, violations.append, len, MAX_VIOLATIONS
    error = SecurityError

    def hook(event: str, args: tuple[Any, ...]) -> None:
        check = find(event)
        if check is None:
            return
        operation = check(args)
        if operation is not None:
            if count(violations) < limit:
                append(operation)
            raise error(operation)

    _refuse_unaudited(policy, violations)
    _authorize_databases(policy, violations)
    sys.addaudithook(hook)
    gc.freeze()  # what makes up the hook is then not among gc.get_objects() and get_referrers()


def _refuse_unaudited(policy: Policy, violations: list[str]) -> None:
    """Replace what raises no event of its own: a new process by name, native code by cffi, another's scheduling.

    Only the first to speak, as the hook is; RLIMIT_NPROC and seccomp hold it where it is circumvented. A replacement
    holds no original: a closure could be looked into.
    """
    import _imp
    import _posixsubprocess
    import mmap
    import posix
    import socket
    import subprocess

    error = SecurityError

    def refuse(name: str) -> Callable[..., Any]:
        def refused(*_args: object, **_more: object) -> Any:
            violations.append(name)
            raise error(name)

        return refused

    subprocess._fork_exec = _posixsubprocess.fork_exec = refuse("_posixsubprocess.fork_exec")  # type: ignore[attr-defined]
    for name in (
        "setpriority",
        "sched_setaffinity",
        "sched_setscheduler",
        "sched_setparam",
        "pidfd_open",
        "unshare",
        "setns",
    ):
        for module in (posix, os):
            if hasattr(module, name):
                setattr(module, name, refuse(f"os.{name}"))
    for name in ("if_nameindex", "if_nametoindex", "if_indextoname"):
        for module in (socket, sys.modules["_socket"]):
            setattr(module, name, refuse(f"socket.{name}"))
    backend = sys.modules.get("_cffi_backend")  # the templates import it, so that this holds for every import of it
    if backend is not None:
        backend.load_library = refuse("cffi.dlopen")  # type: ignore[attr-defined]
    sys.modules["readline"] = None  # type: ignore[assignment]  # writes files by name without an event
    for name in ("create_builtin", "create_dynamic"):
        setattr(_imp, name, _once(getattr(_imp, name), refuse(f"_imp.{name}"), _library_paths(policy)))
    mmap.mmap = _without_execution(mmap.mmap, refuse("mmap.mmap(PROT_EXEC)"))  # type: ignore[misc,assignment]


def _authorize_databases(policy: Policy, violations: list[str]) -> None:
    """ATTACH and VACUUM INTO open files in C without an event, so each connection gets SQLite's own authorizer."""
    import _sqlite3
    import sqlite3

    connect, writable = sqlite3.connect, _within(policy.writable)
    absolute = os.path.abspath

    def attaches(action: int, target: str | None, *_: Any) -> int:
        if action != sqlite3.SQLITE_ATTACH or target in ("", ":memory:", None) or writable(absolute(target)):
            return sqlite3.SQLITE_OK
        violations.append(f"sqlite3.attach({target!r})")
        return sqlite3.SQLITE_DENY

    def authorized(*args: Any, **more: Any) -> Any:
        connection = connect(*args, **more)
        connection.set_authorizer(attaches)
        return connection

    for module in (_sqlite3, sqlite3, sqlite3.dbapi2):
        module.connect = authorized  # type: ignore[attr-defined]


def _library_paths(policy: Policy) -> Callable[[str], bool]:
    """Where modules of machine code may come from: the path as it is now, but for what the run can write."""
    writable = _within(policy.writable)
    return _within(tuple(entry for entry in sys.path if not writable(entry)))


def _once(
    create: Callable[..., Any], refused: Callable[..., Any], library: Callable[[str], bool]
) -> Callable[..., Any]:
    """`_imp.create_*` but for modules that were changed in part, and machine code that is no library of Python's."""
    not_anew, absolute = _NOT_ANEW, os.path.abspath

    def checked(spec: Any, *more: Any) -> Any:
        known = spec.origin in (None, "built-in") or library(absolute(spec.origin))
        return create(spec, *more) if known and spec.name not in not_anew else refused()

    return checked


def _without_execution(mmap: Any, refused: Callable[..., Any]) -> type:
    """`mmap.mmap` that maps nothing executable: memory with machine code in it needs no C function to be called by."""

    def __new__(cls: type, fileno: int, length: int, *args: Any, **more: Any) -> Any:
        prot = args[1] if len(args) > 1 else more.get("prot", 0)
        return refused() if prot & 4 else mmap.__new__(cls, fileno, length, *args, **more)  # 4 is PROT_EXEC

    return type("mmap", (mmap,), {"__new__": __new__, "__module__": "mmap", "__doc__": mmap.__doc__})


Check = Callable[[tuple[Any, ...]], str | None]


def _checks(policy: Policy) -> dict[str, Check]:
    """Audit event -> function of its arguments that returns the refused operation's name, or None to allow."""

    def refuse(name: str) -> Check:
        return lambda _args: name

    checks: dict[str, Check] = {name: refuse(name) for name in _ALWAYS}
    if policy.network:
        checks |= _public_network_checks()
    else:
        checks |= {name: refuse(name) for name in _NETWORK}
        checks |= _socket_checks()
    checks |= _path_checks(policy)
    checks |= _process_checks()
    checks |= _ctypes_checks(policy)
    return checks


def _socket_checks() -> dict[str, Check]:
    import socket

    unix = int(socket.AF_UNIX)

    def new(args: tuple[Any, ...]) -> str | None:
        # asyncio wakes itself through a socketpair, so AF_UNIX sockets may exist; they may not connect or bind.
        return None if args[1] in (unix, -1) else "socket.socket"

    def send(args: tuple[Any, ...]) -> str | None:
        return None if args[1] is None else "socket.sendto"

    return {"socket.__new__": new, "socket.sendto": send, "socket.sendmsg": send}


def _public_network_checks() -> dict[str, Check]:
    """Public addresses only: no loopback (the Runtime API is there), link-local (metadata services) or private range.

    Judged on address literals, which is what libraries connect to after looking a name up; a name is refused.
    """
    import ipaddress

    parse, is_instance = ipaddress.ip_address, isinstance

    def outside(name: str, position: int) -> Check:
        def check(args: tuple[Any, ...]) -> str | None:
            address = args[position]
            if address is None:
                return None
            if not is_instance(address, tuple) or not is_instance(address[0], str):
                return f"{name}({address!r})"  # a UNIX path, or what no resolver made
            try:
                public = parse(address[0].partition("%")[0]).is_global
            except ValueError:
                public = False
            return None if public else f"{name}({address[0]!r})"

        return check

    return {
        "socket.connect": outside("socket.connect", 1),
        "socket.sendto": outside("socket.sendto", 1),
        "socket.sendmsg": outside("socket.sendmsg", 1),
        "socket.bind": lambda _args: "socket.bind",
    }


def _process_checks() -> dict[str, Check]:
    own = os.getpid()

    def kill(args: tuple[Any, ...]) -> str | None:
        return None if args[0] == own else "os.kill"

    def prlimit(args: tuple[Any, ...]) -> str | None:
        return None if args[0] in (0, own) else "resource.prlimit"

    return {"os.kill": kill, "resource.prlimit": prlimit}


def _ctypes_checks(policy: Policy) -> dict[str, Check]:
    readable, writable = _within(policy.readable), _within(policy.writable)
    symbols = _C_SYMBOLS
    text = str

    def dlopen(args: tuple[Any, ...]) -> str | None:
        name = args[0]
        # None is the running program. A bare name is one the loader looks up in the system's own directories.
        if name is None or "/" not in text(name) or (readable(text(name)) and not writable(text(name))):
            return None
        return f"ctypes.dlopen({text(name)!r})"

    def dlsym(args: tuple[Any, ...]) -> str | None:
        name = args[1]
        return f"ctypes.{name}" if name in symbols else None

    return {"ctypes.dlopen": dlopen, "ctypes.dlsym": dlsym, "ctypes.dlsym/handle": dlsym}


def _within(directories: tuple[str, ...]) -> Callable[[str], bool]:
    """A test whether a normalized absolute path is one of `directories` or below one."""
    exact = frozenset(directories)
    below = tuple(directory.rstrip("/") + "/" for directory in directories)
    starts = str.startswith

    def within(path: str) -> bool:
        return path in exact or starts(path, below)

    return within


def _path_checks(policy: Policy) -> dict[str, Check]:
    writable, readable, hidden = _within(policy.writable), _within(policy.readable), _within(policy.hidden)
    getcwd, is_instance, decode = os.getcwd, isinstance, bytes.decode
    starts, split, join = str.startswith, str.split, str.join
    write_flags, exact = _WRITE_FLAGS, frozenset(policy.readable)

    def normal(path: Any) -> str | None:
        """Absolute path without `.` and `..`; None for a descriptor. By text: a symlink out cannot be made here."""
        if is_instance(path, int):
            return None
        if is_instance(path, bytes):
            path = decode(path, "utf-8", "surrogateescape")
        if not is_instance(path, str):
            return "?"
        parts: list[str] = []
        for part in split(path if starts(path, "/") else getcwd() + "/" + path, "/"):
            if part == "..":
                if parts:
                    parts.pop()
            elif part and part != ".":
                parts.append(part)
        return "/" + join("/", parts)

    def may_read(path: str) -> bool:
        return (readable(path) and not hidden(path)) or writable(path)

    def open_(args: tuple[Any, ...]) -> str | None:
        path = normal(args[0])
        if path is None:
            return None
        mode, flags = args[1], args[2]
        writes = bool(flags & write_flags) if is_instance(flags, int) and flags else False
        if is_instance(mode, str) and not writes:
            writes = "w" in mode or "a" in mode or "x" in mode or "+" in mode
        if writes:
            return None if writable(path) or path == "/dev/null" else f"open({path!r}, write)"
        return None if may_read(path) else f"open({path!r})"

    def reads(name: str) -> Check:
        def check(args: tuple[Any, ...]) -> str | None:
            path = normal(args[0] if args[0] is not None else ".")
            return None if path is None or may_read(path) else f"{name}({path!r})"

        return check

    def writes(name: str, *positions: int, dir_fd: int | None = None) -> Check:
        def check(args: tuple[Any, ...]) -> str | None:
            relative = dir_fd is not None and args[dir_fd] not in (-1, None)
            for position in positions:
                given = args[position]
                if relative and is_instance(given, str) and not starts(given, "/") and ".." not in split(given, "/"):
                    continue  # below a directory that was opened, hence one that could be read
                path = normal(given)
                if path is not None and not writable(path):
                    return f"{name}({path!r})"
            return None

        return check

    make = writes("os.mkdir", 0, dir_fd=2)

    def mkdir(args: tuple[Any, ...]) -> str | None:
        # Libraries make sure of directories that are there; the kernel answers that they exist.
        return None if normal(args[0]) in exact else make(args)

    def symlink(args: tuple[Any, ...]) -> str | None:
        source, link = args[0], normal(args[1])
        if link is None or not is_instance(source, str) or args[2] not in (-1, None):
            return "os.symlink"
        # A relative source counts from where the link lies, not from the working directory.
        path = normal(source if starts(source, "/") else link + "/../" + source)
        allowed = path is not None and writable(path) and writable(link)
        return None if allowed else f"os.symlink({source!r})"

    def sqlite(args: tuple[Any, ...]) -> str | None:
        name = args[0]
        if name in (":memory:", "", b":memory:", b""):
            return None
        path = normal(name)
        return None if path is not None and writable(path) else f"sqlite3.connect({path!r})"

    return {
        "open": open_,
        "os.listdir": reads("os.listdir"),
        "os.scandir": reads("os.scandir"),
        "os.chdir": reads("os.chdir"),
        "os.remove": writes("os.remove", 0, dir_fd=1),
        "os.rmdir": writes("os.rmdir", 0, dir_fd=1),
        "os.mkdir": mkdir,
        "os.rename": writes("os.rename", 0, 1, dir_fd=2),
        "os.link": writes("os.link", 0, 1, dir_fd=2),
        "os.symlink": symlink,
        "os.truncate": writes("os.truncate", 0),
        "os.chmod": writes("os.chmod", 0, dir_fd=2),
        "os.chown": writes("os.chown", 0, dir_fd=3),
        "os.lchown": writes("os.lchown", 0),
        "os.utime": writes("os.utime", 0, dir_fd=3),
        "sqlite3.connect": sqlite,
    }
