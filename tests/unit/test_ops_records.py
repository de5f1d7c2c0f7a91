"""Given any line Lambda is known to write, the parser names it and reads it; anything else it keeps as text."""

import json
import re
from pathlib import Path

import pytest

from ops import records

LINES = json.loads((Path(__file__).parents[1] / "data" / "lambda-log-lines.json").read_text(encoding="utf-8"))

KINDS = {
    "initStart": records.InitStart,
    "start": records.Start,
    "report": records.Report,
    "timeout": records.TimedOut,
    "exitError": records.ExitError,
    "initReport": records.InitReport,
    "restoreStart": records.RestoreStart,
    "restoreReport": records.RestoreReport,
    "runtimeDone": records.RuntimeDone,
    "text": records.Text,
}
ATTRIBUTES = {
    "billedDurationMs": "billed_ms",
    "initDurationMs": "init_ms",
    "restoreDurationMs": "restore_ms",
    "maxMemoryUsedMB": "max_memory_used_mb",
    "seconds": "after_s",
}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", lambda m: "_" + m[1].lower(), name)


def _attribute(name: str, record: object) -> str:
    if name == "durationMs" and isinstance(record, records.InitReport):
        return "init_ms"
    if name == "durationMs" and isinstance(record, records.RestoreReport):
        return "restore_ms"
    return ATTRIBUTES.get(name, _snake(name))


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=f"{n:02}-{c['kind']}-{c['note'][:24]}") for n, c in enumerate(LINES)]
)
def test_a_known_line_is_named_and_its_figures_read(case):
    record = records.parse(case["line"])
    assert type(record) is KINDS[case["kind"]]
    for name, expected in case["expect"].items():
        value = getattr(record, _attribute(name, record))
        assert value == (float(expected) if isinstance(value, float) else expected)


ID = "11111111-2222-4333-8444-555555555555"
HEAD = f"REPORT RequestId: {ID}\t"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(f"END RequestId: {ID}\n", records.End(ID), id="end"),
        pytest.param(
            f"{HEAD}Duration: 3 ms\tBilled Duration: 4 ms\tMemory Size: 128 MB\tMax Memory Used: 40 MB\t\n",
            records.Report(ID, 3.0, 4.0, 128.0, 40.0),
            id="numbers-without-decimals",
        ),
        pytest.param(
            f"{HEAD}Duration: 9.00 ms\tBilled Duration: 62 ms\tMemory Size: 512 MB\tMax Memory Used: 173 MB"
            "\tRestore Duration: 398.97 ms\tBilled Restore Duration: 182 ms\t\n",
            records.Report(ID, 9.0, 62.0, 512.0, 173.0, restore_ms=398.97, billed_restore_ms=182.0),
            id="snapstart",
        ),
        pytest.param(
            f"REPORT RequestId: {ID}\tDuration: 5.00 ms\tBilled Duration: 5 ms\tMemory Size: 10240 MB\t"
            "Max Memory Used: 10239 MB\tInit Duration: 551.73 ms\tStatus: error\tError Type: Runtime.OutOfMemory",
            records.Report(ID, 5.0, 5.0, 10240.0, 10239.0, 551.73, status="error", error_type="Runtime.OutOfMemory"),
            id="out-of-memory",
        ),
        pytest.param(
            f"REPORT RequestId: {ID}\tNew Field: 1 s\tMax Memory Used: 40 MB\tDuration: 3.5 ms\tStatus: timeout\n",
            records.Report(ID, 3.5, None, None, 40.0, status="timeout"),
            id="fields-moved-and-added",
        ),
        pytest.param(
            f"RequestId: {ID} Error: Runtime exited with error: signal: killed\nRuntime.ExitError",
            records.ExitError(ID, "signal: killed", "Runtime.ExitError"),
            id="killed",
        ),
        pytest.param(
            "INIT_REPORT Init Duration: 101.82 ms\tPhase: invoke\tStatus: error\tError Type: Runtime.Import\n",
            records.InitReport(101.82, "invoke", "error", "Runtime.Import"),
            id="failed-init",
        ),
        pytest.param(
            f"[WARNING]\t2026-11-24T06:15:00.123Z\t{ID}\tslow\n",
            records.Text(f"[WARNING]\t2026-11-24T06:15:00.123Z\t{ID}\tslow\n", "WARNING", ID),
            id="python-logger-text",
        ),
        pytest.param(
            '{"type":"platform.report","record":{"requestId":"r","metrics":{"durationMs":7.5},"status":"timeout"}}',
            records.Report("r", 7.5, None, None, None, status="timeout"),
            id="managed-instances-duration-only",
        ),
        pytest.param(
            '{"type":"platform.report","record":{"requestId":"r","metrics":{"durationMs":1,"billedDurationMs":201,'
            '"memorySizeMB":512,"maxMemoryUsedMB":91,"restoreDurationMs":500.795,"billedRestoreDurationMs":53},'
            '"tracing":{"type":"X-Amzn-Trace-Id","value":"Root=1-a;Parent=b;Sampled=1"}}}',
            records.Report("r", 1.0, 201.0, 512.0, 91.0, None, 500.795, 53.0, None, None, "1-a", "b", "true"),
            id="json-snapstart-traced",
        ),
    ],
)
def test_each_variant_is_read_whole(line, expected):
    assert records.parse(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("", id="empty"),
        pytest.param("{not json", id="broken-json"),
        pytest.param('{"time":"2026-10-08T07:30:29.470Z","type":"platform.rep', id="cut-json"),
        pytest.param("[1, 2]", id="json-list"),
        pytest.param("REPORT RequestId: x\tnothing else", id="cut-report"),
        pytest.param("REPORT RequestId: x\tDuration: soon ms\t", id="report-without-a-number"),
        pytest.param("INIT_REPORT who knows", id="cut-init-report"),
        pytest.param("计算结果: 5\n", id="print"),
    ],
)
def test_a_line_of_no_known_shape_is_kept_as_it_came(line):
    assert records.parse(line) == records.Text(line)


def test_a_platform_event_of_unknown_type_or_shape_is_kept():
    assert records.parse('{"type":"platform.fault","record":{"a":1}}') == records.Platform("platform.fault", {"a": 1})
    assert isinstance(records.parse('{"type":"platform.report","record":{"metrics":{}}}'), records.Platform)


@pytest.mark.parametrize(
    ("line", "message", "request_id", "error_type"),
    [
        pytest.param(
            '{"timestamp":"t","level":"INFO","message":"hello","logger":"root","requestId":"r1"}',
            "hello", "r1", None, id="awslambdaric",
        ),
        pytest.param(
            '{"timestamp":"t","level":"ERROR","errorMessage":"boom","errorType":"ValueError","requestId":"r1"}',
            "boom", "r1", "ValueError", id="uncaught",
        ),
        pytest.param(
            '{"level":"ERROR","message":{"a":1},"service":"pay","function_request_id":"r2","exception_name":"KeyError"}',
            '{"a": 1}', "r2", "KeyError", id="powertools",
        ),
    ],
)  # fmt: skip
def test_the_functions_own_json_is_read_by_the_usual_keys(line, message, request_id, error_type):
    record = records.parse(line)
    assert isinstance(record, records.Logged)
    assert (record.message, record.request_id, record.error_type) == (message, request_id, error_type)
    assert record.fields == json.loads(line)


def test_the_cheap_path_and_the_parser_agree():
    for case in LINES:
        if case["kind"] == "report" and not case["line"].startswith("{"):
            fields = records.report_fields(case["line"])
            assert fields is not None
            assert records.parse(case["line"]).duration_ms == float(fields[1])
