"""The gate reads thresholds strictly, refuses what a sample cannot carry, and never passes what proves nothing."""

from contextlib import nullcontext
from typing import Any

import pytest
from load_rows import plan, record, row, rows

from load.gate import (
    Fitness,
    ThresholdError,
    check_fitness,
    check_lines,
    decide,
    judge,
    parse_threshold,
)
from load.percentiles import chance_of_at_least, distribution, needed_for_quantile, needed_for_share, quantile
from load.plan import Limits
from load.rows import Row, RunRecord


@pytest.mark.parametrize(
    ("line", "aggregate", "metric", "selectors", "operator", "limit"),
    [
        pytest.param(
            "p95(latency{scenario:numpy,cold:false}) < 800ms",
            "p95",
            "latency",
            (("scenario", "numpy"), ("cold", "false")),
            "<",
            800,
            id="the-brief's-own",
        ),
        pytest.param("rate(errors) < 0.1%", "rate", "errors", (), "<", 0.001, id="rate"),
        pytest.param("count(cold) >= 5", "count", "cold", (), ">=", 5, id="count"),
        pytest.param("p99.9( service ) <= 1.5s", "p99.9", "service", (), "<=", 1500, id="seconds-and-spaces"),
        pytest.param("max(init{cold:true})<3s", "max", "init", (("cold", "true"),), "<", 3000, id="no-spaces"),
        pytest.param(
            "count(errors{stage:spike@after}) == 0", "count", "errors", (("stage", "spike@after"),), "==", 0, id="part"
        ),
        pytest.param("avg(lag) < 5ms", "avg", "lag", (), "<", 5, id="avg"),
    ],
)
def test_reading(line: str, aggregate: str, metric: str, selectors: Any, operator: str, limit: float) -> None:
    threshold = parse_threshold(line)
    assert (threshold.aggregate, threshold.metric, threshold.selectors) == (aggregate, metric, selectors)
    assert threshold.operator == operator
    assert threshold.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("p95(latency)", "does not read", id="no-limit"),
        pytest.param("p95 latency < 5ms", "does not read", id="no-parentheses"),
        pytest.param("p95(latency) != 5ms", "does not read", id="unknown-operator"),
        pytest.param("p95(latency) < -5ms", "does not read", id="negative"),
        pytest.param("p95(latency) < 5ms or so", "does not read", id="more-after-it"),
        pytest.param("p100(latency) < 5ms", "no aggregate", id="p100"),
        pytest.param("p0(latency) < 5ms", "no aggregate", id="p0"),
        pytest.param("median(latency) < 5ms", "no aggregate", id="unknown-aggregate"),
        pytest.param("p95(latencies) < 5ms", "has no 'latencies'", id="unknown-metric"),
        pytest.param("p95(errors) < 5ms", "has no 'errors'", id="percentile-of-a-count"),
        pytest.param("count(latency) < 5", "has no 'latency'", id="count-of-a-time"),
        pytest.param("p95(latency) < 5", "write its limit as", id="time-without-unit"),
        pytest.param("rate(errors) < 5", "in %", id="rate-without-percent"),
        pytest.param("rate(errors) < 500%", "more than everything", id="rate-over-100"),
        pytest.param("count(errors) < 5ms", "no unit", id="count-with-unit"),
        pytest.param("rate(environments) < 5%", "no rate", id="rate-of-environments"),
        pytest.param("p95(latency{colour:red}) < 5ms", "no selector 'colour'", id="unknown-selector"),
        pytest.param("p95(latency{cold}) < 5ms", "name:value", id="selector-without-value"),
        pytest.param("p95(latency{cold:yes}) < 5ms", "true or false", id="cold-yes"),
        pytest.param("count(errors{outcome:bad}) == 0", "no outcome 'bad'", id="unknown-outcome"),
    ],
)
def test_bad_lines_are_refused(line: str, says: str) -> None:
    with pytest.raises(ThresholdError, match=says):
        parse_threshold(line)


@pytest.mark.parametrize(("q", "needed"), [(0.5, 5), (0.9, 29), (0.95, 59), (0.99, 299), (0.999, 2995)])
def test_samples_a_percentile_needs(q: float, needed: int) -> None:
    assert needed_for_quantile(q) == needed
    # the rule itself: so many values all below the quantile have at most 5 % chance, one fewer has more
    assert q**needed <= 0.05 < q ** (needed - 1)


def test_samples_a_share_needs() -> None:
    assert needed_for_share(0.001) == 2995
    assert needed_for_share(0.05) == 59


def test_chance_of_at_least_is_the_binomial_tail() -> None:
    assert chance_of_at_least(0, 10, 0.5) == 1
    assert chance_of_at_least(10, 10, 0.5) == pytest.approx(0.5**10)
    assert chance_of_at_least(1, 10, 0.1) == pytest.approx(1 - 0.9**10)


def test_quantiles_are_observed_values() -> None:
    values = [float(i) for i in range(1, 101)]
    assert [quantile(values, q) for q in (0.5, 0.9, 0.99, 0.999)] == [50, 90, 99, 100]


def test_a_distribution_names_the_percentiles_it_carries() -> None:
    small, large = distribution([1.0] * 58), distribution([1.0] * 299)
    assert small is not None
    assert large is not None
    assert small.carried == ["p50", "p90"]
    assert large.carried == ["p50", "p90", "p95", "p99"]
    assert distribution([]) is None


SLOW = [row(i, latency_ms=900.0 if i >= 90 else 10.0) for i in range(100)]
ONE_ERROR = [*rows(99), row(99, outcome="tool_error", status=200)]
COLD = [row(i, cold=i < 5, invocation=1 if i < 5 else 2, environment_id=f"e{i}") for i in range(20)]
SILENT = rows(60, cold=None, invocation=None, environment_id=None)


@pytest.mark.parametrize(
    ("line", "given", "verdict", "observed"),
    [
        pytest.param("p95(latency) < 800ms", rows(100), "passed", 10, id="fast-enough"),
        pytest.param("p95(latency) < 800ms", SLOW, "failed", 900, id="too-slow"),
        pytest.param("p90(latency) < 800ms", SLOW, "passed", 10, id="slow-tail-beyond-the-percentile"),
        pytest.param("p95(latency) < 800ms", rows(58), "inconclusive", 10, id="one-too-few-for-p95"),
        pytest.param("p95(latency) < 800ms", rows(59), "passed", 10, id="just-enough-for-p95"),
        pytest.param("p99(latency) < 800ms", rows(298), "inconclusive", 10, id="one-too-few-for-p99"),
        pytest.param("p95(latency) < 5ms", rows(20), "failed", 10, id="few-but-all-too-slow"),
        pytest.param(
            "p99(latency) < 800ms", [*rows(50), row(50, latency_ms=900)], "inconclusive", 900, id="few-one-slow"
        ),
        pytest.param("p95(latency) < 800ms", [], "inconclusive", None, id="zero-requests"),
        pytest.param("p95(latency{scenario:nump}) < 800ms", rows(100), "inconclusive", None, id="selects-nothing"),
        pytest.param(
            "count(errors{scenario:nump}) == 0", rows(100), "inconclusive", None, id="counts-nothing-selected"
        ),
        pytest.param("count(errors) == 0", [], "inconclusive", None, id="no-errors-in-no-requests"),
        pytest.param("count(errors) == 0", rows(3), "passed", 0, id="no-errors"),
        pytest.param("count(errors) == 0", ONE_ERROR, "failed", 1, id="tool-error-behind-a-200"),
        pytest.param("rate(errors) < 5%", ONE_ERROR, "passed", 0.01, id="rate-below"),
        pytest.param("rate(errors) < 1%", ONE_ERROR, "inconclusive", 0.01, id="rate-at-the-limit-of-a-small-sample"),
        pytest.param("rate(errors) < 0.1%", rows(2994), "inconclusive", 0, id="no-error-in-too-few"),
        pytest.param("rate(errors) < 0.1%", rows(2995), "passed", 0, id="no-error-in-enough"),
        pytest.param("rate(errors) < 1%", rows(10, outcome="http_error"), "failed", 1, id="few-but-all-failed"),
        pytest.param("count(cold) >= 5", COLD, "passed", 5, id="cold-enough"),
        pytest.param("count(cold) >= 6", COLD, "failed", 5, id="not-cold-enough"),
        pytest.param("count(environments) >= 20", COLD, "passed", 20, id="environments"),
        pytest.param("count(cold) <= 5", SILENT, "inconclusive", None, id="no-headers-is-not-no-cold-starts"),
        pytest.param("p50(latency{cold:false}) < 1s", SILENT, "inconclusive", None, id="no-headers-is-not-warm"),
        pytest.param(
            "p90(latency) < 800ms",
            [*rows(60), *rows(20, outcome="timeout", latency_ms=5000)],
            "failed",
            5000,
            id="timeouts-count",
        ),
        pytest.param(
            "p90(latency{cold:false}) < 800ms",
            [*rows(60), *rows(20, outcome="timeout", latency_ms=5000, cold=None)],
            "failed",
            5000,
            id="timeouts-count-in-either-temperature",
        ),
        pytest.param(
            "p50(latency) < 8ms",
            [*rows(30), *rows(70, outcome="http_error", latency_ms=1)],
            "failed",
            10,
            id="failing-fast-is-no-speed",
        ),
        pytest.param("max(latency) < 800ms", SLOW, "failed", 900, id="max"),
        pytest.param("p50(exec) < 8ms", rows(10), "inconclusive", None, id="no-server-timing"),
        pytest.param("p50(exec) < 8ms", rows(10, server_timing={"exec": 3.0}), "passed", 3, id="server-timing"),
        pytest.param("count(in_flight) == 0", [row(0, outcome="in_flight")], "failed", 1, id="in-flight-counted"),
        pytest.param(
            "count(errors) == 0", [row(0, outcome="in_flight")], "passed", 0, id="in-flight-is-not-the-endpoint's-error"
        ),
    ],
)
def test_judging(line: str, given: list[Row], verdict: str, observed: float | None) -> None:
    judgement = judge(parse_threshold(line), given)
    assert judgement.verdict == verdict, judgement
    assert judgement.observed == (None if observed is None else pytest.approx(observed))
    if verdict == "inconclusive":
        assert judgement.reason


def test_an_inconclusive_percentile_says_how_many_are_needed() -> None:
    judgement = judge(parse_threshold("p99(latency) < 1s"), rows(50))
    assert judgement.needed == 299
    assert "299" in judgement.reason


def unfit(given: list[Row], records: list[RunRecord], limits: Limits | None = None) -> list[str]:
    return [check.check for check in check_fitness(given, records, limits or Limits()) if not check.fit]


WORKERS: dict[str, Any] = {"role": "master", "workers_expected": 2, "workers_seen": 2}
SHARES = [record(50, role="worker"), record(50, role="worker", worker_index=1)]


@pytest.mark.parametrize(
    ("given", "records", "checks"),
    [
        pytest.param(rows(100), [record()], [], id="fit"),
        pytest.param([], [record(0)], ["requests"], id="zero-requests"),
        pytest.param(
            rows(100, latency_ms=None, outcome="dropped"), [record()], ["requests", "dropped_share"], id="all-dropped"
        ),
        pytest.param(rows(40), [record(ended="stopped", ended_s=4.0)], ["complete", "recorded"], id="stopped-early"),
        pytest.param(
            rows(100), [record(ended="running", ended_s=None)], ["complete"], id="killed-before-its-last-word"
        ),
        pytest.param(rows(99), [record()], ["recorded"], id="a-row-is-missing"),
        pytest.param([*rows(100), row(3)], [record()], ["recorded"], id="a-row-twice"),
        pytest.param(rows(130), [record(by_users=30)], [], id="users-beside-the-schedule"),
        pytest.param(rows(130), [record(by_users=31)], ["recorded"], id="a-user's-row-is-missing"),
        pytest.param(rows(100, lag_ms=12.0, latency_ms=30.0), [record()], ["send_lag_p99_ms"], id="late"),
        pytest.param(rows(100, lag_ms=12.0, latency_ms=500.0), [record()], [], id="late-by-little-of-the-answer"),
        pytest.param(
            [*rows(99), row(99, latency_ms=None, outcome="dropped")], [record()], ["dropped_share"], id="dropped"
        ),
        pytest.param([*rows(99), row(99, outcome="in_flight")], [record()], ["in_flight"], id="in-flight-at-the-end"),
        pytest.param(rows(100), [record(cpu_share=[0.2] * 5 + [0.95] * 5)], ["cpu_share"], id="cpu-for-five-seconds"),
        pytest.param(rows(100), [record(cpu_share=[0.2] * 9 + [1.0])], [], id="cpu-for-one-second"),
        pytest.param(
            rows(100),
            [record(**WORKERS, clocks_apart_s=0.1), *SHARES],
            [],
            id="both-workers",
        ),
        pytest.param(
            rows(0, latency_ms=None) + rows(100)[::2],
            [record(**WORKERS), record(50, role="worker")],
            ["workers", "recorded"],
            id="a-worker-missing",
        ),
        pytest.param(
            rows(100),
            [record(**WORKERS), record(50, role="worker"), record(50, role="worker", worker_index=1, ended="running")],
            ["workers", "complete"],
            id="a-worker-died",
        ),
        pytest.param(
            rows(100), [record(**WORKERS, clocks_apart_s=3.0), *SHARES], ["clocks_apart_s"], id="clocks-that-differ"
        ),
    ],
)
def test_the_generator_polices_itself(given: list[Row], records: list[RunRecord], checks: list[str]) -> None:
    assert unfit(given, records) == checks


def test_every_unfit_check_says_why() -> None:
    late = [*rows(98, lag_ms=40), row(98, latency_ms=None, outcome="dropped"), row(99, outcome="in_flight")]
    records = [record(200, ended="stopped", cpu_share=[1.0], workers_expected=2, role="master")]
    found = check_fitness(late, records, Limits())
    assert [check.check for check in found if not check.fit] == [
        "workers",
        "complete",
        "recorded",
        "send_lag_p99_ms",
        "dropped_share",
        "in_flight",
        "cpu_share",
    ]
    assert all(check.reason for check in found if not check.fit)


OK_LINE, BAD_LINE, SLOW_LINE = "count(errors) == 0", "count(errors) > 5", "p50(latency) < 1ms"
UNFIT = [Fitness(check="x", fit=False, reason="saturated")]
FIT = [Fitness(check="x", fit=True)]
REFUSED = rows(5, outcome="connect_error", status=None, error="refused")


@pytest.mark.parametrize(
    ("given", "lines", "fitness", "interrupted", "verdict", "code"),
    [
        pytest.param(rows(10), [OK_LINE], FIT, False, "passed", 0, id="passed"),
        pytest.param(rows(10), [OK_LINE, BAD_LINE], FIT, False, "failed", 1, id="failed"),
        pytest.param(rows(10), [OK_LINE], UNFIT, False, "inconclusive", 4, id="unfit-never-passes"),
        pytest.param(rows(10), [SLOW_LINE], FIT, False, "failed", 1, id="slow"),
        pytest.param(rows(10), [SLOW_LINE], UNFIT, False, "inconclusive", 4, id="slow-but-perhaps-the-generator"),
        pytest.param(rows(10), [BAD_LINE], UNFIT, False, "failed", 1, id="a-count-fails-whoever-was-slow"),
        pytest.param(rows(10), ["p99(latency) < 1s"], FIT, False, "inconclusive", 4, id="too-few-samples"),
        pytest.param(rows(10), [], FIT, False, "inconclusive", 4, id="no-thresholds"),
        pytest.param([], [OK_LINE], UNFIT, False, "inconclusive", 4, id="zero-requests"),
        pytest.param([], ["count(requests) > 0"], UNFIT, False, "inconclusive", 4, id="zero-requests-counted"),
        pytest.param(REFUSED, [OK_LINE], FIT, False, "unreachable", 3, id="refused"),
        pytest.param([*REFUSED, row(9)], [OK_LINE], FIT, False, "failed", 1, id="refused-only-sometimes"),
        pytest.param(rows(5, outcome="http_error", status=403), [OK_LINE], FIT, False, "unreachable", 3, id="our-key"),
        pytest.param(rows(5, outcome="http_error", status=404), [OK_LINE], FIT, False, "unreachable", 3, id="our-path"),
        pytest.param(rows(5, outcome="http_error", status=307), [OK_LINE], FIT, False, "unreachable", 3, id="moved"),
        pytest.param(rows(5, outcome="http_error", status=500), [OK_LINE], FIT, False, "failed", 1, id="broken"),
        pytest.param(rows(10), [OK_LINE], FIT, True, "interrupted", 130, id="interrupted"),
    ],
)
def test_verdicts(
    given: list[Row], lines: list[str], fitness: list[Fitness], interrupted: bool, verdict: str, code: int
) -> None:
    judgements = [judge(parse_threshold(line), given) for line in lines]
    found, exit_code, reason = decide(given, judgements, fitness, interrupted)
    assert (found, exit_code) == (verdict, code)
    assert reason


@pytest.mark.parametrize(
    ("said", "check"),
    [
        pytest.param("Forbidden", "check MCP_API_KEY", id="key"),
        pytest.param("Missing Authentication Token", "check the URL's path, …/{stage}/lambda/mcp/, and", id="path"),
    ],
)
def test_a_refusal_says_what_to_look_at(said: str, check: str) -> None:
    refused = rows(5, outcome="http_error", status=403, error=f'HTTP 403: {{"message":"{said}"}}')
    _, _, reason = decide(refused, [], FIT)
    assert said in reason
    assert check in reason


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("p95(latency{scenario:nmpy}) < 1s", "no scenario 'nmpy'; it sends numpy, print", id="scenario"),
        pytest.param("count(cold{era:2020-01-01}) > 0", "no era '2020-01-01'", id="era"),
        pytest.param(
            "p95(latency{stage:spike}) < 1s", "no stage 'spike'; it sends people, spike@after, spike@b", id="stage"
        ),
        pytest.param("p95(latency{stage:spike@after}) < 1s", "", id="part-of-a-stage"),
        pytest.param("p95(latency{stage:people,scenario:numpy}) < 1s", "", id="users"),
    ],
)
@pytest.mark.parametrize("where", ["thresholds", "needs"])
def test_a_selector_that_can_meet_no_row_is_refused_before_the_run(line: str, says: str, where: str) -> None:
    spike = {"kind": "spike", "base_per_s": 1, "peak_per_s": 9, "before_s": 1, "peak_s": 1, "after_s": 1}
    users = {"kind": "users", "name": "people", "users": 1, "duration_s": 1}
    lines = [line] if where == "thresholds" else [{"threshold": line, "otherwise": "x"}]
    given = plan(**{"stages": [spike, users], "scenarios": {"print": 1, "numpy": 1}, where: lines})
    with pytest.raises(ThresholdError, match=says) if says else nullcontext():
        check_lines(given)


def test_an_aborted_run_failed_even_without_thresholds() -> None:
    verdict, code, reason = decide(
        rows(30, outcome="http_error", status=500), [], UNFIT, aborted="stopped early by the plan's abort"
    )
    assert (verdict, code) == ("failed", 1)
    assert "abort" in reason
