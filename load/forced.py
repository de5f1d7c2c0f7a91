"""Cold starts forced on versions of our own, memory size by memory size, with both words on each call kept.

Each round publishes a version, bursts on it cold, bursts again warm, and takes it away. Rows, REPORTs and the run
record are those of any other run, so the same reports are made of them.
"""

import json
import math
import platform
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from load.coldstart import AGREED_SHARE, COLD_STAGE, WARM_STAGE, cold_start_document
from load.direct import Burst, send_burst
from load.fresh_version import ALIAS, JOURNAL, Journal, fresh_version, read_function, restore
from load.plan import Plan, parse_plan
from load.rows import Row, RowWriter, RunRecord, write_run
from load.server_side import ServerCall, join

LOG_SOURCE = "Invoke's own LogResult"


@dataclass(frozen=True, slots=True)
class Forcing:
    """What to force: `rounds` fresh versions for each size in MB (None: the size it has), `burst` calls on each."""

    function: str
    sizes_mb: Sequence[int | None]
    burst: int
    rounds: int
    era: str

    @property
    def calls(self) -> int:
        return 2 * self.burst * self.rounds * len(self.sizes_mb)


def forced_plan(forcing: Forcing) -> Plan:
    """The plan in the run's record: it paces nothing, but budget, limits and verdict are judged by it."""
    document = cold_start_document(forcing.burst, 1.0, forcing.era)
    wanted = math.ceil(AGREED_SHARE * forcing.burst * forcing.rounds)
    otherwise = (
        "the version was new, so calls that came one after another shared an environment; give a smaller -n, or run "
        "nearer to the region"
    )
    stages = [stage_of(part, size) for size in forcing.sizes_mb for part in (COLD_STAGE, WARM_STAGE)]
    document |= {
        "description": f"{forcing.rounds} new versions of {forcing.function} a size, {forcing.burst} calls on each",
        "stages": [
            {"kind": "burst", "name": stage, "size": forcing.burst, "repeats": forcing.rounds} for stage in stages
        ],
        "needs": [
            {"threshold": f"count(cold{{stage:{stage_of(COLD_STAGE, size)}}}) >= {wanted}", "otherwise": otherwise}
            for size in forcing.sizes_mb
        ],
    }
    return parse_plan(document, "coldstart")


def stage_of(part: str, size_mb: int | None) -> str:
    return part if size_mb is None else f"{part}@{size_mb}MB"


def force(client: Any, forcing: Forcing, out: Path, say: Any) -> bool:
    """Runs all rounds, raw records to `out`, and puts the function back. Returns whether it was interrupted.

    Raises AwsRefused. `say` is given one line before each version.
    """
    plan = forced_plan(forcing)
    journal = read_function(client, forcing.function)
    out.mkdir(parents=True, exist_ok=True)
    (out / "plan.json").write_text(plan.model_dump_json(indent=1) + "\n", encoding="utf-8")
    anchor_s = time.monotonic()
    record = RunRecord(
        profile=plan.profile,
        endpoint=f"lambda:{forcing.function}",
        plan=plan.model_dump(mode="json"),
        versions={"python": platform.python_version()},
        anchor_unix_s=time.time(),
        planned=forcing.calls,
    )
    write_run(out / "run.json", record)
    kept = _Kept(out, record)
    journal.write(out / JOURNAL)
    with _sigterm_as_interrupt():
        try:
            _all_rounds(client, forcing, journal, out / JOURNAL, anchor_s, kept, say)
            record.ended = "complete"
        except KeyboardInterrupt:
            record.ended = "interrupted"
        finally:
            try:
                restore(client, journal, out / JOURNAL)
            finally:
                if record.ended == "running":
                    record.ended = "stopped"
                record.ended_s = round(time.monotonic() - anchor_s, 3)
                kept.close()
    return record.ended == "interrupted"


def _all_rounds(
    client: Any, forcing: Forcing, journal: Journal, path: Path, anchor_s: float, kept: "_Kept", say: Any
) -> None:
    total = forcing.rounds * len(forcing.sizes_mb)
    for number in range(total):
        # sizes take turns, so that what drifts meanwhile drifts for all of them
        size_mb = forcing.sizes_mb[number % len(forcing.sizes_mb)]
        say(f"version {number + 1} of {total}" + ("" if size_mb is None else f", {size_mb} MB"))
        marker = f"load coldstart {int(time.time())} round {number}"
        with fresh_version(client, journal, path, marker, size_mb) as alias:
            for part in (COLD_STAGE, WARM_STAGE):
                stage = stage_of(part, size_mb)
                tenant = ALIAS if journal.per_tenant else None
                burst = Burst(forcing.function, alias, stage, forcing.burst, "hold", forcing.era, kept.sent, tenant)
                kept.sent += forcing.burst
                send_burst(client, burst, anchor_s, kept.keep)


class _Kept:
    """The rows and REPORTs of a run, on disk as they come; the join of both when it is closed."""

    def __init__(self, out: Path, record: RunRecord) -> None:
        self.sent = 0
        self._out = out
        self._record = record
        self._writer = RowWriter(out / "requests.jsonl")
        self._rows: list[Row] = []
        self._calls: dict[str, ServerCall] = {}

    def keep(self, row: Row, report: ServerCall | None) -> None:
        self._writer.write(row)
        self._writer.flush()
        self._rows.append(row)
        self._record.dispatched += 1
        if report is not None:
            self._calls[report.request_id] = report
            with (self._out / "server.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(report)) + "\n")

    def close(self) -> None:
        self._writer.close()
        write_run(self._out / "run.json", self._record)
        joined = join(self._rows, self._calls, LOG_SOURCE)
        (self._out / "server.json").write_text(joined.to_json() + "\n", encoding="utf-8")


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
