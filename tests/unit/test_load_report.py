"""Reports say what the raw rows say, in every format, and can be made again from the files alone."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from load_rows import record, row, rows
from rich.console import Console

from load.coldstart import COLD_STAGE, WARM_STAGE, cold_start_plan, cold_start_report, print_cold_starts
from load.page import page
from load.report import markdown, print_summary, write_reports
from load.rows import BadRecord, Row, RowWriter, RunRecord, read_rows, write_run
from load.server_side import ServerCall, join
from load.summary import summarize

MIXED: list[Row] = [
    row(0, latency_ms=900, cold=True, invocation=1, environment_id="e1", server_timing={"init": 700.0, "exec": 4}),
    row(1, latency_ms=950, cold=True, invocation=1, environment_id="e2", server_timing={"init": 720.0}),
    *(row(i, latency_ms=float(i), scenario="numpy" if i % 2 else "print") for i in range(2, 90)),
    row(90, latency_ms=3, outcome="tool_error", error="RuntimeError: <b>no</b> | numpy", lambda_request_id="r-90"),
    row(91, latency_ms=3, outcome="tool_error", error="RuntimeError: <b>no</b> | numpy", lambda_request_id="r-91"),
    row(92, latency_ms=5000, outcome="timeout", status=None, cold=None, environment_id=None, error="no answer"),
]


def write(directory: Path, given: list[Row], run: RunRecord | None = None) -> Path:
    writer = RowWriter(directory / "requests.jsonl")
    for one in given:
        writer.write(one)
    writer.close()
    write_run(directory / "run.json", run or record(len(given)))
    return directory


def test_rows_survive_their_file(tmp_path: Path) -> None:
    assert read_rows(write(tmp_path, MIXED)) == MIXED


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, MIXED) / "requests.jsonl"
    text = path.read_text()
    path.write_text(text + text[:70])
    assert read_rows(tmp_path) == MIXED


def keep_the_masters_record_alone(directory: Path) -> None:
    (directory / "requests.jsonl").unlink()
    write_run(directory / "run.json", record(role="master"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda d: (d / "requests.jsonl").unlink(), "holds no requests", id="no-rows-file"),
        pytest.param(lambda d: (d / "run.json").unlink(), "holds no run.json", id="no-run-record"),
        pytest.param(keep_the_masters_record_alone, "are where its workers ran; copy their", id="rows-elsewhere"),
        pytest.param(lambda d: (d / "run.json").write_text("{}"), "is not a run record", id="empty-run-record"),
        pytest.param(
            lambda d: (d / "requests.jsonl").write_text('{"x": 1}\n{"x": 2}\n'), "line 1, is not a row", id="other-rows"
        ),
    ],
)
def test_a_directory_that_is_no_run_is_named(tmp_path: Path, spoil: object, says: str) -> None:
    write(tmp_path, MIXED)
    spoil(tmp_path)  # type: ignore[operator]
    with pytest.raises(BadRecord, match=says):
        write_reports(tmp_path)


def test_counts_and_populations() -> None:
    summary = summarize(MIXED, [record(93)])
    counts = summary.counts
    assert (counts.arrivals, counts.ok, counts.errors, counts.cold, counts.warm) == (93, 90, 3, 2, 90)
    assert (counts.unknown_temperature, counts.environments) == (1, 3)
    groups = {(group.scenario, group.temperature): group for group in summary.groups}
    warm = groups["all", "warm"].latency_ms
    assert warm is not None
    # the two tool errors of 3 ms are not among the good answers 2..89
    assert (warm.n, warm.min, warm.p50, warm.max) == (88, 2, 45, 89)
    everything = groups["all", "all"].latency_ms
    assert everything is not None
    assert everything.max == 5000
    assert summary.cold_starts.init_ms is not None
    assert summary.cold_starts.init_ms.max == 720
    assert summary.errors[0].count == 2
    assert summary.errors[0].example_request_id == "r-90"
    assert (summary.verdict, summary.exit_code) == ("failed", 1)


def test_reports_are_remade_from_the_files_alone(tmp_path: Path) -> None:
    write(tmp_path, MIXED)
    first = write_reports(tmp_path)
    texts = {name: (tmp_path / name).read_text() for name in ("summary.json", "summary.md", "report.html")}
    for name in texts:
        (tmp_path / name).unlink()
    assert write_reports(tmp_path) == first
    assert {name: (tmp_path / name).read_text() for name in texts} == texts
    assert json.loads(texts["summary.json"])["schema"] == "load/1"


def test_an_interrupted_run_stays_interrupted_in_later_reports(tmp_path: Path) -> None:
    write(tmp_path, MIXED[:10], record(93, ended="interrupted", ended_s=1.0))
    assert write_reports(tmp_path).exit_code == 130


def test_markdown_escapes_what_would_break_its_table() -> None:
    text = markdown(summarize(MIXED, [record(93)]))
    line = next(line for line in text.splitlines() if "RuntimeError" in line)
    assert line.count("|") == 5
    assert "| all | warm | 90 | 2 | 45.0 |" in text


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        pytest.param("http://127.0.0.1:8000/dev/lambda/mcp/", True, id="here"),
        pytest.param("https://x.execute-api.eu-west-1.amazonaws.com/prod/lambda/mcp/", False, id="elsewhere"),
    ],
)
def test_an_endpoint_on_this_machine_is_told_as_one(endpoint: str, says: bool) -> None:
    summary = summarize(MIXED, [record(endpoint=endpoint)])
    assert ("The endpoint is on this machine" in markdown(summary)) == says
    assert ("The endpoint is on this machine" in page(summary, MIXED)) == says


def test_terminal_table_marks_what_the_sample_cannot_carry() -> None:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_summary(summarize(MIXED, [record(93)]), console)
    text = console.export_text()
    assert "~" in text
    assert "failed: 1 of 1 thresholds failed" in text
    assert "RuntimeError" in text


class Outline(HTMLParser):
    """Open tags must close; nothing may be fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not (value or "").startswith(("#", "data:")):
                self.fetched.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, MIXED)
    write_reports(tmp_path)
    text = (tmp_path / "report.html").read_text()
    outline = Outline()
    outline.feed(text)
    assert outline.open == []
    assert outline.fetched == []
    assert "script" not in outline.tags
    assert "b" not in outline.tags, "an error text became markup"
    assert len([tag for tag in outline.tags if tag == "svg"]) == 5
    assert "Cold starts: init against what the caller waited" in outline.headings
    assert "prefers-color-scheme: dark" in text


def test_plots_have_ids_of_their_own_and_refer_to_them(tmp_path: Path) -> None:
    """Inlined SVGs share one namespace: a marker of one plot must not be drawn with another's."""
    write(tmp_path, MIXED)
    write_reports(tmp_path)
    text = (tmp_path / "report.html").read_text()
    svgs = [piece[: piece.index("</svg>") + 6] for piece in text.split("<figure role")[1:]]
    seen: set[str] = set()
    for svg in svgs:
        root = ElementTree.fromstring(svg[svg.index("<svg") :])
        ids = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
        assert not ids & seen
        seen |= ids
        links = [value for element in root.iter() for name, value in element.attrib.items() if name.endswith("href")]
        clips = [element.attrib["clip-path"] for element in root.iter() if "clip-path" in element.attrib]
        referred = {link.removeprefix("#") for link in links if link.startswith("#")}
        referred |= {clip.removeprefix("url(#").removesuffix(")") for clip in clips}
        assert referred
        assert referred <= ids


def test_the_page_shows_the_log_join_when_there_is_one(tmp_path: Path) -> None:
    write(tmp_path, MIXED)
    write_reports(tmp_path)
    assert "own log" not in (tmp_path / "report.html").read_text()
    joined = join(MIXED, {"r-90": ServerCall("r-90", 2.0, 3.0, None, None, 90.0)}, "/aws/lambda/f")
    (tmp_path / "server.json").write_text(joined.to_json())
    write_reports(tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "By the function's own log" in text
    assert "1 of 2 calls have no REPORT" in text


def test_a_page_of_nothing_still_says_so(tmp_path: Path) -> None:
    write(tmp_path, [], record(0))
    summary = write_reports(tmp_path)
    assert (summary.verdict, summary.exit_code) == ("inconclusive", 4)
    assert "no request was sent" in (tmp_path / "report.html").read_text()


def cold_rows() -> list[Row]:
    cold = {"cold": True, "invocation": 1, "server_timing": {"init": 700.0}, "stage": COLD_STAGE}
    first = [row(i, latency_ms=2400.0 + i, environment_id=f"e{i}", **cold) for i in range(4)]
    return [*first, *(row(i, latency_ms=1600.0, environment_id=f"e{i}", stage=WARM_STAGE) for i in range(4, 8))]


def test_cold_start_report_tells_penalty_and_sharing() -> None:
    report = cold_start_report(cold_rows())
    assert (report.burst, report.confirmed, report.already_warm, report.shared) == (4, 4, 0, 0)
    assert report.first_call_penalty_ms == pytest.approx(801)
    shared = [*cold_rows(), row(9, environment_id="e0", stage=COLD_STAGE, latency_ms=1700.0)]
    found = cold_start_report(shared)
    assert (found.burst, found.confirmed, found.already_warm, found.shared) == (5, 4, 1, 1)


def test_cold_start_report_of_an_endpoint_without_headers() -> None:
    silent = [row(i, stage=COLD_STAGE, cold=None, invocation=None, environment_id=None) for i in range(3)]
    report = cold_start_report(silent)
    assert (report.confirmed, report.silent, report.first_call_penalty_ms) == (0, 3, None)
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_cold_starts(report, console)
    assert "cannot be told apart" in console.export_text()


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        pytest.param(cold_rows(), "passed", id="four-cold-in-four-environments"),
        pytest.param([*rows(4, stage=COLD_STAGE), *rows(4, stage=WARM_STAGE)], "inconclusive", id="all-warm"),
        pytest.param(
            [*cold_rows()[:3], row(3, stage=COLD_STAGE, environment_id="e0"), *cold_rows()[4:]],
            "inconclusive",
            id="a-narrow-burst",
        ),
        pytest.param(
            [*cold_rows()[:3], row(3, stage=COLD_STAGE, outcome="http_error", status=500), *cold_rows()[4:]],
            "failed",
            id="a-call-that-failed",
        ),
        pytest.param(
            [row(i, stage=COLD_STAGE, cold=None, environment_id=None) for i in range(4)],
            "inconclusive",
            id="no-headers",
        ),
    ],
)
def test_cold_start_gate(given: list[Row], verdict: str) -> None:
    numbered = [row_at(one, i) for i, one in enumerate(given)]
    run = record(len(given), plan={}).model_copy(update={"plan": cold_start_plan(4, 5, 1, "2025-11-25").model_dump()})
    assert summarize(numbered, [run]).verdict == verdict


def test_a_warm_pool_is_told_with_the_way_out() -> None:
    given = [*rows(4, stage=COLD_STAGE), *(row(i, stage=WARM_STAGE) for i in range(4, 8))]
    run = record(8).model_copy(update={"plan": cold_start_plan(4, 5, 1, "2025-11-25").model_dump()})
    summary = summarize(given, [run])
    assert summary.exit_code == 4
    assert "it was 0: the environments were warm already" in summary.reason
    assert "give an -n above" in summary.reason


def row_at(one: Row, index: int) -> Row:
    fields = {name: getattr(one, name) for name in Row.__slots__}
    return Row(**{**fields, "index": index})


def test_reports_and_gate_import_without_gevent() -> None:
    """Locust patches the standard library when imported; a process that reports must be left alone."""
    modules = "load.arrivals, load.gate, load.report, load.page, load.compare, load.coldstart, load.__main__"
    code = f"import sys, {modules}; sys.exit('gevent' in sys.modules or 'locust' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


STAIR = {"kind": "step", "name": "stair", "start_per_s": 5, "step_per_s": 5, "steps": 4, "step_s": 10}


@pytest.mark.parametrize(
    ("slow_from", "sent", "expected"),
    [
        pytest.param(15, 20, "stair: held 10/s, gave at 15/s (p95(latency) < 1s: 3000 ms)", id="gives"),
        pytest.param(5, 20, "stair: held nothing, gave at 5/s (p95(latency) < 1s: 3000 ms)", id="at-once"),
        pytest.param(99, 20, "stair: held up to 20/s, the last plateau that was sent", id="holds"),
        pytest.param(99, 10, "stair: held up to 10/s, the last plateau that was sent", id="cut-short"),
    ],
)
def test_a_staircase_says_where_it_gave(slow_from: int, sent: int, expected: str) -> None:
    rates = [rate for rate in (5, 10, 15, 20) if rate <= sent]
    found = [
        row(rate * 1000 + i, latency_ms=3000.0 if rate >= slow_from else 20.0, stage=f"stair@{rate}/s")
        for rate in rates
        for i in range(rate * 10)
    ]
    lines = ["count(requests) > 0", "p95(latency{stage:other}) < 1ms", "rate(errors) < 5%", "p95(latency) < 1s"]
    summary = summarize(found, [record(plan={"stages": [STAIR], "thresholds": lines})])
    assert [str(knee) for knee in summary.knees] == [expected]
    assert expected in markdown(summary)
    assert expected.replace("<", "&lt;") in page(summary, found, None)


def test_a_plan_without_stairs_has_no_knee() -> None:
    assert summarize(rows(100), [record()]).knees == []
