"""Given the same log events, the report by Logs Insights and the one from pulled events agree, figure by figure."""

import io
import json
import math
import random
from datetime import UTC, datetime

import botocore.exceptions
import pytest
from insights_engine import Insights

from ops import command, insights, summary
from ops.__main__ import run
from ops.command import Surroundings
from ops.failures import Inconclusive, OpsError
from ops.invocations import fold
from ops.logs import LogEvent, Pace

GROUP = "/aws/lambda/code-interpreter"
START, END = datetime(2026, 11, 24, 5, tzinfo=UTC), datetime(2026, 11, 24, 6, tzinfo=UTC)
START_MS, END_MS = (int(t.timestamp() * 1000) for t in (START, END))
PACE = Pace(rate=1e9, sleep=lambda _: None)


def text_invocation(request_id, f):
    """The lines of one invocation in text, failing as `f["failure"]` says."""
    status = {"timeout": "Status: timeout", "oom": "Status: error\tError Type: Runtime.OutOfMemory"}
    status |= {"killed": "Status: error\tError Type: Runtime.ExitError", "exception": f["exception_status"] or ""}
    if f["exception_status"] is None:
        status = {}
    cold = f"Init Duration: {f['init']:.2f} ms\t" if f["init"] else ""
    cold += f"Restore Duration: {f['restore']:.2f} ms\tBilled Restore Duration: 9 ms\t" if f["restore"] else ""
    yield f"START RequestId: {request_id} Version: {f['version']}\n"
    if f["failure"] == "timeout":
        yield f"2026-11-24T05:00:00.000Z {request_id} Task timed out after 3.00 seconds\n\n"
    if f["failure"] == "exception":
        yield "[ERROR] ValueError: boom\rTraceback (most recent call last):\r"
    if f["failure"] == "killed" or (f["failure"] == "oom" and not status):
        yield f"RequestId: {request_id} Error: Runtime exited with error: signal: killed Runtime.ExitError"
    yield f"END RequestId: {request_id}\n"
    yield (
        f"REPORT RequestId: {request_id}\tDuration: {f['duration']:.2f} ms\tBilled Duration: {f['billed']} ms\t"
        f"Memory Size: {f['size']} MB\tMax Memory Used: {f['used']} MB\t{cold}{status.get(f['failure'], '')}\n"
    )


def json_invocation(request_id, f):
    """The same in JSON."""
    tenant = {"tenantId": "key-a"} if f["version"] == "7" else {}
    start = {"requestId": request_id, "version": f["version"]} | tenant
    yield json.dumps({"type": "platform.start", "record": start})
    if f["failure"] == "exception":
        yield json.dumps({"level": "ERROR", "errorType": "ValueError", "errorMessage": "x", "requestId": request_id})
    metrics = {"durationMs": f["duration"], "billedDurationMs": f["billed"], "memorySizeMB": f["size"]}
    metrics |= {"maxMemoryUsedMB": f["used"]} | ({"initDurationMs": f["init"]} if f["init"] else {})
    metrics |= {"restoreDurationMs": f["restore"], "billedRestoreDurationMs": 9} if f["restore"] else {}
    status = {None: "success", "timeout": "timeout"}.get(f["failure"], "error")
    kinds = {"oom": "Runtime.OutOfMemory", "killed": "Runtime.ExitError"}
    record = {"requestId": request_id, "metrics": metrics, "status": status} | tenant
    record |= {"errorType": kinds[f["failure"]]} if f["failure"] in kinds else {}
    yield json.dumps({"type": "platform.report", "record": record})


def call_record(drawn, request_id):
    blocked = drawn.random() < 0.1
    record = {"message": "tool call", "tool": "execute_python", "requestId": request_id, "outcome": "ok"}
    if blocked:
        record |= {"outcome": "error", "error_type": "security", "violations": ["os.system", "os.fork"]}
    key = drawn.choice([None, "key-a", "key-b"])
    return json.dumps(record | {"api_key_id": key, "wall_ms": drawn.uniform(1, 50), "cpu_ms": drawn.uniform(1, 40)})


def an_hour(write, count=1000, exception_status="", seed=1):
    """Invocations of two versions at two sizes, some cold or restored, some failing, each with its call record."""
    drawn, provisioned = random.Random(seed), set()
    failures = [None] * 94 + ["timeout", "oom", "killed", "exception", "exception", None]
    for n in range(count):
        request_id, version = f"{n:08x}-2222-4333-8444-555555555555", drawn.choice(["7", "8", "9"])
        failure, cold, size = drawn.choice(failures), drawn.random() < 0.02, 1024 if version == "7" else 512
        f = {"failure": failure, "version": version, "size": size, "exception_status": exception_status}
        f["duration"] = 3000.0 if failure == "timeout" else round(drawn.lognormvariate(4, 0.5), 2)
        f["init"] = round(drawn.uniform(300, 900), 2) if cold and version == "7" else None
        f["restore"] = round(drawn.uniform(100, 200), 2) if cold and version == "8" else None
        f["billed"] = math.ceil(f["duration"] + (f["init"] or 0))
        if version == "9":  # on provisioned environments, whose INIT was before anybody called and is not billed
            f |= {"init": None if n % 20 in provisioned else 700.0, "billed": math.ceil(f["duration"])}
            provisioned.add(n % 20)
        f["used"] = size if failure in ("oom", "killed") else drawn.randint(90, 300)
        stream = f"2026/11/24/[{version}]{n % 20:032x}"
        at = START_MS + n * 1000 + drawn.randrange(500)
        *before, report = write(request_id, f)
        for k, message in enumerate([*before, call_record(drawn, request_id), report]):
            yield LogEvent(at + k, at + k, GROUP, stream, f"{n}-{k}", message)


def both(events):
    """The two summaries of the same events, as plain data."""
    events = list(events)
    range_asked = summary.Request(source="here", groups=[GROUP], start=START, end=END)
    in_range = [e for e in events if START_MS <= e.timestamp_ms < END_MS]
    client = Insights(events)
    answers = {name: insights.ask(client, [GROUP], START_MS, END_MS, name, PACE) for name in insights.QUERIES}
    pulled, asked = summary.summarise(fold(in_range), range_asked), insights.summarise(answers, range_asked)
    return pulled.model_dump(), asked.model_dump()


def without_quantiles(d):
    return {name: (part["n"], part["max"]) for name, part in d.items()}


@pytest.mark.parametrize(
    ("write", "exception_status"),
    [
        pytest.param(json_invocation, "", id="json"),
        pytest.param(text_invocation, None, id="text-of-2023-without-status"),
        pytest.param(text_invocation, "", id="text-with-status-but-of-exceptions"),
        pytest.param(text_invocation, "Status: error\tError Type: ValueError", id="text-with-status"),
    ],
)
def test_the_two_ways_agree(write, exception_status):
    pulled, asked = both(an_hour(write, exception_status=exception_status))
    assert pulled["failures"]["error"]["count"] > 5
    same = ("range", "invocations", "failures", "unfinished", "failed_inits", "cold", "cold_by", "blocked_operations")
    assert {name: asked[name] for name in same} == {name: pulled[name] for name in same}
    assert without_quantiles(asked["duration_ms"]) == without_quantiles(pulled["duration_ms"])
    for name in ("tools", "failures", "callers"):
        assert sorted(asked["calls"][name], key=str) == sorted(pulled["calls"][name], key=str)
    assert asked["concurrency"]["environments"] == pulled["concurrency"]["environments"]
    assert asked["cost"].pop("left_out") == pulled["cost"].pop("left_out")
    assert pulled["cost"]["provisioned"] > 0
    assert asked["cost"] == pytest.approx(pulled["cost"])
    assert (pulled["cost"]["tenants"] > 0) == (write is json_invocation)
    for row, other in zip(asked["memory"], pulled["memory"], strict=True):
        assert {**row, "p95_used_mb": 0} == {**other, "p95_used_mb": 0}
        assert row["p95_used_mb"] == pytest.approx(other["p95_used_mb"], rel=0.02)


@pytest.mark.parametrize("part", ["all", "warm", "cold incl. init"])
def test_percentiles_lie_within_the_pulled_reports_interval(part):
    pulled, asked = both(an_hour(json_invocation))
    for mine, theirs in zip(
        asked["duration_ms"][part]["quantiles"], pulled["duration_ms"][part]["quantiles"], strict=True
    ):
        assert (mine["name"], mine["refused"]) == (theirs["name"], theirs["refused"])
        if theirs["value"] is not None:
            assert theirs["low"] <= mine["value"] <= (theirs["high"] or math.inf)


@pytest.mark.parametrize(
    ("early_ms", "problems"),
    [
        pytest.param(10, 1, id="in-the-invocation"),
        pytest.param(60, 1, id="and-its-report-written-late"),
        pytest.param(500, 2, id="in-one-before"),
    ],
)
def test_an_exceptions_line_is_of_the_invocation_that_it_was_written_in(early_ms, problems):
    """A line without an id, so long before the REPORT of an invocation of 20 ms that failed."""
    line = "[ERROR] ValueError: boom"
    report = "REPORT RequestId: r\tDuration: 20.00 ms\tBilled Duration: 20 ms\tMemory Size: 256 MB\t"
    report += "Max Memory Used: 90 MB\tStatus: error\tError Type: ValueError"
    rows = [{"at": str(at), "stream": "s", "message": text} for at, text in ((9000 - early_ms, line), (9000, report))]
    assert len({problem.request_id for problem in insights.problems_of(rows)}) == problems


def test_milliseconds_at_the_edges_of_the_range_are_kept():
    line = (
        "REPORT RequestId: r{}\tDuration: 1.00 ms\tBilled Duration: 1 ms\tMemory Size: 512 MB\tMax Memory Used: 90 MB\t"
    )
    times = (START_MS - 1, START_MS, END_MS - 1, END_MS)
    pulled, asked = both(LogEvent(at, at, GROUP, "s", f"{at}", line.format(at)) for at in times)
    assert asked["invocations"] == pulled["invocations"] == 2


def test_an_empty_range_is_none_of_everything():
    pulled, asked = both([])
    assert asked["invocations"] == pulled["invocations"] == 0
    assert asked["duration_ms"]["all"]["max"] is None


def report_of(client, folder, monkeypatch, *argv):
    monkeypatch.setattr(command, "logs_client", lambda account: client)
    monkeypatch.setattr(insights, "_POLL_S", 0.0)
    around = Surroundings(lambda: END, UTC, out=io.StringIO(), err=io.StringIO())
    argv = ["report", "--insights", "--group", GROUP, "--since", "1h", "--out", str(folder), *argv]
    return run([*argv, "--endpoint-url", "http://127.0.0.1:1"], around), around


def test_the_command_writes_rows_first_and_makes_the_report_again_from_them(tmp_path, monkeypatch):
    client = Insights(an_hour(text_invocation, count=300))
    code, around = report_of(client, tmp_path, monkeypatch)
    assert code == 0, around.err.getvalue()
    assert "without intervals" in around.out.getvalue()
    first = (tmp_path / "summary.json").read_bytes()
    again = Surroundings(lambda: END, UTC, out=io.StringIO(), err=io.StringIO())
    assert run(["report", "--from", str(tmp_path)], again) == 0
    assert (tmp_path / "summary.json").read_bytes() == first
    assert len(client.started) == len(insights.QUERIES)


def test_a_run_that_was_cut_short_is_told_and_not_reported(tmp_path, monkeypatch):
    assert report_of(Insights(an_hour(text_invocation, count=300)), tmp_path, monkeypatch)[0] == 0
    rows = tmp_path / "insights.jsonl"
    rows.write_text(rows.read_text()[:-10])
    again = Surroundings(lambda: END, UTC, out=io.StringIO(), err=io.StringIO())
    assert run(["report", "--from", str(tmp_path)], again) == 2
    assert "lacks the queries violations: it was cut short" in again.err.getvalue()


def test_nothing_there_is_inconclusive(tmp_path, monkeypatch):
    assert report_of(Insights([]), tmp_path, monkeypatch)[0] == 4


def test_a_comparison_is_refused(tmp_path, monkeypatch):
    assert report_of(Insights([]), tmp_path, monkeypatch, "--compare", "2h..1h")[0] == 2


def test_a_failed_query_is_told():
    with pytest.raises(OpsError, match="ended as Timeout"):
        insights.ask(Insights([], ("Running", "Timeout")), [GROUP], START_MS, END_MS, "all", PACE)


def test_an_answer_cut_at_its_limit_is_no_answer(monkeypatch):
    monkeypatch.setattr(insights, "MOST_ROWS", 3)
    with pytest.raises(Inconclusive, match="cut the answer"):
        insights.ask(Insights(an_hour(text_invocation, 300)), [GROUP], START_MS, END_MS, "signs", PACE)


def refusing(code, times):
    """A client whose StartQuery is refused `times` times."""
    client = Insights([])
    start, left = client.start_query, [times]

    def refused(**request):
        left[0] -= 1
        if left[0] >= 0:
            raise botocore.exceptions.ClientError({"Error": {"Code": code, "Message": "no"}}, "StartQuery")
        return start(**request)

    client.start_query = refused
    return client


def test_too_many_queries_at_once_are_waited_for():
    client = refusing("LimitExceededException", 2)
    insights.ask(client, [GROUP], START_MS, END_MS, "all", Pace(rate=1e9, sleep=lambda _: None))
    assert len(client.started) == 1


def test_where_there_is_no_insights_it_is_said(tmp_path, monkeypatch):
    code, around = report_of(refusing("UnknownOperationException", 9), tmp_path, monkeypatch)
    assert code == 2
    assert "leave out --insights" in around.err.getvalue()


def test_ctrl_c_stops_the_query():
    client = Insights([], ("Running",))

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        insights.ask(client, [GROUP], START_MS, END_MS, "all", Pace(rate=1e9, sleep=interrupt))
    assert client.stopped == ["0"]
