"""The report a person reads: failures first, each with its requirement, source, request and answer, then the counts."""

import re
from collections.abc import Iterator
from pathlib import Path

from conformance.records import CheckRecord, RunRecord, count, read_checks
from conformance.report.moment import moment
from conformance.report.results import read_run, security_summary
from conformance.report.standing import Standing, by_standing

SHOWN_EXCHANGES = 2
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
MARKS: dict[Standing, tuple[str, str]] = {
    "failed": ("FAIL", "31"),
    "error": ("ERROR", "35"),
    "stale": ("STALE", "31"),
    "warning": ("WARN", "33"),
}


def render(out: Path, *, colour: bool) -> str:
    """The text of a run, from its files. With `colour`, ANSI colours."""
    run, checks = read_run(out), list(read_checks(out / "checks.jsonl"))
    lines: list[str] = []
    groups = by_standing(run, checks)
    for name in MARKS:
        for check in groups[name]:
            lines += [*_finding(check, name, colour), ""]
    lines += [_printable(f"known failure {check.id}: {check.message}") for check in groups["known"]]
    lines += _skips(checks)
    lines += _security(checks)
    lines += _summary(run, checks, out, colour)
    return "\n".join(lines)


def _paint(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text


def _finding(check: CheckRecord, name: Standing, colour: bool) -> Iterator[str]:
    mark, code = MARKS[name]
    yield f"{_paint(mark, code, colour)} {check.id}  [{check.level}]"
    yield from map(_printable, _told(check))


def _printable(text: str) -> str:
    """Text of an endpoint without what a terminal would obey: colours, cursor moves, titles."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def _told(check: CheckRecord) -> Iterator[str]:
    yield f"  {check.message or 'It passes now; take it out of the baseline (--baseline-update does).'}"
    for one, source in zip(check.requirements, check.sources, strict=True):
        yield f"  {one}: {source}"
    if check.expected:
        yield f"  expected: {check.expected[:300]}"
    shown = " ".join(check.got.split())
    answers = [" ".join(str(exchange.get("body", "")).split()) for exchange in check.exchanges[-SHOWN_EXCHANGES:]]
    if shown and not any(answer.startswith(shown[:200]) for answer in answers):  # the answer is below already
        yield f"  got:      {shown[:500]}"
    for exchange in check.exchanges[-SHOWN_EXCHANGES:]:
        yield f"  $ {str(exchange.get('request'))[:900]}"
        body = " ".join(str(exchange.get("body", "")).split())
        yield f"    -> {exchange.get('status', exchange.get('error'))} {body[:400]}"


def _next(groups: dict[Standing, list[CheckRecord]], out: Path) -> Iterator[str]:
    """What a person does now, where there is something to do."""
    if groups["failed"]:
        yield (
            f"next: mend what failed ({len(groups['failed'])}; more of each in {out / 'report.html'}), or accept it: "
            "--baseline FILE --baseline-update"
        )
    if groups["error"]:
        yield f"next: checks that broke ({len(groups['error'])}) are bugs of the suite; please report them with {out}"
    if groups["stale"]:
        yield f"next: known failures that pass now ({len(groups['stale'])}) are taken out by --baseline-update"


def _skips(checks: list[CheckRecord]) -> list[str]:
    reasons: dict[str, int] = {}
    for check in checks:
        if check.status == "skipped":
            reasons[check.message] = reasons.get(check.message, 0) + 1
    return [_printable(f"skipped {number}: {reason}") for reason, number in reasons.items()]


def _security(checks: list[CheckRecord]) -> list[str]:
    summary = security_summary(checks)
    classes, benign = summary["classes"], summary["benign"]
    assert isinstance(classes, dict)
    assert isinstance(benign, dict)
    lines = []
    if classes:
        width = max(map(len, classes))
        lines += ["", "security by effect:"]
        for name, verdicts in classes.items():
            told = "  ".join(f"{verdict} {number}" for verdict, number in sorted(verdicts.items()))
            lines.append(f"  {name:<{width}}  {told}")
    if benign["programs"]:
        lines.append(f"  benign programs refused: {len(benign['false_positives'])} of {benign['programs']}")
    return lines


def _summary(run: RunRecord, checks: list[CheckRecord], out: Path, colour: bool) -> Iterator[str]:
    yield ""
    for era, state in run.eras.items():
        yield _printable(f"{era}: {state}")
    for level in ("MUST", "SHOULD", "derived"):
        counted = count(check for check in checks if check.level == level)
        told = ", ".join(f"{number} {status}" for status, number in counted.items() if number)
        if told:
            yield f"{level:<8}{told}"
    yield f"{run.endpoint}  profile {run.profile}  {moment(run.started)}  {run.duration_s:.1f} s"
    if run.retries:
        yield f"retries: {run.retries} (connections that were not made, or a cold endpoint)"
    if run.baseline:
        found = run.baseline
        yield (
            f"baseline {found.file}: {len(found.expected)} known failures, {len(found.unexpected)} new, "
            f"{len(found.stale)} stale"
        )
        seen = {check.id for check in checks}
        yield from (f"  stale, no check has this name: {one}" for one in found.stale if one not in seen)
    yield f"records and reports: {out}"
    yield from _next(by_standing(run, checks), out)
    yield f"verdict: {_paint(run.verdict, '32' if run.exit_code == 0 else '31', colour)}"
