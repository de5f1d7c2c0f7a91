"""Given a host that gives less, environments are made of what there is: namespaces of a user, or plain processes.

Nothing here runs code that attacks: a plain process is not shut in.
"""

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from sam.local import processes
from sam.local.host import Host, launch, layout, probe

ROOT = Path(__file__).parents[2]
CODE = ROOT / "tests" / "integration" / "functions" / "echo"
SCRIPT = """
import json, os, sys
notes = os.environ.get("TMPDIR", "/tmp") + "/notes"
with open(notes, "a+") as file:
    file.write("x"); file.seek(0); times = len(file.read())
links = os.listdir("/sys/class/net") if os.path.exists("/sys/class/net") else []
print(json.dumps({"uid": os.getuid(), "times": times, "pid": os.getpid(), "api": os.environ["AWS_LAMBDA_RUNTIME_API"],
                  "task": os.path.exists("/var/task/handler.py"), "path": sys.path}), flush=True)
sys.exit(times)
"""


async def run_twice(host: Host, scratch: Path) -> list[dict[str, Any]]:
    """What two runtimes, one after the other in the same environment, told of themselves, with their exit codes."""
    code = scratch / "code"
    shutil.copytree(CODE, code)
    for path in (scratch, code, *code.rglob("*")):
        path.chmod(0o755)
    place = layout(host, code, None, scratch)
    with tempfile.TemporaryFile() as output:
        launched = await launch(host, place, ["-c", SCRIPT], place.variables, scratch, output=output.fileno())
        codes = [await (await launched.run()) for _ in range(2)]
        top = launched.top
        below = processes.descendants(top)
        launched.close()
        await launched.process.wait()
        output.seek(0)
        told = [json.loads(line) for line in output.read().splitlines()]
        return [{**each, "code": code, "below": below} for each, code in zip(told, codes, strict=True)]


def everyone_runs(python: str) -> bool:
    path = Path(python)
    return path.exists() and all(parent.stat().st_mode & 0o005 == 0o005 for parent in (path, *path.parents))


@pytest.mark.parametrize(
    ("isolated", "lambda_syscalls", "host_network"),
    [
        pytest.param(True, True, False, id="isolated"),
        pytest.param(True, True, True, id="with-the-hosts-network"),
        pytest.param(False, True, True, id="plain"),
        pytest.param(False, False, True, id="plain-and-unfiltered"),
    ],
)
def test_a_second_runtime_finds_the_first_ones_tmp(
    isolated: bool, lambda_syscalls: bool, host_network: bool, monkeypatch: pytest.MonkeyPatch
):
    if not isolated and os.geteuid() == 0:
        # As root a plain process gets another user, who may not be able to read root's own Python.
        python = next((p for p in (os.path.realpath(sys.executable), "/usr/bin/python3") if everyone_runs(p)), None)
        if python is None:
            pytest.skip("no Python here that every user can run")
        monkeypatch.setattr("sam.local.host._base_python", lambda: python)
    with tempfile.TemporaryDirectory(prefix="sam-local-") as name:
        first, second = asyncio.run(run_twice(Host(isolated, lambda_syscalls, host_network), Path(name)))
    assert (first["times"], second["times"]) == (1, 2)
    assert (first["code"], second["code"]) == (1, 2)
    assert first["uid"] == second["uid"] != 0
    assert first["api"].startswith("127.0.0.1:")
    assert (first["api"] == "127.0.0.1:9001") is (isolated and not host_network)
    assert first["task"] is isolated
    assert first["below"] == []


KILLED = """
import asyncio, os, signal, sys, tempfile
from pathlib import Path
from sam.local import host, processes

DAEMON = "import os, time; os.fork() or os.setsid() or os.fork(); time.sleep(300)"

async def start():
    host._base_python = lambda: sys.argv[3]
    given = host.Host(sys.argv[1] == "isolated", False, sys.argv[1] != "isolated")
    with tempfile.TemporaryDirectory(prefix="sam-local-") as name:
        os.chmod(name, 0o755)
        place = host.layout(given, Path('/tmp' if sys.argv[1] == 'plain' else sys.argv[2]), None, Path(name))
        launched = await host.launch(given, place, ["-c", DAEMON], place.variables, Path(name), output=2)
        await launched.run()
        async with asyncio.timeout(60):
            while len(processes.descendants(launched.top)) < 3:
                await asyncio.sleep(0.01)
        print(*processes.descendants(os.getpid()), flush=True)
        processes.send(processes.descendants(launched.top), signal.SIGSTOP)
        await asyncio.sleep(300)

asyncio.run(start())
"""


@pytest.mark.parametrize("kind", ["isolated", "plain"])
def test_when_the_stack_is_killed_all_it_started_ends(kind: str, tmp_path: Path):
    """Even what is frozen, and what left its session."""
    python = os.path.realpath(sys.executable)
    base = next(filter(everyone_runs, (python, "/usr/bin/python3")), None) if os.geteuid() == 0 else python
    if kind == "plain" and base is None:
        pytest.skip("as root a plain process wants a Python that every user can run")
    site = str(Path(importlib.util.find_spec("awslambdaric").origin).parents[1])  # type: ignore[union-attr, arg-type]
    command = [python, "-c", KILLED, kind, str(CODE), base if kind == "plain" and base else python]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{site}", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as stack:
        assert stack.stdout is not None
        pids = [int(pid) for pid in stack.stdout.readline().split()]
        stack.kill()
    assert len(pids) >= 4
    deadline = time.monotonic() + 60
    while living := [pid for pid in pids if not processes.is_gone(pid)]:
        assert time.monotonic() < deadline, f"{len(living)} of {len(pids)} live on"
        time.sleep(0.01)


def test_a_built_layer_takes_the_place_of_the_venv():
    with tempfile.TemporaryDirectory(prefix="sam-local-") as name:
        (Path(name) / "layer" / "python").mkdir(parents=True)
        for path in (Path(name), Path(name) / "layer", Path(name) / "layer" / "python"):
            path.chmod(0o755)
        module = Path(name) / "layer" / "python" / "of_the_layer.py"
        module.write_text("")
        host = Host(isolated=True, lambda_syscalls=True, host_network=False)

        async def look() -> int:
            scratch = Path(name) / "scratch"
            scratch.mkdir()
            place = layout(host, CODE, Path(name) / "layer", scratch)
            command = [
                "-c",
                "import of_the_layer, awslambdaric, handler\ntry:\n import numpy\nexcept ImportError:\n exit(7)",
            ]
            with tempfile.TemporaryFile() as output:
                launched = await launch(host, place, command, place.variables, scratch, output=output.fileno())
                code = await (await launched.run())
                launched.close()
                await launched.process.wait()
            return code

        assert asyncio.run(look()) == 7


AS_NOBODY = """
import asyncio, json, sys, tempfile
from pathlib import Path
root = Path(sys.argv[1])
sys.path[:0] = [str(root), sys.argv[2]]
from sam.local import host
code = root / "tests" / "integration" / "functions" / "echo"

async def look():
    with tempfile.TemporaryDirectory(prefix="sam-local-") as name, tempfile.TemporaryFile() as output:
        given = await host.probe(host.Host(True, True, False), code, None, Path(name))
        place = host.layout(given, code, None, Path(name))
        command = ["-c", "import os, awslambdaric; print(os.getuid(), os.listdir('/var/task') != [])"]
        launched = await host.launch(given, place, command, place.variables, Path(name), output=output.fileno())
        codes = [await (await launched.run()) for _ in range(2)]
        launched.close()
        await launched.process.wait()
        output.seek(0)
        return given.isolated, given.missing, codes, output.read().decode()

print(json.dumps(asyncio.run(look())))
"""
# Root's own Python may lie where nobody can read, so the way to it is made anew in a mount namespace of its own.
OPEN = """
mount --bind "$1" /mnt && mount -t tmpfs -o mode=755 tmpfs "/$(echo "$1" | cut -d/ -f2)" && mkdir -p "$1" &&
mount --bind /mnt "$1" && shift && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
"""


def test_an_ordinary_user_gets_namespaces_of_a_user_of_its_own():
    site = str(Path(importlib.util.find_spec("awslambdaric").origin).parents[1])  # type: ignore[union-attr, arg-type]
    readable = everyone_runs(site) and everyone_runs(str(ROOT / "sam" / "local"))
    if os.geteuid() != 0 or not readable or not all(map(shutil.which, ("unshare", "setpriv", "mount"))):
        pytest.skip("wants root, util-linux, and a repository that every user can read")
    python = os.path.realpath(sys.executable)
    command = [python, "-B", "-c", AS_NOBODY, str(ROOT), site]
    if everyone_runs(python):
        command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *command]
    else:
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", OPEN, "sh", sys.base_prefix, *command]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment, timeout=120)
    if "unshare failed" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout, done.stderr
    isolated, missing, codes, said = json.loads(done.stdout)
    if not isolated and "Operation not permitted" in missing:
        pytest.skip(missing)
    assert (isolated, missing, codes, said) == (True, None, [0, 0], "993 True\n993 True\n")


def test_the_probe_says_in_one_line_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from sam.local import host as module

    async def fails(candidate: Host, code_dir: Path, layer: Path | None, within: Path) -> str | None:
        return "Operation not permitted (unshare)" if candidate.isolated else None

    monkeypatch.setattr(module, "_try", fails)
    given = asyncio.run(probe(Host(True, True, False), CODE, None, tmp_path))
    assert (given.isolated, given.lambda_syscalls) == (False, True)
    assert given.missing is not None
    assert "own mounts, processes, network and user" in given.missing
    assert "Operation not permitted" in given.missing
