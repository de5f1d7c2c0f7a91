"""ministack, an emulator of AWS that others wrote, for a test to ask; installed on first use, in a venv of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from local_stack import DEADLINE_S, ROOT


@contextlib.contextmanager
def ministack(directory: Path) -> Iterator[str]:
    """A running ministack on 127.0.0.1, with everything it starts ended after it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "P_"))}
    local = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "SFTP_ENABLED": "0", "IOT_MTLS_ENABLED": "0"}
    with (
        tempfile.TemporaryDirectory() as scratch,  # it unpacks the layer there, 225 MB
        (directory / "ministack.log").open("w") as log,
        subprocess.Popen(
            [str(ROOT / ".tools" / "ministack" / "bin" / "ministack")], cwd=directory, stdout=log, stderr=log,
            env={**clean, **local, "TMPDIR": scratch, "PATH": f"{base_bin()}:{clean['PATH']}"},
            start_new_session=True,
        ) as process,
    ):  # fmt: skip
        try:
            deadline = time.monotonic() + DEADLINE_S
            while not answers(port):
                assert process.poll() is None, (directory / "ministack.log").read_text()
                assert time.monotonic() < deadline, "ministack did not come up"
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=1.0)
    except httpx.TransportError:
        return False
    return True


def base_bin() -> str:
    return str(Path(sys.base_prefix) / "bin")


def made_ready(tool: str) -> None:
    done = subprocess.run(["sh", str(ROOT / "sam" / "tool.sh"), tool], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{tool} cannot be installed here: {done.stderr.strip()[-300:]}")
