"""Given a system call, this is what the filter answers; judged by running its program, for both architectures."""

import errno
import struct

import pytest

from sam.local.syscalls import ALLOW, ERRNO, KILL_PROCESS, REFUSED, lambda_filter

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS


def run(program: bytes, number: int, architecture: int, argument: int = 0) -> int:
    """A classic BPF machine, as much of it as a system call filter uses."""
    data = struct.pack("<iIQ6Q", number, architecture, 0, argument, 0, 0, 0, 0, 0)
    instructions = list(struct.iter_unpack("HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, yes, no, operand = instructions[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif code == 0x06:
            return operand
        else:
            holds = {0x15: accumulator == operand, 0x25: accumulator > operand, 0x45: bool(accumulator & operand)}[code]
            at += yes if holds else no


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize("name", REFUSED)
def test_refused(machine: str, name: str):
    number = REFUSED[name][list(ARCHITECTURES).index(machine)]
    assert run(lambda_filter(machine), number, ARCHITECTURES[machine]) == EPERM


@pytest.mark.parametrize(
    ("machine", "number", "argument", "verdict"),
    [
        pytest.param("x86_64", 0, 0, ALLOW, id="read"),
        pytest.param("x86_64", 59, 0, ALLOW, id="execve"),
        pytest.param("x86_64", 41, 0, ALLOW, id="socket"),
        pytest.param("x86_64", 160, 0, ALLOW, id="setrlimit"),
        pytest.param("x86_64", 56, 0x01200011, ALLOW, id="fork"),
        pytest.param("x86_64", 56, 0x003D0F00, ALLOW, id="thread"),
        pytest.param("x86_64", 56, 0x10000011, EPERM, id="new-user-namespace"),
        pytest.param("x86_64", 56, 0x00020011, EPERM, id="new-mount-namespace"),
        pytest.param("x86_64", 435, 0, ENOSYS, id="clone3"),
        pytest.param("x86_64", 440, 0, ALLOW, id="last-of-5.10"),
        pytest.param("x86_64", 444, 0, ENOSYS, id="landlock"),
        pytest.param("x86_64", 447, 0, ENOSYS, id="memfd_secret"),
        pytest.param("x86_64", 0x40000000 | 59, 0, ENOSYS, id="x32"),
        pytest.param("aarch64", 63, 0, ALLOW, id="arm-read"),
        pytest.param("aarch64", 220, 0x10000011, EPERM, id="arm-new-user-namespace"),
        pytest.param("aarch64", 444, 0, ENOSYS, id="arm-landlock"),
    ],
)
def test_verdicts(machine: str, number: int, argument: int, verdict: int):
    assert run(lambda_filter(machine), number, ARCHITECTURES[machine], argument) == verdict


def test_the_32_bit_door_kills():
    assert run(lambda_filter("x86_64"), 1, 0x40000003) == KILL_PROCESS
