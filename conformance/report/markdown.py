"""Writes summary.md, the form a CI job's summary page shows: the verdict, the counts, then what needs a person."""

from html import escape
from pathlib import Path

from conformance.records import CheckRecord, RunRecord, read_checks
from conformance.report.results import read_run
from conformance.report.standing import WORDS, Standing, by_standing

# GitHub cuts a step summary at 1 MiB; the findings past this are in the other reports.
MOST_FINDINGS = 40
NEED_A_PERSON: tuple[Standing, ...] = ("failed", "error", "stale", "known", "warning")


def write(out: Path) -> Path:
    """Writes `out`/summary.md and returns its path."""
    path = out / "summary.md"
    path.write_text(render(read_run(out), list(read_checks(out / "checks.jsonl"))), encoding="utf-8")
    return path


def render(run: RunRecord, checks: list[CheckRecord]) -> str:
    """The summary as Markdown."""
    groups = by_standing(run, checks)
    lines = [
        f"## MCP conformance: {run.verdict}",
        "",
        f"`{_code(run.endpoint)}` · profile {run.profile} · {run.started} · {run.duration_s:.1f} s"
        + (f" · {run.retries} retries" if run.retries else ""),
        "",
        "| " + " | ".join(WORDS.values()) + " |",
        "|" + "---:|" * len(WORDS),
        "| " + " | ".join(str(len(group)) for group in groups.values()) + " |",
        "",
        *(f"- {era}: {_text(state)}" for era, state in run.eras.items()),
    ]
    if run.baseline:
        absent = [one for one in run.baseline.stale if all(one != check.id for check in checks)]
        lines += [f"- baseline {_text(run.baseline.file)}: {len(run.baseline.expected)} known failures"]
        lines += [f"- stale, no check has this name: `{_code(one)}`" for one in absent]
    told = 0
    for name in NEED_A_PERSON:
        for check in groups[name]:
            told += 1
            if told <= MOST_FINDINGS:
                lines += ["", *_finding(WORDS[name], check)]
    if told > MOST_FINDINGS:
        lines += ["", f"{told - MOST_FINDINGS} more findings are in report.html."]
    reasons = sorted({check.message for check in groups["skipped"]})
    if reasons:
        lines += ["", "<details><summary>Why checks were skipped</summary>", ""]
        lines += [f"- {_text(reason)}" for reason in reasons] + ["", "</details>"]
    return "\n".join(lines) + "\n"


def _finding(word: str, check: CheckRecord) -> list[str]:
    told = f": {escape(' '.join(check.message.split()))}" if check.message else ""
    lines = [f"<details><summary>{word}: <code>{escape(check.id)}</code> [{check.level}]{told}</summary>", ""]
    lines += [f"- {one}: {_text(source)}" for one, source in zip(check.requirements, check.sources, strict=True)]
    lines += [f"- expected: `{_code(check.expected[:300])}`"] if check.expected else []
    lines += [f"- got: `{_code(check.got[:300])}`"] if check.got else []
    for exchange in check.exchanges[-1:]:
        answer = f"-> {exchange.get('status', exchange.get('error'))} {str(exchange.get('body', ''))[:500]}"
        lines += ["", "```text", _fenced(str(exchange.get("request"))[:900]), _fenced(answer), "```"]
    return [*lines, "", "</details>"]


def _text(value: str) -> str:
    """Text of an endpoint as text: nothing in it may become markup."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("`", "&#96;")):
        value = value.replace(character, entity)
    for character in "[]*_":
        value = value.replace(character, f"\\{character}")
    return " ".join(value.split())


def _code(value: str) -> str:
    return " ".join(value.replace("`", "'").split())


def _fenced(value: str) -> str:
    return value.replace("```", "'''")
