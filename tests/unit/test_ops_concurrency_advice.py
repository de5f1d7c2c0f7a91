"""Given an arrival history, the replay serves it as Lambda would, and the cheapest way to keep a p99 is named."""

import io
import json
from datetime import UTC, datetime

import numpy as np
import pytest

from ops.__main__ import run
from ops.command import Surroundings
from ops.concurrency_advice import History, advise, history_of, peak_of, provisioned_sizes, replay
from ops.failures import Inconclusive
from ops.invocations import fold
from ops.logs import LogEvent, event_line
from tests.published_schemas import validated


def history(arrivals, durations=100.0, init_ms=1000.0, restore_ms=400.0):
    arrivals = np.asarray(arrivals, dtype=float)
    return History(arrivals, np.broadcast_to(np.float64(durations), arrivals.shape), 1024.0, init_ms, restore_ms)


STEADY = history(np.arange(0, 100_000, 200.0))
BURSTS = history(np.repeat(np.arange(0, 36) * 1_200_000.0, 10))  # ten at once every twenty minutes, for twelve hours


@pytest.mark.parametrize(
    ("arrivals", "arguments", "latencies", "cold", "throttled"),
    [
        pytest.param([0, 5000], {}, [1100, 100], 1, 0, id="second-finds-it-warm"),
        pytest.param([0, 500], {}, [1100, 1100], 2, 0, id="busy-while-it-initialises"),
        pytest.param([0, 700_000], {}, [1100, 1100], 2, 0, id="lost-after-ten-idle-minutes"),
        pytest.param([0, 700_000], {"idle_ms": 9e5}, [1100, 100], 1, 0, id="kept-longer"),
        pytest.param([0, 10], {"provisioned": 2}, [100, 100], 0, 0, id="provisioned-never-cold"),
        pytest.param([0, 10], {"provisioned": 1}, [100, 1100], 1, 0, id="overflow-starts-cold"),
        pytest.param([0, 100], {"provisioned": 1}, [100, 100], 0, 0, id="free-again-at-the-end"),
        pytest.param([0, 10, 2000], {"reserved": 1}, [1100, None, 100], 1, 1, id="reserved-throttles"),
    ],
)
def test_each_arrival_is_served_as_lambda_would(arrivals, arguments, latencies, cold, throttled):
    made = replay(history(arrivals), 1000.0, **arguments)
    assert [None if np.isnan(v) else v for v in made.latency_ms] == latencies
    assert (made.cold, made.throttled) == (cold, throttled)


def test_the_environment_used_last_is_taken_so_that_the_others_may_go():
    # Two at once, then one every five minutes: only one environment stays in use, the other is lost after ten.
    made = replay(history([0, 0, *(300_000.0 * n for n in range(1, 5)), 1_200_000.0]), 1000.0)
    assert made.cold == 3


def test_peak_and_levels_of_concurrency():
    assert peak_of(STEADY) == 1
    assert peak_of(BURSTS) == 10
    assert provisioned_sizes(BURSTS, 10) == [1, 10]


def test_steady_traffic_needs_nothing_but_on_demand():
    advice = advise(STEADY)
    assert advice.chosen == "on demand"
    assert advice.throttled_at_reserved[1] > 0  # the first start takes a second, and the next calls find it busy


def test_a_p99_that_bursts_break_takes_provisioned_environments():
    advice = advise(BURSTS, p99_below_ms=200.0)
    assert advice.chosen == "provisioned 10"
    by_name = {choice.name: choice for choice in advice.choices}
    assert by_name["on demand"].cold_share == 1.0
    assert by_name["on demand"].p99_ms == 1100.0
    assert by_name["SnapStart"].p99_ms == 500.0
    assert by_name["on demand"].dollars < by_name["provisioned 10"].dollars
    assert advice.throttled_at_reserved[10] == 0
    assert advice.throttled_at_reserved[5] == 36 * 5


def test_a_constraint_between_takes_snapstart():
    assert advise(BURSTS, p99_below_ms=600.0).chosen == "SnapStart"


def test_a_constraint_that_nothing_keeps_is_inconclusive():
    with pytest.raises(Inconclusive, match="comes nearest"):
        advise(BURSTS, p99_below_ms=50.0)


def test_dollars_of_provisioned_environments():
    [made] = [c for c in advise(BURSTS).choices if c.name == "provisioned 10"]
    idle = 10 * BURSTS.span_s * 0.0000041667
    run_cost = 360 * 0.1 * 0.0000097222
    assert made.dollars == pytest.approx(idle + run_cost + 360 * 0.2e-6)


def logged(n, *, init):
    cold = f"Init Duration: {init} ms\t" if init else ""
    line = f"REPORT RequestId: r{n}\tDuration: 100 ms\tBilled Duration: 1 ms\tMemory Size: 1024 MB\t"
    return LogEvent(1000 * n, 1000 * n, "g", "s", str(n), line + "Max Memory Used: 9 MB\t" + cold)


def test_a_history_is_read_from_the_logs_by_arrival():
    made = history_of(fold(logged(n, init=500 if n % 50 == 0 else None) for n in range(100)).invocations)
    assert made.arrivals_ms[1] - made.arrivals_ms[0] == 1500  # the first began its INIT half a second earlier
    assert (made.init_ms, made.restore_ms, made.memory_mb) == (500.0, 500.0, 1024.0)


@pytest.mark.parametrize(("count", "init", "why"), [(99, 500, "takes 100"), (100, None, "no INIT")])
def test_too_little_history_is_refused(count, init, why):
    with pytest.raises(Inconclusive, match=why):
        history_of(fold(logged(n, init=init) for n in range(count)).invocations)


def test_the_command_advises_from_files(tmp_path):
    rows = [logged(n, init=500 if n % 50 == 0 else None) for n in range(200)]
    (tmp_path / "events.jsonl").write_text("".join(event_line(row) for row in rows))
    asked = {"source": "x", "groups": ["g"], "start": "2026-11-24T05:15:00Z", "end": "2026-11-24T06:15:00Z"}
    (tmp_path / "request.json").write_text(json.dumps(asked))
    around = Surroundings(lambda: datetime(2026, 11, 24, tzinfo=UTC), UTC, out=io.StringIO(), err=io.StringIO())
    assert run(["tune", "concurrency", "--from", str(tmp_path), "--out", str(tmp_path / "t")], around) == 0
    assert "on demand <- chosen" in around.out.getvalue()
    told = json.loads((tmp_path / "t" / "concurrency.json").read_text())
    assert (validated(told), told["invocations"]) == ("ops-tune-concurrency/1", 200)
