"""The page of a run in a real browser: nothing missing, nothing loaded, readable in light and dark and on a phone."""

import sys
from pathlib import Path
from typing import Any

import pytest
from browser import Look, needs_chromium, open_page

from load.report import write_reports
from load.rows import RowWriter, write_run

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from load_rows import record, row

pytestmark = needs_chromium

MEASURE = """({
    overflow: document.documentElement.scrollWidth - innerWidth,
    plots: [...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect()).map(r => [r.width, r.height]),
    tables: document.querySelectorAll('table').length,
    verdicts: [...document.querySelectorAll("table:first-of-type .verdict")].slice(0, 2)
        .map(verdict => verdict.getBoundingClientRect().right),
    ink: getComputedStyle(document.body).color,
    paper: getComputedStyle(document.body).backgroundColor,
    axis: getComputedStyle(document.querySelector('svg text')).fill,
    text: document.body.innerText,
})"""


def write_page(directory: Path) -> Path:
    """A run with everything a page can show: warm, cold, failed, a long reason and two stages."""
    cold: dict[str, Any] = {"cold": True, "invocation": 1, "server_timing": {"init": 700.0}, "latency_ms": 900.0}
    error = "RuntimeError: " + "a rather long sentence " * 12
    given = [row(i, stage="burst", environment_id=f"e{i}", **cold) for i in range(5)]
    given += [row(i, latency_ms=5.0 + i % 40, scenario="numpy" if i % 2 else "print") for i in range(5, 190)]
    given += [row(i, outcome="tool_error", error=error, lambda_request_id="r-1") for i in range(190, 200)]
    writer = RowWriter(directory / "requests.jsonl")
    for one in given:
        writer.write(one)
    writer.close()
    lines = ["p99.9(latency{cold:false}) < 800ms", "p95(latency{stage:steady,scenario:numpy,cold:false}) < 2s"]
    write_run(directory / "run.json", record(200, plan={"thresholds": lines}))
    write_reports(directory)
    return directory / "report.html"


def luminance(colour: str) -> float:
    """Relative luminance of rgb(...), WCAG 2.2."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("width", "dark"),
    [
        pytest.param(1200, False, id="light"),
        pytest.param(1200, True, id="dark"),
        pytest.param(390, True, id="phone"),
    ],
)
def test_the_page(tmp_path: Path, width: int, dark: bool) -> None:
    path = write_page(tmp_path)
    look = open_page(path.as_uri(), tmp_path, width=width, dark=dark, script=MEASURE)
    (tmp_path / "page.png").write_bytes(look.png)
    assert look.complaints == []
    assert look.requests == [path.as_uri()], "the page is one file and asks for nothing"
    found = look.value
    assert found["overflow"] <= 0, "the page as a whole does not scroll sideways"
    assert (len(found["plots"]), found["tables"]) == (5, 5)
    assert max(found["verdicts"]) <= width, "what became of a threshold is seen without scrolling"
    # 44rem: below that the labels of a plot 10 inches wide cannot be read
    assert all(shown >= 700 and high > 200 for shown, high in found["plots"])
    assert (luminance(found["paper"]) < 0.1) == dark
    assert contrast(found["ink"], found["paper"]) >= 7
    assert contrast(found["axis"], found["paper"]) >= 7
    assert "p99.9(latency{cold:false}) < 800ms" in found["text"]


def test_a_broken_page_is_seen_as_one(tmp_path: Path) -> None:
    path = tmp_path / "broken.html"
    path.write_text("<body><img src='missing.png'><script>nothing.there</script><p style='width:2000px'>wide</p>")
    look: Look = open_page(path.as_uri(), tmp_path, width=390, script="document.documentElement.scrollWidth")
    assert len(look.requests) == 2
    assert any("Uncaught" in complaint for complaint in look.complaints)
    assert any("ERR_FILE_NOT_FOUND" in complaint for complaint in look.complaints)
    assert look.value > 390
