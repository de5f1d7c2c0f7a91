"""The log join finds every REPORT in either format, across pages and late, and tells the two signals apart."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from load_rows import record, row

from load.call_log import NoLog
from load.rows import Row, RowWriter, write_run
from load.server_side import ServerCall, fetch_calls, join, join_directory, parse_report
from load.settings import SettingsError

GROUP = "/aws/lambda/f"


def report_line(request_id: str, init_ms: float | None = None) -> str:
    line = (
        f"REPORT RequestId: {request_id}\tDuration: 12.34 ms\tBilled Duration: 13 ms\t"
        f"Memory Size: 1024 MB\tMax Memory Used: 97 MB\t"
    )
    return line + (f"Init Duration: {init_ms} ms\t\n" if init_ms is not None else "\n")


def report_event(request_id: str, **metrics: float) -> str:
    known = {"durationMs": 12.34, "billedDurationMs": 13, "memorySizeMB": 1024, "maxMemoryUsedMB": 97}
    record = {"requestId": request_id, "metrics": {**known, **metrics}, "status": "success"}
    return json.dumps({"time": "2026-11-24T06:00:00.000Z", "type": "platform.report", "record": record})


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(report_line("r1"), ServerCall("r1", 12.34, 13, None, None, 97), id="text-warm"),
        pytest.param(report_line("r1", 812.5), ServerCall("r1", 12.34, 13, 812.5, None, 97), id="text-cold"),
        pytest.param(
            "REPORT RequestId: r1\tDuration: 2 ms\tRestore Duration: 301.1 ms\tBilled Restore Duration: 400 ms\n",
            ServerCall("r1", 2, None, None, 301.1, None),
            id="text-restored",
        ),
        pytest.param(report_event("r1"), ServerCall("r1", 12.34, 13, None, None, 97), id="json-warm"),
        pytest.param(
            report_event("r1", initDurationMs=812.5), ServerCall("r1", 12.34, 13, 812.5, None, 97), id="json-cold"
        ),
        pytest.param("START RequestId: r1 Version: $LATEST\n", None, id="start"),
        pytest.param("END RequestId: r1\n", None, id="end"),
        pytest.param("INIT_REPORT Init Duration: 9999 ms\tPhase: init\tStatus: timeout\n", None, id="init-report"),
        pytest.param("REPORT RequestId: r1\tDuration: none\n", None, id="no-duration"),
        pytest.param('{"type": "platform.report", "record": 3}', None, id="json-of-another-shape"),
        pytest.param('said "platform.report" in a print', None, id="a-program's-own-words"),
        pytest.param("", None, id="empty"),
    ],
)
def test_reading_reports(message: str, expected: ServerCall | None) -> None:
    assert parse_report(message) == expected


class NotFound(Exception):
    pass


@dataclass
class Exceptions:
    ResourceNotFoundException: type[Exception] = NotFound


@dataclass
class FakeLogs:
    """Pages by token; a list of pages for each round of asking, the last round repeated."""

    rounds: list[list[list[str]]]
    repeat_last_token: bool = False
    fails: Exception | None = None
    asked: int = 0
    exceptions: Exceptions = field(default_factory=Exceptions)

    def filter_log_events(self, **request: Any) -> dict[str, Any]:
        if self.fails:
            raise self.fails
        number = int(request.get("nextToken", "0"))
        if number == 0:
            self.asked += 1
        pages = self.rounds[min(self.asked, len(self.rounds)) - 1]
        page: dict[str, Any] = {"events": [{"timestamp": 1, "message": message} for message in pages[number]]}
        if number + 1 < len(pages):
            page["nextToken"] = str(number + 1)
        elif self.repeat_last_token and number:
            page["nextToken"] = str(number)
        return page


@dataclass
class Clock:
    time_s: float = 0.0

    def now(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.time_s += seconds


def fetch(logs: FakeLogs, wanted: set[str], wait_s: float = 90) -> tuple[set[str], float]:
    clock = Clock()
    calls = fetch_calls(logs, GROUP, 0, 1, wanted, wait_s, clock.now, clock.sleep)  # type: ignore[arg-type]
    return set(calls), clock.time_s


def test_an_empty_page_is_not_the_end() -> None:
    logs = FakeLogs([[[report_line("a")], [], [], [report_line("b")]]])
    assert fetch(logs, {"a", "b"}) == ({"a", "b"}, 0)


def test_a_repeated_token_is_the_end() -> None:
    logs = FakeLogs([[[report_line("a")], [report_line("b")]]], repeat_last_token=True)
    assert fetch(logs, {"a", "b"}) == ({"a", "b"}, 0)


def test_late_lines_are_waited_for() -> None:
    logs = FakeLogs([[[report_line("a")]], [[report_line("a")]], [[report_line("a"), report_line("b")]]])
    assert fetch(logs, {"a", "b"}) == ({"a", "b"}, 10)


def test_waiting_ends() -> None:
    found, waited_s = fetch(FakeLogs([[[report_line("a")]]]), {"a", "b"}, wait_s=12)
    assert found == {"a"}
    assert 12 <= waited_s < 13


def test_other_calls_are_left_out() -> None:
    assert fetch(FakeLogs([[[report_line("a"), report_line("z")]]]), {"a"}) == ({"a"}, 0)


def test_a_missing_group_is_a_setting_and_a_refusal_is_not() -> None:
    with pytest.raises(SettingsError, match=GROUP):
        fetch(FakeLogs([], fails=NotFound()), {"a"})
    refused = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "FilterLogEvents")
    with pytest.raises(NoLog, match="AccessDenied"):
        fetch(FakeLogs([], fails=refused), {"a"})


def call(request_id: str, init_ms: float | None = None) -> ServerCall:
    return ServerCall(request_id, 8.0, 9.0, init_ms, None, 90.0)


def calls_of(rows: list[Row], **inits: float) -> dict[str, ServerCall]:
    ids = [one.lambda_request_id or "" for one in rows]
    return {request_id: call(request_id, inits.get(request_id)) for request_id in ids}


ROWS = [row(i, lambda_request_id=f"r{i}", cold=i == 0, latency_ms=708.5 if i == 0 else 10.5) for i in range(10)]


def test_both_signals_agree() -> None:
    report = join(ROWS, calls_of(ROWS, r0=690.0), GROUP)
    assert (report.verdict, report.exit_code, report.cold_by_both) == ("agreed", 0, 1)
    assert report.beyond_ms is not None
    # 708 ms of service less 8 of duration and 690 of init; 10 less 8
    assert (report.beyond_ms.max, report.beyond_ms.min) == (10, 2)


@pytest.mark.parametrize(
    ("inits", "header_only", "log_only"),
    [
        pytest.param({}, ["r0"], [], id="no-init-in-the-log"),
        pytest.param({"r0": 690.0, "r3": 700.0}, [], ["r3"], id="an-init-the-header-denies"),
    ],
)
def test_disagreement_is_told(inits: dict[str, float], header_only: list[str], log_only: list[str]) -> None:
    report = join(ROWS, calls_of(ROWS, **inits), GROUP)
    assert (report.verdict, report.exit_code) == ("disagreed", 1)
    assert (report.header_only, report.log_only) == (header_only, log_only)


def test_missing_lines_are_inconclusive() -> None:
    known = calls_of(ROWS, r0=690.0)
    del known["r5"]
    report = join(ROWS, known, GROUP)
    assert (report.verdict, report.exit_code, report.missing) == ("inconclusive", 4, 1)


def test_a_run_without_request_ids_is_inconclusive() -> None:
    report = join([row(0)], {}, GROUP)
    assert (report.verdict, report.exit_code) == ("inconclusive", 4)


def test_the_join_is_written_beside_the_rows(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "requests.jsonl")
    for one in ROWS:
        writer.write(one)
    writer.close()
    write_run(tmp_path / "run.json", record(10))
    lines = [report_line(f"r{i}", 690.0 if i == 0 else None) for i in range(10)]
    join_directory(tmp_path, GROUP, 1, FakeLogs([[lines]]))  # type: ignore[arg-type]
    assert len((tmp_path / "server.jsonl").read_text().splitlines()) == 10
    assert json.loads((tmp_path / "server.json").read_text())["verdict"] == "agreed"
