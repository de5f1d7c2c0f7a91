"""Writes junit.xml, the form CI systems read: warnings pass with their text in system-out, skips keep their reason."""

import re
from pathlib import Path
from xml.etree import ElementTree

from conformance.records import CheckRecord, read_checks
from conformance.report.results import read_run
from conformance.report.standing import Standing, by_standing, standing

# XML 1.0 allows no control characters but tab, newline and return; a hostile body may hold any.
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(out: Path) -> Path:
    """Writes `out`/junit.xml and returns its path."""
    run, checks = read_run(out), list(read_checks(out / "checks.jsonl"))
    groups = by_standing(run, checks)
    suite = ElementTree.Element(
        "testsuite",
        name="conformance",
        tests=str(len(checks)),
        failures=str(len(groups["failed"]) + len(groups["stale"])),
        errors=str(len(groups["error"])),
        skipped=str(len(groups["skipped"])),
        time=f"{run.duration_s:.2f}",
        timestamp=run.started,
    )
    for check in checks:
        suite.append(_case(check, standing(run, check)))
    path = out / "junit.xml"
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)
    return path


def _case(check: CheckRecord, how: Standing) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase", classname=check.part, name=_clean(check.id), time=f"{check.duration_ms / 1000:.3f}"
    )
    if how == "skipped":
        ElementTree.SubElement(case, "skipped", message=_clean(check.message))
    elif how == "error":
        ElementTree.SubElement(case, "error", message=_clean(check.message))
    elif how in ("failed", "stale"):
        told = check.message or "It passes now; take it out of the baseline."
        failure = ElementTree.SubElement(case, "failure", message=_clean(told), type=check.level)
        failure.text = _clean(_detail(check))
    elif how in ("warning", "known"):
        told = f"{'known failure, ' if how == 'known' else ''}{check.level}: {check.message}\n{_detail(check)}"
        ElementTree.SubElement(case, "system-out").text = _clean(told)
    return case


def _detail(check: CheckRecord) -> str:
    lines = [f"{one}: {source}" for one, source in zip(check.requirements, check.sources, strict=True)]
    lines += [f"expected: {check.expected}", f"got: {check.got}"]
    for exchange in check.exchanges:
        lines += [str(exchange.get("request")), f"-> {exchange.get('status', exchange.get('error'))}"]
    return "\n".join(lines)


def _clean(text: str) -> str:
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
