"""Several workers as one run, by what they tell their master: sums, one line, one abort, and clocks that must agree."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from load_rows import plan, record

from load.abort import tallies
from load.progress import Progress, progress_line, together
from load.workers import ABORT, Following

FIRST = Progress(dispatched=10, by_users=2, open=1, ok=6, not_ok=3, cold=1, tallies=((9, 3), (9, 0)))
SECOND = Progress(dispatched=7, open=2, ok=5, tallies=((5, 0), (5, 2)))


class Runner:
    """Keeps what the master sends to all workers."""

    clients: Any = None

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, str]]] = []

    def send_message(self, kind: str, data: dict[str, str]) -> None:
        self.sent.append((kind, data))


def following(tmp_path: Path, **abort: Any) -> tuple[Following, Runner]:
    judged = plan(abort={"after_s": 0, **abort})
    runner = Runner()
    run = record(20, role="master", workers_expected=2, anchor_unix_s=1000.0)
    path, counted = tmp_path / "run.json", tallies(judged.abort)
    return Following(runner, judged, run, path, counted, clock=lambda: 1005.0), runner  # type: ignore[arg-type]


def told(done: Progress, at_s: float = 5.0, closed: bool = False) -> dict[str, Any]:
    """As it comes over the wire, which knows no tuples."""
    document = asdict(done)
    return {"done": {**document, "tallies": [list(pair) for pair in done.tallies]}, "at_s": at_s, "closed": closed}


def test_a_line_tells_the_sum() -> None:
    assert progress_line(together([FIRST, SECOND]), 5.4, 60, 100) == (
        "load: 5/60 s · 17/102 sent · 3 open · 11 ok · 3 not ok · 1 cold"
    )
    assert together([]) == Progress()


@pytest.mark.parametrize(
    ("most", "stops"),
    [
        pytest.param(4, True, id="the-sum-is-past-it"),
        pytest.param(5, False, id="the-sum-is-not"),
    ],
)
def test_the_abort_is_judged_on_the_sum(tmp_path: Path, most: int, stops: bool) -> None:
    master, runner = following(tmp_path, thresholds=[f"count(errors) <= {most}"])
    master.hear("a", told(Progress(not_ok=2, tallies=((2, 2),))))
    master.hear("a", told(Progress(not_ok=3, tallies=((3, 3),))))  # in place of what it said before
    master.hear("b", told(Progress(not_ok=2, tallies=((2, 2),))))
    master.look(1)
    master.look(2)
    assert [kind for kind, _ in runner.sent] == [ABORT] * stops
    assert bool(master.record.aborted_by) == stops


@pytest.mark.parametrize(
    ("offsets_s", "apart_s"),
    [
        pytest.param([[0.0], [0.0]], 0.0, id="one-clock"),
        pytest.param([[0.0, -3.0], [0.0]], 0.0, id="a-late-message-is-no-clock"),
        pytest.param([[0.0], [-3.1, -3.0]], 3.0, id="behind"),
        pytest.param([[4.0], [-3.0]], 4.0, id="ahead"),
    ],
)
def test_clocks_that_differ_are_in_the_record(tmp_path: Path, offsets_s: list[list[float]], apart_s: float) -> None:
    master, _ = following(tmp_path, thresholds=["count(errors) == 0"])
    for worker, offsets in enumerate(offsets_s):
        for offset_s in offsets:
            master.hear(str(worker), told(FIRST, 5.0 + offset_s))
    master.close("complete")
    assert master.record.clocks_apart_s == apart_s
