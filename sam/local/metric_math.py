"""CloudWatch metric math: an expression over time series becomes time series; it reads no metric itself.

It knows the arithmetic and the functions that dashboards and alarms use, and refuses the rest by name, so that no
number here is another than CloudWatch's. Two series meet where both have a point; several in an array (`SUM([m1, m2])`,
`SUM(METRICS())`) where any has one. What divides by zero or has no logarithm is no point.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

import itertools
import math
import operator
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<string>"[^"]*"|'[^']*')
    |(?P<op>&&|\|\||==|!=|<=|>=|[-+*/^<>()\[\],]))""",
    re.VERBOSE,
)


class MathError(ValueError):
    """An expression that cannot be computed; the message says which part."""


@dataclass(frozen=True, slots=True)
class Series:
    """Values by the start of their period, in seconds since the epoch and in order; `period_s` is that period."""

    points: Mapping[int, float]
    period_s: int
    label: str = ""


Value = float | str | Series | list[Series]
Numbers = Callable[..., float]


@dataclass(frozen=True, slots=True)
class Given:
    """What an expression may use: named values, the request's own metrics by id, and the range [start, end) to fill."""

    value_of: Callable[[str], Value]
    metrics: Mapping[str, Series]
    start_s: float
    end_s: float


def evaluate(expression: str, given: Given) -> list[Series]:
    """The series that an expression comes to. Raises MathError, also for one that comes to a single number."""
    found = _Parser(expression, given).whole()
    if isinstance(found, Series):
        return [found]
    if isinstance(found, list):
        return found
    raise MathError("The expression comes to a single number, not to a time series")


# -- syntax -----------------------------------------------------------------------------------------------------------


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise MathError(f"Invalid syntax at {text[at:].strip()!r}")
        yield match.lastgroup, match[match.lastgroup]
        at = match.end()
    yield "end", ""


def _flag(how: Callable[[float, float], bool]) -> Numbers:
    return lambda a, b: float(how(a, b))


_EITHER, _BOTH = _flag(lambda a, b: a != 0 or b != 0), _flag(lambda a, b: a != 0 and b != 0)
# Each level binds looser than the next.
_LEVELS: tuple[Mapping[str, Numbers], ...] = (
    {"OR": _EITHER, "||": _EITHER},
    {"AND": _BOTH, "&&": _BOTH},
    {
        "==": _flag(operator.eq), "!=": _flag(operator.ne), "<": _flag(operator.lt), "<=": _flag(operator.le),
        ">": _flag(operator.gt), ">=": _flag(operator.ge),
    },
    {"+": operator.add, "-": operator.sub},
    {"*": operator.mul, "/": operator.truediv},
)  # fmt: skip


class _Parser:
    """Recursive descent over _LEVELS; computes as it reads."""

    def __init__(self, text: str, given: Given) -> None:
        self._tokens = list(_tokens(text))
        self._given = given

    def whole(self) -> Value:
        value = self._level(0)
        if self._tokens[0][0] != "end":
            raise MathError(f"Invalid syntax at {self._tokens[0][1]!r}")
        return value

    def _level(self, level: int) -> Value:
        if level == len(_LEVELS):
            return self._power()
        left = self._level(level + 1)
        while (how := _LEVELS[level].get(self._tokens[0][1].upper())) is not None:
            self._tokens.pop(0)
            left = _applied(how, left, self._level(level + 1))
        return left

    def _power(self) -> Value:
        if self._takes("-"):
            return _applied(operator.neg, self._power())
        base = self._atom()
        return _applied(operator.pow, base, self._power()) if self._takes("^") else base

    def _atom(self) -> Value:
        kind, text = self._tokens.pop(0)
        if kind == "number":
            return float(text)
        if kind == "string":
            return text[1:-1]
        if text == "(":
            inner = self._level(0)
            self._must_take(")")
            return inner
        if text == "[":
            return _array(self._list("]"))
        if kind != "name":
            raise MathError(f"Invalid syntax at {text!r}" if text else "The expression ends too early")
        if self._takes("("):
            return _call(text, self._list(")"), self._given)
        return text if text in ("REPEAT", "LINEAR") else self._given.value_of(text)

    def _list(self, closing: str) -> list[Value]:
        values: list[Value] = []
        if self._takes(closing):
            return values
        values.append(self._level(0))
        while self._takes(","):
            values.append(self._level(0))
        self._must_take(closing)
        return values

    def _takes(self, text: str) -> bool:
        if self._tokens[0][1] != text or self._tokens[0][0] != "op":
            return False
        self._tokens.pop(0)
        return True

    def _must_take(self, text: str) -> None:
        if not self._takes(text):
            raise MathError(f"Invalid syntax: {text!r} is missing")


# -- values -----------------------------------------------------------------------------------------------------------


def _array(values: Sequence[Value]) -> list[Series]:
    found: list[Series] = []
    for value in values:
        if isinstance(value, list):
            found += value
        elif isinstance(value, Series):
            found.append(value)
        else:
            raise MathError("An array holds time series only")
    return found


def _applied(how: Numbers, *values: Value) -> Value:
    """`how` of numbers, point by point of series, series by series of one array."""
    if any(isinstance(value, str) for value in values):
        raise MathError("A text cannot be computed with")
    arrays = [value for value in values if isinstance(value, list)]
    if len(arrays) > 1:
        raise MathError("Two arrays cannot be computed with each other")
    if arrays:
        each = [[one if value is arrays[0] else value for value in values] for one in arrays[0]]
        return [made for one in each if isinstance(made := _applied(how, *one), Series)]
    series = [value for value in values if isinstance(value, Series)]
    if not series:
        number = _number(how, values)
        if number is None:
            raise MathError("A number of the expression cannot be computed")
        return number
    shared = [at for at in series[0].points if all(at in other.points for other in series)]
    points = {}
    for at in shared:
        number = _number(how, [value.points[at] if isinstance(value, Series) else value for value in values])
        if number is not None:
            points[at] = number
    return Series(points, series[0].period_s, series[0].label)


def _number(how: Numbers, values: Sequence[object]) -> float | None:
    try:
        number = how(*values)
    except (ZeroDivisionError, ValueError, OverflowError):
        return None
    return float(number) if isinstance(number, int | float) and math.isfinite(number) else None


# -- functions --------------------------------------------------------------------------------------------------------


_OF_EACH: Mapping[str, Numbers] = {
    "ABS": abs, "CEIL": math.ceil, "FLOOR": math.floor, "LOG": math.log, "LOG10": math.log10,
}  # fmt: skip
_OF_MANY: Mapping[str, Callable[[Sequence[float]], float]] = {
    "AVG": statistics.fmean, "MAX": max, "MIN": min, "STDDEV": statistics.pstdev, "SUM": math.fsum,
}  # fmt: skip
_OF_NEIGHBOURS: Mapping[str, Callable[[int, float, int, float], float]] = {
    "DIFF": lambda _, before, __, value: value - before,
    "DIFF_TIME": lambda then, _, at, __: float(at - then),
    "RATE": lambda then, before, at, value: (value - before) / (at - then),
}
_SPECIAL = frozenset(["FILL", "FIRST", "IF", "LAST", "METRICS", "METRIC_COUNT", "PERIOD", "RUNNING_SUM", "TIME_SERIES"])
NOT_HERE = frozenset(
    """ANOMALY_DETECTION_BAND DATE DAY DB_PERF_INSIGHTS EPOCH EXECUTE HOUR INSIGHT_RULE_METRIC LAMBDA MINUTE MONTH
    REMOVE_EMPTY SEARCH SELECT SERVICE_QUOTA SLICE SORT YEAR""".split()
)


def _call(name: str, values: Sequence[Value], given: Given) -> Value:
    name = name.upper()
    if name in NOT_HERE:
        raise MathError(f"The local stack does not compute {name}")
    match name, values:
        case "METRICS", []:
            return list(given.metrics.values())
        case "METRICS", [str(part)]:
            return [series for key, series in given.metrics.items() if part in key]
        case "IF", [condition, yes]:
            return _chosen(condition, yes, None)
        case "IF", [condition, yes, no]:
            return _chosen(condition, yes, no)
        case "FILL", [series, filling]:
            return _each(series, lambda one: _filled(one, filling, given))
        case "TIME_SERIES", [float(number)]:
            period_s = max((series.period_s for series in given.metrics.values()), default=60)
            return Series(dict.fromkeys(_times(given, period_s), number), period_s)
        case "METRIC_COUNT", [list(array)]:
            return float(len(array))
        case (("FIRST" | "LAST"), [list(array)]) if array:
            return array[0 if name == "FIRST" else -1]
        case "PERIOD", [Series() as series]:
            return float(series.period_s)
        case "RUNNING_SUM", [series]:
            return _each(series, _running_sum)
        case _, [Series() | list() as series] if name in _OF_NEIGHBOURS:
            return _each(series, lambda one: _of_neighbours(one, _OF_NEIGHBOURS[name]))
        case _, [value] if name in _OF_EACH:
            return _applied(_OF_EACH[name], value)
        case _, [Series() | list() as series] if name in _OF_MANY:
            return _of_many(series, _OF_MANY[name])
    if name in _SPECIAL or name in _OF_NEIGHBOURS or name in _OF_EACH or name in _OF_MANY:
        raise MathError(f"{name} is given the wrong arguments")
    raise MathError(f"There is no function {name}")


def _each(value: Value, how: Callable[[Series], Series]) -> Value:
    if isinstance(value, Series):
        return how(value)
    if isinstance(value, list):
        return [how(series) for series in value]
    raise MathError("A time series is wanted, a number given")


def _of_many(value: Series | list[Series], how: Callable[[Sequence[float]], float]) -> Value:
    """Of one series a number; of an array a series, of what its members have at each time."""
    if isinstance(value, Series):
        if not value.points:
            raise MathError("A series without a point has no statistics")
        return float(how(list(value.points.values())))
    times = sorted({at for series in value for at in series.points})
    points = {at: float(how([series.points[at] for series in value if at in series.points])) for at in times}
    return Series(points, value[0].period_s if value else 60)


def _of_neighbours(series: Series, how: Callable[[int, float, int, float], float]) -> Series:
    times = list(series.points)
    pairs = itertools.pairwise(times)
    points = {at: how(then, series.points[then], at, series.points[at]) for then, at in pairs}
    return Series(points, series.period_s, series.label)


def _running_sum(series: Series) -> Series:
    total, points = 0.0, {}
    for at, value in series.points.items():
        total += value
        points[at] = total
    return Series(points, series.period_s, series.label)


def _chosen(condition: Value, yes: Value, no: Value | None) -> Value:
    """IF, point by point; without a third argument there is no point where the condition does not hold."""
    parts = [condition, yes] if no is None else [condition, yes, no]
    if any(isinstance(part, list | str) for part in parts):
        raise MathError("IF takes numbers and single time series")
    if not isinstance(condition, Series):
        if condition:
            return yes
        if no is None:
            raise MathError("IF with two arguments takes a time series as its condition")
        return no
    points = {}
    for at, holds in condition.points.items():
        chosen = yes if holds else no
        number = chosen.points.get(at) if isinstance(chosen, Series) else chosen
        if isinstance(number, float):
            points[at] = number
    return Series(points, condition.period_s, condition.label)


def _filled(series: Series, filling: Value, given: Given) -> Series:
    points: dict[int, float] = {}
    times = list(_times(given, series.period_s))
    known = sorted(series.points)
    for at in sorted({*times, *known}):
        before = max((then for then in known if then <= at), default=None)
        after = min((then for then in known if then >= at), default=None)
        number: float | None = None
        if at in series.points:
            number = series.points[at]
        elif isinstance(filling, float):
            number = filling
        elif isinstance(filling, Series):
            number = filling.points.get(at)
        elif filling == "REPEAT" and before is not None:
            number = series.points[before]
        elif filling == "LINEAR" and before is not None and after is not None:
            share = (at - before) / (after - before)
            number = series.points[before] + share * (series.points[after] - series.points[before])
        elif filling not in ("REPEAT", "LINEAR"):
            raise MathError("FILL takes a number, a time series, REPEAT or LINEAR")
        if number is not None:
            points[at] = number
    return Series(points, series.period_s, series.label)


def _times(given: Given, period_s: int) -> Iterator[int]:
    at = int(given.start_s) - int(given.start_s) % period_s
    while at < given.end_s:
        yield at
        at += period_s
