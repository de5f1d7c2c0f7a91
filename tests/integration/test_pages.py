"""Every page that a run leaves, made from recorded data and opened in headless Chromium on a phone and at a desk.

It reads well in light and dark: axe has nothing to say, nothing scrolls sideways but boxes of its own, nothing is
asked of a network, nothing complains. Pages broken in just those ways are seen as broken.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from accessibility import overflow, violations
from browser import DEADLINE_S, Browser, browser, needs_chromium
from test_load_page import luminance
from test_load_page import write_page as load_page

from check import page as check_page
from check.steps import Step
from check.verdict import Row
from conformance.records import Baseline, CheckRecord, RunRecord, SecurityVerdict
from conformance.report import html, scorecard
from ops.__main__ import run as ops

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from test_ops_report import GROUP, a_bad_hour, event_line

pytestmark = needs_chromium

ENDPOINT = "https://abcdefghij.execute-api.eu-central-1.amazonaws.com/a-stage-with-a-long-name/lambda/mcp/"
LONG = "a sentence that goes on for a while, " * 8 + "x" * 200
EXCHANGE = {
    "request": f"curl -sX POST {ENDPOINT} -d '{LONG}'",
    "status": 200,
    "headers": ["Content-Type: text/event-stream", f"X-Long: {LONG}"],
    "body": f"event: message\ndata: {LONG}",
}
PROGRAMS = [
    ("attack", "process", "BLOCKED"), ("attack", "process", "LEAKED"), ("attack", "native", "CRASHED"),
    ("attack", "filesystem-and-the-libraries", "CONTAINED"), ("persistence", "persistence", "CONTAINED"),
    ("benign", "bait", "REFUSED"), ("benign", "benign", "OK"), ("resource", "resource", "LATE"),
]  # fmt: skip


def conformance_records(directory: Path) -> Path:
    """A run with a check of every standing, long texts, and programs of every verdict."""
    run = RunRecord(
        endpoint=ENDPOINT, profile="lambda", started="2026-11-24T06:00:00+00:00", duration_s=12.5, exit_code=1,
        verdict="gate failed", strict=False, selection="all", retries=2,
        eras={"2025-11-25": "spoken", "2026-07-28": "not spoken: " + LONG},
        baseline=Baseline(file="baseline.yaml", expected=("protocol.known",), stale=("protocol.stale",)),
    )  # fmt: skip
    told = [
        CheckRecord(
            id=f"security.corpus.program[{group}-{number}]", part="security", message=LONG[:120],
            status="failed" if verdict in ("LEAKED", "CRASHED", "REFUSED", "LATE") else "passed",
            security=SecurityVerdict.model_validate(
                {"kind": kind, "group": group, "verdict": verdict, "program": f"{group}-{number}", "evidence": LONG,
                 "why": LONG[:150], "cwe": "CWE-78", "elapsed_ms": 900.0}
            ),
        )
        for number, (kind, group, verdict) in enumerate(PROGRAMS)
    ]  # fmt: skip
    statuses: Any = {"bad": "failed", "broke": "error", "known": "failed", "stale": "passed", "soft": "warning",
                     "good": "passed", "none": "skipped"}  # fmt: skip
    told += [
        CheckRecord(
            id=f"protocol.{name}", part="protocol", requirements=("T26-01",), sources=("basic/transports.mdx",),
            status=status, message=LONG, expected="400", got=LONG, exchanges=(EXCHANGE,),
        )
        for name, status in statuses.items()
    ]  # fmt: skip
    (directory / "run.json").write_text(run.model_dump_json())
    (directory / "checks.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in told))
    return directory


def conformance_page(directory: Path) -> Path:
    return html.write(conformance_records(directory))


def scorecard_page(directory: Path) -> Path:
    return scorecard.write_html(conformance_records(directory))


def ops_page(directory: Path) -> Path:
    (directory / "events.jsonl").write_text("".join(event_line(event) for event in a_bad_hour()))
    asked = {"source": "AWS", "groups": [GROUP], "start": "2026-11-24T05:15:00Z", "end": "2026-11-24T06:15:00Z"}
    (directory / "request.json").write_text(json.dumps(asked))
    assert ops(["report", "--from", str(directory)]) == 0
    return directory / "report.html"


ROWS = [
    Row(
        "protocol",
        "pass",
        "239 passed, 0 failed, 3 warnings",
        (("report.html", "a/report.html"), ("terminal.txt", "a/t")),
    ),
    Row("load", "inconclusive", LONG, (("report.html", "b/report.html"),)),
    Row("security", "fail", "1 leaked"),
    Row("confinement", "not run", "the endpoint did not say"),
]


def check_page_of(directory: Path) -> Path:
    steps = [
        Step(name, f"python -m {name} {ENDPOINT}", code, 31.4, directory)
        for name, code in (("conformance", 1), ("load", 4), ("coldstart", 0))
    ]
    started = datetime(2026, 11, 24, 6, tzinfo=UTC)
    return check_page.write(
        directory, endpoint=ENDPOINT, verdict="gate failed", started=started, rows=ROWS, steps=steps, problem=LONG
    )


def newest_page(directory: Path) -> Path:
    """`out/index.html`, which moves on to the page of the newest check, kept from moving."""
    (directory / "check-1").mkdir()
    path = directory / "index.html"
    check_page.point(path, check_page_of(directory / "check-1"))
    whole = path.read_text()
    path.with_name("moving.html").write_text(whole)
    path.write_text(whole.replace('http-equiv="refresh"', ""))
    return path


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


def faults(chromium: Browser, path: Path, width: int, dark: bool, media: str = "screen") -> list[str]:
    """Whatever is wrong with the page as shown, with everything that folds opened; its picture is kept beside it."""
    page = chromium.page(path.as_uri(), width=width, dark=dark, media=media)
    page.run("document.querySelectorAll('details').forEach(one => { one.open = true })")
    picture = f"{path.stem}-{width}-{'dark' if dark else 'light'}-{media}.png"
    (path.parent / picture).write_bytes(page.picture())
    beyond = [url for url in page.look.requests if not url.startswith(("file:", "data:"))]
    paper = luminance(page.run("getComputedStyle(document.body).backgroundColor"))
    night = [] if (paper < 0.1) == (dark and media == "screen") else [f"the paper has luminance {paper:.2f}"]
    found = violations(page) + overflow(page) + beyond + page.look.complaints + night
    page.close()
    return found


PAGES = [
    pytest.param(make, id=name)
    for name, make in {
        "check": check_page_of,
        "newest": newest_page,
        "conformance": conformance_page,
        "scorecard": scorecard_page,
        "load": load_page,
        "ops": ops_page,
    }.items()
]
VIEWS = [
    (390, False, "screen"),
    (390, True, "screen"),
    (1280, False, "screen"),
    (1280, True, "screen"),
    (718, True, "print"),
]


@pytest.mark.parametrize("make", PAGES)
def test_the_page_reads_well(chromium: Browser, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    found = {view: faults(chromium, path, *view) for view in VIEWS}
    assert found == {view: [] for view in VIEWS}


def test_the_newest_page_moves_on(chromium: Browser, tmp_path: Path) -> None:
    newest_page(tmp_path)
    page = chromium.page((tmp_path / "moving.html").as_uri())
    deadline = time.monotonic() + DEADLINE_S
    while not page.look.requests[-1].endswith("/check-1/index.html"):
        assert time.monotonic() < deadline
        with contextlib.suppress(AssertionError):  # asked while the page moves, Chromium refuses to answer
            page.run("document.title")


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        pytest.param(("--dim: #57606a", "--dim: #b0b7bf"), "color-contrast", id="pale-text"),
        pytest.param(('<html lang="en">', "<html>"), "html-has-lang", id="no-language"),
        pytest.param(("<h1>", "<img src='data:,'><h1>"), "image-alt", id="a-picture-without-words"),
        pytest.param(("<h1>", "<label>name</label><input><h1>"), "label", id="a-field-without-a-label"),
        pytest.param(("<h1>", "<p style='width: 50rem'>wide</p><h1>"), "scrolls sideways", id="a-wide-thing"),
        pytest.param(
            ("<h1>", "<img alt='' src='http://127.0.0.1:9/x.png'><h1>"), "http://127.0.0.1:9/", id="a-request"
        ),
        pytest.param(("<h1>", "<script>nothing.here</script><h1>"), "Uncaught", id="a-complaint"),
        pytest.param(("prefers-color-scheme: dark", "min-width: 1px"), "luminance 0.0", id="dark-by-day"),
    ],
)
def test_a_broken_page_is_seen_as_one(chromium: Browser, tmp_path: Path, broken: tuple[str, str], told: str) -> None:
    path = check_page_of(tmp_path)
    whole = path.read_text()
    assert broken[0] in whole
    path.write_text(whole.replace(*broken, 1))
    assert any(told in fault for fault in faults(chromium, path, 390, dark=False))
