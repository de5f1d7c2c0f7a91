"""Given an end of an invocation, these are Lambda's lines for it, in the shapes of real ones."""

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ops import records
from sam.local import logs
from sam.local.logs import Frames, Lines, LogEvent, LogWriter, Report

TEXT = logs.Platform("Text", "f", "arn:aws:lambda:eu-central-1:111122223333:function:f", "eu-central-1", "stream", 256)
JSON = logs.Platform("JSON", "f", "arn:aws:lambda:eu-central-1:111122223333:function:f", "eu-central-1", "stream", 256)
ID = "11111111-2222-4333-8444-555555555555"
NOW = 1791444627.768  # 2026-10-08T07:30:27.768Z


@pytest.mark.parametrize(
    ("report", "line"),
    [
        pytest.param(
            Report(ID, 771.53, 256, 89, init_ms=505.79),
            f"REPORT RequestId: {ID}\tDuration: 771.53 ms\tBilled Duration: 1278 ms\tMemory Size: 256 MB\t"
            "Max Memory Used: 89 MB\tInit Duration: 505.79 ms\t\n",
            id="cold",
        ),
        pytest.param(
            Report(ID, 425.30, 256, 89),
            f"REPORT RequestId: {ID}\tDuration: 425.30 ms\tBilled Duration: 426 ms\tMemory Size: 256 MB\t"
            "Max Memory Used: 89 MB\t\n",
            id="warm",
        ),
        pytest.param(
            Report(ID, 180000.0, 192, 192, status="timeout"),
            f"REPORT RequestId: {ID}\tDuration: 180000.00 ms\tBilled Duration: 180000 ms\tMemory Size: 192 MB\t"
            "Max Memory Used: 192 MB\tStatus: timeout\n",
            id="timeout",
        ),
        pytest.param(
            Report(ID, 1.0, 192, 192, status="error", error_type="Runtime.OutOfMemory"),
            f"REPORT RequestId: {ID}\tDuration: 1.00 ms\tBilled Duration: 1 ms\tMemory Size: 192 MB\t"
            "Max Memory Used: 192 MB\tStatus: error\tError Type: Runtime.OutOfMemory\n",
            id="out-of-memory",
        ),
    ],
)
def test_a_report_reads_as_a_real_one(report: Report, line: str):
    assert logs.end_and_report(TEXT, NOW, report) == [f"END RequestId: {ID}\n", line]


def test_json_lines_are_those_of_a_real_cold_call():
    start, report = logs.start(JSON, NOW, ID), Report(ID, 1233.96, 256, 123, init_ms=463.512)
    assert json.loads(start[0]) == {
        "time": "2026-10-08T07:30:27.768Z",
        "type": "platform.start",
        "record": {"requestId": ID, "functionArn": JSON.function_arn, "version": "$LATEST"},
    }
    assert logs.end_and_report(JSON, NOW, report) == [
        '{"time":"2026-10-08T07:30:27.768Z","type":"platform.report","record":{"requestId":"' + ID + '",'
        '"metrics":{"durationMs":1233.96,"billedDurationMs":1698,"memorySizeMB":256,"maxMemoryUsedMB":123,'
        '"initDurationMs":463.512},"status":"success"}}'
    ]


def test_json_init_start_has_the_keys_of_a_real_one():
    record = json.loads(logs.init_start(JSON, NOW)[0])["record"]
    assert set(record) == {
        "initializationType", "phase", "runtimeVersion", "runtimeVersionArn", "functionName", "functionVersion",
        "instanceId", "instanceMaxMemory",
    }  # fmt: skip
    assert record["instanceMaxMemory"] == 256 * 1024 * 1024


def test_other_lines_read_as_real_ones():
    assert re.fullmatch(
        r"INIT_START Runtime Version: python:3\.12\.\S+\t"
        r"Runtime Version ARN: arn:aws:lambda:\S+::runtime:[0-9a-f]{64}\n",
        logs.init_start(TEXT, NOW)[0],
    )
    assert logs.timed_out(TEXT, NOW, ID, 31) == [
        f"2026-10-08T07:30:27.768Z {ID} Task timed out after 31.00 seconds\n\n"
    ]
    assert logs.exit_error(TEXT, ID, "exit status 1", "Runtime.ExitError") == [
        f"RequestId: {ID} Error: Runtime exited with error: exit status 1\nRuntime.ExitError\n"
    ]
    assert logs.init_report(TEXT, NOW, 101.82, "error", "Runtime.ImportModuleError") == [
        "INIT_REPORT Init Duration: 101.82 ms\tPhase: init\tStatus: error\tError Type: Runtime.ImportModuleError\n"
    ]


TRACE = logs.Trace("1-5e34a614-10bdxmplf1fb44f07bc535a1", "07f5xmpl2d1f6f85")


def test_a_traced_report_names_its_trace_in_both_formats():
    report = Report(ID, 15.74, 128, 56, init_ms=130.49, trace=TRACE)
    assert logs.end_and_report(TEXT, NOW, report)[1] == (
        f"REPORT RequestId: {ID}\tDuration: 15.74 ms\tBilled Duration: 147 ms\tMemory Size: 128 MB\t"
        "Max Memory Used: 56 MB\tInit Duration: 130.49 ms\t\n"
        f"XRAY TraceId: {TRACE.root}\tSegmentId: {TRACE.segment}\tSampled: true\t\n"
    )
    (line,) = logs.end_and_report(JSON, NOW, report)
    read = records.parse(line)
    assert isinstance(read, records.Report)
    assert (read.trace_id, read.segment_id, read.sampled) == (TRACE.root, TRACE.segment, "true")


def test_a_restored_report_is_that_of_a_real_one():
    report = Report(ID, 147.156, 512, 91, restore_ms=52.3)
    record = json.loads(logs.end_and_report(JSON, NOW, report)[0])["record"]
    assert record["metrics"] == {
        "durationMs": 147.156, "billedDurationMs": 201, "memorySizeMB": 512, "maxMemoryUsedMB": 91,
        "restoreDurationMs": 52.3, "billedRestoreDurationMs": 53,
    }  # fmt: skip
    assert (
        "\tRestore Duration: 52.30 ms\tBilled Restore Duration: 53 ms\t\n" in logs.end_and_report(TEXT, NOW, report)[1]
    )


def test_an_init_that_was_provisioned_is_told_and_not_billed():
    report = Report(ID, 10.0, 512, 91, init_ms=500.0, init_is_billed=False)
    assert "Billed Duration: 10 ms" in logs.end_and_report(TEXT, NOW, report)[1]


@pytest.mark.parametrize(
    ("level", "kinds"),
    [
        pytest.param(
            "DEBUG", ["initStart", "initReport", "start", "runtimeDone", "report", "runtimeDone", "report"], id="debug"
        ),
        pytest.param("INFO", ["initStart", "start", "report", "report"], id="info"),
        pytest.param("WARN", ["report"], id="warn"),
    ],
)
def test_the_system_log_level_decides_which_lines_there_are(level: str, kinds: list[str]):
    platform = replace(JSON, system_level=level)
    lines = [
        *logs.init_start(platform, NOW),
        *logs.init_report(platform, NOW, 1.0, "success"),
        *logs.start(platform, NOW, ID),
        *logs.end_and_report(platform, NOW, Report(ID, 1.0, 128, 56)),
        *logs.end_and_report(platform, NOW, Report(ID, 1.0, 128, 56, status="timeout")),
    ]
    assert [json.loads(line)["type"].removeprefix("platform.") for line in lines] == kinds


def test_lines_of_a_tenant_name_it():
    platform = replace(JSON, tenant="ann")
    lines = [*logs.start(platform, NOW, ID), *logs.end_and_report(platform, NOW, Report(ID, 1.0, 128, 56))]
    assert [json.loads(line)["record"]["tenantId"] for line in lines] == ["ann", "ann"]


def frame(message: str, millis: int = 5, kind: int = 0xA55A0003) -> bytes:
    data = message.encode()
    return struct.pack(">IIQ", kind, len(data), millis * 1000) + data


@pytest.mark.parametrize("size", [pytest.param(n, id=f"in-{n}s") for n in (1, 7, 16, 1000)])
def test_frames_come_whole_however_the_pipe_cuts_them(size: int):
    data = frame("one\ntwo", 5) + frame("", 6) + frame("é", 7)
    frames = Frames()
    seen = [event for at in range(0, len(data), size) for event in frames.feed(data[at : at + size])]
    assert seen == [(5, "one\ntwo"), (6, ""), (7, "é")]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"a program found the descriptor", id="text"),
        pytest.param(struct.pack(">IIQ", 0xA55A0003, 1 << 31, 0), id="an-endless-frame"),
    ],
)
def test_bytes_that_are_no_frame_are_refused(data: bytes):
    with pytest.raises(ValueError, match="not a telemetry frame"):
        list(Frames().feed(data))


def test_lines_of_output_are_events_and_a_line_without_end_waits():
    lines = Lines()
    assert lines.feed(b"one\ntw") == ["one\n"]
    assert lines.feed("o é\n\n".encode()) == ["two é\n", "\n"]
    assert lines.feed(b"rest") == []
    assert (lines.flush(), lines.flush()) == (["rest"], [])


def test_an_endless_line_is_cut():
    lines = Lines()
    pieces = lines.feed(b"x" * (Lines.longest + 10))
    assert [len(piece) for piece in pieces] == [Lines.longest]
    assert lines.flush() == ["x" * 10]


def test_the_writer_delivers_in_order_by_stream_and_before_flush_returns():
    seen: list[tuple[str, list[str]]] = []

    def deliver(group: str, stream: str, events: Sequence[LogEvent]) -> None:
        assert group == "g"
        seen.append((stream, [event.message for event in events]))

    writer = LogWriter(deliver)
    for stream, millis, message in (("a", 2, "second"), ("a", 1, "first"), ("b", 1, "other")):
        writer.put(LogEvent("g", stream, millis, message))
    writer.flush()
    flat = [(stream, message) for stream, messages in seen for message in messages]
    assert sorted(flat) == [("a", "first"), ("a", "second"), ("b", "other")]
    writer.put(LogEvent("g", "a", 3, "last"))
    writer.close()
    assert seen[-1] == ("a", ["last"])
