"""CloudWatch Logs Insights: a query over log events in memory becomes the rows that GetQueryResults tells.

It knows the commands and functions below and refuses the rest, as AWS refuses a query it cannot read, so that no row is
another than AWS's; what it cannot show is how AWS rounds, or reads a number in an odd spelling. Syntax and fields:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html and
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_AnalyzeLogData-discoverable-fields.html
"""

import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

MOST_ROWS = 10_000  # of one query, and how many come without a limit
MOST_FIELDS = 200  # discovered in one event

Row = Mapping[str, Any]
Compute = Callable[[Row], Any]

_TOKEN = re.compile(
    r"""(?:\s|\#[^\n]*+)*+(?:(?P<duration>\d+(?:ms|s|m|h|d|w)\b)|(?P<number>\d+(?:\.\d+)?)
    |(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|`(?P<quoted>[^`]+)`
    |(?P<name>[@A-Za-z_][\w@]*(?:\.[\w@]+)*)|(?P<op>>=|<=|!=|=~|[-+*/%^()\[\]=<>,|]))""",
    re.VERBOSE,
)
_REGEX = re.compile(r"\s*/((?:\\.|[^/\\])+)/")
_LINE = re.compile(r"(START|END|REPORT) RequestId: (\S+)")
_DURATIONS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
# The field of a REPORT line, its name as discovered, and a factor: memory comes in bytes, of a million to the MB.
_REPORTED = {
    "Duration": ("@duration", 1),
    "Billed Duration": ("@billedDuration", 1),
    "Memory Size": ("@memorySize", 1_000_000),
    "Max Memory Used": ("@maxMemoryUsed", 1_000_000),
    "Init Duration": ("@initDuration", 1),
    "XRAY TraceId": ("@xrayTraceId", None),
    "SegmentId": ("@xraySegmentId", None),
}


class QueryError(ValueError):
    """A query that cannot be read; AWS calls it malformed."""


class _Time(int):
    """Milliseconds since the epoch that are told as a date."""


# -- fields -----------------------------------------------------------------------------------------------------------


def discovered(message: str, timestamp_ms: int, ingested_ms: int, log: str, stream: str) -> dict[str, Any]:
    """The fields of one event: those of every event, those of Lambda's own lines, and those of a message in JSON."""
    found: dict[str, Any] = {
        "@timestamp": _Time(timestamp_ms), "@ingestionTime": _Time(ingested_ms), "@message": message, "@log": log,
        "@logStream": stream,
    }  # fmt: skip
    if match := _LINE.match(message):
        found |= {"@type": match[1], "@requestId": match[2]}
        if match[1] == "REPORT":
            found |= _of_report(message)
    elif message.startswith("{"):
        try:
            document = json.loads(message)
        except ValueError:
            return found
        for count, (name, value) in enumerate(_flat("", document)):
            if count == MOST_FIELDS:
                break
            found.setdefault(name, value)
    return found


def _of_report(message: str) -> Iterator[tuple[str, Any]]:
    for part in re.split(r"\t|\n", message):
        name, colon, value = part.partition(": ")
        if colon and name in _REPORTED:
            field, factor = _REPORTED[name]
            yield field, value if factor is None else float(value.split()[0]) * factor


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), inner)
    elif value is not None:
        yield prefix, value


# -- the query --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Query:
    """A query that has been read: `run` may be called for any events."""

    commands: Sequence[tuple[str, "_Command"]]

    def run(self, events: Iterable[Row], limit: int = MOST_ROWS) -> tuple[list[list[dict[str, str]]], int]:
        """The rows over `events`, newest first unless the query sorts, each a list of {field, value}, all text; and how
        many events the query's filters let through."""
        newest_first = sorted(events, key=lambda row: -row["@timestamp"])
        table = _Table([dict(row) for row in newest_first], None)
        matched: int | None = None
        for word, command in self.commands:
            if word in ("stats", "limit") and matched is None:
                matched = len(table.rows)
            table = command(table)
        columns = table.columns or ["@timestamp", "@message"]
        rows = [
            [{"field": name, "value": _shown(row[name])} for name in columns if row.get(name) is not None]
            for row in table.rows[:limit]
        ]
        return rows, len(table.rows) if matched is None else matched


@dataclass(frozen=True, slots=True)
class _Table:
    rows: list[dict[str, Any]]
    columns: list[str] | None


_Command = Callable[[_Table], _Table]


def compile_query(text: str) -> Query:
    """Raises QueryError."""
    reader = _Reader(text)
    commands = [reader.command()]
    while reader.takes("|"):
        commands.append(reader.command())
    reader.must_end()
    return Query(commands)


def _shown(value: Any) -> str:
    if isinstance(value, _Time):
        return datetime.fromtimestamp(value / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else str(value)
    return str(value)


# -- syntax -----------------------------------------------------------------------------------------------------------


class _Reader:
    """Recursive descent over the text. Regular expressions stand only where one is asked for, since `/` divides too."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._kind = self._token = ""
        self._start = 0
        self._next()

    def _next(self) -> tuple[str, str]:
        """Step over the current token and return it."""
        passed = self._kind, self._token
        self._start = self._at
        match = _TOKEN.match(self._text, self._at)
        if match is not None and match.lastgroup is not None:
            self._kind, self._token, self._at = match.lastgroup, match[match.lastgroup], match.end()
        elif re.fullmatch(r"(?:\s|#[^\n]*)*", self._text[self._at :]):
            self._kind, self._token, self._at = "end", "", len(self._text)
        else:
            self._kind, self._token = "other", self._text[self._at :].strip()[:1]
        return passed

    def takes(self, *texts: str) -> bool:
        """Step over these tokens, in any case of letters, if they are next."""
        before = self._kind, self._token, self._start, self._at
        for text in texts:
            if self._kind not in ("op", "name") or self._token.lower() != text:
                self._kind, self._token, self._start, self._at = before
                return False
            self._next()
        return True

    def must_take(self, text: str) -> None:
        if not self.takes(text):
            raise self.unexpected(f"{text!r} is missing")

    def must_end(self) -> None:
        if self._kind != "end":
            raise self.unexpected("nothing more is expected")

    def unexpected(self, why: str) -> QueryError:
        near = self._text[self._start :].strip()[:40] or "its end"
        return QueryError(f"unexpected symbol found near {near!r}: {why}")

    def regex(self) -> "re.Pattern[str] | None":
        """The regular expression that is next, if one is."""
        match = _REGEX.match(self._text, self._start)
        if match is None:
            return None
        self._at = match.end()
        self._next()
        try:
            return re.compile(match[1].replace("(?<", "(?P<").replace("(?P<=", "(?<=").replace("(?P<!", "(?<!"))
        except re.error as error:
            raise QueryError(f"the regular expression /{match[1]}/ is invalid: {error}") from error

    def name(self) -> str:
        if self._kind not in ("name", "quoted"):
            raise self.unexpected("a field's name is expected")
        return self._next()[1]

    def number(self) -> float:
        if self._kind != "number":
            raise self.unexpected("a number is expected")
        return float(self._next()[1])

    def many[T](self, one: Callable[[], T]) -> list[T]:
        found = [one()]
        while self.takes(","):
            found.append(one())
        return found

    # -- commands -----------------------------------------------------------------------------------------------

    def command(self) -> tuple[str, _Command]:
        word = self._token.lower() if self._kind == "name" else ""
        readers: dict[str, Callable[[], _Command]] = {
            "fields": self._fields, "display": self._display, "filter": self._filter, "parse": self._parse,
            "stats": self._stats, "sort": self._sort, "limit": self._limit,
        }  # fmt: skip
        if word not in readers:
            raise self.unexpected(f"a command is expected: {', '.join(readers)} are known here")
        self._next()
        return word, readers[word]()

    def _named(self) -> tuple[str, Compute]:
        start = self._start
        value = self.expression()
        text = " ".join(self._text[start : self._start].split())
        return (self.name() if self.takes("as") else text.strip("`")), value

    def _fields(self) -> _Command:
        named = self.many(self._named)
        names = [name for name, _ in named]

        def fields(table: _Table) -> _Table:
            for row in table.rows:
                for name, value in named:
                    row[name] = value(row)
            return _Table(table.rows, [*(c for c in table.columns or [] if c not in names), *names])

        return fields

    def _display(self) -> _Command:
        fields = self._fields()
        return lambda table: fields(_Table(table.rows, None))

    def _filter(self) -> _Command:
        test = self.expression()
        return lambda table: _Table([row for row in table.rows if test(row) is True], table.columns)

    def _parse(self) -> _Command:
        field = "@message"
        if self._kind in ("name", "quoted"):
            field = self.name()
        pattern = self.regex()
        names: list[str] = []
        if pattern is None:
            if self._kind != "string":
                raise self.unexpected("a pattern in quotes or slashes is expected")
            glob = _unquoted(self._next()[1])
            self.must_take("as")
            names = self.many(self.name)
            if glob.count("*") != len(names):
                raise QueryError(f"{glob!r} has {glob.count('*')} wildcards for {len(names)} names")
            parts = [re.escape(part) for part in glob.split("*")]
            last = "(.*)" if glob.endswith("*") else "(.*?)"
            pattern = re.compile("(.*?)".join(parts[:-1]) + last + parts[-1] if names else parts[0], re.DOTALL)

        def parse(table: _Table) -> _Table:
            for row in table.rows:
                match = pattern.search(str(row.get(field, "")))
                if match is None:
                    continue
                found = dict(zip(names, match.groups(), strict=True)) if names else match.groupdict()
                row.update({name: value for name, value in found.items() if value is not None})
            return table

        return parse

    def _sort(self) -> _Command:
        def one() -> tuple[Compute, bool]:
            value = self.expression()
            descending = self.takes("desc")
            if not descending:
                self.takes("asc")
            return value, descending

        keys = self.many(one)

        def sort(table: _Table) -> _Table:
            rows = table.rows
            for value, descending in reversed(keys):
                rows = sorted(rows, key=lambda row: _order(value(row)), reverse=descending)
            return _Table(rows, table.columns)

        return sort

    def _limit(self) -> _Command:
        most = int(self.number())
        if not 1 <= most <= MOST_ROWS:
            raise QueryError(f"limit must be 1 to {MOST_ROWS}, got {most}")
        return lambda table: _Table(table.rows[:most], table.columns)

    def _stats(self) -> _Command:
        made = self.many(self._aggregate)
        keys = self.many(self._named) if self.takes("by") else []

        def stats(table: _Table) -> _Table:
            groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
            for row in table.rows:
                groups[tuple(key(row) for _, key in keys)].append(row)
            if not keys and not groups:
                groups[()] = []
            rows = []
            for group, members in groups.items():
                told = dict(zip((alias for alias, _ in keys), group, strict=True))
                rows.append(told | {alias: how(members) for alias, how in made})
            return _Table(rows, [alias for alias, _ in keys] + [alias for alias, _ in made])

        return stats

    def _aggregate(self) -> tuple[str, Callable[[list[Row]], Any]]:
        start = self._start
        name = self.name().lower()
        if name not in _AGGREGATES:
            raise self.unexpected(f"{name} is no statistic that is known here: {', '.join(_AGGREGATES)} are")
        self.must_take("(")
        value: Compute = lambda row: 1  # noqa: E731
        if not self.takes("*") and self._token != ")":
            value = self.expression()
        percent = self.number() if self.takes(",") else None
        self.must_take(")")
        if (percent is None) is (name in ("pct", "percentile")):
            raise QueryError(f"{name} has the wrong number of arguments")
        how = _AGGREGATES[name]
        text = " ".join(self._text[start : self._start].split())
        alias = self.name() if self.takes("as") else text

        def aggregate(members: list[Row]) -> Any:
            found = [found for row in members if (found := value(row)) is not None]
            return how(found, percent)

        return alias, aggregate

    # -- expressions --------------------------------------------------------------------------------------------

    def expression(self) -> Compute:
        left = self._both()
        while self.takes("or"):
            left = _joined(lambda a, b: a is True or b is True, left, self._both())
        return left

    def _both(self) -> Compute:
        left = self._not()
        while self.takes("and"):
            left = _joined(lambda a, b: a is True and b is True, left, self._not())
        return left

    def _not(self) -> Compute:
        if self.takes("not"):
            inner = self._not()
            return lambda row: inner(row) is not True
        return self._comparison()

    def _comparison(self) -> Compute:
        left = self._sum()
        negated = self.takes("not")
        if self._kind in ("name", "op") and self._token.lower() in ("like", "=~"):
            # The pattern is looked for where the operator ends, before its slash is taken for a division.
            self._next()
            found = self._pattern(left)
        elif self.takes("in"):
            self.must_take("[")
            choices = self.many(self._sum)
            self.must_take("]")
            same = _COMPARISONS["="]
            found = lambda row: any(same(left(row), choice(row)) for choice in choices)  # noqa: E731
        elif not negated and self._kind == "op" and self._token in _COMPARISONS:
            return _joined(_COMPARISONS[self._next()[1]], left, self._sum())
        elif negated:
            raise self.unexpected("`like` or `in` is expected after `not`")
        else:
            return left
        return (lambda row: not found(row)) if negated else found

    def _pattern(self, left: Compute) -> Compute:
        pattern = self.regex()
        if pattern is not None:
            return lambda row: (value := left(row)) is not None and pattern.search(str(value)) is not None
        part = self._sum()
        return lambda row: (value := left(row)) is not None and str(part(row)) in str(value)

    def _sum(self) -> Compute:
        left = self._product()
        while self._kind == "op" and self._token in ("+", "-"):
            left = _joined(_ARITHMETIC[self._next()[1]], left, self._product())
        return left

    def _product(self) -> Compute:
        left = self._power()
        while self._kind == "op" and self._token in ("*", "/", "%"):
            left = _joined(_ARITHMETIC[self._next()[1]], left, self._power())
        return left

    def _power(self) -> Compute:
        if self.takes("-"):
            inner = self._power()
            return lambda row: _ARITHMETIC["-"](0, inner(row))
        base = self._atom()
        return _joined(_ARITHMETIC["^"], base, self._power()) if self.takes("^") else base

    def _atom(self) -> Compute:
        kind, text = self._kind, self._token
        if self.takes("("):
            inner = self.expression()
            self.must_take(")")
            return inner
        if kind not in ("number", "string", "name", "quoted", "duration"):
            raise self.unexpected("a value is expected")
        self._next()
        match kind:
            case "number":
                return lambda row: float(text)
            case "string":
                return lambda row: _unquoted(text)
            case "duration":
                found = re.fullmatch(r"(\d+)(\D+)", text)
                assert found is not None
                return lambda row: int(found[1]) * _DURATIONS_MS[found[2]]
            case "name" if self.takes("("):
                return self._call(text.lower())
        return lambda row: row.get(text)

    def _call(self, name: str) -> Compute:
        if name not in _FUNCTIONS:
            raise self.unexpected(f"{name} is no function that is known here: {', '.join(_FUNCTIONS)} are")
        arguments = [] if self._token == ")" else self.many(self.expression)
        self.must_take(")")
        if name == "bin":
            arguments.insert(0, lambda row: row.get("@timestamp"))
        how = _FUNCTIONS[name]
        return lambda row: how(*(argument(row) for argument in arguments))


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _joined(how: Callable[[Any, Any], Any], left: Compute, right: Compute) -> Compute:
    return lambda row: how(left(row), right(row))


# -- values -----------------------------------------------------------------------------------------------------------


def _numeric(how: Callable[..., float]) -> Callable[..., float | None]:
    """Of numbers and of text that reads as one; nothing of anything else."""

    def applied(*values: Any) -> float | None:
        try:
            return how(*(float(value) for value in values))
        except (TypeError, ValueError, ArithmeticError):
            return None

    return applied


def _compared(how: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """As numbers where both are, else as text; nothing that is missing compares."""

    def applied(a: Any, b: Any) -> bool:
        if a is None or b is None:
            return False
        try:
            return how(float(a), float(b))
        except (TypeError, ValueError):
            return how(str(a), str(b))

    return applied


def _text(how: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *values: None if None in values else how(*(str(value) for value in values))


def _order(value: Any) -> tuple[int, float, str]:
    """What is missing first, then numbers, then text."""
    if value is None:
        return 0, 0.0, ""
    try:
        return 1, float(value), ""
    except (TypeError, ValueError):
        return 2, 0.0, str(value)


def _floor(moment: Any, step_ms: Any) -> _Time | None:
    return None if moment is None or not step_ms else _Time(int(moment) // int(step_ms) * int(step_ms))


_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": _compared(lambda a, b: a == b), "!=": _compared(lambda a, b: a != b), ">": _compared(lambda a, b: a > b),
    ">=": _compared(lambda a, b: a >= b), "<": _compared(lambda a, b: a < b), "<=": _compared(lambda a, b: a <= b),
}  # fmt: skip
_ARITHMETIC: Mapping[str, Callable[..., float | None]] = {
    "+": _numeric(lambda a, b: a + b), "-": _numeric(lambda a, b: a - b), "*": _numeric(lambda a, b: a * b),
    "/": _numeric(lambda a, b: a / b), "%": _numeric(math.fmod), "^": _numeric(math.pow),
}  # fmt: skip
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": _numeric(abs), "ceil": _numeric(math.ceil), "floor": _numeric(math.floor), "log": _numeric(math.log),
    "sqrt": _numeric(math.sqrt), "greatest": _numeric(max), "least": _numeric(min),
    "bin": _floor, "datefloor": _floor,
    "tomillis": lambda moment: None if moment is None else int(moment),
    "frommillis": lambda number: None if number is None else _Time(float(number)),
    "coalesce": lambda *values: next((value for value in values if value is not None), None),
    "ispresent": lambda value: value is not None,
    "isempty": lambda value: value is None or value == "",
    "isblank": lambda value: value is None or not str(value).strip(),
    "concat": _text(lambda *values: "".join(values)), "strlen": _text(len), "strcontains": _text(lambda a, b: b in a),
    "replace": _text(str.replace), "trim": _text(str.strip), "ltrim": _text(str.lstrip), "rtrim": _text(str.rstrip),
    "tolower": _text(str.lower), "lower": _text(str.lower), "toupper": _text(str.upper), "upper": _text(str.upper),
    "substr": _text(lambda text, at, n="1e9": text[int(float(at)) : int(float(at)) + int(float(n))]),
}  # fmt: skip


def _numbers(found: Sequence[Any]) -> list[float]:
    return [number for value in found if (number := _numeric(float)(value)) is not None]


def _percentile(found: Sequence[Any], percent: float | None) -> float | None:
    numbers = sorted(_numbers(found))
    return numbers[max(0, math.ceil((percent or 0) / 100 * len(numbers)) - 1)] if numbers else None


def _least_or_most(of: Callable[..., Any]) -> Callable[[Sequence[Any], float | None], Any]:
    return lambda found, _: of(found, key=_order, default=None)


_AGGREGATES: Mapping[str, Callable[[Sequence[Any], float | None], Any]] = {
    "count": lambda found, _: len(found),
    "count_distinct": lambda found, _: len(set(found)),
    "sum": lambda found, _: math.fsum(_numbers(found)),
    "avg": lambda found, _: statistics.fmean(numbers) if (numbers := _numbers(found)) else None,
    "stddev": lambda found, _: statistics.pstdev(numbers) if (numbers := _numbers(found)) else None,
    "min": _least_or_most(min), "max": _least_or_most(max), "pct": _percentile, "percentile": _percentile,
    # Rows come newest first.
    "latest": lambda found, _: found[0] if found else None,
    "earliest": lambda found, _: found[-1] if found else None,
}  # fmt: skip
