"""The layer the kernel keeps: no_new_privs, seccomp and Landlock, by raw system calls through ctypes.

Inside a Lambda function all three are refused (prctl answers EPERM), so they are probed and reported, never assumed.
Where the probe says yes and applying fails, the child ends without running the code. A native library (libseccomp)
would add weight to the layer for some sixty lines of code.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

# System call numbers: linux/arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_X86_64 = {
    "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "shmget": 29, "shmat": 30, "shmctl": 31,
    "semget": 64, "semop": 65, "semctl": 66, "msgget": 68, "msgsnd": 69, "msgrcv": 70, "msgctl": 71, "ptrace": 101,
    "syslog": 103, "setpgid": 109, "setsid": 112, "mknod": 133, "personality": 135, "setpriority": 141,
    "sched_setparam": 142, "sched_setscheduler": 144, "modify_ldt": 154, "pivot_root": 155, "prctl": 157,
    "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167,
    "swapoff": 168, "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173,
    "init_module": 175, "delete_module": 176, "quotactl": 179, "tkill": 200, "sched_setaffinity": 203,
    "lookup_dcookie": 212, "semtimedop": 220, "clock_settime": 227, "tgkill": 234, "mbind": 237, "set_mempolicy": 238,
    "mq_open": 240, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "migrate_pages": 256,
    "mknodat": 259, "unshare": 272, "move_pages": 279, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
    "perf_event_open": 298, "fanotify_init": 300, "prlimit64": 302, "name_to_handle_at": 303,
    "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
    "kcmp": 312, "finit_module": 313, "sched_setattr": 314, "seccomp": 317, "memfd_create": 319,
    "kexec_file_load": 320, "bpf": 321, "execveat": 322, "userfaultfd": 323, "socket": 41, "connect": 42,
    "bind": 49, "listen": 50, "socketpair": 53, "sendto": 44, "ioprio_set": 251,
}  # fmt: skip
_AARCH64 = {
    "clone": 220, "execve": 221, "kill": 129, "shmget": 194, "shmctl": 195, "shmat": 196, "semget": 190,
    "semctl": 191, "semtimedop": 192, "semop": 193, "msgget": 186, "msgctl": 187, "msgrcv": 188, "msgsnd": 189,
    "ptrace": 117, "syslog": 116, "setpgid": 154, "setsid": 157, "mknodat": 33, "personality": 92,
    "setpriority": 140, "sched_setparam": 118, "sched_setscheduler": 119, "pivot_root": 41, "prctl": 167,
    "adjtimex": 171, "chroot": 51, "acct": 89, "settimeofday": 170, "mount": 40, "umount2": 39, "swapon": 224,
    "swapoff": 225, "reboot": 142, "sethostname": 161, "setdomainname": 162, "init_module": 105,
    "delete_module": 106, "quotactl": 60, "tkill": 130, "sched_setaffinity": 122, "lookup_dcookie": 18,
    "clock_settime": 112, "tgkill": 131, "mbind": 235, "set_mempolicy": 237, "mq_open": 180, "kexec_load": 104,
    "add_key": 217, "request_key": 218, "keyctl": 219, "migrate_pages": 238, "unshare": 97, "move_pages": 239,
    "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "perf_event_open": 241, "fanotify_init": 262,
    "prlimit64": 261, "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268,
    "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "sched_setattr": 274,
    "seccomp": 277, "memfd_create": 279, "bpf": 280, "execveat": 281, "userfaultfd": 282, "kexec_file_load": 294,
    "socket": 198, "connect": 203, "bind": 200, "listen": 201, "socketpair": 199, "sendto": 206, "ioprio_set": 30,
}  # fmt: skip
# Since Linux 5.1 new calls have the same number everywhere.
_COMMON = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442,
    "quotactl_fd": 443, "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446,
    "memfd_secret": 447, "process_mrelease": 448, "set_mempolicy_home_node": 450,
}  # fmt: skip
_TABLES = {"x86_64": (0xC000003E, _X86_64 | _COMMON), "aarch64": (0xC00000B7, _AARCH64 | _COMMON)}

# Judged by their arguments; every other call of the tables is refused outright.
_OWN_PID = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
_OWN_PID_OR_0 = ("prlimit64", "sched_setaffinity")
_SOCKET_CALLS = ("socket", "connect", "bind", "listen", "sendto")
_PRCTL_ALLOWED = (3, 15, 16, 21, 0x53564D41)  # GET_DUMPABLE SET_NAME GET_NAME GET_SECCOMP SET_VMA
_CLONE_THREAD, _CLONE_NEW = 0x00010000, 0x7E020000

_PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS = 38, 39
_SECCOMP_SET_MODE_FILTER, _SECCOMP_GET_ACTION_AVAIL = 1, 2
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_LD, _JEQ, _JGE, _JSET, _AND, _RET = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06  # linux/bpf_common.h, composed
_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24  # offsets in struct seccomp_data; low words, little endian


@dataclass(frozen=True, slots=True)
class Available:
    """What this kernel would grant, found without changing anything."""

    prctl: bool
    seccomp: bool
    landlock_abi: int  # 0: none

    @property
    def whole(self) -> bool:
        """Both: files are confined by Landlock and all else by seccomp, so neither is enough alone."""
        return self.seccomp and self.landlock_abi > 0


NONE = Available(prctl=False, seccomp=False, landlock_abi=0)


def probe() -> Available:
    """Ask the kernel. Inside Lambda prctl and seccomp answer EPERM and Landlock ENOSYS (research: sandbox, 1.1)."""
    if platform.machine() not in _TABLES:
        return NONE
    action = ctypes.c_uint32(_KILL_PROCESS)
    privileges = _libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) >= 0
    number = _TABLES[platform.machine()][1]["seccomp"]
    filters = _libc.syscall(number, _SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0
    abi = _libc.syscall(_COMMON["landlock_create_ruleset"], None, 0, 1)
    return Available(privileges, privileges and filters, max(int(abi), 0) if privileges else 0)


def apply(available: Available, *, readable: Iterable[str], writable: Sequence[str], network: bool) -> None:
    """Confine this process and what it becomes, for good. Raises OSError where the kernel refuses after all."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if available.landlock_abi:
        _restrict_files(available.landlock_abi, readable, writable, network)
    if available.seccomp:
        _install(filter_program(platform.machine(), os.getpid(), network=network))


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return int(result)


# ---- seccomp ----------------------------------------------------------------------------------------------------


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value & 0xFFFFFFFF)


def _deny(code: int) -> bytes:
    return _op(_RET, _ERRNO | code)


def call_number(machine: str, name: str) -> int:
    return _TABLES[machine][1][name]


def filter_program(machine: str, pid: int, *, network: bool) -> bytes:
    """The filter: EPERM, EACCES for sockets, ENOSYS for clone3. Killing would punish libraries that only ask."""
    arch, numbers = _TABLES[machine]
    allow = _op(_RET, _ALLOW)
    program = [
        _op(_LD, _ARCH),
        _op(_JEQ, arch, 1, 0),
        _op(_RET, _KILL_PROCESS),  # a foreign calling convention has other numbers
        _op(_LD, _NR),
        _op(_JGE, 0x40000000, 0, 1),
        _op(_RET, _KILL_PROCESS),  # x32
    ]

    def rule(name: str, body: list[bytes]) -> None:
        if name in numbers:
            program.extend([_op(_JEQ, numbers[name], 0, len(body)), *body])

    # glibc falls back from clone3, whose flags lie in memory, to clone, whose flags can be read here.
    rule("clone3", [_deny(errno.ENOSYS)])
    for name in ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"):
        rule(name, [_deny(errno.ENOSYS)])
    rule("clone", [
        _op(_LD, _ARG0), _op(_JSET, _CLONE_NEW, 1, 0), _op(_JSET, _CLONE_THREAD, 1, 0), _deny(errno.EPERM), allow,
    ])  # fmt: skip
    for name in _OWN_PID:
        rule(name, [_op(_LD, _ARG0), _op(_JEQ, pid, 1, 0), _deny(errno.EPERM), allow])
    for name in _OWN_PID_OR_0:
        rule(name, [
            _op(_LD, _ARG0), _op(_JEQ, pid, 2, 0), _op(_JEQ, 0, 1, 0), _deny(errno.EPERM), allow,
        ])  # fmt: skip
    rule("setpriority", [_op(_LD, _ARG1), _op(_JEQ, pid, 2, 0), _op(_JEQ, 0, 1, 0), _deny(errno.EPERM), allow])
    rule("prctl", [
        _op(_LD, _ARG0),
        *[_op(_JEQ, option, len(_PRCTL_ALLOWED) - index, 0) for index, option in enumerate(_PRCTL_ALLOWED)],
        _deny(errno.EPERM),
        allow,
    ])  # fmt: skip
    # AF_UNIX and SOCK_STREAM: a datagram may be sent elsewhere than to the other end.
    rule("socketpair", [
        _op(_LD, _ARG0), _op(_JEQ, 1, 0, 3), _op(_LD, _ARG1), _op(_AND, 0xF), _op(_JEQ, 1, 1, 0),
        _deny(errno.EACCES), allow,
    ])  # fmt: skip
    if network:
        rule("socket", [_op(_LD, _ARG0), _op(_JEQ, 2, 2, 0), _op(_JEQ, 10, 1, 0), _deny(errno.EACCES), allow])
    else:
        rule("socket", [_deny(errno.EACCES)])
        rule("connect", [_deny(errno.EACCES)])
        # A socketpair is connected, so sendto without an address stays.
        rule("sendto", [_op(_LD, _ARG0 + 32), _op(_JEQ, 0, 1, 0), _deny(errno.EACCES), allow])
    for name in ("bind", "listen"):
        rule(name, [_deny(errno.EACCES)])
    judged = {"clone", "clone3", *_OWN_PID, *_OWN_PID_OR_0, *_SOCKET_CALLS, "setpriority", "prctl", "socketpair"}
    refused = sorted(number for name, number in numbers.items() if name not in judged and "landlock" not in name)
    for number in refused:
        program.extend([_op(_JEQ, number, 0, 1), _deny(errno.EPERM)])
    program.append(allow)
    return b"".join(program)


class _Fprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _install(program: bytes) -> None:
    number = _TABLES[platform.machine()][1]["seccomp"]
    prog = _Fprog(len(program) // 8, program)
    _check(_libc.syscall(number, _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(prog)), "seccomp")


# ---- Landlock ---------------------------------------------------------------------------------------------------

# linux/landlock.h: access rights by the ABI that brought them.
_READ_FILE, _READ_DIR, _WRITE_FILE, _TRUNCATE = 1 << 2, 1 << 3, 1 << 1, 1 << 14
_ABI_1 = (1 << 13) - 1
_MAKE_SPECIAL = (1 << 6) | (1 << 9) | (1 << 10) | (1 << 11)  # MAKE_CHAR, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK


def _restrict_files(abi: int, readable: Iterable[str], writable: Sequence[str], network: bool) -> None:
    handled = _ABI_1
    if abi >= 2:
        handled |= 1 << 13  # REFER
    if abi >= 3:
        handled |= _TRUNCATE
    if abi >= 5:
        handled |= 1 << 15  # IOCTL_DEV
    net = 0b11 if abi >= 4 and not network else 0  # BIND_TCP, CONNECT_TCP
    scoped = 0b11 if abi >= 6 else 0  # abstract UNIX sockets, signals
    attribute = struct.pack("<QQQ", handled, net, scoped)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = _check(
        _libc.syscall(_COMMON["landlock_create_ruleset"], attribute, len(attribute), 0), "landlock_create_ruleset"
    )
    try:
        for path in readable:
            _allow(ruleset, path, _READ_FILE | _READ_DIR)
        _allow(ruleset, "/dev/null", _READ_FILE | _WRITE_FILE)
        for path in writable:
            _allow(ruleset, path, handled & ~1 & ~_MAKE_SPECIAL & ~(1 << 15))  # all but EXECUTE and special files
        _check(_libc.syscall(_COMMON["landlock_restrict_self"], ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this machine
    try:
        if not os.path.isdir(path):
            access &= _READ_FILE | _WRITE_FILE | _TRUNCATE
        rule = struct.pack("<Qi", access, fd)
        _check(_libc.syscall(_COMMON["landlock_add_rule"], ruleset, 1, rule, 0), f"landlock_add_rule {path}")
    finally:
        os.close(fd)
