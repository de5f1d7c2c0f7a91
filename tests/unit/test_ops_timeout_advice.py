"""Given real durations, a timeout is advised that holds for p99.9, or none: never from too few or hidden tails."""

import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from ops.__main__ import run
from ops.command import Surroundings
from ops.failures import Inconclusive
from ops.invocations import Invocations
from ops.logs import LogEvent, event_line
from ops.timeout_advice import NEEDED, Limits, advise, hold
from tests.published_schemas import validated

TEMPLATE = Path(__file__).parents[2] / "sam" / "template.yaml"
FREE = Limits(gateway_s=None, soft_s=None, margin=0.0)


def invocations(warm_ms, cold_ms=(), init_ms=500.0, cut_off=0):
    durations = np.array([*warm_ms, *cold_ms], dtype=float)
    n, warm = len(durations), len(warm_ms)
    nothing = np.full(n, np.nan)
    init = nothing.copy()
    init[warm:] = init_ms
    outcomes = np.full(n, "ok", dtype="U7")
    outcomes[:cut_off] = "timeout"
    return Invocations(
        [f"r{i}" for i in range(n)], np.arange(n, dtype=float), ["s"] * n, durations, durations, np.full(n, 1024.0),
        np.full(n, 100.0), init, nothing, nothing, outcomes,
    )  # fmt: skip


def lognormal(n, seed=0):
    return np.random.default_rng(seed).lognormal(4, 0.5, n)


@pytest.mark.parametrize("n", [0, 300, 1000, NEEDED - 1])
def test_too_few_warm_invocations_are_refused(n):
    with pytest.raises(Inconclusive, match="2,995 warm invocations"):
        advise(invocations(lognormal(n), cold_ms=lognormal(5000)), FREE)


def test_the_bound_covers_p999_in_19_of_20_simulated_cases():
    truth = float(np.exp(4 + 0.5 * 3.090232306167813))
    covered = [advise(invocations(lognormal(4000, seed)), FREE).warm_p999_upper95_ms >= truth for seed in range(300)]
    assert np.mean(covered) >= 0.925  # 95 % less two standard errors of 300 cases


def test_cold_starts_do_not_reach_the_warm_tail_but_their_init_is_added():
    warm = lognormal(4000)
    without, with_cold = advise(invocations(warm), FREE), advise(invocations(warm, cold_ms=[9000.0] * 40), FREE)
    assert with_cold.warm_p999_upper95_ms == without.warm_p999_upper95_ms
    assert with_cold.unclamped_s == pytest.approx(without.unclamped_s + 0.5)


def test_timeouts_are_longer_than_they_look():
    warm = lognormal(20000)
    seen, cut = advise(invocations(warm), FREE), advise(invocations(warm, cut_off=5), FREE)
    assert cut.warm_p999_upper95_ms > seen.warm_p999_upper95_ms
    assert cut.timed_out == 5


def test_timeouts_that_hide_the_tail_are_refused():
    with pytest.raises(Inconclusive, match="hides the tail"):
        advise(invocations(lognormal(4000), cut_off=20), FREE)


@pytest.mark.parametrize(
    ("unclamped", "limits", "expected", "why"),
    [
        pytest.param(3.2, Limits(soft_s=None), 4, None, id="rounded-up"),
        pytest.param(40.0, Limits(soft_s=None), 28, "gateway", id="held-below-the-gateway"),
        pytest.param(3.2, Limits(soft_s=25.0), 27, "interpreter", id="held-above-the-interpreter"),
        pytest.param(40.0, Limits(soft_s=28.0), 30, "interpreter", id="interpreter-wins-over-gateway"),
        pytest.param(40.0, Limits(gateway_s=None, soft_s=None), 40, None, id="no-gateway"),
        pytest.param(2000.0, Limits(gateway_s=None, soft_s=None), 900, "Lambda", id="lambdas-own-limit"),
    ],
)
def test_limits(unclamped, limits, expected, why):
    timeout_s, reasons = hold(unclamped, limits)
    assert timeout_s == expected
    assert (why is None and not reasons) or why in reasons[-1]


def test_the_command_advises_from_files_and_applies(tmp_path, monkeypatch):
    monkeypatch.delenv("MCP_ENDPOINT_URL", raising=False)
    rows = [
        LogEvent(n, n, "g", "s", str(n), f"REPORT RequestId: r{n}\tDuration: {ms:.2f} ms\tBilled Duration: 1 ms\t")
        for n, ms in enumerate(lognormal(4000))
    ]
    (tmp_path / "events.jsonl").write_text("".join(event_line(row) for row in rows))
    asked = {"source": "x", "groups": ["g"], "start": "2026-11-24T05:15:00Z", "end": "2026-11-24T06:15:00Z"}
    (tmp_path / "request.json").write_text(json.dumps(asked))
    settings = tmp_path / "environment.sh"
    settings.write_text("P_FN_TIMEOUT=60\n")
    around = Surroundings(lambda: datetime(2026, 11, 24, tzinfo=UTC), UTC, out=io.StringIO(), err=io.StringIO())
    argv = ["tune", "timeout", "--from", str(tmp_path), "--out", str(tmp_path / "t"), "--apply"]
    assert run([*argv, "--soft-limit", "25", "--settings", str(settings)], around) == 0
    assert settings.read_text() == "P_FN_TIMEOUT=27\n"
    assert "Timeout: 27 s" in around.out.getvalue()
    assert run([*argv, "--soft-limit", "3", "--settings", str(settings)], around) == 0
    assert settings.read_text() == "P_FN_TIMEOUT=15\n"
    assert "takes no less than 15 s" in around.err.getvalue()
    (timeout,) = re.findall(r"PFnTimeout:.*?MinValue: (\d+)", TEMPLATE.read_text(), re.DOTALL)
    assert timeout == "15"
    assert run([*argv, "--soft-limit", "25", "--settings", str(settings)], around) == 0
    told = json.loads((tmp_path / "t" / "timeout.json").read_text())
    assert (validated(told), told["timeout_s"]) == ("ops-tune-timeout/1", 27)
