"""The one page: `index.html`, made from the rows alone, readable without a network."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import jinja2

from check.steps import Step
from check.verdict import Row


def write(
    directory: Path, *, endpoint: str, verdict: str, started: datetime, rows: Sequence[Row], steps: Sequence[Step]
) -> Path:
    """Write `directory/index.html` and return its path."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = environment.get_template("page.html.j2").render(
        endpoint=endpoint, verdict=verdict, started=started.strftime("%Y-%m-%d %H:%M:%S %Z"), rows=rows, steps=steps
    )
    path = directory / "index.html"
    path.write_text(text, encoding="utf-8")
    return path
