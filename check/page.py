"""The one page: `index.html`, made from the rows alone, readable without a network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import jinja2

from check.steps import Step
from check.verdict import Row


def write(
    directory: Path,
    *,
    endpoint: str,
    verdict: str,
    started: datetime,
    rows: Sequence[Row],
    steps: Sequence[Step],
    problem: str = "",
) -> Path:
    """Write `directory/index.html` and return its path. `problem` is why the run could not be finished."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = environment.get_template("page.html.j2").render(
        endpoint=endpoint,
        verdict=verdict,
        started=started.strftime("%Y-%m-%d %H:%M:%S %Z"),
        took=lasted(sum(step.seconds for step in steps)),
        rows=rows,
        steps=steps,
        problem=problem,
    )
    path = directory / "index.html"
    path.write_text(text, encoding="utf-8")
    return path


def lasted(seconds: float) -> str:
    whole, rest = divmod(round(seconds), 60)
    return f"{whole} min {rest} s" if whole else f"{rest} s"


def point(latest: Path, page: Path) -> None:
    """Write `latest`, which leads to `page`; a link by its relative path, for who does not let pages move on."""
    to = html.escape(page.relative_to(latest.parent).as_posix())
    latest.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>The newest check</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<style>:root { color-scheme: light dark; font: 1rem system-ui, sans-serif }\n"
        "body { background: #fff; color: #1b1f24 } a { color: inherit }\n"
        "@media screen and (prefers-color-scheme: dark) { body { background: #0d1117; color: #e6edf3 } }</style>\n"
        f'<meta http-equiv="refresh" content="0; url={to}"></head>\n'
        f'<body><main><h1>The newest check</h1><p><a href="{to}">{to}</a></p></main></body></html>\n',
        encoding="utf-8",
    )
