"""Writes a run's summary as JSON, Markdown, a terminal table and one HTML page, and its histograms, from its raw files
alone.

It must import without gevent and can be run again on the same directory at any time.
"""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from load.gate import Judgement
from load.histograms import FILE, write_log
from load.percentiles import Distribution
from load.server_side import read_server_side
from load.settings import is_loopback
from load.summary import Group, Summary, summarize_directory

VERDICT_COLOURS = {
    "passed": "green",
    "failed": "red",
    "inconclusive": "yellow",
    "unreachable": "red",
    "interrupted": "yellow",
}


CLOSED_LOOP = (
    "Closed loop: latency counts from when a user was ready to ask, and users who wait ask nothing, so a stall of the "
    "endpoint is seen by few requests."
)


SAME_MACHINE = (
    "The endpoint is on this machine: it shares the cores with the generator, no network is in the latencies, and its "
    "limits are this machine's."
)


def notes(summary: Summary) -> list[str]:
    """What a reader must know of the run to take its numbers for what they are."""
    kept = ((summary.closed_loop, CLOSED_LOOP), (is_loopback(summary.endpoint), SAME_MACHINE))
    return [note for holds, note in kept if holds]


def write_reports(directory: Path) -> Summary:
    """Makes summary.json, summary.md, report.html and histograms.hlog in the run directory; returns the summary."""
    summary, rows = summarize_directory(directory)
    (directory / "summary.json").write_text(summary.to_json() + "\n", encoding="utf-8")
    (directory / "summary.md").write_text(markdown(summary), encoding="utf-8")
    write_log(directory / FILE, rows, summary.started_at.timestamp())
    from load.page import page  # matplotlib costs a second that a table does not need

    (directory / "report.html").write_text(page(summary, rows, read_server_side(directory)), encoding="utf-8")
    return summary


def markdown(summary: Summary) -> str:
    """The summary for a CI step or an issue."""
    counts = summary.counts
    lines = [
        f"## Load {summary.profile}: {summary.verdict}",
        "",
        f"{summary.reason}. {_started(summary)}; {summary.endpoint}",
        "",
        f"{counts.sent} of {counts.planned} planned requests sent "
        f"({summary.rates.sent_per_s:g}/s of {summary.rates.intended_per_s:g}/s), {counts.ok} good, "
        f"{counts.errors} failed, {counts.dropped} dropped, {counts.in_flight} unanswered; "
        f"{counts.cold} cold, {counts.warm} warm, {counts.environments} environments.",
        "",
        "| scenario | temperature | n | failed | p50 ms | p90 ms | p95 ms | p99 ms | max ms |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for group in shown_groups(summary):
        cells = (
            group.scenario,
            group.temperature,
            str(group.requests),
            str(group.errors),
            *latency_cells(group.latency_ms),
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "~ : fewer requests than an upper 95 % bound on that percentile needs.", ""]
    lines += ["| threshold | verdict | observed | n | note |", "|---|---|--:|--:|---|"]
    lines += [
        f"| `{one.threshold}` | {one.verdict} | {observed(one)} | {one.n} | {one.reason} |" for one in summary.gate
    ]
    for knee in summary.knees:
        lines += ["", f"{knee}."]
    for note in notes(summary):
        lines += ["", note]
    unfit = [check.reason for check in summary.fitness if not check.fit]
    if unfit:
        lines += ["", "The generator: " + "; ".join(unfit) + "."]
    if summary.errors:
        lines += ["", "| failure | count | says | example request id |", "|---|--:|---|---|"]
        lines += [
            f"| {kind.outcome} | {kind.count} | {kind.error.replace('|', '¦')} | {kind.example_request_id or ''} |"
            for kind in summary.errors
        ]
    return "\n".join(lines) + "\n"


def print_summary(summary: Summary, console: Console) -> None:
    """The summary for a person at a terminal."""
    counts, rates = summary.counts, summary.rates
    console.print(f"[bold]{summary.profile}[/bold] on {summary.endpoint}", highlight=False)
    console.print(_started(summary), highlight=False, style="dim")
    console.print(
        f"{counts.sent}/{counts.planned} sent ({rates.sent_per_s:g} of {rates.intended_per_s:g}/s) · {counts.ok} ok · "
        f"{counts.errors} failed · {counts.dropped} dropped · {counts.in_flight} unanswered · {counts.cold} cold · "
        f"{counts.warm} warm · {counts.environments} environments",
        highlight=False,
    )
    console.print(_latency_table(shown_groups(summary)))
    for knee in summary.knees:
        console.print(Text(str(knee), style="bold"))
    for note in notes(summary):
        console.print(note, highlight=False, style="dim")
    if summary.cold_starts.init_ms is not None:
        init = summary.cold_starts.init_ms
        console.print(
            f"{summary.cold_starts.confirmed} confirmed cold starts · init p50 {init.p50:.0f}, max {init.max:.0f} ms",
            highlight=False,
        )
    console.print(_gate_table(summary.gate))
    for kind in summary.errors[:5]:
        console.print(Text(f"{kind.count} × {kind.outcome}: {kind.error}", style="red"))
    for check in summary.fitness:
        if not check.fit:
            console.print(Text(check.reason, style="yellow"))
    console.print(Text(f"{summary.verdict}: {summary.reason}", style=f"bold {VERDICT_COLOURS[summary.verdict]}"))


def shown_groups(summary: Summary) -> list[Group]:
    """The groups for a table: with one scenario, its own rows would repeat those of all."""
    single = len({group.scenario for group in summary.groups}) <= 2
    return [group for group in summary.groups if group.scenario == "all" or not single]


def latency_cells(latency: Distribution | None) -> tuple[str, ...]:
    """p50, p90, p95, p99 and max in ms; ~ marks a percentile the sample is too small to carry."""
    if latency is None:
        return ("–",) * 5
    points = (("p50", latency.p50), ("p90", latency.p90), ("p95", latency.p95), ("p99", latency.p99))
    marked = tuple(f"{'' if name in latency.carried else '~'}{value:.1f}" for name, value in points)
    return (*marked, f"{latency.max:.1f}")


def observed(judgement: Judgement) -> str:
    if judgement.observed is None:
        return "–"
    if judgement.unit == "ms":
        return f"{judgement.observed:.1f} ms"
    if judgement.unit == "share":
        return f"{judgement.observed:.3%}"
    return f"{judgement.observed:g}"


def _started(summary: Summary) -> str:
    """When, in the reader's own zone, named."""
    return f"started {summary.started_at.astimezone():%Y-%m-%d %H:%M:%S %Z}, {summary.duration_s:g} s planned"


def _latency_table(groups: list[Group]) -> Table:
    table = Table(
        box=None, pad_edge=False, caption="latency from the intended time, ms; ~ too few requests to carry it"
    )
    for heading in ("scenario", "temperature"):
        table.add_column(heading)
    for heading in ("n", "failed", "p50", "p90", "p95", "p99", "max"):
        table.add_column(heading, justify="right")
    for group in groups:
        style = "bold" if group.scenario == "all" and group.temperature == "all" else ""
        row = (
            group.scenario,
            group.temperature,
            str(group.requests),
            str(group.errors),
            *latency_cells(group.latency_ms),
        )
        table.add_row(*row, style=style)
    return table


def _gate_table(judgements: list[Judgement]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("threshold")
    table.add_column("verdict")
    table.add_column("observed", justify="right")
    table.add_column("n", justify="right")
    table.add_column("note")
    for one in judgements:
        verdict = Text(one.verdict, style=VERDICT_COLOURS[one.verdict])
        table.add_row(Text(one.threshold), verdict, observed(one), str(one.n), one.reason)
    return table
