"""CloudWatch metrics: the values that were put, kept by the second and counted, and statistics over them.

It keeps every value of the last hours, not summaries, so percentiles are exact; AWS's own are as exact for values put
one by one. Shapes: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/
"""

import json
import math
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from .metric_math import Given, MathError, Series, Value, evaluate
from .pool import Observed

NAMESPACE = "AWS/Lambda"
KEPT_S = 24 * 3600
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)")
_TRIMMED = re.compile(r"(tm|tc|ts|wm)(\d{1,2}(?:\.\d+)?|100)")
_QUERY_ID = re.compile(r"[a-z]\w{0,254}")
_RANGED = re.compile(r"(TM|TC|TS|WM|PR)\((.*?):(.*?)\)")

Dimensions = tuple[tuple[str, str], ...]
Key = tuple[str, str, Dimensions]


class MetricError(ValueError):
    """A query that cannot be answered; the message is AWS's."""


@dataclass(slots=True)
class Second:
    """The values of one second, each with how often it came; `sets` are sums put without their values."""

    values: Counter[float] = field(default_factory=Counter)
    sets: list[tuple[float, float, float, float]] = field(default_factory=list)  # count, sum, minimum, maximum


class MetricStore:
    """Metrics by namespace, name and dimensions. May be used from several threads."""

    def __init__(self) -> None:
        self._metrics: dict[Key, dict[int, Second]] = {}
        self._units: dict[Key, str] = {}
        # Not yet counted: when and what; failed and duration in ms, None if throttled; concurrent.
        self._observed: list[tuple[tuple[float, str, str], tuple[bool, float] | None, int]] = []
        self._lock = threading.Lock()

    def put(
        self,
        namespace: str,
        name: str,
        dimensions: Iterable[tuple[str, str]],
        at_s: float,
        values: Mapping[float, float],
        unit: str | None = None,
    ) -> None:
        """Add values, each with its count, at a time in seconds since the epoch."""
        with self._lock:
            second = self._second((namespace, name, tuple(sorted(dimensions))), at_s, unit)
            for value, count in values.items():
                second.values[value] += count  # type: ignore[assignment]  # counts may be fractions, as AWS takes them

    def observe(self, observed: Observed) -> None:
        """What Lambda counts of one request, with the dimensions it counts it by, at the minute it began.

        Requests are counted a thousand at a time, or once somebody asks: fifteen values for each of a thousand calls a
        second were a twentieth of what the stack does for a call.
        """
        outcome = observed.outcome
        # Figures alone: a thousand payloads would be gigabytes.
        figures = None if outcome is None else (outcome.function_error is not None, round(outcome.duration_ms, 2))
        where = observed.began_s - observed.began_s % 60, observed.function_name, observed.resource
        with self._lock:
            self._observed.append((where, figures, observed.concurrent))
            if len(self._observed) >= 1000:
                self._count()

    def _count(self) -> None:
        observed, self._observed = self._observed, []
        alike: dict[tuple[float, str, str], list[tuple[tuple[bool, float] | None, int]]] = {}
        for where, figures, concurrent in observed:
            alike.setdefault(where, []).append((figures, concurrent))
        for (at_s, function, resource), group in alike.items():
            ended = [(*figures, concurrent) for figures, concurrent in group if figures is not None]
            counted: list[tuple[str, Counter[float], str]] = [
                ("Throttles", Counter(float(figures is None) for figures, _ in group), "Count")
            ]
            if ended:
                counted += [
                    ("Invocations", Counter({1.0: len(ended)}), "Count"),
                    ("Errors", Counter(float(failed) for failed, _, _ in ended), "Count"),
                    ("Duration", Counter(duration_ms for _, duration_ms, _ in ended), "Milliseconds"),
                    ("ConcurrentExecutions", Counter(float(concurrent) for _, _, concurrent in ended), "Count"),
                ]
            by_function = ("FunctionName", function)
            for dimensions in ((), (by_function,), (by_function, ("Resource", resource))):
                for name, values, unit in counted:
                    self._second((NAMESPACE, name, dimensions), at_s, unit).values.update(values)

    def put_set(self, key: Key, at_s: float, statistics: tuple[float, float, float, float], unit: str | None) -> None:
        """Add a statistic set: count, sum, minimum, maximum."""
        with self._lock:
            self._second(key, at_s, unit).sets.append(statistics)

    def _second(self, key: Key, at_s: float, unit: str | None) -> Second:
        seconds = self._metrics.setdefault(key, {})
        if unit and key not in self._units:
            self._units[key] = unit
        at = int(at_s)
        if at not in seconds:
            seconds[at] = Second()
            while (oldest := next(iter(seconds))) < at - KEPT_S:
                del seconds[oldest]
        return seconds[at]

    def unit(self, key: Key) -> str:
        return self._units.get(key, "None")

    def keys(self) -> list[Key]:
        with self._lock:
            self._count()
            return list(self._metrics)

    def periods(self, key: Key, start_s: float, end_s: float, period_s: int) -> dict[int, Second]:
        """What fell in [start, end), by the start of its period; periods begin at whole multiples of their length."""
        with self._lock:
            self._count()
            periods: dict[int, Second] = {}
            begin = int(start_s) - int(start_s) % period_s
            for at, second in self._metrics.get(key, {}).items():
                if begin <= at < end_s:
                    into = periods.setdefault(at - at % period_s, Second())
                    into.values.update(second.values)
                    into.sets += second.sets
            return dict(sorted(periods.items()))


def take_embedded(store: MetricStore, message: str, timestamp_ms: int) -> None:
    """The metrics that a log line holds in CloudWatch's embedded metric format; any other line is left alone."""
    if '"_aws"' not in message:
        return
    try:
        event = json.loads(message)
        directives, at_ms = event["_aws"]["CloudWatchMetrics"], event["_aws"].get("Timestamp", timestamp_ms)
        for directive in directives:
            for names in directive.get("Dimensions") or [[]]:
                dimensions = [(name, str(event[name])) for name in names]
                for metric in directive["Metrics"]:
                    value = event.get(metric["Name"])
                    numbers = value if isinstance(value, list) else [] if value is None else [value]
                    values = Counter(float(number) for number in numbers)
                    if values:
                        namespace, unit = directive["Namespace"], metric.get("Unit")
                        store.put(namespace, metric["Name"], dimensions, at_ms / 1000, values, unit)
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # CloudWatch drops what it cannot read as well


# -- statistics -------------------------------------------------------------------------------------------------------


def statistic(second: Second, name: str) -> float | None:
    """One statistic of a period; None when there is nothing to make it of. Raises MetricError for an unknown name.

    A percentile is the smallest value that so many percent of all are not above, which is within one value of AWS's.
    """
    count = sum(second.values.values()) + sum(s[0] for s in second.sets)
    total = sum(value * n for value, n in second.values.items()) + sum(s[1] for s in second.sets)
    match name:
        case "SampleCount":
            return count
        case "Sum":
            return total
        case "Average":
            return total / count if count else None
        case "Minimum":
            return min([*second.values, *(s[2] for s in second.sets)], default=None)
        case "Maximum":
            return max([*second.values, *(s[3] for s in second.sets)], default=None)
        case "IQM":
            return _trimmed(second, "TM", 25.0, 75.0)
    if match := _PERCENTILE.fullmatch(name):
        return percentile(second.values, float(match[1]))
    if match := _TRIMMED.fullmatch(name):
        return _trimmed(second, match[1].upper(), 0.0, float(match[2]))
    if match := _RANGED.fullmatch(name):
        return _ranged(second, match[1], match[2], match[3])
    raise MetricError(f"The value {name} for parameter Stat is not supported.")


def percentile(values: Mapping[float, float], percent: float) -> float | None:
    """The nearest-rank percentile of counted values; None of none."""
    ordered = sorted(values.items())
    rank = max(1, math.ceil(percent / 100 * sum(values.values()) - 1e-9))
    seen = 0.0
    for value, count in ordered:
        seen += count
        if seen >= rank:
            return value
    return None


def _ranged(second: Second, kind: str, low: str, high: str) -> float | None:
    """TM(10%:90%), PR(0:300) and their kin, by percent or by value."""
    if low.endswith("%") or high.endswith("%"):
        return _trimmed(second, kind, float(low.rstrip("%") or 0), float(high.rstrip("%") or 100))
    lower, upper = float(low or "-inf"), float(high or "inf")
    within = {value: n for value, n in second.values.items() if lower < value <= upper or value == lower == 0}
    if kind == "PR":
        return 100.0 * sum(within.values()) / sum(second.values.values()) if second.values else None
    return _summed(within, kind)


def _trimmed(second: Second, kind: str, low: float, high: float) -> float | None:
    """The mean (TM), count (TC) or sum (TS) of the values between two percentiles; WM pulls the others in to them."""
    floor, ceiling = percentile(second.values, low), percentile(second.values, high)
    if floor is None or ceiling is None:
        return None
    if kind == "WM":
        pulled: Counter[float] = Counter()
        for value, count in second.values.items():
            pulled[min(max(value, floor), ceiling)] += count
        return _summed(pulled, "TM")
    return _summed({value: n for value, n in second.values.items() if floor <= value <= ceiling}, kind)


def _summed(values: Mapping[float, float], kind: str) -> float | None:
    count, total = sum(values.values()), sum(value * n for value, n in values.items())
    if kind == "TC":
        return count
    if kind == "TS":
        return total
    return total / count if count else None


# -- the API's documents ----------------------------------------------------------------------------------------------


def put_metric_data(store: MetricStore, asked: Mapping[str, Any], now_s: float) -> None:
    """PutMetricData. Raises MetricError."""
    for datum in asked.get("MetricData") or []:
        moment = datum.get("Timestamp")
        at_s = now_s if moment is None else _seconds(moment)
        dimensions, unit = _dimensions(datum.get("Dimensions")), datum.get("Unit")
        if statistics := datum.get("StatisticValues"):
            names = ("SampleCount", "Sum", "Minimum", "Maximum")
            count, total, least, most = (float(statistics[name]) for name in names)
            key = (asked["Namespace"], datum["MetricName"], dimensions)
            store.put_set(key, at_s, (count, total, least, most), unit)
            continue
        values = [float(value) for value in datum.get("Values") or [datum.get("Value", 0)]]
        counts = [float(count) for count in datum.get("Counts") or [1] * len(values)]
        if len(counts) != len(values):
            raise MetricError("The parameters MetricData.member.1.Values and Counts must be of the same length.")
        if not all(math.isfinite(value) for value in values):
            raise MetricError("The value NaN or Infinity for parameter MetricData.member.1.Value is invalid.")
        summed: Counter[float] = Counter()
        for value, count in zip(values, counts, strict=True):
            summed[value] += count  # type: ignore[assignment]
        store.put(asked["Namespace"], datum["MetricName"], dimensions, at_s, summed, unit)


def get_metric_statistics(store: MetricStore, asked: Mapping[str, Any]) -> dict[str, Any]:
    """GetMetricStatistics, with Statistics and ExtendedStatistics. Raises MetricError."""
    period_s = _period(asked.get("Period"))
    start_s, end_s = _range(asked)
    plain, extended = asked.get("Statistics") or [], asked.get("ExtendedStatistics") or []
    if not plain and not extended:
        raise MetricError("Must specify either Statistics or ExtendedStatistics")
    key = (asked["Namespace"], asked["MetricName"], _dimensions(asked.get("Dimensions")))
    points: list[dict[str, Any]] = []
    for at, second in store.periods(key, start_s, end_s, period_s).items():
        point: dict[str, Any] = {"Timestamp": datetime.fromtimestamp(at, UTC), "Unit": store.unit(key)}
        point |= {name: value for name in plain if (value := statistic(second, name)) is not None}
        further = {name: value for name in extended if (value := statistic(second, name)) is not None}
        points.append(point | ({"ExtendedStatistics": further} if further else {}))
    return {"Label": asked["MetricName"], "Datapoints": points}


def get_metric_data(store: MetricStore, asked: Mapping[str, Any]) -> dict[str, Any]:
    """GetMetricData, for metrics and metric math. Raises MetricError, for what is not computed here too."""
    start_s, end_s = _range(asked)
    queries: dict[str, Mapping[str, Any]] = {}
    for query in asked.get("MetricDataQueries") or []:
        if not _QUERY_ID.fullmatch(query.get("Id", "")):
            raise MetricError(f"The Id {query.get('Id')!r} of a query must begin with a lowercase letter.")
        if query["Id"] in queries:
            raise MetricError(f"The Id {query['Id']} is used twice.")
        if ("MetricStat" in query) == ("Expression" in query):
            raise MetricError(f"The query {query['Id']} must have either MetricStat or Expression.")
        queries[query["Id"]] = query
    found = _Found(queries, {i: _series(store, q, start_s, end_s) for i, q in queries.items() if "MetricStat" in q})
    newest_first = (asked.get("ScanBy") or "TimestampDescending") == "TimestampDescending"
    results = [
        {
            "Id": name,
            "Label": query.get("Label") or series.label or name,
            "Timestamps": [datetime.fromtimestamp(at, UTC) for at in sorted(series.points, reverse=newest_first)],
            "Values": [series.points[at] for at in sorted(series.points, reverse=newest_first)],
            "StatusCode": "Complete",
        }
        for name, query in queries.items()
        if query.get("ReturnData", True) is not False
        for series in found.of(name, start_s, end_s)
    ]
    return {"MetricDataResults": results}


def _series(store: MetricStore, query: Mapping[str, Any], start_s: float, end_s: float) -> Series:
    wanted = query["MetricStat"]
    metric, period_s = wanted["Metric"], _period(wanted.get("Period"))
    key = (metric["Namespace"], metric["MetricName"], _dimensions(metric.get("Dimensions")))
    told = store.periods(key, start_s, end_s, period_s).items()
    points = {at: value for at, second in told if (value := statistic(second, wanted["Stat"])) is not None}
    return Series(points, period_s, metric["MetricName"])


class _Found:
    """What the queries of one request come to, each expression computed once and after those it names."""

    def __init__(self, queries: Mapping[str, Mapping[str, Any]], metrics: Mapping[str, Series]) -> None:
        self._queries = queries
        self._metrics = metrics
        self._computed: dict[str, list[Series]] = {}
        self._computing: list[str] = []

    def of(self, name: str, start_s: float, end_s: float) -> list[Series]:
        """Raises MetricError, AWS's way of naming the expression included."""
        if name in self._metrics:
            return [self._metrics[name]]
        if name not in self._computed:
            if name in self._computing:
                raise MetricError(f"Error in expression '{name}': it depends on itself.")
            self._computing.append(name)

            def value_of(other: str) -> Value:
                if other not in self._queries:
                    raise MathError(f"There is no query {other}")
                series = self.of(other, start_s, end_s)
                return series[0] if len(series) == 1 else series

            try:
                text = self._queries[name]["Expression"]
                found = evaluate(text, Given(value_of, self._metrics, start_s, end_s))
            except MathError as error:
                raise MetricError(f"Error in expression '{name}': {error}.") from error
            # One series is named by its expression, several keep the names of the metrics they come from.
            self._computed[name] = [replace(found[0], label="")] if len(found) == 1 else found
            self._computing.remove(name)
        return self._computed[name]


def list_metrics(store: MetricStore, asked: Mapping[str, Any]) -> dict[str, Any]:
    """ListMetrics, 500 a page."""
    wanted = [(d["Name"], d.get("Value")) for d in asked.get("Dimensions") or []]
    found = [
        key
        for key in sorted(store.keys())
        if asked.get("Namespace") in (None, key[0])
        and asked.get("MetricName") in (None, key[1])
        and all(any(n == name and v in (None, value) for name, value in key[2]) for n, v in wanted)
    ]
    start = int(asked.get("NextToken") or 0)
    metrics = [
        {"Namespace": ns, "MetricName": name, "Dimensions": [{"Name": n, "Value": v} for n, v in dimensions]}
        for ns, name, dimensions in found[start : start + 500]
    ]
    return {"Metrics": metrics, **({"NextToken": str(start + 500)} if start + 500 < len(found) else {})}


def _dimensions(given: Sequence[Mapping[str, str]] | None) -> Dimensions:
    return tuple(sorted((dimension["Name"], dimension["Value"]) for dimension in given or []))


def _period(period: Any) -> int:
    if not isinstance(period, int) or period < 1 or (period > 60 and period % 60) or (period < 60 and 60 % period):
        raise MetricError(f"The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60, got {period}.")
    return period


def _range(asked: Mapping[str, Any]) -> tuple[float, float]:
    start_s, end_s = _seconds(asked["StartTime"]), _seconds(asked["EndTime"])
    if start_s >= end_s:
        raise MetricError("The parameter StartTime must be less than the parameter EndTime.")
    return start_s, end_s


def _seconds(moment: datetime) -> float:
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
