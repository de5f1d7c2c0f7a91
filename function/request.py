"""What the function knows of the request being served: Lambda's context, and the timings its response will tell."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import time
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

STACKS_MARGIN_S = 0.5  # before Lambda's deadline, for writing where every thread is
FLUSH_MARGIN_S = 1.5  # kept back from Lambda's deadline for reading, cleaning up and answering

_environment_id = uuid.uuid4().hex


def environment_id() -> str:
    return _environment_id


def renew_environment_id() -> None:
    """An environment that was resumed from a snapshot is another one than its siblings of the same snapshot."""
    global _environment_id
    _environment_id = uuid.uuid4().hex


@dataclass(slots=True)
class Request:
    """One request. `context` is Lambda's, None in the local modes; timings are in ms."""

    context: Any = None
    invocation: int | None = None
    api_key_id: str | None = None  # of API Gateway's usage plan, never the key
    timings: dict[str, float] = field(default_factory=dict)

    def seconds_left(self) -> float | None:
        """Seconds until the answer must be ready; None where no platform sets a deadline."""
        if self.context is None:
            return None
        left: float = self.context.get_remaining_time_in_millis() / 1000 - FLUSH_MARGIN_S
        return max(left, 0.1)

    @contextlib.contextmanager
    def stacks_at_deadline(self) -> Iterator[None]:
        """What runs up to its deadline in here writes where every thread is, for Lambda kills without a word."""
        if self.context is None:
            yield
            return
        left_s = self.context.get_remaining_time_in_millis() / 1000
        faulthandler.dump_traceback_later(max(left_s - STACKS_MARGIN_S, 0.1))
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """`X-Lambda-*` and `Server-Timing` (W3C Server Timing), so that a client can tell cold from warm."""
        found = []
        if self.context is not None:
            found = [
                ("x-lambda-request-id", self.context.aws_request_id),
                ("x-lambda-environment-id", environment_id()),
                ("x-lambda-invocation", str(self.invocation)),
                ("x-lambda-init-type", os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")),
            ]
        if self.timings:
            found.append(("server-timing", ", ".join(f"{name};dur={ms:.1f}" for name, ms in self.timings.items())))
        return [(name.encode(), value.encode()) for name, value in found]


_current: ContextVar[Request | None] = ContextVar("request", default=None)


def current_request() -> Request | None:
    return _current.get()


def begin(request: Request) -> None:
    """Make `request` the current one of this task and of those it starts."""
    _current.set(request)


def process_age_ms() -> float:
    """Milliseconds since this process was started (proc(5): starttime, in clock ticks since boot)."""
    with open("/proc/self/stat", "rb") as file:
        started_ticks = int(file.read().rpartition(b")")[2].split()[19])
    return (time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")) * 1000
