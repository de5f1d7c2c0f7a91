"""Puts an open page through axe-core and looks for what a phone cannot show; skips where npm cannot give axe."""

from pathlib import Path

from browser import Page
from npm_packages import installed

ROOT = Path(__file__).parents[2]
SOURCES = Path(__file__).parent / "axe"
INSTALLED = ROOT / ".tools" / "axe"
TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
# Frames are left out: the console's hold what hostile code wrote, and nothing may run in them, axe neither.
CHECK = """axe.run(document, {runOnly: %s, iframes: false, resultTypes: ['violations']}).then(found =>
    found.violations.flatMap(one => one.nodes.map(node => `${one.id}: ${node.target} ${node.failureSummary}`)))"""
# What is wider than the page and is not inside a box of its own that scrolls.
OVERFLOW = """(() => {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return [];
    return [...document.querySelectorAll('body *')].filter(node => node.getBoundingClientRect().right > width + 1)
        .map(node => node.outerHTML.slice(0, 80)).slice(0, 5).concat('the page scrolls sideways');
})()"""


def violations(page: Page) -> list[str]:
    """Every WCAG 2.x A and AA rule, and every good practice of axe, that an element of the page breaks."""
    source = (installed(SOURCES, INSTALLED).parent / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    page.run(f"{source};null")
    found = page.run(CHECK % list(TAGS))
    assert isinstance(found, list)
    return found


def overflow(page: Page) -> list[str]:
    """What makes the page scroll sideways."""
    found = page.run(OVERFLOW)
    assert isinstance(found, list)
    return found
