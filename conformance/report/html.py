"""Writes report.html: the whole run on one page that needs nothing from the network and runs no script."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from conformance.catalogue import load
from conformance.records import CheckRecord, RunRecord, read_checks
from conformance.report.moment import moment
from conformance.report.results import read_run, security_summary
from conformance.report.standing import WORDS, by_standing

OPEN = ("failed", "error", "stale")


def write(out: Path) -> Path:
    """Writes `out`/report.html and returns its path."""
    path = out / "report.html"
    page = render(read_run(out), list(read_checks(out / "checks.jsonl")))
    path.write_text(page, encoding="utf-8", errors="replace")
    return path


def render(run: RunRecord, checks: list[CheckRecord]) -> str:
    """The page. Everything an endpoint said is escaped by the template engine."""
    loader = FileSystemLoader(Path(__file__).parent)
    templates = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    templates.filters["moment"] = moment
    return templates.get_template("report.html.jinja").render(
        run=run,
        words=WORDS,
        open=OPEN,
        groups=by_standing(run, checks),
        security=security_summary(checks),
        catalogue=load(),
    )
