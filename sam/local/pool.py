"""Lambda's scaling for one function: one environment per concurrent request, reused, replaced when lost.

It knows no HTTP; a request past the limit raises Throttled, as the Invoke API would answer 429.
"""

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path

from .environment import Environment, Outcome
from .host import Host
from .logs import LogEvent
from .stack import Stack

MAX_EVENT_BYTES = 6 * 1024 * 1024  # Lambda's limit for a synchronous invocation, both ways


class Throttled(Exception):
    """Every environment the limit allows is busy. The message is Lambda's."""

    def __init__(self) -> None:
        super().__init__("Rate Exceeded.")


class Pool:
    """Environments are made when a request needs one: the first call is a real cold start."""

    def __init__(
        self, stack: Stack, limit: int, host: Host, layer: Path | None, write_log: Callable[[LogEvent], None]
    ) -> None:
        self.stack = stack
        self.limit = limit
        self._host = host
        self._layer = layer
        self._write_log = write_log
        self._idle: list[Environment] = []  # most recently used last
        self._all: set[Environment] = set()
        self._busy = 0
        self._ending: set[asyncio.Task[None]] = set()
        self._running: set[asyncio.Task[Outcome]] = set()

    @property
    def busy(self) -> int:
        return self._busy

    async def invoke(
        self, payload: bytes, *, trace_id: str = "", request_id: str | None = None, client_context: str = ""
    ) -> Outcome:
        """Run one event. A caller that goes away does not stop it: Lambda runs it to its end too. Raises Throttled."""
        if self._busy >= self.limit:
            raise Throttled
        self._busy += 1
        task = asyncio.create_task(self._run(payload, trace_id, request_id or str(uuid.uuid4()), client_context))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _run(self, payload: bytes, trace_id: str, request_id: str, client_context: str) -> Outcome:
        environment: Environment | None = None
        try:
            environment = self._take_idle()
            if environment is None:
                environment = Environment(self.stack, self._host, self._layer, self._write_log)
                self._all.add(environment)
                await environment.start()
            return await environment.invoke(payload, trace_id, request_id, client_context)
        except BaseException:
            if environment is not None:
                environment.lost = True
            raise
        finally:
            self._busy -= 1
            if environment is not None:
                self._give_back(environment)

    def _take_idle(self) -> Environment | None:
        while self._idle:
            environment = self._idle.pop()
            if not environment.lost and environment.stack is self.stack:
                return environment
            self._end(environment)
        return None

    def _give_back(self, environment: Environment) -> None:
        if environment.lost or environment.stack is not self.stack:
            self._end(environment)
        else:
            self._idle.append(environment)

    def _end(self, environment: Environment) -> None:
        self._all.discard(environment)
        task = asyncio.create_task(environment.stop())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def reconfigure(self, stack: Stack) -> None:
        """New settings: idle environments end now, busy ones after their invocation, as after an update on Lambda."""
        self.stack = stack
        idle, self._idle = self._idle, []
        for environment in idle:
            self._end(environment)

    async def close(self) -> None:
        """End every environment, busy or not; invocations that run end as lost ones do."""
        self.limit = 0
        self._idle.clear()
        await asyncio.gather(*(environment.stop() for environment in self._all), return_exceptions=True)
        while self._running or self._ending:
            await asyncio.gather(*self._running, *self._ending, return_exceptions=True)
