"""Given a pool whose last invocation has just ended, closing it ends."""

import asyncio
import signal
from pathlib import Path
from types import FrameType

import pytest

from sam.local.pool import Pool
from sam.local.stack import read_stack

STACK = read_stack(Path(__file__).parents[2] / "sam" / "template.yaml")


@pytest.fixture
def a_loop_that_never_yields_fails():
    """No timer of the loop's can end what leaves it no turn."""

    def fail(_: int, __: FrameType | None) -> None:
        raise AssertionError("closing went on without letting anything else run")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("a_loop_that_never_yields_fails")
def test_it_ends_though_the_last_invocation_is_over_and_not_yet_taken_out():
    async def close() -> None:
        pool = Pool(STACK, 1, None, lambda *_: None)  # type: ignore[arg-type]
        over = asyncio.create_task(asyncio.sleep(0))
        pool._running.add(over)  # type: ignore[arg-type]
        over.add_done_callback(pool._running.discard)  # type: ignore[arg-type]
        while not over.done():
            await asyncio.sleep(0)
        assert pool._running, "its callback has had its turn already, so that this shows nothing"
        await pool.close()
        assert not pool._running

    asyncio.run(close())
