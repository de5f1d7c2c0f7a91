"""Several workers as one run: each tells the master once a second what it has done, the master shows one line, judges
the plan's abort on the sum and tells all of them to stop.

It sends nothing to the endpoint and writes no rows: those are where the workers run.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import gevent  # type: ignore[import-untyped]

from load.abort import Tally, why_stop
from load.plan import Plan
from load.progress import Progress, progress_line, read_progress, show, together
from load.rows import RunRecord, write_run

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.runners import MasterRunner

PROGRESS: Final = "load_progress"
ABORT: Final = "load_abort"
LOOK_S: Final = 0.2


@dataclass(slots=True)
class Following:
    """The master's view of one run."""

    runner: "MasterRunner"
    plan: Plan
    record: RunRecord
    record_path: Path
    tallies: list[Tally]
    clock: Callable[[], float] = time.time
    shares: dict[str, Progress] = field(default_factory=dict)
    clocks_apart_s: dict[str, float] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    over: bool = False

    def hear(self, worker: str, data: Mapping[str, Any]) -> None:
        """Takes in what a worker has done so far; `closed` says that its books are."""
        self.shares[worker] = read_progress(data["done"])
        # A message may come late; the one that came fastest says most of the clocks.
        apart_s = round(abs(self._now() - data["at_s"]), 3)
        self.clocks_apart_s[worker] = min(apart_s, self.clocks_apart_s.get(worker, apart_s))
        if data["closed"]:
            self.closed.add(worker)

    def follow(self) -> None:
        """Returns when every worker has closed its books, those that have not are gone, or Locust has ended the run."""
        looks, a_second = 0, round(1 / LOOK_S)
        while len(self.closed) < self.record.workers_expected and self._connected() - self.closed and not self.over:
            gevent.sleep(LOOK_S)
            looks += 1
            if looks % a_second == 0:
                self.look(looks // a_second)
        whole = len(self.closed) == self.record.workers_expected
        self.close("aborted" if self.record.aborted_by else "complete" if whole else "stopped")

    def close(self, ended: Literal["complete", "stopped", "aborted", "interrupted"]) -> None:
        """Writes the final run record. Safe to call twice."""
        if self.over:
            return
        self.over = True
        record = self.record
        record.dispatched = self.done.dispatched
        record.workers_seen = len(self.closed)
        record.clocks_apart_s = max(self.clocks_apart_s.values(), default=0.0)
        record.ended = ended
        record.ended_s = round(self._now(), 3)
        write_run(self.record_path, record)

    @property
    def done(self) -> Progress:
        """What all of them have done, those among them that were lost since."""
        return together(self.shares.values())

    def look(self, second: int) -> None:
        done = self.done
        if self.plan.duration_s > 2:
            show(progress_line(done, self._now(), self.plan.duration_s, self.record.planned), second)
        abort = self.plan.abort
        if abort is None or self.record.aborted_by or self._now() < abort.after_s:
            return
        for tally, (n, past) in zip(self.tallies, done.tallies, strict=False):  # none before a worker has told
            tally.n, tally.past = n, past
        self.record.aborted_by = why_stop(self.tallies)
        if self.record.aborted_by:
            self.runner.send_message(ABORT, {"why": self.record.aborted_by})

    def _connected(self) -> set[str]:
        clients = self.runner.clients
        return {client.id for client in (*clients.ready, *clients.spawning, *clients.running)}

    def _now(self) -> float:
        return self.clock() - self.record.anchor_unix_s


def tell_master(environment: "Environment", done: Progress, at_s: float, closed: bool = False) -> None:
    """What this worker has done `at_s` seconds into the run by its own clock, to its master."""
    runner = environment.runner
    assert runner is not None
    runner.send_message(PROGRESS, {"done": asdict(done), "at_s": at_s, "closed": closed})
