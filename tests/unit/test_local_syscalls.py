"""Given a system call, this is what the filter answers; judged by running its program, for both architectures."""

import errno

import pytest
from bpf import ARCHITECTURES, run

from sam.local.syscalls import ALLOW, ERRNO, KILL_PROCESS, REFUSED, lambda_filter

EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize("name", REFUSED)
def test_what_lambda_refuses_is_refused(machine: str, name: str):
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
def test_a_call_is_answered_as_on_lambda(machine: str, number: int, argument: int, verdict: int):
    assert run(lambda_filter(machine), number, ARCHITECTURES[machine], argument) == verdict


def test_the_32_bit_door_kills():
    assert run(lambda_filter("x86_64"), 1, 0x40000003) == KILL_PROCESS
