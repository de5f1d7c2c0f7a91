"""Given values put, these are the statistics CloudWatch would tell."""

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from sam.local import metrics
from sam.local.environment import Outcome
from sam.local.metrics import MetricError, MetricStore
from sam.local.pool import Observed

MINUTE = 1_795_500_000  # a whole minute


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(MINUTE + seconds, UTC)


def stats(of: MetricStore, *names: str, period: int = 60, until: float = 120, **metric: Any) -> list[dict[str, Any]]:
    plain = [name for name in names if name in ("SampleCount", "Sum", "Average", "Minimum", "Maximum")]
    asked = {
        "Namespace": "N", "MetricName": "M", "StartTime": at(0), "EndTime": at(until), "Period": period,
        "Statistics": plain, "ExtendedStatistics": [name for name in names if name not in plain], **metric,
    }  # fmt: skip
    return metrics.get_metric_statistics(of, asked)["Datapoints"]


@pytest.fixture
def hundred() -> MetricStore:
    made = MetricStore()
    for value in range(1, 101):
        made.put("N", "M", [], MINUTE + value / 10, {float(value): 1}, "Milliseconds")
    return made


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("p50", 50.0, id="p50"),
        pytest.param("p95", 95.0, id="p95"),
        pytest.param("p99", 99.0, id="p99"),
        pytest.param("p99.9", 100.0, id="p99.9"),
        pytest.param("p100", 100.0, id="p100"),
        pytest.param("tm90", 45.5, id="trimmed-mean"),
        pytest.param("tc90", 90.0, id="trimmed-count"),
        pytest.param("PR(:50)", 50.0, id="rank"),
        pytest.param("TM(10%:90%)", 50.0, id="ranged-mean"),
    ],
)
def test_an_extended_statistic_is_exact(hundred: MetricStore, name: str, value: float):
    (point,) = stats(hundred, name)
    assert point["ExtendedStatistics"][name] == pytest.approx(value)
    assert point["Unit"] == "Milliseconds"


def test_percentiles_agree_with_numpy():
    values = np.random.default_rng(1).lognormal(3, 1, 1000)
    made = MetricStore()
    for value in values:
        made.put("N", "M", [], MINUTE, {float(value): 1})
    (point,) = stats(made, "p50", "p90", "p99")
    expected = np.percentile(values, [50, 90, 99], method="inverted_cdf")
    assert list(point["ExtendedStatistics"].values()) == pytest.approx(list(expected))


def test_plain_statistics_and_a_statistic_set(hundred: MetricStore):
    hundred.put_set(("N", "M", ()), MINUTE, (10, 1000, -5, 500), None)
    (point,) = stats(hundred, "SampleCount", "Sum", "Average", "Minimum", "Maximum")
    assert {k: v for k, v in point.items() if k not in ("Timestamp", "Unit")} == {
        "SampleCount": 110, "Sum": 6050, "Average": 55, "Minimum": -5, "Maximum": 500,
    }  # fmt: skip


def test_periods_begin_at_whole_multiples_and_the_end_is_left_out():
    made = MetricStore()
    for second in (0, 59, 60, 119, 120):
        made.put("N", "M", [], MINUTE + second, {1.0: 1})
    points = stats(made, "Sum")
    assert [(point["Timestamp"], point["Sum"]) for point in points] == [(at(0), 2), (at(60), 2)]
    assert [point["Sum"] for point in stats(made, "Sum", until=121, period=300)] == [5]


def test_dimensions_tell_metrics_apart():
    made = MetricStore()
    made.put("N", "M", [("A", "1"), ("B", "2")], MINUTE, {3.0: 2})
    given = [{"Name": "B", "Value": "2"}, {"Name": "A", "Value": "1"}]
    assert stats(made, "Sum") == []
    assert stats(made, "Sum", Dimensions=given[:1]) == []
    assert [point["Sum"] for point in stats(made, "Sum", Dimensions=given)] == [6]


def test_metric_data_comes_newest_first_unless_asked_otherwise(hundred: MetricStore):
    hundred.put("N", "M", [], MINUTE + 60, {7.0: 1})
    stat = {"Metric": {"Namespace": "N", "MetricName": "M"}, "Period": 60, "Stat": "p99"}
    asked = {"StartTime": at(0), "EndTime": at(120), "MetricDataQueries": [{"Id": "a", "MetricStat": stat}]}
    (result,) = metrics.get_metric_data(hundred, asked)["MetricDataResults"]
    assert (result["Timestamps"], result["Values"]) == ([at(60), at(0)], [7.0, 99.0])
    (result,) = metrics.get_metric_data(hundred, asked | {"ScanBy": "TimestampAscending"})["MetricDataResults"]
    assert result["Values"] == [99.0, 7.0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param({"Period": 7}, "Period must be", id="period"),
        pytest.param({"EndTime": at(0)}, "StartTime must be less", id="range"),
        pytest.param({"Statistics": [], "ExtendedStatistics": []}, "Must specify either", id="no-statistic"),
        pytest.param({"ExtendedStatistics": ["p101"]}, "p101 for parameter Stat is not", id="unknown"),
    ],
)
def test_what_cannot_be_told_is_refused_in_a_sentence(hundred: MetricStore, change: dict[str, Any], sentence: str):
    asked = {
        "Namespace": "N", "MetricName": "M", "StartTime": at(0), "EndTime": at(60), "Period": 60, "Statistics": ["Sum"],
    }  # fmt: skip
    with pytest.raises(MetricError, match=sentence):
        metrics.get_metric_statistics(hundred, asked | change)


def test_what_lambda_counts():
    made = MetricStore()
    made.observe(Observed(MINUTE + 5.5, "f", "f:live", Outcome(b"", None, b"", 12.345), 2))
    made.observe(Observed(MINUTE + 6.5, "f", "f:live", Outcome(b"", "Unhandled", b"", 20.0), 1))
    made.observe(Observed(MINUTE + 7.5, "f", "f:live", None, 2))
    sums = {}
    for name in ("Invocations", "Errors", "Throttles", "Duration", "ConcurrentExecutions"):
        for dimensions in ([], [("FunctionName", "f")], [("FunctionName", "f"), ("Resource", "f:live")]):
            given = [{"Name": n, "Value": v} for n, v in dimensions]
            (point,) = stats(made, "Sum", Namespace="AWS/Lambda", MetricName=name, Dimensions=given)
            assert point["Timestamp"] == at(0)
            sums.setdefault(name, set()).add(point["Sum"])
    assert sums == {
        "Invocations": {2}, "Errors": {1}, "Throttles": {1}, "Duration": {32.35}, "ConcurrentExecutions": {3},
    }  # fmt: skip


def test_embedded_metrics_are_taken_from_a_line_and_other_lines_left_alone():
    made = MetricStore()
    directive = {"Namespace": "N", "Dimensions": [["S"], []], "Metrics": [{"Name": "M", "Unit": "Count"}]}
    line = {"_aws": {"Timestamp": MINUTE * 1000, "CloudWatchMetrics": [directive]}, "S": "x", "M": [1, 2]}
    metrics.take_embedded(made, json.dumps(line), 0)
    for other in ("plain", '{"_aws": 5}', '{"_aws": {"CloudWatchMetrics": [{"Metrics": 1}]}}', '{"_aws"'):
        metrics.take_embedded(made, other, 0)
    assert [point["Sum"] for point in stats(made, "Sum", Dimensions=[{"Name": "S", "Value": "x"}])] == [3]
    assert [point["Sum"] for point in stats(made, "Sum")] == [3]
    assert len(made.keys()) == 2
