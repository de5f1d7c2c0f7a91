"""Given a system call, this is what the interpreter's own filter answers, for both architectures."""

import errno

import pytest
from bpf import ARCHITECTURES, run

from interpreter import kernel

ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, EACCES, ENOSYS = (0x00050000 | code for code in (errno.EPERM, errno.EACCES, errno.ENOSYS))
PID = 4242
STREAM, DATAGRAM, CLOEXEC = 1, 2, 0o2000000


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize(
    ("name", "arguments", "verdict"),
    [
        pytest.param("execve", (), EPERM, id="execve"),
        pytest.param("execveat", (), EPERM, id="execveat"),
        pytest.param("ptrace", (), EPERM, id="ptrace"),
        pytest.param("io_uring_setup", (), EPERM, id="io-uring"),
        pytest.param("clone3", (), ENOSYS, id="clone3-so-that-glibc-falls-back"),
        pytest.param("clone", (0x003D0F00,), ALLOW, id="thread"),
        pytest.param("clone", (0x01200011,), EPERM, id="process"),
        pytest.param("clone", (0x10010000,), EPERM, id="thread-in-a-namespace"),
        pytest.param("kill", (PID,), ALLOW, id="signal-for-itself"),
        pytest.param("kill", (1,), EPERM, id="signal-for-another"),
        pytest.param("kill", (0,), EPERM, id="signal-for-its-group"),
        pytest.param("prlimit64", (0,), ALLOW, id="own-limits"),
        pytest.param("prlimit64", (7,), EPERM, id="limits-of-another"),
        pytest.param("prctl", (15,), ALLOW, id="name-a-thread"),
        pytest.param("prctl", (38,), EPERM, id="no-new-privileges-again"),
        pytest.param("socket", (2, STREAM), EACCES, id="internet-socket"),
        pytest.param("socket", (1, STREAM), EACCES, id="unix-socket"),
        pytest.param("connect", (), EACCES, id="connect"),
        pytest.param("socketpair", (1, STREAM | CLOEXEC), ALLOW, id="pair-as-asyncio-makes-it"),
        pytest.param("socketpair", (1, DATAGRAM), EACCES, id="pair-that-can-be-sent-elsewhere"),
        pytest.param("socketpair", (2, STREAM), EACCES, id="pair-of-another-family"),
        pytest.param("sendto", (3, 0, 0, 0, 0), ALLOW, id="send-on-a-pair"),
        pytest.param("sendto", (3, 0, 0, 0, 0x1000), EACCES, id="send-to-an-address"),
        pytest.param("bind", (), EACCES, id="bind"),
    ],
)
def test_a_call_is_answered_by_its_arguments(machine: str, name: str, arguments: tuple[int, ...], verdict: int) -> None:
    program = kernel.filter_program(machine, PID, network=False)
    assert run(program, kernel.call_number(machine, name), ARCHITECTURES[machine], *arguments) == verdict


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize(("family", "verdict"), [(2, ALLOW), (10, ALLOW), (1, EACCES), (16, EACCES), (17, EACCES)])
def test_with_a_network_only_internet_sockets(machine: str, family: int, verdict: int) -> None:
    program = kernel.filter_program(machine, PID, network=True)
    assert run(program, kernel.call_number(machine, "socket"), ARCHITECTURES[machine], family) == verdict


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_any_program_needs_is_allowed(machine: str) -> None:
    program = kernel.filter_program(machine, PID, network=False)
    numbers = {"x86_64": {"read": 0, "mmap": 9, "openat": 257, "futex": 202}, "aarch64": {"read": 63, "openat": 56}}
    for number in numbers[machine].values():
        assert run(program, number, ARCHITECTURES[machine]) == ALLOW


def test_other_calling_conventions_kill() -> None:
    program = kernel.filter_program("x86_64", PID, network=False)
    assert run(program, 1, 0x40000003) == KILL, "32 bit"
    assert run(program, 0x40000000 | 59, ARCHITECTURES["x86_64"]) == KILL, "x32"
