"""Given a filter pattern of CloudWatch Logs, these messages match and these do not."""

import json
from pathlib import Path

import pytest

from sam.local import logs
from sam.local.filter_pattern import PatternError, compile_pattern, split_words, value_of
from sam.local.stack import read_stack

TEMPLATE = Path(__file__).parents[2] / "sam" / "template.yaml"

REPORT = "REPORT RequestId: 1\tDuration: 3.10 ms\tBilled Duration: 4 ms\tMemory Size: 128 MB\n"
PLATFORM = '{"time":"t","type":"platform.report","record":{"metrics":{"durationMs":12.5},"status":"success"}}'
RECORD = json.dumps(
    {
        "level": "ERROR",
        "ms": 120.5,
        "code": "404",
        "ok": False,
        "gone": None,
        "user": {"id": 1, "first name": "Ann"},
        "items": [{"n": 1}, {"n": 7}],
        "ip": "127.0.0.3",
        "line": 'say "hi"',
    }
)
ACCESS = '127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534'


@pytest.mark.parametrize(
    ("pattern", "message", "matches"),
    [
        pytest.param("", "anything", True, id="empty"),
        pytest.param("  ", "", True, id="blank"),
        pytest.param("ERROR", "[ERROR] it broke", True, id="term"),
        pytest.param("ERROR", "ERRORS were none", False, id="term-is-a-word"),
        pytest.param("ERROR", "an error", False, id="term-case-counts"),
        pytest.param("REPORT", PLATFORM, False, id="term-no-json-report"),
        pytest.param("ERROR ARGUMENTS", "ERROR in ARGUMENTS", True, id="terms-both"),
        pytest.param("ERROR ARGUMENTS", "ERROR alone", False, id="terms-one-missing"),
        pytest.param('"INTERNAL SERVER ERROR"', "500 INTERNAL SERVER ERROR", True, id="phrase"),
        pytest.param('"INTERNAL SERVER ERROR"', "SERVER INTERNAL ERROR", False, id="phrase-order"),
        pytest.param('"REPORT RequestId"', REPORT, True, id="phrase-in-report"),
        pytest.param('"say \\"hi\\""', 'they say "hi"', True, id="phrase-with-quotes"),
        pytest.param("?ERROR ?WARN", "a WARN", True, id="optional-one"),
        pytest.param("?ERROR ?WARN", "an INFO", False, id="optional-none"),
        pytest.param('?"REPORT RequestId" ?"platform.report"', PLATFORM, True, id="optional-phrases"),
        pytest.param("?ERROR ?WARN INFO", "an INFO", True, id="optional-beside-plain-adds-nothing"),
        pytest.param("ERROR -EXITING", "ERROR and on", True, id="exclude-absent"),
        pytest.param("ERROR -EXITING", "ERROR, EXITING", False, id="exclude-present"),
        pytest.param('ERROR -"by hand"', "ERROR made by hand", False, id="exclude-phrase"),
        pytest.param("-DEBUG", "INFO", True, id="exclude-alone"),
        pytest.param("%ERR[0-9]+%", "saw ERR42", True, id="regex"),
        pytest.param("%^ERR%", "saw ERR42", False, id="regex-anchored"),
        pytest.param("%ERR% -OLD", "ERR OLD", False, id="regex-and-exclude"),
        pytest.param(r"%10\.10\.0\.1%", "from 10.10.0.1", True, id="regex-escape"),
        pytest.param("[ip, ..., status = 404, bytes]", ACCESS, True, id="space-gap"),
        pytest.param("[ip, ..., status = 5*, bytes]", ACCESS, False, id="space-glob"),
        pytest.param("[ip, stage, user, time, request, status = 4*, bytes > 1000]", ACCESS, True, id="space-all"),
        pytest.param("[ip, stage, user, time, request, status]", ACCESS, False, id="space-count"),
        pytest.param("[ip = 127.0.0.1, ...]", ACCESS, True, id="space-gap-last"),
        pytest.param("[..., bytes < 1000]", ACCESS, False, id="space-number"),
        pytest.param("[a, b, c, d, request = *html*, status = 404 || status = 410, g]", ACCESS, True, id="space-or"),
        pytest.param("[a, b, user != frank && user != ann, ...]", ACCESS, False, id="space-and"),
        pytest.param(r"[ip = %127\.0\.0\.[1-9]%, ...]", ACCESS, True, id="space-regex"),
        pytest.param('[w1 = "REPORT", ...]', REPORT, True, id="space-quoted"),
        pytest.param('{ $.level = "ERROR" }', RECORD, True, id="json-text"),
        pytest.param("{ $.level = ERR* }", RECORD, True, id="json-glob"),
        pytest.param('{ $.level = "error" }', RECORD, False, id="json-case"),
        pytest.param('{ $.level != "INFO" }', RECORD, True, id="json-unequal"),
        pytest.param('{ $.nothing != "INFO" }', RECORD, False, id="json-unequal-needs-the-property"),
        pytest.param("{ $.ms > 120 }", RECORD, True, id="json-more"),
        pytest.param("{ $.ms <= 1.2e2 }", RECORD, False, id="json-exponent"),
        pytest.param("{ $.code = 404 }", RECORD, True, id="json-number-in-text"),
        pytest.param("{ $.record.metrics.durationMs > 12 }", PLATFORM, True, id="json-nested"),
        pytest.param("{ $.user.id = 1 && $.items[1].n = 7 }", RECORD, True, id="json-and-index"),
        pytest.param("{ $.items[5].n = 7 }", RECORD, False, id="json-index-beyond"),
        pytest.param("{ $.items[*].n = 7 }", RECORD, True, id="json-any-element"),
        pytest.param('{ $.user["first name"] = Ann }', RECORD, True, id="json-bracket-name"),
        pytest.param("{ $.user.* = 1 }", RECORD, True, id="json-any-member"),
        pytest.param("{ $.ms > 500 || $.level = ERROR }", RECORD, True, id="json-or"),
        pytest.param("{ ($.ms > 500 || $.level = ERROR) && $.user.id = 2 }", RECORD, False, id="json-brackets"),
        pytest.param("{ $.ms > 500 || $.ms < 200 && $.user.id = 2 }", RECORD, False, id="json-and-binds-closer"),
        pytest.param("{ $.ok IS FALSE }", RECORD, True, id="json-false"),
        pytest.param("{ $.ok IS TRUE }", RECORD, False, id="json-true"),
        pytest.param("{ $.gone IS NULL }", RECORD, True, id="json-null"),
        pytest.param("{ $.absent IS NULL }", RECORD, False, id="json-null-is-there"),
        pytest.param("{ $.absent NOT EXISTS }", RECORD, True, id="json-not-exists"),
        pytest.param("{ $.gone EXISTS }", RECORD, True, id="json-exists"),
        pytest.param(r"{ $.ip = %127\.0\.0\.[1-9]% }", RECORD, True, id="json-regex"),
        pytest.param("{ $.ip != %^10% }", RECORD, True, id="json-regex-unequal"),
        pytest.param('{ $.line = "say \\"hi\\"" }', RECORD, True, id="json-quotes"),
        pytest.param("{ $.level = ERROR }", "ERROR not json {", False, id="json-other-text"),
        pytest.param("{ $.type = platform.report }", PLATFORM, True, id="json-unquoted-dot"),
    ],
)
def test_a_pattern_matches_and_does_not(pattern: str, message: str, matches: bool):
    assert compile_pattern(pattern)(message) is matches


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param('"open', id="quote"),
        pytest.param("{ $.a = 1", id="brace"),
        pytest.param("[a, b", id="bracket"),
        pytest.param("{ level = 1 }", id="no-dollar"),
        pytest.param("{ $.a = }", id="no-value"),
        pytest.param("{ $.a }", id="no-comparison"),
        pytest.param("{ ($.a = 1 }", id="parenthesis"),
        pytest.param("{ $.a > ten }", id="size-of-text"),
        pytest.param("{ $.a = 1 $.b = 2 }", id="no-operator"),
        pytest.param("{ $.a IS MAYBE }", id="is-what"),
        pytest.param("%(a)%", id="regex-group"),
        pytest.param("%a!%", id="regex-symbol"),
        pytest.param("%ä%", id="regex-multi-byte"),
        pytest.param("%[%", id="regex-broken"),
        pytest.param("%open", id="regex-open"),
        pytest.param("[..., a, ...]", id="two-gaps"),
        pytest.param("error:code", id="term-wants-quotes"),
        pytest.param("{ $.a = %x% && $.b = %y% && $.c = %z% }", id="three-regexes"),
    ],
)
def test_what_is_no_pattern(pattern: str):
    with pytest.raises(PatternError, match="Invalid filter pattern"):
        compile_pattern(pattern)


def test_words_of_a_line():
    assert split_words(ACCESS) == [
        "127.0.0.1", "Prod", "frank", "10/Oct/2000:13:25:15 -0700", "GET /index.html HTTP/1.0", "404", "1534",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "reference", "message", "value"),
    [
        pytest.param("ERROR", "1", "ERROR", 1.0, id="constant"),
        pytest.param("{ $.ms > 1 }", "$.ms", RECORD, 120.5, id="path"),
        pytest.param("{ $.ms > 1 }", "$.absent", RECORD, None, id="path-absent"),
        pytest.param("{ $.ms > 1 }", "$.user", RECORD, None, id="path-no-number"),
        pytest.param("[ip, ..., status = 404, bytes]", "$bytes", ACCESS, 1534.0, id="field-after-a-gap"),
        pytest.param("[ip, stage, user, ...]", "$user", ACCESS, None, id="field-no-number"),
        pytest.param('[report = "REPORT", l, id, d, duration, ...]', "$duration", REPORT, 3.1, id="field-of-a-report"),
    ],
)
def test_a_metric_filter_takes_its_value(pattern: str, reference: str, message: str, value: float | None):
    assert value_of(pattern, reference, message) == value


def test_a_field_that_the_pattern_has_not():
    with pytest.raises(PatternError, match="none of the pattern's fields"):
        value_of("[a, b]", "$c", "1 2")


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_the_memory_alarms_filter_reads_our_own_reports(log_format: str):
    """The template's filter on the lines of the format it is for."""
    stack = read_stack(TEMPLATE, {"PLogFormat": log_format})
    (memory,) = [each for each in stack.metric_filters if each.name.endswith("max-memory-used-mb")]
    platform = logs.Platform(log_format, "f", "arn", "us-east-1", "stream", 256)
    for report in (
        logs.Report("id", 771.53, 256, 89, init_ms=505.79),
        logs.Report("id", 3.1, 256, 89),
        logs.Report("id", 3.1, 256, 89, status="timeout"),
        logs.Report("id", 3.1, 256, 89, trace=logs.Trace("1-a-b", "c")),
    ):
        line = logs.end_and_report(platform, 0.0, report)[-1]
        assert compile_pattern(memory.pattern)(line), line
        assert value_of(memory.pattern, memory.value, line) == 89, line
    assert not compile_pattern(memory.pattern)(logs.start(platform, 0.0, "id")[0])
