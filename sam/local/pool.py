"""Lambda's scaling for one function: one environment per concurrent request, reused, replaced when lost.

It knows no HTTP; a request past a limit raises Throttled, as the Invoke API would answer 429.
Limits: https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from .environment import ON_DEMAND, PROVISIONED, SNAP_START, Environment, Outcome, Site
from .stack import Stack
from .throttle import TokenBucket

MAX_EVENT_BYTES = 6 * 1024 * 1024  # Lambda's limit for a synchronous invocation, both ways
SCALE_OUT_PER_10_S = 1000  # new environments of one function
RATE_PER_CONCURRENCY = 10  # requests a second for each unit of concurrency
LATEST = "$LATEST"
# Lambda freezes at once. Here that takes 0.2 ms of a core (signals to every process, found anew) and a quarter of the
# calls of one busy client, measured; a call that follows within these 5 ms, as under load, is spared both. What a
# function leaves running after its answer has so long, and no longer.
FREEZE_AFTER_S = 0.005

Lane = tuple[str, str | None]  # version, tenant: an environment never serves two of them


class Throttled(Exception):
    """A limit was reached. The message is Lambda's, and so is `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__("Rate Exceeded.")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Observed:
    """One request as CloudWatch counts it; `outcome` is None for a throttled one. `began_s` since the epoch.

    `resource` is the function's name with the qualifier it was called by.
    """

    began_s: float
    function_name: str
    resource: str
    outcome: Outcome | None
    concurrent: int


@dataclass(slots=True)
class Provisioned:
    """Environments that are kept for a version before anyone calls it."""

    wanted: int
    ready: set[Environment] = field(default_factory=set)
    keeper: asyncio.Task[None] | None = None


class Pool:
    """Environments are made when a request needs one: the first call is a real cold start.

    `most` is what this machine is asked to run at once; `reserved` is the function's own limit.
    """

    def __init__(
        self,
        stack: Stack,
        most: int,
        site: Site,
        observe: Callable[[Observed], None] = lambda _: None,
        *,
        scale_out_per_10_s: float = SCALE_OUT_PER_10_S,
    ) -> None:
        self.most = most
        self.reserved: int | None = None
        self._versions = {stack.version: stack}
        self._site = site
        self._observe = observe
        self._scale_out = TokenBucket(scale_out_per_10_s / 10, scale_out_per_10_s, time.monotonic)
        self._rate: TokenBucket | None = None
        self._idle: dict[Lane, list[Environment]] = {}  # most recently used last
        self._all: set[Environment] = set()
        self._freezing: dict[Environment, asyncio.TimerHandle] = {}
        self._provisioned: dict[str, Provisioned] = {}
        self._spares: dict[str, asyncio.Task[Environment]] = {}
        self._busy = 0
        self._closed = False
        self._ending: set[asyncio.Task[None]] = set()
        self._running: set[asyncio.Task[Outcome]] = set()
        self.reserve(stack.reserved_concurrency)

    @property
    def stack(self) -> Stack:
        """The configuration of $LATEST."""
        return self._versions[LATEST]

    @property
    def busy(self) -> int:
        return self._busy

    # -- calls --------------------------------------------------------------------------------------------------

    async def invoke(
        self,
        payload: bytes,
        *,
        version: str = LATEST,
        trace_id: str = "",
        request_id: str | None = None,
        client_context: str = "",
        arn: str = "",
        tenant: str | None = None,
    ) -> Outcome:
        """Run one event. A caller that goes away does not stop it: Lambda runs it to its end too. Raises Throttled."""
        began_s, name = time.time(), self.stack.function_name
        resource = arn.partition(":function:")[2] or name
        try:
            self._admit()
        except Throttled:
            self._observe(Observed(began_s, name, resource, None, self._busy))
            raise
        self._busy += 1
        run = self._run((version, tenant), payload, trace_id, request_id or str(uuid.uuid4()), client_context, arn)
        task = asyncio.create_task(self._observed(run, began_s, resource, self._busy))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    def _admit(self) -> None:
        if self.reserved is not None:
            if self._busy >= self.reserved:
                raise Throttled("ReservedFunctionConcurrentInvocationLimitExceeded")
            if self._rate is not None and not self._rate.take():
                raise Throttled("ReservedFunctionInvocationRateLimitExceeded")
        if self._busy >= self.most or self._closed:
            raise Throttled("ConcurrentInvocationLimitExceeded")

    async def _observed(self, run: Coroutine[Any, Any, Outcome], began_s: float, resource: str, n: int) -> Outcome:
        name = self.stack.function_name
        try:
            outcome = await run
        except Throttled:
            self._observe(Observed(began_s, name, resource, None, n))
            raise
        self._observe(Observed(began_s, name, resource, outcome, n))
        return outcome

    async def _run(
        self, lane: Lane, payload: bytes, trace_id: str, request_id: str, client_context: str, arn: str
    ) -> Outcome:
        environment: Environment | None = None
        try:
            environment = self._take_idle(lane)
            if environment is None:
                environment = await self._make(lane)
            return await environment.invoke(payload, trace_id, request_id, client_context, arn)
        except BaseException:
            if environment is not None:
                environment.lost = True
            raise
        finally:
            self._busy -= 1
            if environment is not None:
                self._give_back(environment)

    # -- environments -------------------------------------------------------------------------------------------

    async def _make(self, lane: Lane) -> Environment:
        """A fresh environment of the lane, after its init. Raises Throttled and LaunchError."""
        version, tenant = lane
        stack = self._versions[version]
        if not self._scale_out.take():
            raise Throttled("ConcurrentInvocationLimitExceeded")
        if stack.snap_start and version != LATEST:
            return await self._from_snapshot(stack)
        return await self._started(stack, ON_DEMAND, tenant)

    async def _started(self, stack: Stack, kind: str, tenant: str | None = None) -> Environment:
        self._make_room()
        environment = Environment(stack, self._site, kind, tenant)
        self._all.add(environment)
        try:
            await environment.start()
        except BaseException:
            self._end(environment)
            raise
        return environment

    async def _from_snapshot(self, stack: Stack) -> Environment:
        """An environment that had its init before; while this one is restored, the next one has its own."""
        spare = self._spares.pop(stack.version, None) or asyncio.create_task(self._started(stack, SNAP_START))
        environment = await asyncio.shield(spare)
        if self._is_stale(environment):
            self._end(environment)
            environment = await self._started(stack, SNAP_START)
        if not self._closed:
            self.take_snapshot(stack.version)
        await environment.restore()
        return environment

    def take_snapshot(self, version: str) -> asyncio.Task[Environment]:
        """Begin the init of an environment that a later request is restored from."""
        task = asyncio.create_task(self._spare(self._versions[version]))
        self._spares[version] = task
        return task

    async def _spare(self, stack: Stack) -> Environment:
        environment = await self._started(stack, SNAP_START)
        environment.freeze()
        return environment

    def _take_idle(self, lane: Lane) -> Environment | None:
        idle = self._idle.get(lane, [])
        # The provisioned ones first: they are paid for.
        idle.sort(key=lambda environment: environment.kind == PROVISIONED)
        while idle:
            environment = idle.pop()
            self._keep_warm(environment)
            if not self._is_stale(environment):
                return environment
            self._end(environment)
        return None

    def _give_back(self, environment: Environment) -> None:
        if self._is_stale(environment):
            self._end(environment)
            self._keep_provisioned(environment.stack.version)
            return
        self._idle.setdefault((environment.stack.version, environment.tenant), []).append(environment)
        loop = asyncio.get_running_loop()
        self._freezing[environment] = loop.call_later(FREEZE_AFTER_S, self._freeze, environment)

    def _freeze(self, environment: Environment) -> None:
        self._freezing.pop(environment, None)
        environment.freeze()

    def _keep_warm(self, environment: Environment) -> None:
        if timer := self._freezing.pop(environment, None):
            timer.cancel()

    def _is_stale(self, environment: Environment) -> bool:
        return environment.lost or environment.stack is not self._versions.get(environment.stack.version)

    def _make_room(self) -> None:
        """This machine runs `most` at once: past that an idle one of another lane goes, the longest idle first."""
        idle = [e for lane in self._idle.values() for e in lane if e.kind != PROVISIONED]
        if idle and len(self._all) >= self.most:
            oldest = idle[0]
            self._idle[oldest.stack.version, oldest.tenant].remove(oldest)
            self._end(oldest)

    def _end(self, environment: Environment) -> None:
        self._all.discard(environment)
        self._keep_warm(environment)
        for provisioned in self._provisioned.values():
            provisioned.ready.discard(environment)
        task = asyncio.create_task(environment.stop())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _end_stale(self) -> None:
        for lane, idle in list(self._idle.items()):
            stale = [environment for environment in idle if self._is_stale(environment)]
            self._idle[lane] = [environment for environment in idle if environment not in stale]
            for environment in stale:
                self._end(environment)

    # -- settings -----------------------------------------------------------------------------------------------

    def reconfigure(self, stack: Stack) -> None:
        """New settings of a version: its idle environments end now, busy ones after their invocation."""
        self._versions[stack.version] = stack
        self._end_stale()

    def remove(self, version: str) -> None:
        """Forget a version and end its environments."""
        self._versions.pop(version, None)
        self._drop_spare(version)
        self.provision(version, 0)
        self._end_stale()

    def reserve(self, concurrency: int | None) -> None:
        """Set the function's reserved concurrency; None leaves it none of its own."""
        self.reserved = concurrency
        rate = RATE_PER_CONCURRENCY * (concurrency or 0)
        self._rate = TokenBucket(rate, rate, time.monotonic) if rate else None

    def provision(self, version: str, wanted: int) -> None:
        """Keep `wanted` environments of a version ready; what is more than that ends."""
        provisioned = self._provisioned.setdefault(version, Provisioned(0))
        provisioned.wanted = wanted
        for environment in list(provisioned.ready)[wanted:]:
            provisioned.ready.discard(environment)
            environment.kind = ON_DEMAND  # it serves on until it is idle too long, like any other
            idle = self._idle.get((version, None), [])
            if environment in idle:
                idle.remove(environment)
                self._end(environment)
        self._keep_provisioned(version)

    def provisioned(self, version: str) -> tuple[int, int]:
        """How many provisioned environments of a version there are, and how many of them are idle."""
        ready = self._provisioned[version].ready if version in self._provisioned else set()
        idle = self._idle.get((version, None), [])
        return len(ready), sum(environment in ready for environment in idle)

    def _keep_provisioned(self, version: str) -> None:
        provisioned = self._provisioned.get(version)
        if provisioned is None or self._closed or (provisioned.keeper and not provisioned.keeper.done()):
            return
        if len(provisioned.ready) < provisioned.wanted:
            provisioned.keeper = asyncio.create_task(self._provide(version, provisioned))

    async def _provide(self, version: str, provisioned: Provisioned) -> None:
        while len(provisioned.ready) < provisioned.wanted and version in self._versions and not self._closed:
            environment = await self._started(self._versions[version], PROVISIONED)
            if self._is_stale(environment):
                self._end(environment)
                continue
            provisioned.ready.add(environment)
            self._give_back(environment)

    def _drop_spare(self, version: str) -> None:
        if task := self._spares.pop(version, None):
            task.add_done_callback(self._end_spare)

    def _end_spare(self, task: asyncio.Task[Environment]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._end(task.result())

    async def close(self) -> None:
        """End every environment, busy or not; invocations that run end as lost ones do."""
        self._closed = True
        self._idle.clear()
        for environment in list(self._freezing):
            self._keep_warm(environment)
        await asyncio.gather(*(environment.stop() for environment in self._all), return_exceptions=True)
        for waiting in self._waiting():
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await waiting
        while self._running or self._ending:
            await asyncio.gather(*self._running, *self._ending, return_exceptions=True)
            # Tasks leave the sets by their callbacks, and a gather of what is done already lets none of them run.
            await asyncio.sleep(0)

    def _waiting(self) -> Iterator["asyncio.Task[Environment] | asyncio.Task[None]"]:
        yield from self._spares.values()
        yield from (p.keeper for p in self._provisioned.values() if p.keeper is not None)
