"""Given a share of a processor, what runs below it takes as much longer; how is a cgroup's or the signals' matter."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_stack import local_stack

from sam.local import cpu, processes

CPU_S = 0.2
BURN = f"""
import time
began, used = time.monotonic(), time.process_time()
while time.process_time() - used < {CPU_S}:
    pass
print(time.monotonic() - began, flush=True)
"""
PARENT = f"import subprocess, sys; sys.stdin.readline(); subprocess.run([sys.executable, '-c', {BURN!r}])"


@pytest.fixture(params=["cgroup", "signals"])
def share(request: pytest.FixtureRequest) -> Iterator[cpu.Share]:
    """A quarter of a processor."""
    made: cpu.Share
    if request.param == "cgroup":
        parent = cpu.find_cgroup()
        if parent is None:
            pytest.skip("this host lets nobody make a cgroup")
        made = cpu.CgroupShare(parent, 0.25)
    else:
        made = cpu.StoppedShare(cpu.Governor(), 0.25)
    yield made
    made.close()


def burn(share: cpu.Share) -> float:
    """How long CPU_S seconds of processor time take, in seconds."""
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        share.take(parent.pid)
        share.limit(parent.pid)
        took, _ = parent.communicate("\n")
    return float(took)


def test_a_quarter_of_a_processor_makes_it_four_times_as_long(share: cpu.Share):
    assert burn(share) > 0.8 * CPU_S / 0.25


def test_at_rest_nothing_is_stopped_or_continued():
    share = cpu.StoppedShare(cpu.Governor(), 0.01)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as p:
        share.take(p.pid)
        share.limit(p.pid)
        share.rest()
        took, _ = p.communicate("\n")
    assert float(took) < CPU_S / 0.01


@pytest.mark.parametrize(
    ("memory_mb", "vcpus"),
    [pytest.param(1769, 1.0, id="one"), pytest.param(128, 128 / 1769, id="least"), pytest.param(3538, 2.0, id="two")],
)
def test_vcpus_by_memory(memory_mb: int, vcpus: float):
    assert cpu.vcpus(memory_mb) == pytest.approx(vcpus)


def test_a_cgroup_of_either_version_is_found_by_trying(tmp_path: Path):
    v1, v2 = tmp_path / "cpu", tmp_path / "unified" / "a"
    v1.mkdir()
    v2.mkdir(parents=True)
    mounts = f"cgroup {v1} cgroup rw,cpu 0 0\ncgroup2 {v2.parent} cgroup2 rw 0 0\n"
    # A plain directory takes the files too, so the first that can be written in is taken.
    assert cpu.find_cgroup("4:cpu,cpuacct:/\n0::/a\n", mounts) == v1
    assert cpu.find_cgroup("0::/a\n", mounts) == v2.parent
    assert cpu.find_cgroup("4:cpu:/missing\n", mounts) is None


def test_what_dead_stacks_left_is_removed(tmp_path: Path):
    for name in ("sam-local-4194305-0", f"sam-local-{os.getpid()}-0", "other-1-0"):
        (tmp_path / name).mkdir()
    cpu.remove_left_cgroups(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_stop_below_takes_everything_and_send_lets_it_go():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as p:
        below = subprocess.Popen(["sleep", "60"])
        try:
            stopped = processes.stop_below(os.getpid())
            assert {p.pid, below.pid} <= set(stopped)
        finally:
            processes.send(stopped, signal.SIGCONT)
            below.kill()
            below.wait()
        p.communicate("\n")


def test_more_memory_is_a_faster_call(tmp_path: Path):
    """The figure `ops tune memory` looks for: the same work at half of a processor and at a tenth."""
    with local_stack(tmp_path, "--cpu-share", "--timeout", "30") as stack:
        assert "CPU by memory, one vCPU at 1769 MB" in stack.said
        client = stack.client("lambda")
        took = {}
        for memory_mb in (177, 885):
            client.update_function_configuration(FunctionName="echo", MemorySize=memory_mb)
            waiter = client.get_waiter("function_updated_v2")
            waiter.config.delay = 0.05
            waiter.wait(FunctionName="echo")
            client.invoke(FunctionName="echo", Payload=b'{"do": "nothing"}')
            answer = client.invoke(FunctionName="echo", Payload=b'{"do": "burn", "cpu_s": 0.1}', LogType="Tail")
            assert answer.get("FunctionError") is None
            took[memory_mb] = float(stack.settled_log()[-1].split("\tDuration: ")[1].split(" ms")[0])
    assert took[177] > 0.8 * 100 / 0.1
    assert took[177] > 1.5 * took[885]
