"""Every report a run leaves beside its records, by the file it goes to; each writer reads the run's files alone."""

from collections.abc import Callable
from pathlib import Path

from conformance.report import badge, html, junit, markdown, results, sarif, scorecard

WRITERS: dict[str, Callable[[Path], Path]] = {
    "report.json": results.write,
    "junit.xml": junit.write,
    "report.sarif": sarif.write,
    "summary.md": markdown.write,
    "report.html": html.write,
    "badge.svg": badge.write,
}


def write_all(out: Path) -> None:
    """Writes every report into `out`, from its run.json and checks.jsonl."""
    for write in WRITERS.values():
        write(out)
    scorecard.write_all(out)
