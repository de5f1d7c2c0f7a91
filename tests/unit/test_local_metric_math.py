"""Given metrics, an expression comes to the series that CloudWatch's user guide describes, or is refused by name."""

from datetime import UTC, datetime
from typing import Any

import pytest

from sam.local import metrics
from sam.local.metric_math import NOT_HERE
from sam.local.metrics import MetricError, MetricStore

MINUTE = 1_795_500_000  # a whole minute
# By minute: a at 0 1 2 3, b without minute 1, zero at 0 alone, none nowhere.
VALUES = {"a": {0: 10.0, 1: 20.0, 2: 40.0, 3: 30.0}, "b": {0: 2.0, 2: 4.0, 3: 5.0}, "zero": {0: 0.0}, "none": {}}


@pytest.fixture
def store() -> MetricStore:
    made = MetricStore()
    for name, points in VALUES.items():
        for minute, value in points.items():
            made.put("N", name, [], MINUTE + 60 * minute, {value: 1})
    return made


def asked(*expressions: str, **of_first: Any) -> dict[str, Any]:
    """A request for the metrics, not to be returned, and for the expressions e0, e1, ..."""
    stat = {"Period": 60, "Stat": "Sum"}
    queries: list[dict[str, Any]] = [
        {
            "Id": name,
            "MetricStat": {"Metric": {"Namespace": "N", "MetricName": name}, **stat},
            "ReturnData": False,
        }
        for name in VALUES
    ]
    queries += [{"Id": f"e{n}", "Expression": text} for n, text in enumerate(expressions)]
    queries[len(VALUES)] |= of_first
    return {
        "MetricDataQueries": queries, "ScanBy": "TimestampAscending",
        "StartTime": datetime.fromtimestamp(MINUTE, UTC), "EndTime": datetime.fromtimestamp(MINUTE + 300, UTC),
    }  # fmt: skip


def minutes(result: dict[str, Any]) -> dict[int, float]:
    times = [int(moment.timestamp() - MINUTE) // 60 for moment in result["Timestamps"]]
    return dict(zip(times, result["Values"], strict=True))


@pytest.mark.parametrize(
    ("expression", "points"),
    [
        pytest.param("a", {0: 10, 1: 20, 2: 40, 3: 30}, id="a-metric-itself"),
        pytest.param("b / a * 100", {0: 20, 2: 10, 3: 100 / 6}, id="percent-where-both-are"),
        pytest.param("100 * a / (1000 * 2)", {0: 0.5, 1: 1, 2: 2, 3: 1.5}, id="share-of-a-limit"),
        pytest.param("1 + a * 2 ^ 2 - -1", {0: 42, 1: 82, 2: 162, 3: 122}, id="precedence"),
        pytest.param("2 - 1 - a", {0: -9, 1: -19, 2: -39, 3: -29}, id="from-the-left"),
        pytest.param("a / zero", {}, id="divided-by-zero"),
        pytest.param("LOG10(zero + a - 9)", {0: 0}, id="log"),
        pytest.param("SUM([a, b])", {0: 12, 1: 20, 2: 44, 3: 35}, id="sum-of-an-array-where-any-is"),
        pytest.param("AVG([a, b])", {0: 6, 1: 20, 2: 22, 3: 17.5}, id="average-of-an-array"),
        pytest.param("MAX(METRICS())", {0: 10, 1: 20, 2: 40, 3: 30}, id="all-metrics"),
        pytest.param('MIN(METRICS("b"))', {0: 2, 2: 4, 3: 5}, id="metrics-by-name"),
        pytest.param("a - AVG(a)", {0: -15, 1: -5, 2: 15, 3: 5}, id="average-of-a-series"),
        pytest.param("a / SUM(a) * METRIC_COUNT([a, b])", {0: 0.2, 1: 0.4, 2: 0.8, 3: 0.6}, id="sum-and-count"),
        pytest.param("a + STDDEV([a, a])", {0: 10, 1: 20, 2: 40, 3: 30}, id="deviation"),
        pytest.param("FILL(b, 0)", {0: 2, 1: 0, 2: 4, 3: 5, 4: 0}, id="fill"),
        pytest.param("FILL(b, REPEAT)", {0: 2, 1: 2, 2: 4, 3: 5, 4: 5}, id="fill-repeat"),
        pytest.param("FILL(b, LINEAR)", {0: 2, 1: 3, 2: 4, 3: 5}, id="fill-linear"),
        pytest.param("FILL(b, a)", {0: 2, 1: 20, 2: 4, 3: 5}, id="fill-with-a-series"),
        pytest.param("FILL(none, 0) + a", {0: 10, 1: 20, 2: 40, 3: 30}, id="fill-what-has-no-point"),
        pytest.param("IF(a > 15, a, 0)", {0: 0, 1: 20, 2: 40, 3: 30}, id="if"),
        pytest.param("IF(a > 15 AND a < 35, b)", {3: 5}, id="if-and"),
        pytest.param("a == 10 || a >= 40", {0: 1, 1: 0, 2: 1, 3: 0}, id="or"),
        pytest.param("RATE(a) * PERIOD(a)", {1: 10, 2: 20, 3: -10}, id="rate"),
        pytest.param("DIFF(b)", {2: 2, 3: 1}, id="diff"),
        pytest.param("DIFF_TIME(b)", {2: 120, 3: 60}, id="diff-time"),
        pytest.param("RUNNING_SUM(b)", {0: 2, 2: 6, 3: 11}, id="running-sum"),
        pytest.param("CEIL(b / 4) + FLOOR(b / 4) + ABS(0 - b)", {0: 3, 2: 6, 3: 8}, id="of-each"),
        pytest.param("FIRST([b, a]) + LAST([a, zero])", {0: 2}, id="first-and-last"),
        pytest.param("TIME_SERIES(7)", dict.fromkeys(range(5), 7), id="constant"),
    ],
)
def test_an_expression(store: MetricStore, expression: str, points: dict[int, float]):
    (result,) = metrics.get_metric_data(store, asked(expression))["MetricDataResults"]
    assert minutes(result) == pytest.approx(points)
    assert result["Label"] == "e0"


def test_expressions_of_expressions_and_labels(store: MetricStore):
    results = metrics.get_metric_data(store, asked("e1 + 1", "a * 2", Label="more"))["MetricDataResults"]
    assert [(result["Id"], result["Label"]) for result in results] == [("e0", "more"), ("e1", "e1")]
    assert minutes(results[0]) == {0: 21, 1: 41, 2: 81, 3: 61}


def test_an_array_comes_as_its_series(store: MetricStore):
    results = metrics.get_metric_data(store, asked("[a, b] * 10"))["MetricDataResults"]
    assert [(result["Id"], result["Label"]) for result in results] == [("e0", "a"), ("e0", "b")]
    assert [minutes(result)[2] for result in results] == [400, 40]


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        pytest.param("SUM(a)", "comes to a single number", id="a-number"),
        pytest.param("a +", "ends too early", id="half"),
        pytest.param("a b", "Invalid syntax at 'b'", id="two"),
        pytest.param("(a", r"'\)' is missing", id="bracket"),
        pytest.param("a ; b", "Invalid syntax at '; b'", id="sign"),
        pytest.param("c + 1", "no query c", id="unknown"),
        pytest.param("MEDIAN(a)", "no function MEDIAN", id="unknown-function"),
        pytest.param("SUM(1)", "SUM is given the wrong arguments", id="arguments"),
        pytest.param("[a, b] * [a, b]", "Two arrays", id="arrays"),
        pytest.param("FILL(b, 'x')", "FILL takes", id="filling"),
        pytest.param("e0 + a", "depends on itself", id="cycle"),
        *(pytest.param(f"{name}(a)", f"does not compute {name}", id=name) for name in sorted(NOT_HERE)),
    ],
)
def test_what_is_not_computed_is_refused(store: MetricStore, expression: str, sentence: str):
    with pytest.raises(MetricError, match=f"^Error in expression 'e0': .*{sentence}"):
        metrics.get_metric_data(store, asked(expression))
