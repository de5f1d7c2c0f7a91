"""Given log events, a query of Logs Insights tells the rows that its user guide describes, or is refused."""

import json
from typing import Any

import pytest

from sam.local.insights import QueryError, compile_query, discovered

HOUR = 1_795_500_000_000
REPORT = (
    "REPORT RequestId: r1\tDuration: 12.50 ms\tBilled Duration: 813 ms\tMemory Size: 512 MB\tMax Memory Used: 90 MB\t"
    "Init Duration: 800.25 ms\t\nXRAY TraceId: 1-5e34a614\tSegmentId: 07f5\tSampled: true\t\n"
)
MESSAGES = [
    "START RequestId: r1 Version: 7\n",
    json.dumps({"level": "ERROR", "n": 3, "name": "it's", "deep": {"list": ["x", {"y": 2}], "none": None}}),
    json.dumps({"level": "INFO", "n": "10", "name": "b"}),
    "user=eve, took 42 s",
    REPORT,
    "{broken",
]


def events() -> list[dict[str, Any]]:
    """One a minute, of one stream."""
    return [
        discovered(message, HOUR + 60_000 * n, HOUR + 60_000 * n + 5, "1:/aws/lambda/f", "2026/11/24/[7]ab")
        for n, message in enumerate(MESSAGES)
    ]


def told(query: str, limit: int = 10_000) -> list[tuple[str, ...]]:
    rows, _ = compile_query(query).run(events(), limit)
    return [tuple(cell["value"] for cell in row) for row in rows]


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        pytest.param("fields n | filter n > 5", [("10",)], id="numbers-in-text-compare-as-numbers"),
        pytest.param("fields @timestamp, @logStream | limit 1",
                     [("2026-11-24 06:05:00.000", "2026/11/24/[7]ab")], id="newest-first"),
        pytest.param("fields @message | sort @timestamp asc | limit 1", [(MESSAGES[0],)], id="sort"),
        pytest.param("fields n | sort n | filter ispresent(n)", [("3",), ("10",)], id="sort-numbers"),
        pytest.param("fields deep.list.0 as a, deep.list.1.y * 2 + 1 as b | filter deep.list.1.y = 2",
                     [("x", "5")], id="flattened"),
        pytest.param("filter @type = 'REPORT' | fields @duration, @billedDuration, @maxMemoryUsed / 1000000 as mb, "
                     "@initDuration, @requestId, @xrayTraceId",
                     [("12.5", "813", "90", "800.25", "r1", "1-5e34a614")], id="lambda-report"),
        pytest.param("fields name | filter level like /ERR|WARN/", [("it's",)], id="like-regex"),
        pytest.param("fields name | filter level not like 'ERR' and ispresent(level)", [("b",)], id="not-like"),
        pytest.param('fields name | filter @message =~ "NFO"', [("b",)], id="tilde"),
        pytest.param("fields name | filter level in ['WARN', \"INFO\"]", [("b",)], id="in"),
        pytest.param("fields n | filter not (level = 'INFO') and n != 4 or false_field", [("3",)], id="and-or-not"),
        pytest.param("parse @message 'user=*, took * s' as who, s | filter s > 40 | fields who, s + 0 as s",
                     [("eve", "42")], id="parse-glob"),
        pytest.param(r"parse /took (?<s>\d+) s/ | filter ispresent(s) | display s, s / 0 as nothing",
                     [("42",)], id="parse-regex"),
        pytest.param("stats count(*), count(level), sum(n), avg(n), min(n), max(n), pct(n, 50), count_distinct(level)",
                     [("6", "2", "13", "6.5", "3", "10", "3", "2")], id="stats"),
        pytest.param("stats count(*) by bin(3m) as at | sort at asc",
                     [("2026-11-24 06:00:00.000", "3"), ("2026-11-24 06:03:00.000", "3")], id="bins"),
        pytest.param("stats latest(level) as l, earliest(level) as e", [("INFO", "ERROR")], id="latest"),
        pytest.param("filter level = 'NONE' | stats count(*), max(n)", [("0",)], id="stats-of-nothing"),
        pytest.param("filter level = 'NONE' | stats count(*) by name", [], id="groups-of-nothing"),
        pytest.param("fields upper(name) as a, strlen(name) as b, concat(name, '-', n) as c, substr(name, 0, 1) as d, "
                     "coalesce(missing, replace(name, 'b', 'c')) as e | filter level = 'INFO'",
                     [("B", "1", "b-10", "b", "c")], id="text"),
        pytest.param("fields ceil(n / 4) as a, floor(n / 4) as b, greatest(n, 7) as c, -n as d, 2 ^ n % 5 as e "
                     "| filter level = 'ERROR'", [("1", "0", "7", "-3", "3")], id="numbers"),
        pytest.param("# of errors alone\nfields `level` | filter level = 'ERROR' # here", [("ERROR",)], id="comments"),
    ],
)  # fmt: skip
def test_a_query(query: str, rows: list[tuple[str, ...]]):
    assert told(query) == rows


def test_a_limit_of_the_request_and_what_was_matched():
    rows, matched = compile_query("filter ispresent(level) | fields n").run(events(), limit=1)
    assert (len(rows), matched) == (1, 2)
    rows, matched = compile_query("filter ispresent(level) | stats count(*)").run(events())
    assert (len(rows), matched) == (1, 2)


def test_without_fields_it_is_time_and_message():
    ((first, *_),) = (compile_query("limit 1").run(events())[0],)
    assert [cell["field"] for cell in first] == ["@timestamp", "@message"]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        pytest.param("", "a command is expected", id="empty"),
        pytest.param("count(*)", "a command is expected", id="no-command"),
        pytest.param("pattern @message", "a command is expected", id="not-known-here"),
        pytest.param("filter level =", "a value is expected", id="half"),
        pytest.param("filter level = 'a' 'b'", "nothing more is expected", id="two"),
        pytest.param("filter (level = 'a'", r"'\)' is missing", id="bracket"),
        pytest.param("filter level not = 'a'", "expected after `not`", id="not"),
        pytest.param("filter level like /(/", "regular expression", id="regex"),
        pytest.param("stats median(n)", "no statistic that is known here", id="statistic"),
        pytest.param("stats pct(n)", "wrong number of arguments", id="percentile-of-what"),
        pytest.param("fields jsonParse(x)", "no function that is known here", id="function"),
        pytest.param("parse @message 'a * b *' as x", "2 wildcards for 1 names", id="wildcards"),
        pytest.param("limit 10001", "limit must be 1 to 10000", id="limit"),
    ],
)
def test_what_cannot_be_read_is_refused(query: str, sentence: str):
    with pytest.raises(QueryError, match=sentence):
        compile_query(query)
