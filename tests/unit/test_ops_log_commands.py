"""Given a group's events, the person on call finds the one line, the one request, or the pattern in many."""

import csv
import io
import json
import re
import sys
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import boto3
import botocore.exceptions
import pytest
from moto import mock_aws

from ops import error_groups, exports, filters, one_request, reading, records
from ops.__main__ import run
from ops.aws import Account, aws_sentences
from ops.command import Surroundings
from ops.failures import OpsError, UsageError
from ops.invocations import Problem, fold
from ops.logs import LogEvent, Pace, event_line, read_events
from tests.published_schemas import validated

GROUP = "/aws/lambda/code-interpreter"
A, B, C = (f"{c * 8}-0000-4000-8000-000000000000" for c in "abc")
STREAM = "2026/11/24/[$LATEST]0123456789abcdef"


def report(request_id, extra="", used=90, duration=12.0):
    return (
        f"REPORT RequestId: {request_id}\tDuration: {duration:.2f} ms\tBilled Duration: 13 ms\tMemory Size: 256 MB\t"
        f"Max Memory Used: {used} MB\t{extra}\n"
    )


def stream_of(*messages, start_ms=1_000_000, stream=STREAM):
    return [LogEvent(start_ms + n, start_ms + n, GROUP, stream, f"{n}", m) for n, m in enumerate(messages)]


KILLED = f"RequestId: {A} Error: Runtime exited with error: signal: killed\nRuntime.ExitError"

TWO_REQUESTS = (
    "INIT_START Runtime Version: python:3.12.v1\tRuntime Version ARN: arn:x\n",
    "importing numpy\n",
    f"START RequestId: {A} Version: $LATEST\n",
    "a says hello\n",
    f"END RequestId: {A}\n",
    report(A, "Init Duration: 300.00 ms\t"),
    f"START RequestId: {B} Version: $LATEST\n",
    "b says hello\n",
    f"2026-11-24T06:00:00.000Z {B} Task timed out after 3.00 seconds\n\n",
    f"END RequestId: {B}\n",
    report(B, "Status: timeout", duration=3000),
)


@pytest.mark.parametrize(
    ("request_id", "expected"),
    [pytest.param(A, TWO_REQUESTS[:6], id="cold-with-its-init"), pytest.param(B, TWO_REQUESTS[6:], id="warm")],
)
def test_a_request_is_its_own_lines_and_nobody_elses(request_id, expected):
    assert [e.message for e in one_request.lines_of(stream_of(*TWO_REQUESTS), request_id)] == list(expected)


def test_a_line_after_the_report_that_names_the_request_belongs_to_it():
    late = f"RequestId: {A} Error: Runtime exited with error: signal: killed\nRuntime.ExitError"
    events = stream_of(*TWO_REQUESTS[:6], "between\n", late)
    assert [e.message for e in one_request.lines_of(events, A)] == [*TWO_REQUESTS[:6], late]


@pytest.mark.parametrize(
    ("message", "condition", "holds"),
    [
        pytest.param(report(A, duration=1500), "duration_ms>1000", True, id="number-above"),
        pytest.param(report(A, duration=900), "duration_ms>1000", False, id="number-below-not-as-text"),
        pytest.param(report(A), "kind=Report", True, id="kind"),
        pytest.param(report(A), "init_ms>0", False, id="absent-field-never-matches"),
        pytest.param(report(A), "init_ms!=0", False, id="absent-field-is-not-unequal"),
        pytest.param('{"level":"ERROR","message":"x"}', "level=ERROR", True, id="json-level"),
        pytest.param('{"level":"INFO","http":{"status":503}}', "http.status>=500", True, id="json-path"),
        pytest.param('{"level":"INFO","ok":true}', "ok=true", True, id="json-boolean"),
        pytest.param('{"level":"INFO","message":"out of cheese"}', "message~of ch", True, id="regex"),
        pytest.param(f"[ERROR]\t2026-11-24T06:00:00.000Z\t{A}\tno", "level=ERROR", True, id="text-level"),
    ],
)
def test_a_condition_on_a_field(message, condition, holds):
    assert filters.parse_condition(condition).holds(records.parse(message)) is holds


@pytest.mark.parametrize("condition", ["duration_ms", ">3", "message~(", ""])
def test_an_unreadable_condition_is_refused(condition):
    with pytest.raises(UsageError):
        filters.parse_condition(condition)


def test_patterns_are_all_wanted_and_none_unwanted():
    chosen = filters.make_filter(["hello", "^b"], ["bye"], [])
    assert [chosen.chooses(e) for e in stream_of("b hello", "a hello", "b hello bye")] == [True, False, False]
    with pytest.raises(UsageError, match="not a regular expression"):
        filters.make_filter(["("], [], [])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(f"Task {A} failed", f"Task {B} failed", id="ids"),
        pytest.param("took 12.5 s", "took 900 s", id="numbers"),
        pytest.param("at 2026-11-24T06:00:00.123Z", "at 2026-11-23 07:00:00", id="times"),
        pytest.param("<object at 0x7f96a1ccc950>", "<object at 0x1>", id="addresses"),
        pytest.param("open /tmp/run-1/a.txt failed", "open /tmp/run-2/b failed", id="run-paths"),
        pytest.param(f"[ERROR]\t2026-11-24T06:00:00Z\t{A}\tno", f"[ERROR]\t2026-11-24T06:00:01Z\t{B}\tno", id="heads"),
        pytest.param(report(A, "Status: timeout"), report(B, "Status: timeout", duration=9), id="reports"),
        pytest.param(
            '{"type":"platform.initReport","record":{"status":"error","metrics":{"durationMs":9.5},"errorType":"E"}}',
            '{"type":"platform.initReport","record":{"status":"error","metrics":{"durationMs":8},"errorType":"E"}}',
            id="inits",
        ),
    ],
)  # fmt: skip
def test_messages_that_differ_in_particulars_are_one_group(one, other):
    assert error_groups.normalise(one) == error_groups.normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("KeyError: a", "KeyError: b", id="words"),
        pytest.param(report(A, "Status: timeout"), report(A, "Status: error"), id="statuses"),
        pytest.param("h11 failed", "h12 failed", id="digits-in-names"),
    ],
)
def test_messages_that_say_different_things_are_not(one, other):
    assert error_groups.normalise(one) != error_groups.normalise(other)


def test_groups_are_counted_with_first_last_and_the_latest_sample():
    problems = [Problem("error", at, GROUP, STREAM, rid, f"boom {at}") for at, rid in ((5, A), (9, B), (1, C))]
    [group] = error_groups.group(problems)
    assert (group.count, group.first_ms, group.last_ms, group.sample.request_id) == (3, 1, 9, B)


def test_a_timeout_that_shows_in_three_lines_is_one_problem():
    ledger = fold(stream_of(*TWO_REQUESTS))
    assert [(p.kind, p.request_id) for p in ledger.problems] == [("timeout", B)]
    assert "Task timed out after" in ledger.problems[0].message


def test_of_several_lines_the_one_that_says_most_is_kept_in_any_order():
    lines = [KILLED, report(A, "Status: error\tError Type: Runtime.OutOfMemory", used=256)]
    for order in (lines, lines[::-1]):
        [problem] = fold(stream_of(*order)).problems
        assert (problem.kind, problem.message) == ("oom", KILLED)


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        pytest.param([report(A, "Status: error\tError Type: Runtime.OutOfMemory", used=256)], "oom", id="oom-by-type"),
        pytest.param(
            [KILLED, report(A, used=256)],
            "oom", id="oom-by-use-before-2025",
        ),
        pytest.param(
            [KILLED, report(A, used=90)],
            "error", id="killed-with-memory-left",
        ),
        pytest.param(
            [f"RequestId: {A} Error: Runtime exited with error: exit status 1 Runtime.ExitError", report(A)],
            "error", id="exit",
        ),
        pytest.param([report(A, "Status: error\tError Type: Runtime.ExitError")], "error", id="status-error"),
        pytest.param(
            [f"START RequestId: {A} Version: 1\n", "[ERROR] ValueError: x\rTraceback", report(A)],
            "error", id="uncaught-text",
        ),
        pytest.param(
            [json.dumps({"level": "ERROR", "errorMessage": "x", "errorType": "E", "requestId": A}), report(A)],
            "error", id="uncaught-json",
        ),
        pytest.param([report(A, "Status: timeout")], "timeout", id="timeout"),
        pytest.param(
            [json.dumps({"level": "ERROR", "message": "caught", "errorType": "E", "requestId": A}), report(A)],
            "ok", id="caught-and-logged-is-no-failure",
        ),
        pytest.param(
            [f"[ERROR]\t2026-11-24T06:00:00Z\t{A}\tcould not, going on", report(A)], "ok", id="a-loggers-error"
        ),
        pytest.param([report(A)], "ok", id="ok"),
    ],
)  # fmt: skip
def test_how_an_invocation_ended(lines, kind):
    assert fold(stream_of(*lines)).invocations.outcomes.tolist() == [kind]


def test_concurrency_counts_invocations_that_overlap():
    def ended(at, duration, stream):
        return LogEvent(at, at, GROUP, stream, f"{at}{stream}", report(f"{stream}-{at}", duration=duration))

    events = [ended(1000, 500, "a"), ended(1200, 500, "b"), ended(1300, 200, "c"), ended(2000, 100, "a")]
    assert fold(events).invocations.peak_concurrency() == 2
    back_to_back = [ended(1000, 500, "a"), ended(1500, 500, "a")]
    assert fold(back_to_back).invocations.peak_concurrency() == 1


@pytest.fixture
def aws(monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "OPS_LOG_GROUP", "P_FN_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    now = datetime.now(UTC)
    with mock_aws():
        client = boto3.client("logs")
        client.create_log_group(logGroupName=GROUP)
        client.create_log_stream(logGroupName=GROUP, logStreamName=STREAM)
        rows = [
            {"timestamp": int(now.timestamp() * 1000) - 60_000 + n, "message": m} for n, m in enumerate(TWO_REQUESTS)
        ]
        client.put_log_events(logGroupName=GROUP, logStreamName=STREAM, logEvents=rows)
        yield now


def ops(now, *argv):
    around = Surroundings(lambda: now, UTC, out=io.StringIO(), err=io.StringIO())
    return run(["logs", *argv], around), around.out.getvalue(), around.err.getvalue()


def test_show_prints_the_request_its_figures_and_the_clients_row(aws, tmp_path):
    (tmp_path / "requests.jsonl").write_text(f'{{"n": 1, "request_id": "{B}"}}\n{{"n": 2, "request_id": "{A}"}}\n')
    code, out, _ = ops(aws, "show", A[:13], "--run", str(tmp_path))
    assert code == 0
    assert "a says hello" in out
    assert "importing numpy" in out
    assert "b says hello" not in out
    assert "Init Duration: 300.00 ms" in out
    assert '{"n": 2' in out
    assert '{"n": 1' not in out


CALL = {"level": "INFO", "message": "tool call", "requestId": A, "tool": "execute_python", "_aws": {}, "calls": 1}
REFUSED = CALL | {
    "outcome": "error",
    "error_type": "security",
    "error_name": "SecurityError",
    "violations": ["os.fork"],
}
UNCAUGHT = {
    "level": "ERROR",
    "errorType": "ValueError",
    "errorMessage": "no",
    "requestId": A,
    "stackTrace": ["  a\n", "  b"],
}


def platform(kind, **record):
    return json.dumps({"type": f"platform.{kind}", "record": record})


@pytest.mark.parametrize(
    ("message", "reads"),
    [
        pytest.param(platform("start", requestId=A, version="7"), f"START {A} version 7", id="start"),
        pytest.param(
            platform(
                "report", requestId=A, status="timeout",
                metrics={"durationMs": 3000.0, "billedDurationMs": 3100, "memorySizeMB": 512, "initDurationMs": 99.5},
            ),
            f"REPORT {A} timeout, 3000 ms, billed 3100 ms, init 99.5 ms", id="report",
        ),
        pytest.param(
            json.dumps(REFUSED | {"wall_ms": 7.9, "cpu_ms": 6, "max_rss_mb": 14.6, "api_key_id": "k1"}),
            f"CALL {A} execute_python: security SecurityError os.fork, wall 7.9 ms, CPU 6 ms, 14.6 MB, key k1",
            id="refused",
        ),
        pytest.param(
            json.dumps(CALL | {"outcome": "ok", "requirements": ["six"], "install_ms": 900.5}),
            f"CALL {A} execute_python ok, requirements six, install 900.5 ms", id="install",
        ),
        pytest.param(json.dumps(UNCAUGHT), f"ERROR {A} ValueError: no\n  a\n  b", id="stack"),
        pytest.param(
            '{"level":"WARN","message":"slow","http":{"status":503}}', 'WARN slow http={"status": 503}', id="others"
        ),
        pytest.param(platform("logsDropped", droppedRecords=3), 'platform.logsDropped {"droppedRecords": 3}', id="new"),
        pytest.param("START RequestId: x Version: 1\n", "START RequestId: x Version: 1\n", id="text"),
        pytest.param('{"half', '{"half', id="no-json"),
        pytest.param("[1]", "[1]", id="no-object"),
    ],
)  # fmt: skip
def test_a_json_record_reads_as_a_line(message, reads):
    assert reading.readable(message) == reads


HOSTILE = "\x1b[2Jcleared\x07\u202eturned\x9bmore"


def test_nothing_that_a_terminal_obeys_is_written_to_it(aws, tmp_path):
    told = exports.text_line(LogEvent(0, 0, GROUP, STREAM, "1", json.dumps({"message": HOSTILE, "level": "INFO"})), UTC)
    assert told.endswith("INFO \\x1b[2Jcleared\\x07\\u202eturned\\x9bmore\n")
    assert exports.text_line(LogEvent(0, 0, GROUP, STREAM, "1", HOSTILE), UTC).count("\x1b") == 0
    rows = [{"timestamp": int(aws.timestamp() * 1000) - 1000, "message": json.dumps(REFUSED | {"error_name": HOSTILE})}]
    boto3.client("logs").put_log_events(logGroupName=GROUP, logStreamName=STREAM, logEvents=rows)
    assert "\\x1b[2Jcleared" in (out := ops(aws, "errors", "--out", str(tmp_path))[1])
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(out)


def test_calls_whose_code_failed_are_grouped_after_what_went_wrong_with_the_function():
    ledger = fold(stream_of(*[json.dumps(REFUSED)] * 3, json.dumps(UNCAUGHT), report(A)))
    told = [(g.kind, g.count, g.message) for g in error_groups.group(ledger.problems)]
    assert told == [("error", 1, "ValueError: no"), ("call", 3, "execute_python: security SecurityError os.fork")]
    assert ledger.invocations.outcomes.tolist() == ["error"]
    assert fold(stream_of(json.dumps(REFUSED), report(A))).invocations.outcomes.tolist() == ["ok"]


def test_show_wants_an_id(aws):
    code, _, err = ops(aws, "show", " ")
    assert (code, "No request id was given" in err) == (2, True)


def test_show_of_an_unknown_request_is_inconclusive(aws):
    code, _, err = ops(aws, "show", C)
    assert (code, "No line names the request" in err) == (4, True)


def test_errors_are_grouped_with_a_sample(aws, tmp_path):
    code, out, err = ops(aws, "errors", "--out", str(tmp_path))
    assert code == 0
    assert "1 × timeout: <time> <id> Task timed out after <n> seconds" in out
    assert f"sample {B}" in out
    assert "1 problems in 2 invocations" in err
    assert len(list(read_events(tmp_path / "events.jsonl"))) == len(TWO_REQUESTS)
    _, out, _ = ops(aws, "errors", "--json", "--out", str(tmp_path / "again"))
    told = json.loads(out)
    assert (validated(told), told["groups"][0]["sample"]["kind"]) == ("ops-errors/1", "timeout")


def test_search_filters_and_writes_csv(aws):
    code, out, _ = ops(aws, "search", "--where", "kind=Report", "--where", "duration_ms>1000", "--output", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [row["message"] for row in rows] == [TWO_REQUESTS[-1]]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", rows[0]["time"])


def test_events_for_machines_are_of_the_published_schema(aws):
    told = [ops(aws, *argv)[1].splitlines() for argv in (["search", "--output", "jsonl"], ["show", A, "--json"])]
    assert [len(lines) for lines in told] == [len(TWO_REQUESTS), 6]
    assert {validated(json.loads(line), "ops-event/1") for lines in told for line in lines} == {"ops-event/1"}


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        pytest.param(["--group", ""], "AWS takes no such value: Invalid length for parameter logGroupName", id="group"),
        pytest.param(["--region", "x y"], "'x y' is no region; write it like us-east-1.", id="region"),
        pytest.param(["--group", "/nowhere"], "The specified log group does not exist", id="unknown-group"),
        pytest.param(["--since", "1m", "--until", "2m"], "--since must name the earlier time", id="range"),
    ],
)
def test_what_was_typed_wrong_is_a_sentence(aws, argv, sentence):
    code, _, err = ops(aws, "tail", *argv)
    assert (code, sentence in err) == (2, True), err


@pytest.mark.parametrize(
    ("code", "status", "exit_code", "sentence"),
    [
        pytest.param("ExpiredTokenException", 400, 3, "The AWS login has ended", id="expired"),
        pytest.param("AccessDeniedException", 400, 3, "AccessDeniedException: because", id="not-allowed"),
        pytest.param("InvalidSignatureException", 403, 3, "check AWS_PROFILE", id="wrong-secret"),
        pytest.param("ThrottlingException", 400, 3, "kept throttling FilterLogEvents", id="throttled"),
        pytest.param("ResourceNotFoundException", 400, 2, "check --group", id="unknown"),
        pytest.param("InvalidParameterException", 400, 2, "does not take what FilterLogEvents was given", id="value"),
        pytest.param("InternalFailure", 500, 1, "answered FilterLogEvents with InternalFailure", id="fault"),
    ],
)
def test_what_aws_refuses_is_one_sentence_and_its_exit_code(code, status, exit_code, sentence):
    told = {"Error": {"Code": code, "Message": "because"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(OpsError, match=sentence) as caught, aws_sentences(Account("us-east-1", None, None)):
        raise botocore.exceptions.ClientError(told, "FilterLogEvents")
    assert caught.value.exit_code == exit_code
    assert "\n" not in str(caught.value)


def test_a_function_named_with_its_alias_has_the_functions_group(aws):
    assert ops(aws, "search", "--function", "code-interpreter:live", "--grep", "a says")[0] == 0


def test_several_groups_are_told_apart_in_one_order_of_time(aws):
    client, other = boto3.client("logs"), "/aws/lambda/other"
    client.create_log_group(logGroupName=other)
    client.create_log_stream(logGroupName=other, logStreamName=STREAM)
    between = int(aws.timestamp() * 1000) - 60_000 + 3  # the time of "a says hello"
    rows = [{"timestamp": between, "message": "other says hello"}]
    client.put_log_events(logGroupName=other, logStreamName=STREAM, logEvents=rows)
    code, out, _ = ops(aws, "search", "--group", other, "--group", GROUP, "--grep", "says hello")
    told = [line.split(" UTC ")[1] for line in out.splitlines()]
    assert (code, sorted(told[:2]), told[2:]) == (
        0,
        [f"{GROUP} 89abcdef a says hello", f"{other} 89abcdef other says hello"],
        [f"{GROUP} 89abcdef b says hello"],
    )


def test_search_that_finds_nothing_is_inconclusive(aws):
    assert ops(aws, "search", "--grep", "no such thing")[0] == 4


def test_pull_keeps_raw_events_and_the_format_asked_for(aws, tmp_path):
    assert ops(aws, "pull", "--out", str(tmp_path), "--output", "csv")[0] == 0
    assert len(list(read_events(tmp_path / "events.jsonl"))) == len(TWO_REQUESTS)
    assert len(list(csv.reader((tmp_path / "events.csv").open(newline="")))) == len(TWO_REQUESTS) + 1
    assert json.loads((tmp_path / "request.json").read_text())["groups"] == [GROUP]


def test_parquet_without_pyarrow_is_one_sentence_before_anything_is_pulled(aws, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = ops(aws, "pull", "--output", "parquet", "--out", str(tmp_path / "p"))
    assert (code, (tmp_path / "p").exists()) == (2, False)
    assert "Parquet takes pyarrow, which is not installed: pip install pyarrow" in err


def test_tail_prints_in_the_users_zone(aws):
    around = Surroundings(lambda: aws, ZoneInfo("Asia/Tokyo"), out=io.StringIO(), err=io.StringIO())
    assert run(["logs", "tail"], around) == 0
    assert " JST 89abcdef START RequestId" in around.out.getvalue()
    assert "JST" in around.err.getvalue()


def test_following_until_ctrl_c_keeps_what_came_and_is_130(aws, tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    around = Surroundings(lambda: aws, UTC, out=io.StringIO(), err=io.StringIO())
    monkeypatch.setattr("ops.command.Pace", lambda rate: Pace(rate, sleep=interrupt))
    assert run(["logs", "tail", "-f", "--out", str(tmp_path)], around) == 130
    assert len(list(read_events(tmp_path / "events.jsonl"))) == len(TWO_REQUESTS)
    assert "kept" in around.err.getvalue()
    assert " UTC on\n" in around.err.getvalue()


def test_text_lines_stay_one_event_under_carriage_returns():
    event = LogEvent(0, 0, GROUP, STREAM, "1", "[ERROR] ValueError: x\rTraceback\r  File\n")
    assert exports.text_line(event, UTC).count("\n    ") == 2
    assert event_line(event).count("\n") == 1
