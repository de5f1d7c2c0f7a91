"""What the audit hook refuses: for an audit event, a function of its arguments that names the refused operation.

The code can get at these functions: they stand in the frames of a refusal's traceback. So each of them is *sealed*: it
refers to nothing but its own constants and its default arguments, which are immutable; cells, globals and builtins
could be changed under it. (`audit` refuses what would change a default or the code itself; a test reads the bytecode.)
What the code hands in may lie: only exact types are believed, and their methods are those of the type.

From Python 3.13 on, a signal handler or another thread can write into the frames of a hook while it runs (PEP 667), and
nothing done here keeps that out; on 3.12 what a frame shows is a copy.
"""

from __future__ import annotations

import _socket
import _thread
import os
import socket
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Judge = Callable[[tuple[Any, ...]], str | None]

_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
UNKNOWN = "?"  # stands for a path of a type that might say one thing here and another in C


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
    "syslog.openlog",
    "syslog.syslog",
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
# Modules that make an interpreter without hooks, or open files and shared memory by name in C without an event.
REFUSED_MODULES = frozenset(
    "_testcapi _testinternalcapi _testlimitedcapi _testbuffer _testimportmultiple _testmultiphase _testsinglephase "
    "_testclinic _testclinic_limited _testexternalinspection _xxtestfuzz xxlimited xxlimited_35 _xxsubinterpreters "
    "_xxinterpchannels _xxinterpqueues _interpreters _interpchannels _interpqueues readline _dbm _gdbm "
    "_posixshmem _tkinter".split()
)
# Modules that were replaced in part; made anew they would have their originals again.
_NOT_ANEW = frozenset(("_posixsubprocess", "_socket", "_signal", "_cffi_backend", "_ctypes", "mmap", *REFUSED_MODULES))
_FCNTL_OWNER = (8, 15)  # F_SETOWN, F_SETOWN_EX (fcntl.h): the kernel would send our signals to another process
_IOCTL_OWNER = (0x8901, 0x8902, 0x5412)  # FIOSETOWN, SIOCSPGRP, and TIOCSTI, which types into a terminal


def judges(policy: Policy) -> dict[str, Judge]:
    """Audit event -> its judge, which returns None to allow."""
    table = {name: _refuse(name) for name in _ALWAYS}
    if policy.network:
        table |= _public_network()
    else:
        table |= {name: _refuse(name) for name in _NETWORK}
        table |= _no_network()
    table |= _paths(policy)
    table |= _databases(policy)
    table |= _processes()
    table |= _machine_code(policy)
    return table


def _refuse(name: str) -> Judge:
    def judge(_args: tuple[Any, ...], name: str = name) -> str:
        return name

    return judge


# ---- names ------------------------------------------------------------------------------------------------------


def exact(
    value: Any, kind: Any = type, is_a: Any = isinstance, text: Any = str, raw: Any = bytes,
    copy: Any = str.__str__, decode: Any = bytes.decode,
) -> str | None:  # fmt: skip
    """`value` as a str of no subclass, which C would read in the same way; None where it is no text."""
    if is_a(value, text):
        return copy(value)  # type: ignore[no-any-return]
    if kind(value) is raw:
        return decode(value, "utf-8", "surrogateescape")  # type: ignore[no-any-return]
    return None


def _normal(
    path: Any, exact: Any = exact, kind: Any = type, whole: Any = int, getcwd: Any = os.getcwd,
    starts: Any = str.startswith, split: Any = str.split, join: Any = str.join, unknown: Any = UNKNOWN,
    readlink: Any = os.readlink, no_link: Any = OSError, threads: Any = _thread._count,
) -> str | None:  # fmt: skip
    """Absolute path without `.` and `..`; None for a descriptor. By text: links of the code's own lead downwards.

    What could mean something else to the kernel comes back as no allowed path: `..` behind one of the system's links; a
    relative path that climbs above where it starts, or has `..` in it while another thread could change where that is.
    """
    if kind(path) is whole:
        return None
    name = exact(path)
    if name is None:
        return unknown  # type: ignore[no-any-return]
    parts: list[str] = []
    absolute = starts(name, "/")
    for part in split(name, "/"):
        if part == "..":
            if not absolute and (not parts or threads()):
                return name  # type: ignore[no-any-return]
            if parts:
                try:
                    readlink(join("/", ("", *parts) if absolute else parts))
                    return unknown + name  # type: ignore[no-any-return]
                except no_link:
                    parts.pop()
        elif part and part != ".":
            parts.append(part)
    return join("/", ("" if absolute else getcwd(), *parts)) or "/"


Area = tuple[frozenset[str], tuple[str, ...]]  # paths that are in it, and what a path below one of them begins with


def area(directories: tuple[str, ...]) -> Area:
    return frozenset(directories), tuple(directory.rstrip("/") + "/" for directory in directories)


def _within(path: str, area: Area, starts: Any = str.startswith) -> bool:
    return path in area[0] or starts(path, area[1])


def _relative_up(path: Any, exact: Any = exact, starts: Any = str.startswith, split: Any = str.split) -> bool:
    name = exact(path)
    return name is not None and not starts(name, "/") and ".." in split(name, "/")


# ---- files ------------------------------------------------------------------------------------------------------


def _paths(policy: Policy) -> dict[str, Judge]:
    write, read, hide = area(policy.writable), area(policy.readable), area(policy.hidden)

    def may_read(path: str, read: Area = read, hide: Area = hide, write: Area = write, within: Any = _within) -> bool:
        return (within(path, read) and not within(path, hide)) or within(path, write)

    def opens(
        args: tuple[Any, ...], normal: Any = _normal, may_read: Any = may_read, write: Area = write,
        within: Any = _within, flags_of_writing: int = _WRITE_FLAGS, relative_up: Any = _relative_up,
    ) -> str | None:  # fmt: skip
        path, mode = normal(args[0]), args[1]
        if path is None:
            return None
        if mode is None and relative_up(args[0]):  # os.open, which may have been given a `dir_fd`
            return f"open({path!r})"
        writes = args[2] & flags_of_writing
        if mode is not None and not writes:
            writes = "w" in mode or "a" in mode or "x" in mode or "+" in mode
        if writes:
            return None if within(path, write) or path == "/dev/null" else f"open({path!r}, write)"
        return None if may_read(path) else f"open({path!r})"

    def reads(name: str) -> Judge:
        def judge(
            args: tuple[Any, ...], name: str = name, normal: Any = _normal, may_read: Any = may_read
        ) -> str | None:
            path = normal("." if args[0] is None else args[0])
            return None if path is None or may_read(path) else f"{name}({path!r})"

        return judge

    def writes(name: str, *positions: tuple[int, int | None]) -> Judge:
        """Judges the paths at `positions`, each with the position of its `dir_fd`, of which None has none."""

        def judge(
            args: tuple[Any, ...], name: str = name, positions: Any = positions, normal: Any = _normal,
            exact: Any = exact, write: Area = write, within: Any = _within, starts: Any = str.startswith,
            relative_up: Any = _relative_up,
        ) -> str | None:  # fmt: skip
            for position, dir_fd in positions:
                path, given = normal(args[position]), exact(args[position])
                if given is not None and not starts(given, "/") and dir_fd is not None and args[dir_fd] >= 0:
                    # Below a directory that was opened, hence one that could be read; not the working directory.
                    if not relative_up(given):
                        continue
                elif path is None or within(path, write):
                    continue
                return f"{name}({path!r})"
            return None

        return judge

    make = writes("os.mkdir", (0, 2))

    def mkdir(
        args: tuple[Any, ...], make: Judge = make, normal: Any = _normal, there: frozenset[str] = read[0]
    ) -> str | None:
        # Libraries make sure of directories that are there; the kernel answers that they exist.
        return None if normal(args[0]) in there else make(args)

    def chdir(
        args: tuple[Any, ...], exact: Any = exact, normal: Any = _normal, may_read: Any = may_read,
        starts: Any = str.startswith, getcwd: Any = os.getcwd, threads: Any = _thread._count,
    ) -> str | None:  # fmt: skip
        given = exact(args[0])
        if given is not None and not starts(given, "/") and threads() == 0:
            given = getcwd() + "/" + given  # so it may climb, while no thread can change where from
        path = normal(args[0] if given is None else given)
        return None if path is None or may_read(path) else f"os.chdir({path!r})"

    def symlink(
        args: tuple[Any, ...], exact: Any = exact, normal: Any = _normal, write: Area = write, within: Any = _within,
        starts: Any = str.startswith, split: Any = str.split,
    ) -> str | None:  # fmt: skip
        source, link = exact(args[0]), normal(args[1])
        # Only downwards: any other link could mean something else once it, or what holds it, is moved.
        downwards = source and not starts(source, "/") and ".." not in split(source, "/")
        allowed = downwards and link is not None and within(link, write) and args[2] < 0
        return None if allowed else f"os.symlink({source!r})"

    return {
        "open": opens,
        "os.listdir": reads("os.listdir"),
        "os.scandir": reads("os.scandir"),
        "os.chdir": chdir,
        "os.remove": writes("os.remove", (0, 1)),
        "os.rmdir": writes("os.rmdir", (0, 1)),
        "os.mkdir": mkdir,
        "os.rename": writes("os.rename", (0, 2), (1, 3)),
        "os.link": writes("os.link", (0, 2), (1, 3)),
        "os.symlink": symlink,
        "os.truncate": writes("os.truncate", (0, None)),
        "os.chmod": writes("os.chmod", (0, 2)),
        "os.chown": writes("os.chown", (0, 3)),
        "os.lchown": writes("os.lchown", (0, None)),
        "os.utime": writes("os.utime", (0, 3)),
    }


def _databases(policy: Policy) -> dict[str, Judge]:
    """SQLite opens files in C. ATTACH and VACUUM INTO tell no event: see `attachments`."""
    write = area(policy.writable)

    def connect(
        args: tuple[Any, ...], file_of: Any = _database_file, write: Area = write, within: Any = _within
    ) -> str | None:
        path = file_of(args[0])
        return None if path is None or within(path, write) else f"sqlite3.connect({path!r})"

    return {"sqlite3.connect": connect}


def _database_file(
    name: Any, exact: Any = exact, normal: Any = _normal, starts: Any = str.startswith, split: Any = str.split,
) -> str | None:  # fmt: skip
    """The path of a database, None for one in memory."""
    text = exact(name)
    if text == "" or text == ":memory:":
        return None
    if text is None or not starts(text, "file:"):
        return normal(name)  # type: ignore[no-any-return]
    path, _, query = text.partition("?")
    if path == "file::memory:" or "mode=memory" in split(query.partition("#")[0], "&"):
        return None
    if "%" in path or "#" in path:
        return text  # type: ignore[no-any-return]  # it reads otherwise than it is meant: refused
    return normal(path[5:])  # type: ignore[no-any-return]


def attachments(policy: Policy) -> Callable[..., int]:
    """An authorizer (sqlite3_set_authorizer) of further files. The code can take it off, or never have it put on."""
    write = area(policy.writable)

    def attaches(
        action: int, target: Any, _two: Any, _database: Any, _trigger: Any, attach: int = sqlite3.SQLITE_ATTACH,
        ok: int = sqlite3.SQLITE_OK, file_of: Any = _database_file, write: Area = write, within: Any = _within,
        audit: Any = sys.audit,
    ) -> int:  # fmt: skip
        if action == attach and target is not None:
            path = file_of(target)
            if path is not None and not within(path, write):
                audit("interpreter.refused", f"sqlite3.attach({path!r})")  # raises, which SQLite takes for a no
        return ok

    return attaches


# ---- processes, machine code ------------------------------------------------------------------------------------


def _processes() -> dict[str, Judge]:
    own = os.getpid()

    def kill(args: tuple[Any, ...], own: int = own) -> str | None:
        return None if args[0] == own else "os.kill"

    def prlimit(args: tuple[Any, ...], own: int = own) -> str | None:
        return None if args[0] in (0, own) else "resource.prlimit"

    def fcntl(args: tuple[Any, ...], owner: tuple[int, ...] = _FCNTL_OWNER) -> str | None:
        return "fcntl.fcntl(F_SETOWN)" if args[1] in owner else None

    def ioctl(args: tuple[Any, ...], owner: tuple[int, ...] = _IOCTL_OWNER) -> str | None:
        return "fcntl.ioctl(FIOSETOWN)" if args[1] in owner else None

    def refused(args: tuple[Any, ...], exact: Any = exact, unknown: str = UNKNOWN) -> str:
        """What raises no event of its own and was replaced by one of ours (`audit`)."""
        return exact(args[0]) or unknown

    return {
        "os.kill": kill,
        "resource.prlimit": prlimit,
        "fcntl.fcntl": fcntl,
        "fcntl.ioctl": ioctl,
        "interpreter.refused": refused,
    }


def _machine_code(policy: Policy) -> dict[str, Judge]:
    """Libraries may be loaded from where the code cannot write; C functions of `_C_SYMBOLS` are not handed out."""
    write = area(policy.writable)
    library = area(tuple(entry for entry in sys.path if not _within(entry, write)))
    read = area(policy.readable)

    def imports(
        args: tuple[Any, ...], exact: Any = exact, normal: Any = _normal, within: Any = _within,
        library: Area = library, refused: frozenset[str] = REFUSED_MODULES, not_anew: frozenset[str] = _NOT_ANEW,
        not_there: Any = ModuleNotFoundError,
    ) -> str | None:  # fmt: skip
        name = exact(args[0])
        if name in refused:  # as if they were not there, with which `dbm` and `code` cope
            raise not_there(f"No module named {name!r}")
        if args[1] is None:  # any import; where a library is loaded there is a second event, with its file
            return None
        path = normal(args[1])
        if path is None or not within(path, library):
            return f"import({path!r})"
        stem = path.rpartition("/")[2].partition(".")[0]
        return f"import({stem!r})" if stem in not_anew or name in not_anew else None

    def dlopen(
        args: tuple[Any, ...], exact: Any = exact, normal: Any = _normal, within: Any = _within, read: Area = read,
        write: Area = write,
    ) -> str | None:  # fmt: skip
        if args[0] is None:  # the running program
            return None
        name = exact(args[0])
        if name is not None and "/" not in name:  # looked up by the loader in the system's own directories
            return None
        path = normal(args[0])
        allowed = path is not None and within(path, read) and not within(path, write)
        return None if allowed else f"ctypes.dlopen({path!r})"

    def dlsym(args: tuple[Any, ...], exact: Any = exact, symbols: frozenset[str] = _C_SYMBOLS) -> str | None:
        name = exact(args[1])
        return f"ctypes.{name}" if name in symbols else None

    return {"import": imports, "ctypes.dlopen": dlopen, "ctypes.dlsym": dlsym, "ctypes.dlsym/handle": dlsym}


# ---- network ----------------------------------------------------------------------------------------------------


def _no_network() -> dict[str, Judge]:
    def new(args: tuple[Any, ...], allowed: tuple[int, ...] = (int(socket.AF_UNIX), -1)) -> str | None:
        # asyncio wakes itself through a socketpair, so AF_UNIX sockets may exist; they may not connect or bind.
        return None if args[1] in allowed else "socket.socket"

    def send(args: tuple[Any, ...]) -> str | None:
        return None if args[1] is None else "socket.sendto"

    return {"socket.__new__": new, "socket.sendto": send, "socket.sendmsg": send}


def _networks(*given: str) -> tuple[tuple[int, int], ...]:
    """CIDR networks as (bits to the right, the bits to the left), for addresses as whole numbers."""
    from ipaddress import ip_network

    parsed = [ip_network(one) for one in given]
    shifts = [one.max_prefixlen - one.prefixlen for one in parsed]
    return tuple((shift, int(one.network_address) >> shift) for one, shift in zip(parsed, shifts, strict=True))


# IANA special-purpose address registries, as far as not globally reachable, and multicast; of IPv6 only what is
# assigned as global unicast (2000::/3) is reachable at all. 6to4 and Teredo carry an IPv4 address of any kind.
_NOT_PUBLIC_4 = _networks(
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/3",
)  # fmt: skip
_PUBLIC_6 = _networks("2000::/3")
_NOT_PUBLIC_6 = _networks("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")


def is_public(
    host: str, parse: Any = _socket.inet_pton, number: Any = int.from_bytes, error: Any = OSError,
    ipv4: int = int(socket.AF_INET), ipv6: int = int(socket.AF_INET6), not_4: Any = _NOT_PUBLIC_4,
    public_6: Any = _PUBLIC_6, not_6: Any = _NOT_PUBLIC_6,
) -> bool:  # fmt: skip
    """Whether `host` is the literal of a public address. A name is not: what it stands for is not known here."""
    try:
        if ":" in host:
            address = number(parse(ipv6, host.partition("%")[0]), "big")
            for shift, left in not_6:
                if address >> shift == left:
                    return False
            return address >> public_6[0][0] == public_6[0][1]  # type: ignore[no-any-return]
        address = number(parse(ipv4, host), "big")
        for shift, left in not_4:  # noqa: SIM110  # a generator would be a function with cells
            if address >> shift == left:
                return False
        return True
    except error:
        return False


def _public_network() -> dict[str, Judge]:
    """Public addresses only: no loopback (the Runtime API is there), link-local (metadata services) or private range.

    Judged on address literals, which is what libraries connect to after looking a name up.
    """

    def outside(name: str) -> Judge:
        def judge(
            args: tuple[Any, ...], name: str = name, exact: Any = exact, is_public: Any = is_public,
            is_a: Any = isinstance, pair: Any = tuple, item: Any = tuple.__getitem__,
        ) -> str | None:  # fmt: skip
            address = args[1]
            if address is None:
                return None
            host = exact(item(address, 0)) if is_a(address, pair) else exact(address)  # a UNIX path, or what none made
            return None if host is not None and is_public(host) else f"{name}({host!r})"

        return judge

    def bind(_args: tuple[Any, ...]) -> str:
        return "socket.bind"

    return {
        "socket.connect": outside("socket.connect"),
        "socket.sendto": outside("socket.sendto"),
        "socket.sendmsg": outside("socket.sendmsg"),
        "socket.bind": bind,
    }
