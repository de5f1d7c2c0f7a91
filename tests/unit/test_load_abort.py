"""A run that has failed already is stopped, one that may yet pass or fails by chance is not."""

import random
from collections.abc import Iterable

import pytest
from load_rows import row

from load.abort import tallies, why_stop
from load.gate import ThresholdError
from load.plan import Abort, PlanError, load_plan, parse_plan, profile_names
from load.rows import Row


def stopped_after(abort: Abort, rows: Iterable[Row]) -> tuple[int, str] | None:
    """How many rows it took, asking after every one, and what was said."""
    counted = tallies(abort)
    for number, one in enumerate(rows, start=1):
        for tally in counted:
            tally.see(one)
        if why := why_stop(counted):
            return number, why
    return None


BAD = {"outcome": "http_error", "status": 500}


@pytest.mark.parametrize(
    ("abort", "bad", "good"),
    [
        pytest.param(Abort(error_share=0.5), BAD, {}, id="error-share"),
        pytest.param(Abort(thresholds=["rate(errors) < 1%"]), BAD, {}, id="rate"),
        pytest.param(Abort(thresholds=["p95(latency) < 2s"]), {"latency_ms": 2000.0}, {}, id="percentile"),
        pytest.param(
            Abort(thresholds=["p50(latency{scenario:numpy}) <= 1s"]),
            {"latency_ms": 1001.0, "scenario": "numpy"}, {"latency_ms": 5000.0}, id="of-one-scenario",
        ),
        pytest.param(
            Abort(thresholds=["p95(latency{cold:false}) < 2s"]),
            {"latency_ms": 9e3, "outcome": "timeout", "cold": None},
            {"latency_ms": 9e3, "cold": True}, id="timeouts-count-as-warm-too",
        ),
    ],
)  # fmt: skip
def test_a_share_past_its_limit_stops_and_one_within_does_not(abort: Abort, bad: dict, good: dict) -> None:  # type: ignore[type-arg]
    found = stopped_after(abort, (row(i, **bad) for i in range(500)))
    assert found is not None
    assert 20 <= found[0] <= 30
    assert found[1].startswith("stopped early by the plan's abort: ")
    assert stopped_after(abort, (row(i, **good) for i in range(500))) is None


@pytest.mark.parametrize(
    ("threshold", "at"),
    [
        pytest.param("count(errors) == 0", 4, id="none"),
        pytest.param("count(errors) < 3", 6, id="below-three"),
        pytest.param("count(errors) <= 3", 7, id="three"),
        pytest.param("max(latency) < 5s", 9, id="max"),
    ],
)
def test_a_count_or_a_maximum_stops_at_once(threshold: str, at: int) -> None:
    rows = [*(row(i) for i in range(3)), *(row(i, **BAD) for i in range(5)), row(9, latency_ms=6000.0)]
    found = stopped_after(Abort(thresholds=[threshold]), rows)
    assert found is not None
    assert found[0] == at


def test_a_threshold_just_kept_is_not_missed_by_looking_often() -> None:
    """Four percent of the answers are past a p95, looked at after each of 5,000, twenty times over."""
    draw = random.Random(7)
    abort = Abort(thresholds=["p95(latency) < 2s"])
    alarms = sum(
        stopped_after(abort, (row(i, latency_ms=3000.0 if draw.random() < 0.04 else 10.0) for i in range(5000)))
        is not None
        for _ in range(20)
    )
    assert alarms == 0


@pytest.mark.parametrize(
    "threshold",
    ["count(cold) >= 10", "p95(latency) > 1s", "avg(latency) < 1s", "min(latency) < 1s", "count(environments) < 5"],
)
def test_what_may_mend_itself_stops_nothing(threshold: str) -> None:
    with pytest.raises(ThresholdError, match="may mend it"):
        tallies(Abort(thresholds=[threshold]))


def test_an_abort_that_never_comes_is_refused() -> None:
    document = {**load_plan("smoke").model_dump(), "abort": {"after_s": 5}}
    with pytest.raises(PlanError, match="needs error_share or thresholds"):
        parse_plan(document, "x")


def test_the_profiles_aborts_can_be_read() -> None:
    assert sum(len(tallies(load_plan(name).abort)) for name in profile_names()) >= 2
