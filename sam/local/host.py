"""What this machine can give an environment, and the start of one by the launcher; it knows nothing of invocations."""

import asyncio
import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import processes
from .cpu import Share

_LAUNCHER = Path(__file__).with_name("launch.py")
_LAUNCH_TIMEOUT_S = 10.0
# What AWS puts into /var/runtime, as far as a function could tell: its runtime client and that one's needs.
_RUNTIME_PACKAGES = ("awslambdaric", "runtime_client", "simplejson", "snapshot_restore_py")


class LaunchError(Exception):
    """An environment could not be made here; the message names what was refused."""


@dataclass(frozen=True, slots=True)
class Host:
    """How environments are made. `isolated`: own mounts, processes, network, user. `missing`: for a person to read."""

    isolated: bool
    lambda_syscalls: bool
    host_network: bool
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are, as the runtime sees them, and what must be bound there for that."""

    python: str
    task_root: str
    variables: Mapping[str, str]
    binds: Sequence[tuple[str, str]]


class Launched:
    """A running launcher, and the bound socket on which its runtimes expect their Runtime API."""

    def __init__(
        self, process: asyncio.subprocess.Process, listening: socket.socket, control: socket.socket, isolated: bool
    ) -> None:
        self.process = process
        self.listening = listening
        self._control = control
        self._has_init = isolated
        self._init: int | None = None
        self._ended: asyncio.Future[int] | None = None
        self._heard = b""

    @property
    def top(self) -> int:
        """The pid that outlives a runtime: everything below it is the runtime and what that started."""
        if not self._has_init:
            return self.process.pid
        if self._init is None:
            self._init = next(iter(processes.children(self.process.pid)), None)
        return self._init or self.process.pid

    async def run(self) -> asyncio.Future[int]:
        """Start a runtime. The future resolves to its exit code, or to the launcher's when that has gone."""
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        loop.add_reader(self._control, self._hear, self._ended)
        with contextlib.suppress(OSError):  # then the reader sees the end
            await loop.sock_sendall(self._control, b"start\n")
        return self._ended

    def _hear(self, ended: asyncio.Future[int]) -> None:
        try:
            data = self._control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._heard += data
        if data and not self._heard.endswith(b"\n"):
            return
        asyncio.get_running_loop().remove_reader(self._control)
        code = json.loads(self._heard).get("ended", 70) if data else 137
        self._heard = b""
        if not ended.done():
            ended.set_result(code)

    def close(self) -> None:
        """Let go of the sockets: a launcher that waits for a runtime to start ends. May be called twice."""
        if self._control.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._control)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(137)
        self._control.close()
        self.listening.close()


def layout(host: Host, code_dir: Path, layer: Path | None, scratch: Path) -> Layout:
    """Lambda's own paths when the environment has a root of its own, else the host's."""
    libraries = layer / "python" if layer is not None else _site_packages()
    if not host.isolated:
        runtime = scratch / "runtime"
        runtime.mkdir(exist_ok=True)
        for source in _runtime_sources():
            link = runtime / source.name
            if not link.is_symlink():
                link.symlink_to(source)
        paths = f"{code_dir}:{libraries}:{runtime}"
        variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": paths, "TMPDIR": str(scratch)}
        return Layout(_base_python(), str(code_dir), {**variables, "HOME": str(scratch)}, ())
    prefix = Path(sys.base_prefix)
    binds = [(str(code_dir), "/var/task"), (str(libraries), "/opt/python"), (str(prefix), "/var/lang")]
    binds += [(str(source), f"/var/runtime/{source.name}") for source in _runtime_sources()]
    variables = {
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/task:/var/task/lib:/opt/lib",
        "PYTHONPATH": "/var/task:/opt/python:/var/runtime",
    }
    python = Path("/var/lang") / Path(_base_python()).relative_to(prefix)
    return Layout(str(python), "/var/task", variables, binds)


async def launch(
    host: Host,
    place: Layout,
    arguments: Sequence[str],
    variables: Mapping[str, str],
    scratch: Path,
    *,
    output: int,
    pass_fds: Sequence[int] = (),
    tmp_mb: int = 512,
    share: Share | None = None,
) -> Launched:
    """Make an environment for the runtime `python arguments`, which `run` then starts in it. Raises LaunchError.

    `output` becomes its stdout and stderr; `variables` get AWS_LAMBDA_RUNTIME_API added. `share` limits its CPU.
    """
    root = scratch / "root"
    root.mkdir(exist_ok=True)
    own_network = host.isolated and not host.host_network
    listening = None if own_network else socket.create_server(("127.0.0.1", 0))
    api = "127.0.0.1:9001" if listening is None else "{}:{}".format(*listening.getsockname())
    plan = {
        "isolated": host.isolated,
        "lambda_syscalls": host.lambda_syscalls,
        "host_network": host.host_network,
        "runtime_api": api,
        "scratch": str(scratch),
        "root": str(root),
        "binds": list(place.binds),
        "tmp_mb": tmp_mb,
        "cwd": place.task_root,
        "argv": [*_wrapper(place, variables), place.python, *arguments],
        "environment": {**variables, "AWS_LAMBDA_RUNTIME_API": api},
    }
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            _base_python(), "-I", "-S", str(_LAUNCHER), str(theirs.fileno()),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={},
            pass_fds=(theirs.fileno(), *pass_fds), start_new_session=True,
        )  # fmt: skip
    try:
        if share is not None:
            share.take(process.pid)
        async with asyncio.timeout(_LAUNCH_TIMEOUT_S):
            message, received = await _converse(ours, plan)
        if "error" in message:
            raise LaunchError(str(message["error"]))
    except BaseException as error:
        ours.close()
        processes.kill_tree(process.pid)
        await process.wait()
        if listening is not None:
            listening.close()
        if isinstance(error, TimeoutError | OSError):
            raise LaunchError(f"the launcher did not answer: {error or 'in 10 s'}") from error
        raise
    bound = received or listening
    assert bound is not None
    bound.setblocking(False)
    return Launched(process, bound, ours, host.isolated)


def _wrapper(place: Layout, variables: Mapping[str, str]) -> list[str]:
    """The program that is to start the runtime (https://docs.aws.amazon.com/lambda/latest/dg/runtimes-modify.html)."""
    wrapper = variables.get("AWS_LAMBDA_EXEC_WRAPPER", "")
    if wrapper.startswith("/var/task/"):
        wrapper = place.task_root + wrapper.removeprefix("/var/task")
    return [wrapper] if wrapper else []


async def probe(wanted: Host, code_dir: Path, layer: Path | None, scratch: Path) -> Host:
    """What of `wanted` this host can give, found out by making environments that only start Python and end.

    They are made below `scratch`.
    Raises LaunchError when not even a plain process can run the code.
    """
    reasons: list[str] = []
    for candidate in _weaker(wanted):
        reason = await _try(candidate, code_dir, layer, scratch)
        if reason is None:
            return candidate if candidate == wanted else _with_reason(candidate, wanted, reasons[0])
        reasons.append(reason)
    hint = ""
    if os.geteuid() == 0:
        hint = "; code is never run as root here: let other users read it and .venv, or run this as an ordinary user"
    raise LaunchError(f"no environment can be made on this host: {reasons[0]}; as a plain process: {reasons[-1]}{hint}")


async def _try(candidate: Host, code_dir: Path, layer: Path | None, within: Path) -> str | None:
    """None when an environment could be made, else why not."""
    with tempfile.TemporaryDirectory(prefix="probe-", dir=within) as name, tempfile.TemporaryFile() as output:
        scratch = Path(name)
        place = layout(candidate, code_dir, layer, scratch)
        arguments = ["-c", "import awslambdaric"]
        try:
            launched = await launch(candidate, place, arguments, place.variables, scratch, output=output.fileno())
        except LaunchError as error:
            return str(error)
        code = await (await launched.run())
        launched.close()
        await launched.process.wait()
        if code == 0:
            return None
        output.seek(0)
        said = output.read().decode("utf-8", "replace").strip().splitlines()
        return said[-1] if said else "Python did not start"


def _weaker(wanted: Host) -> list[Host]:
    """From what is wanted down to plain processes."""
    return [
        wanted,
        Host(wanted.isolated, False, wanted.host_network),
        Host(False, wanted.lambda_syscalls, True),
        Host(False, False, True),
    ]


def _with_reason(given: Host, wanted: Host, reason: str) -> Host:
    lacks = []
    if wanted.isolated and not given.isolated:
        lacks.append("own mounts, processes, network and user (environments share the host's)")
    if wanted.lambda_syscalls and not given.lambda_syscalls:
        lacks.append("the system call filter")
    missing = f"this host gives environments no {'; no '.join(lacks)}: {reason}"
    return Host(given.isolated, given.lambda_syscalls, given.host_network, missing)


async def _converse(control: socket.socket, plan: Mapping[str, Any]) -> tuple[dict[str, Any], socket.socket | None]:
    """Send the plan; return the launcher's answer and the listening socket that came with it."""
    control.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(control, json.dumps(plan).encode() + b"\n")
    readable = asyncio.Event()
    loop.add_reader(control, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(control)
    data, fds, _, _ = socket.recv_fds(control, 65536, 1)
    if not data:
        return {"error": "the launcher ended without a word"}, None
    return json.loads(data), socket.socket(fileno=fds[0]) if fds else None


def _base_python() -> str:
    """The interpreter that the venv was made from: its own prefix is found from where it lies."""
    return os.path.realpath(sys.executable)


def _site_packages() -> Path:
    return _source("awslambdaric").parent


def _runtime_sources() -> list[Path]:
    return [_source(name) for name in _RUNTIME_PACKAGES]


def _source(name: str) -> Path:
    """The directory of a package, or the file of a module."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise LaunchError(f"{name} is not installed; run make setup")
    path = Path(spec.origin)
    return path.parent if path.stem == "__init__" else path
