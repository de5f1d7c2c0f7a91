"""Writes badge.svg: the verdict on one line, for a README. It must look the same wherever it is shown."""

from html import escape
from pathlib import Path

from conformance import exits
from conformance.records import RunRecord, count, read_checks
from conformance.report.results import read_run

LABEL = "MCP conformance"
COLOURS = {exits.PASS: "#2e7d32", exits.GATE_FAILED: "#c62828"}
OTHER = "#9a6700"
# Widths of 11 px Verdana differ by letter; the mean of lower case and digits keeps every verdict inside its box.
LETTER_PX = 6.8
TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{label}: {value}">
<title>{label}: {value}</title>
<rect width="{left}" height="20" fill="#444"/><rect x="{left}" width="{right}" height="20" fill="{colour}"/>
<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="{left_middle}" y="14" textLength="{left_text}">{label}</text>
<text x="{right_middle}" y="14" textLength="{right_text}">{value}</text>
</g>
</svg>
"""


def write(out: Path) -> Path:
    """Writes `out`/badge.svg and returns its path."""
    path = out / "badge.svg"
    path.write_text(render(read_run(out), count(read_checks(out / "checks.jsonl"))), encoding="utf-8")
    return path


def render(run: RunRecord, counts: dict[str, int]) -> str:
    """The badge: passed of judged, or the verdict where that says more."""
    judged = sum(counts[status] for status in ("passed", "warning", "failed", "error"))
    passed = counts["passed"] + counts["warning"]
    told = run.exit_code in (exits.PASS, exits.GATE_FAILED) and judged > 0
    value = f"{passed}/{judged}" if told else run.verdict.partition(":")[0]
    left_text, right_text = (round(len(text) * LETTER_PX) for text in (LABEL, value))
    left, right = left_text + 12, right_text + 12
    return TEMPLATE.format(
        label=escape(LABEL), value=escape(value), colour=COLOURS.get(run.exit_code, OTHER),
        left=left, right=right, width=left + right, left_text=left_text, right_text=right_text,
        left_middle=left / 2, right_middle=left + right / 2,
    )  # fmt: skip
