"""Given the log events of a range, `ops report` counts, times and prices them, and writes it all down."""

import io
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count

from ops import tables
from ops.__main__ import run
from ops.command import Surroundings
from ops.invocations import fold
from ops.logs import LogEvent, Pace, event_line, read_events
from ops.pricing import Bill, Kept
from ops.summary import Request, summarise

GOLDEN = Path(__file__).parents[1] / "data" / "ops-report.txt"
NOW = datetime(2026, 11, 24, 6, 15, tzinfo=UTC)
GROUP = "/aws/lambda/code-interpreter"


def surroundings(now=NOW):
    return Surroundings(lambda: now, UTC, out=io.StringIO(), err=io.StringIO())


def request_id(n):
    return f"00000000-0000-4000-8000-{n:012d}"


def invocation(n, *, duration=10.0, init=None, used=90, size=256, extra="", version="$LATEST", environment=1):
    """The lines of one invocation as (stream, message)."""
    stream = f"2026/11/24/[{version}]{environment:032x}"
    billed = int(duration + (init or 0)) + 1
    cold = f"Init Duration: {init:.2f} ms\t" if init is not None else ""
    lines = ["INIT_START Runtime Version: python:3.12.v1\tRuntime Version ARN: arn:aws:lambda:x\n"] if cold else []
    lines += [
        f"START RequestId: {request_id(n)} Version: {version}\n",
        f"END RequestId: {request_id(n)}\n",
        f"REPORT RequestId: {request_id(n)}\tDuration: {duration:.2f} ms\tBilled Duration: {billed} ms\t"
        f"Memory Size: {size} MB\tMax Memory Used: {used} MB\t{cold}{extra}\n",
    ]
    return [(stream, line) for line in lines]


def a_bad_hour():
    """Two hundred invocations: four cold, one timeout, one out of memory, one uncaught exception."""
    lines = []
    for n in range(200):
        if n in (50, 100, 150, 0):
            lines += invocation(n, duration=20, init=400.0 + n, environment=n)
        elif n == 60:
            stream = invocation(n)[0][0]
            lines += invocation(n, duration=3000, extra="Status: timeout")[:-2]
            lines += [(stream, f"2026-11-24T06:01:00.000Z {request_id(n)} Task timed out after 3.00 seconds\n\n")]
            lines += invocation(n, duration=3000, extra="Status: timeout")[-2:]
        elif n == 70:
            lines += invocation(n, used=256, extra="Status: error\tError Type: Runtime.OutOfMemory")
        elif n == 80:
            start, *rest = invocation(n)
            lines += [start, (start[0], "[ERROR] ValueError: boom\rTraceback (most recent call last):\r"), *rest]
        else:
            lines += invocation(n, duration=10 + n / 100)
    lines.append((lines[0][0], f"START RequestId: {request_id(999)} Version: $LATEST\n"))
    refused = {"outcome": "error", "error_type": "security", "violations": ["os.system"], "api_key_id": "k1"}
    for n, fields in enumerate([refused, {"outcome": "ok", "api_key_id": "k1"}, {"outcome": "ok", "api_key_id": None}]):
        record = {"tool": "execute_python", "requestId": request_id(n), "wall_ms": 5.0, "cpu_ms": 4.0} | fields
        lines.append((lines[0][0], json.dumps(record)))
    lines.append((lines[0][0], json.dumps({"tool": "get_environment_info", "outcome": "ok"})))
    lines.append((lines[0][0], "something else entirely"))
    first = int(NOW.timestamp() * 1000) - 1_800_000
    return [
        LogEvent(first + 1000 * n, first + 1000 * n, GROUP, stream, f"{n}", line)
        for n, (stream, line) in enumerate(lines)
    ]


@pytest.fixture
def run_of_a_bad_hour(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "events.jsonl").write_text("".join(event_line(e) for e in a_bad_hour()))
    asked = {
        "source": "AWS us-east-1",
        "groups": [GROUP],
        "start": "2026-11-24T05:15:00Z",
        "end": "2026-11-24T06:15:00Z",
    }
    (folder / "request.json").write_text(json.dumps(asked))
    return folder


def test_operations_past_the_most_frequent_are_one_sentence(run_of_a_bad_hour):
    events = run_of_a_bad_hour / "events.jsonl"
    tried = {"tool": "execute_python", "violations": [f"os.fn{n:02}" for n in range(30)]}
    often = {"tool": "execute_python", "violations": ["os.fn29"]}
    last = a_bad_hour()[-1]
    lines = [event_line(last._replace(id=f"x{n}", message=json.dumps(r))) for n, r in enumerate((tried, often))]
    events.write_text(events.read_text() + "".join(lines))
    around = surroundings()
    assert run(["report", "--from", str(run_of_a_bad_hour)], around) == 0
    told = around.out.getvalue()
    assert told.index("os.fn29") < told.index("os.fn00")
    assert told.count("os.fn") + told.count("os.system") == tables.MOST_BLOCKED
    assert f"{31 - tables.MOST_BLOCKED} more operations, {31 - tables.MOST_BLOCKED} times, are in summary.json." in told


def test_the_figures_of_a_bad_hour(run_of_a_bad_hour):
    around = surroundings()
    assert run(["report", "--from", str(run_of_a_bad_hour), "--json"], around) == 0
    summary = json.loads(around.out.getvalue())
    assert summary == json.loads((run_of_a_bad_hour / "summary.json").read_text())
    assert summary["schema"] == "ops-report/1"
    assert summary["invocations"] == 200
    assert {kind: rate["count"] for kind, rate in summary["failures"].items()} == {"timeout": 1, "oom": 1, "error": 1}
    assert (summary["cold"]["count"], summary["cold"]["share"]) == (4, 0.02)
    assert summary["unfinished"] == 1
    assert summary["blocked_operations"] == {"os.system": 1}
    assert summary["calls"]["tools"] == [
        {"tool": "execute_python", "calls": 3, "failed": 1},
        {"tool": "get_environment_info", "calls": 1, "failed": 0},
    ]
    assert summary["calls"]["failures"] == {"security": 1}
    assert summary["calls"]["callers"] == [
        {"api_key_id": "k1", "calls": 2, "failed": 1, "blocked": 1, "cpu_s": 0.008},
        {"api_key_id": None, "calls": 2, "failed": 0, "blocked": 0, "cpu_s": 0.004},
    ]
    assert summary["calls"]["cpu_ms"]["n"] == 3
    assert summary["duration_ms"]["all"]["n"] == 200
    assert summary["init_ms"]["max"] == 550.0
    assert summary["memory"] == [
        {
            "size_mb": 256,
            "invocations": 200,
            "max_used_mb": 256,
            "p95_used_mb": 90,
            "headroom_mb": 0,
            "headroom_share": 0,
        }
    ]
    assert summary["lines"]["Text"] == 2
    assert summary["lines"]["Report"] == 200
    assert (run_of_a_bad_hour / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "| cold | 4 | 2.00 % |" in (run_of_a_bad_hour / "summary.md").read_text()


def test_a_percentile_that_the_sample_is_too_small_for_is_refused(run_of_a_bad_hour):
    around = surroundings()
    run(["report", "--from", str(run_of_a_bad_hour), "--json"], around)
    quantiles = {q["name"]: q for q in json.loads(around.out.getvalue())["init_ms"]["quantiles"]}
    assert quantiles["p50"]["value"] == 475.0
    assert quantiles["p99"]["value"] is None
    assert quantiles["p99"]["refused"] == "needs 100 invocations, has 4"


def test_the_report_reads_like_this(run_of_a_bad_hour):
    around = surroundings()
    run(["report", "--from", str(run_of_a_bad_hour)], around)
    assert around.out.getvalue() == GOLDEN.read_text(encoding="utf-8")


def test_a_terminal_without_utf8_gets_plain_signs_and_machines_json(run_of_a_bad_hour, monkeypatch):
    for flag in ("--from", "--json"):
        out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", out)
        assert run(["report", "--from", str(run_of_a_bad_hour), *([flag] if flag == "--json" else [])]) == 0
        out.flush()
        told = out.buffer.getvalue().decode("ascii")
        assert json.loads(told)["invocations"] == 200 if flag == "--json" else "-----" in told
    assert json.loads('"' + "é日😀".encode("ascii", "ops-plain").decode() + '"') == "é日😀"


@pytest.mark.parametrize("against", ["nowhere", "2h..garbage", "2h..", ".."])
def test_what_cannot_be_compared_with_is_told_before_anything_is_asked(against, tmp_path):
    around = surroundings()
    flags = ["--endpoint-url", "http://127.0.0.1:9", "--group", GROUP, "--out", str(tmp_path / "r")]
    assert run(["report", "--compare", against, *flags], around) == 2
    assert not (tmp_path / "r").exists()


def test_names_that_callers_chose_stay_in_their_cells():
    record = {"message": "tool call", "tool": "a\x1b[2Jb\nc|d", "outcome": "ok", "requestId": "x"}
    ledger = an_environment(INIT_START, json.dumps(record), WARM_REPORT)
    made = summarise(ledger, asked(NOW))
    assert "| a\\x1b[2Jb c\\|d | 1 | 0 |" in tables.markdown(made, UTC)
    assert "a\\x1b[2Jb c|d" in tables.text(made, UTC)


def test_the_page_holds_everything_in_one_file(run_of_a_bad_hour):
    run(["report", "--from", str(run_of_a_bad_hour)], surroundings())
    page = (run_of_a_bad_hour / "report.html").read_text()
    assert "data:image/png;base64,iVBOR" in page
    assert '<th scope="row">cold</th><td>4</td>' in page
    assert "http" not in page


def test_a_run_compared_with_itself_shows_no_difference(run_of_a_bad_hour):
    around = surroundings()
    argv = ["report", "--from", str(run_of_a_bad_hour), "--compare", str(run_of_a_bad_hour), "--json"]
    assert run(argv, around) == 0
    summary = json.loads(around.out.getvalue())
    verdicts = {change["name"]: change["verdict"] for change in summary["comparison"]}
    assert verdicts.pop("median init") == verdicts.pop("median duration, cold") == "too few"
    assert set(verdicts.values()) == {"no difference shown"}


def put(client, events):
    for stream in dict.fromkeys(e.stream for e in events):
        client.create_log_stream(logGroupName=GROUP, logStreamName=stream)
        rows = [{"timestamp": e.timestamp_ms, "message": e.message} for e in events if e.stream == stream]
        client.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=rows)


@pytest.fixture
def aws(monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "OPS_LOG_GROUP", "P_FN_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        yield boto3.client("logs")


def moved_to(now):
    """The bad hour, ending at `now`: CloudWatch refuses events that are too old."""
    shift = int((now - NOW).total_seconds() * 1000)
    return [
        LogEvent(e.timestamp_ms + shift, e.ingestion_ms + shift, e.group, e.stream, e.id, e.message)
        for e in a_bad_hour()
    ]


def test_events_are_pulled_written_and_reported_from_the_only_log_group(aws, tmp_path):
    now = datetime.now(UTC)
    aws.create_log_group(logGroupName=GROUP)
    put(aws, moved_to(now))
    around = surroundings(now)
    assert run(["report", "--out", str(tmp_path / "r"), "--json"], around) == 0
    summary = json.loads(around.out.getvalue())
    assert summary["groups"] == [GROUP]
    assert summary["source"] == "AWS eu-central-1"
    assert summary["invocations"] == 200
    assert len((tmp_path / "r" / "events.jsonl").read_text().splitlines()) == len(a_bad_hour())


def test_the_same_figures_come_from_the_files_alone(aws, tmp_path):
    now = datetime.now(UTC)
    aws.create_log_group(logGroupName=GROUP)
    put(aws, moved_to(now))
    first, again = surroundings(now), surroundings(now + timedelta(days=3))
    run(["report", "--out", str(tmp_path / "r"), "--json"], first)
    run(["report", "--from", str(tmp_path / "r"), "--json"], again)
    assert first.out.getvalue() == again.out.getvalue()


def test_settling_sweeps_up_late_events_in_their_places(aws, tmp_path, monkeypatch):
    now = datetime.now(UTC)
    aws.create_log_group(logGroupName=GROUP)
    punctual = moved_to(now - timedelta(minutes=1))
    put(aws, punctual)
    stream, at = punctual[0].stream, int(now.timestamp() * 1000) - 5_000
    slept = []

    def arrive_late(seconds):
        slept.append(seconds)
        aws.put_log_events(
            logGroupName=GROUP, logStreamName=stream, logEvents=[{"timestamp": at, "message": invocation(777)[-1][1]}]
        )

    monkeypatch.setattr("ops.command.Pace", lambda rate: Pace(1e9, sleep=arrive_late))
    around = surroundings(now)
    assert run(["report", "--settle", "90", "--out", str(tmp_path / "r"), "--json"], around) == 0
    assert slept == [pytest.approx(90)]
    assert json.loads(around.out.getvalue())["invocations"] == 201
    times = [row.timestamp_ms for row in read_events(tmp_path / "r" / "events.jsonl")]
    assert times == sorted(times)
    assert len(times) == len(punctual) + 1


@pytest.mark.parametrize(
    ("argv", "groups", "code", "said"),
    [
        pytest.param(["report"], [], 4, "no log group under /aws/lambda/", id="no-group"),
        pytest.param(["report"], ["a", "b"], 2, "choose with --group: /aws/lambda/a, /aws/lambda/b", id="two-groups"),
        pytest.param(["report"], ["a"], 4, "/aws/lambda/a has no events from 2", id="no-events"),
        pytest.param(["report", "--function", "x"], ["a"], 2, "check --group", id="unknown-function"),
        pytest.param(["report", "--since", "5 months ago"], ["a"], 2, "write it like", id="unread-time"),
        pytest.param(["report", "--until", "2h"], ["a"], 2, "The range is empty", id="empty-range"),
        pytest.param(["report", "--profile", "none-such"], ["a"], 2, "none-such", id="unknown-profile"),
        pytest.param(["report", "--nonsense"], ["a"], 2, "", id="unknown-flag"),
        pytest.param(["report", "--from", "nowhere"], [], 2, "nowhere holds no run", id="no-such-run"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_an_exit_code(aws, tmp_path, argv, groups, code, said):
    for group in groups:
        aws.create_log_group(logGroupName=f"/aws/lambda/{group}")
    around = surroundings(datetime.now(UTC))
    assert run([*argv, "--out", str(tmp_path / "r")], around) == code
    assert said in around.err.getvalue()
    assert "Traceback" not in around.err.getvalue()


def test_a_dead_endpoint_is_3(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the discard port: nobody listens
    around = surroundings()
    assert run(["report", "--group", GROUP, "--out", str(tmp_path / "r")], around) == 3
    assert "does not answer" in around.err.getvalue()


@set_initial_no_auth_action_count(0)
def test_refused_credentials_are_3(aws, tmp_path):
    around = surroundings()
    assert run(["report", "--group", GROUP, "--out", str(tmp_path / "r")], around) == 3
    assert "refused our credentials" in around.err.getvalue()


def an_environment(*lines, at_ms=1_795_500_000_000):
    """The cold rows of a report on one environment's lines."""
    stream = "2026/11/24/[7]" + "0" * 32
    return fold(LogEvent(at_ms + n, at_ms + n, GROUP, stream, f"{n}", line) for n, line in enumerate(lines))


INIT_START = "INIT_START Runtime Version: python:3.12.v1\tRuntime Version ARN: arn:aws:lambda:x\n"
PROVISIONED_INIT = "INIT_REPORT Init Duration: 400.00 ms\tPhase: init\tStatus: success\n"
RETRIED_INIT = "INIT_REPORT Init Duration: 400.00 ms\tPhase: invoke\tStatus: success\n"
JSON_INIT = json.dumps({"type": "platform.initStart", "record": {"initializationType": "provisioned-concurrency"}})
IN_2024_MS = 1_714_000_000_000


def cold_report(billed):
    return (
        f"REPORT RequestId: {request_id(1)}\tDuration: 9.50 ms\tBilled Duration: {billed} ms\tMemory Size: 512 MB\t"
        "Max Memory Used: 90 MB\tInit Duration: 400.00 ms\t\n"
    )


WARM_REPORT = cold_report(10).replace("Init Duration: 400.00 ms\t", "").replace(request_id(1), request_id(2))


@pytest.mark.parametrize(
    ("ledger", "init_type", "cold"),
    [
        pytest.param(an_environment(INIT_START, cold_report(410), WARM_REPORT), "on-demand", 1, id="on-demand"),
        pytest.param(
            an_environment(INIT_START, PROVISIONED_INIT, WARM_REPORT),
            "provisioned-concurrency",
            0,
            id="by-its-init-line",
        ),
        pytest.param(an_environment(cold_report(10), WARM_REPORT), "provisioned-concurrency", 0, id="by-its-bill"),
        pytest.param(an_environment(JSON_INIT, cold_report(410)), "provisioned-concurrency", 0, id="by-its-json"),
        pytest.param(
            an_environment(cold_report(10), WARM_REPORT, at_ms=IN_2024_MS), "on-demand", 1, id="init-was-free-in-2024"
        ),
        pytest.param(an_environment(RETRIED_INIT, cold_report(410)), "on-demand", 1, id="a-retried-init-is-none"),
    ],
)
def test_provisioned_environments_are_told_apart_and_nobody_waited_for_their_init(ledger, init_type, cold):
    made = summarise(ledger, asked(NOW))
    assert [(row.init_type, row.cold) for row in made.cold_by] == [(init_type, cold)]
    assert made.cold.count == cold
    assert ledger.invocations.occupied_ms[0] == 9.5 + 400 * cold


def asked(start):
    return Request(source="here", groups=[GROUP], start=start, end=NOW)


def test_an_environment_made_for_one_tenant_is_paid_for_once():
    start = '{"type":"platform.start","record":{"requestId":"%s","version":"$LATEST","tenantId":"key-a"}}'
    ledger = an_environment(INIT_START, start % "a", cold_report(410), start % "b", WARM_REPORT)
    bill = summarise(ledger, asked(NOW)).cost
    assert bill.tenants == pytest.approx(0.5 * 0.000166667)
    assert bill.total == pytest.approx(bill.duration + bill.requests + bill.gateway + bill.logs + bill.tenants)
    assert "tenants' environments" not in bill.left_out
    without = summarise(an_environment(INIT_START, cold_report(410), WARM_REPORT), asked(NOW)).cost
    assert (without.tenants, "tenants' environments" in without.left_out) == (0.0, True)


def test_what_ran_on_provisioned_environments_has_their_price():
    ledger = an_environment(INIT_START, PROVISIONED_INIT, WARM_REPORT)
    bill = summarise(ledger, asked(NOW)).cost
    # 10 ms at 512 MB: 0.005 GB-s at $0.0000097222, where on demand it is $0.0000166667
    assert (bill.duration, bill.provisioned) == (0.0, pytest.approx(0.005 * 0.0000097222))
    assert bill.billed_gb_seconds == pytest.approx(0.005)
    assert {"idle provisioned", "SnapStart cache"} < set(bill.left_out)


def test_what_is_kept_is_paid_when_it_is_told():
    """Two environments of 512 MB for an hour; one version's cache for the three hours that are its least."""
    ledger = an_environment(INIT_START, PROVISIONED_INIT, WARM_REPORT)
    kept = Kept(provisioned=2, snapstart_versions=1)
    bill = summarise(ledger, asked(NOW - timedelta(hours=1)), Bill(kept=kept)).cost
    assert bill.provisioned == pytest.approx(2 * 0.5 * 3600 * 0.0000041667 + 0.005 * 0.0000097222)
    assert bill.snapstart == pytest.approx(0.5 * 3 * 3600 * 0.0000015046)
    assert not {"idle provisioned", "SnapStart cache"} & set(bill.left_out)
