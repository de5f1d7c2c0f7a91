"""A small Logs Insights: parses and evaluates the queries that are sent, over events in memory.

moto and the local stack answer no `stats`, so this stands for AWS in tests. It knows the part of the language that ops
uses and refuses the rest with a SyntaxError, as AWS refuses with MalformedQueryException; fields are discovered as the
CloudWatch user guide says ("Supported logs and discovered fields"). Source of the semantics: the same guide's "Logs
Insights query syntax". What it cannot show is how AWS itself rounds or coerces.
"""

import json
import math
import re
from collections import defaultdict

TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<string>"[^"]*")|(?P<regex>(?<=like\ )/(?:\\.|[^/\\])+/)
    |(?P<name>[@A-Za-z_][\w@]*(?:\.\w+)*)|(?P<op>>=|<=|!=|[-+*/()=<>,]))""",
    re.VERBOSE,
)
LINE = re.compile(r"(START|END|REPORT) RequestId: (\S+)")
# name in the line, discovered field, factor: memory is discovered in bytes, of a million to the MB
REPORTED = (
    ("Duration", "@duration", 1),
    ("Billed Duration", "@billedDuration", 1),
    ("Memory Size", "@memorySize", 1_000_000),
    ("Max Memory Used", "@maxMemoryUsed", 1_000_000),
    ("Init Duration", "@initDuration", 1),
)


def discovered(event):
    """The fields of one event."""
    found = {"@timestamp": event.timestamp_ms, "@message": event.message, "@logStream": event.stream}
    if match := LINE.match(event.message):
        found |= {"@type": match[1], "@requestId": match[2]}
        for part in event.message.split("\t")[1:]:
            for name, field, factor in REPORTED:
                if match[1] == "REPORT" and part.startswith(f"{name}: "):
                    found[field] = float(part.removeprefix(f"{name}: ").split()[0]) * factor
        if match[1] == "REPORT":
            found["@duration"] = float(re.search(r"\tDuration: ([\d.]+)", event.message)[1])
    elif event.message.startswith("{"):
        found |= dict(flat("", json.loads(event.message)))
    return found


def flat(prefix, value):
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(f"{prefix}.{name}" if prefix else str(name), inner)
    elif value is not None:
        yield prefix, value


def run(query, events):
    """The rows of `query` over discovered `events`, as GetQueryResults gives them: {field, value} lists, all text."""
    rows, columns = list(events), None
    for command in (part.strip() for part in split(query, "|")):
        word, _, rest = command.partition(" ")
        if word == "filter":
            test = Expression(rest).whole()
            rows = [row for row in rows if test(row) is True]
        elif word == "parse":
            rows = [parsed(row, rest) for row in rows]
        elif word == "fields":
            columns = [(alias, Expression(text).whole()) for text, alias in named(rest)]
            rows = [row | {alias: v for alias, f in columns if (v := f(row)) is not None} for row in rows]
        elif word == "stats":
            columns, rows = stats(rest, rows)
        elif word == "sort":
            field, _, order = rest.partition(" ")
            rows = sorted(rows, key=lambda row: row[field], reverse=order == "desc")
        elif word == "limit":
            rows = rows[: int(rest)]
        else:
            raise SyntaxError(command)
    names = [alias for alias, _ in columns]
    return [[{"field": n, "value": shown(row[n])} for n in names if row.get(n) is not None] for row in rows]


def shown(value):
    return f"{value:g}" if isinstance(value, float) and value == int(value) and value < 1e5 else str(value)


def split(text, separator):
    """`text` at each separator outside quotes, regular expressions and parentheses."""
    parts, depth, inside, start, n = [], 0, "", 0, 0
    while n < len(text):
        c = text[n]
        if inside:
            n += c == "\\"
            inside = "" if c == inside else inside
        elif c == '"' or (c == "/" and re.search(r"(like|parse\s+\S+)\s*$", text[:n])):
            inside = c
        elif c == separator and not depth:
            parts.append(text[start:n])
            start = n + 1
        else:
            depth += (c == "(") - (c == ")")
        n += 1
    return [*parts, text[start:]]


def named(text):
    for part in split(text, ","):
        expression, _, alias = part.strip().partition(" as ")
        yield expression, (alias or expression).strip()


def parsed(row, text):
    field, _, pattern = text.partition(" ")
    pattern = pattern.strip()
    if not (pattern.startswith("/") and pattern.endswith("/")):
        raise SyntaxError(text)
    match = re.search(pattern[1:-1].replace("(?<", "(?P<"), str(row.get(field, "")))
    return row | ({k: v for k, v in match.groupdict().items() if v is not None} if match else {})


def stats(text, rows):
    aggregates, _, keys = re.sub(r"\s+", " ", text).partition(" by ")
    made = [(alias, *aggregate(expression)) for expression, alias in named(aggregates)]
    by = [(alias, Expression(expression).whole()) for expression, alias in named(keys)] if keys else []
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(key(row) for _, key in by)].append(row)
    if not by and not groups:
        groups[()] = []
    told = []
    for key, members in groups.items():
        figures = {alias: how([v for row in members if (v := value(row)) is not None]) for alias, value, how in made}
        told.append(dict(zip((alias for alias, _ in by), key, strict=True)) | figures)
    return [(alias, None) for alias, _ in by] + [(alias, None) for alias, _, _ in made], told


def aggregate(text):
    name, _, inside = text.strip().partition("(")
    arguments = split(inside.removesuffix(")"), ",")
    value = (lambda row: 1) if arguments[0] == "*" else Expression(arguments[0]).whole()
    if name == "pct":
        q = float(arguments[1]) / 100
        return value, lambda found: sorted(map(float, found))[max(0, math.ceil(q * len(found)) - 1)] if found else None
    hows = {
        "count": len,
        "count_distinct": lambda found: len(set(found)),
        "sum": lambda found: sum(map(float, found)),
        "max": lambda found: max(map(float, found), default=None),
        "min": lambda found: min(map(float, found), default=None),
    }
    return value, hows[name]


def numeric(how):
    """Arithmetic on numbers and on text that reads as one; missing with anything missing."""

    def applied(*values):
        try:
            return how(*(float(value) for value in values))
        except (TypeError, ValueError, ZeroDivisionError):
            return None

    return applied


def compared(how):
    """A comparison as numbers where both are, else as text; never true of what is missing."""

    def applied(a, b):
        if a is None or b is None:
            return False
        try:
            return how(float(a), float(b))
        except ValueError:
            return how(str(a), str(b))

    return applied


FUNCTIONS = {
    "coalesce": lambda *values: next((value for value in values if value is not None), None),
    "ispresent": lambda value: value is not None,
    "strlen": lambda value: None if value is None else len(value),
    "toMillis": lambda value: value,
    "greatest": numeric(max),
    "ceil": numeric(math.ceil),
}
LEVELS = (
    {"or": lambda a, b: a is True or b is True},
    {"and": lambda a, b: a is True and b is True},
    {
        "=": compared(lambda a, b: a == b),
        "!=": compared(lambda a, b: a != b),
        ">": compared(lambda a, b: a > b),
        ">=": compared(lambda a, b: a >= b),
        "<": compared(lambda a, b: a < b),
        "<=": compared(lambda a, b: a <= b),
        "like": lambda text, pattern: text is not None and pattern.search(str(text)) is not None,
    },
    {"+": numeric(lambda a, b: a + b), "-": numeric(lambda a, b: a - b)},
    {"*": numeric(lambda a, b: a * b), "/": numeric(lambda a, b: a / b)},
)


def joined(how, a, b):
    return lambda row: how(a(row), b(row))


class Expression:
    """Recursive descent over LEVELS; compiles to a function of a row."""

    def __init__(self, text):
        self.tokens, at = [], 0
        text = re.sub(r"\s+", " ", text).strip()
        while at < len(text):
            match = TOKEN.match(text, at)
            if not match:
                raise SyntaxError(text[at:])
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
        self.tokens.append(("end", ""))

    def whole(self):
        value = self.level(0)
        if self.tokens[0][0] != "end":
            raise SyntaxError(str(self.tokens))
        return value

    def level(self, n):
        if n == len(LEVELS):
            return self.atom()
        left = self.level(n + 1)
        while self.tokens[0][1] in LEVELS[n]:
            how = LEVELS[n][self.tokens.pop(0)[1]]
            left = joined(how, left, self.level(n + 1))
        return left

    def atom(self):
        kind, text = self.tokens.pop(0)
        if kind == "number":
            return lambda row: float(text)
        if kind == "string":
            return lambda row: text[1:-1]
        if kind == "regex":
            pattern = re.compile(text[1:-1])
            return lambda row: pattern
        if text == "(":
            inner = self.level(0)
            self.expect(")")
            return inner
        if kind != "name":
            raise SyntaxError(text)
        if self.tokens[0][1] != "(":
            return lambda row: row.get(text)
        self.tokens.pop(0)
        arguments = [self.level(0)]
        while self.tokens[0][1] == ",":
            self.tokens.pop(0)
            arguments.append(self.level(0))
        self.expect(")")
        how = FUNCTIONS[text]
        return lambda row: how(*(argument(row) for argument in arguments))

    def expect(self, text):
        if self.tokens.pop(0)[1] != text:
            raise SyntaxError(f"no {text}")


class Insights:
    """The client: StartQuery and GetQueryResults over `events`; a query is Running when first asked for."""

    def __init__(self, events, statuses=("Scheduled", "Running", "Complete")):
        self.events, self.statuses = [(event, discovered(event)) for event in events], list(statuses)
        self.started, self.asked, self.stopped = [], {}, []

    def start_query(self, *, logGroupNames, startTime, endTime, queryString, limit):
        inside = [
            fields
            for event, fields in self.events
            if startTime <= event.timestamp_ms / 1000 <= endTime and event.group in logGroupNames
        ]
        self.started.append((queryString, run(queryString, inside)[:limit]))
        return {"queryId": str(len(self.started) - 1)}

    def get_query_results(self, *, queryId):
        self.asked[queryId] = self.asked.get(queryId, -1) + 1
        status = self.statuses[min(self.asked[queryId], len(self.statuses) - 1)]
        rows = self.started[int(queryId)][1] if status == "Complete" else []
        return {"status": status, "results": rows, "statistics": {"bytesScanned": 1e6}}

    def stop_query(self, *, queryId):
        self.stopped.append(queryId)
