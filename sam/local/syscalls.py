"""A seccomp filter that refuses what Lambda refuses, so that a local pass means what it would there.

It imitates Lambda; it is not the interpreter's own confinement. Sources: reports of EPERM for prctl (chromedp#1074,
catboost#1606), seccomp and ptrace (luajit.me wiki, openai/codex#38779), user namespaces (aws-lambda-base-images#143),
seteuid and fallocate (realm-js#2182); a kernel of 5.10 (openai/codex#4725); int 0x80 kills (decompals/wibo#130).
Standard library only: the launcher loads it before anything else exists.
"""

import ctypes
import errno
import os
import struct

ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
NEW_NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
LAST_OF_5_10 = 440  # process_madvise; numbers from 424 on are the same on every architecture
CLONE3 = 435
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1

# name: (x86_64, aarch64)
REFUSED = {
    "prctl": (157, 167),
    "seccomp": (317, 277),
    "ptrace": (101, 117),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setgroups": (116, 159),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "fallocate": (285, 47),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
}
CLONE = (56, 220)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_LOAD_WORD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_SET, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARG0 = 0, 4, 16  # struct seccomp_data, little-endian


def lambda_filter(machine: str) -> bytes:
    """The BPF program for `machine` (os.uname().machine). Raises KeyError for one it does not know."""
    column, audit_arch = _ARCHITECTURES[machine]
    refuse = _instruction(_RETURN, ERRNO | errno.EPERM)
    missing = _instruction(_RETURN, ERRNO | errno.ENOSYS)
    allow = _instruction(_RETURN, ALLOW)
    program = [
        _instruction(_LOAD_WORD, _OFFSET_ARCH),
        _instruction(_JUMP_EQUAL, audit_arch, yes=1),
        _instruction(_RETURN, KILL_PROCESS),
        _instruction(_LOAD_WORD, _OFFSET_NUMBER),
    ]
    # x32 numbers lie above, so the same rule refuses them.
    program += [_instruction(_JUMP_GREATER, LAST_OF_5_10, no=1), missing]
    # clone3 hides its flags behind a pointer; without it the C library falls back to clone, whose flags are seen.
    program += [_instruction(_JUMP_EQUAL, CLONE3, no=1), missing]
    for numbers in REFUSED.values():
        program += [_instruction(_JUMP_EQUAL, numbers[column], no=1), refuse]
    program += [
        _instruction(_JUMP_EQUAL, CLONE[column], no=3),
        _instruction(_LOAD_WORD, _OFFSET_ARG0),
        _instruction(_JUMP_SET, NEW_NAMESPACE_FLAGS, no=1),
        refuse,
        allow,
    ]
    return b"".join(program)


def install(program: bytes) -> None:
    """Put the filter on this process and what it becomes. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    seccomp = REFUSED["seccomp"][_ARCHITECTURES[os.uname().machine][0]]
    if libc.syscall(seccomp, _SECCOMP_SET_MODE_FILTER, 0, header) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def _instruction(code: int, operand: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, operand)
