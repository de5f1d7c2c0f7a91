"""Puts a server that speaks over stdin and stdout behind a loopback URL, so that the same checks can reach it.

It passes messages through unchanged but for their ids, and must not answer for the server: what is about HTTP is not
asked of such a target. One process serves all checks of a run, as one session, as its user would have it.
"""

import itertools
import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from conformance.target import UsageFault

ANSWER_S = 60.0
END_S = 5.0


class Bridge:
    """The server's process, and who waits for which answer."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        except OSError as error:
            raise UsageFault(f"The target's command {command[0]!r} cannot be started: {error.strerror}.") from None
        self.ids = itertools.count(1)
        self.waiting: dict[int, queue.Queue[dict[str, Any] | None]] = {}
        self.lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict) and "method" not in message:
                    waiter = self.waiting.pop(message.get("id", 0), None)
                    if waiter:
                        waiter.put(message)
        for waiter in list(self.waiting.values()):
            waiter.put(None)

    def send(self, message: Mapping[str, Any]) -> None:
        """Writes one message; a server that is gone is noticed by who waits."""
        assert self.process.stdin is not None
        with self.lock, suppress(OSError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any] | None:
        """The response to a request under the request's own id; None when the server went or is silent too long."""
        number, answer = next(self.ids), queue.Queue[dict[str, Any] | None](1)
        self.waiting[number] = answer
        if self.process.poll() is not None:
            return None
        self.send({**message, "id": number})
        try:
            response = answer.get(timeout=ANSWER_S)
        except queue.Empty:
            self.waiting.pop(number, None)
            return None
        return None if response is None else {**response, "id": message["id"]}

    def stop(self) -> None:
        """Ends the server the way stdio servers are ended: close its input, then insist."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait(END_S)


@contextmanager
def bridged(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Runs the command and yields the URL it can be reached at; ends what it started.

    Raises:
        UsageFault: the command cannot be started.
    """
    bridge = Bridge(command, environment)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                message = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            except ValueError:
                message = None
            if not isinstance(message, dict):
                self._answer(400, None)
            elif "id" not in message:
                bridge.send(message)
                self._answer(202, None)
            else:
                response = bridge.ask(message)
                self._answer(200 if response else 502, response)

        def do_GET(self) -> None:
            self._answer(405, None)

        def _answer(self, status: int, payload: object) -> None:
            data = b"" if payload is None else json.dumps(payload).encode()
            with suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet: the records tell every exchange."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/stdio"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        bridge.stop()
