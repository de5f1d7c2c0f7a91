"""The tables of a report, written once and rendered as terminal text, Markdown or HTML.

It must not compute: every figure comes from the summary, rounded for reading.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo

import jinja2
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ops.comparison import Change
from ops.concurrency_advice import ConcurrencyAdvice
from ops.memory_model import Estimate
from ops.reading import printable
from ops.summary import Distribution, Quantile, Rate, Summary
from ops.times import show

MOST_BLOCKED = 20
_FAILURES = {"timeout": "timed out", "oom": "out of memory", "error": "failed"}


@dataclass(frozen=True, slots=True)
class Table:
    """A title, column names and rows of text; the first column is read as a name, the others as figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    below: str = ""


def headline(summary: Summary, zone: tzinfo) -> list[str]:
    """What was looked at and when, in the user's zone."""
    r = summary.range
    lines = [
        f"Log group {', '.join(summary.groups)} on {summary.source}",
        f"From {show(r.start, zone)} to {show(r.end, zone)}",
    ]
    if r.first_event and r.last_event:
        lines.append(f"Events from {show(r.first_event, zone)} to {show(r.last_event, zone)}")
    return lines


def tables(summary: Summary) -> list[Table]:
    """The report's tables, in reading order; those with nothing in them are left out."""
    made = [
        _invocations(summary),
        _durations(summary),
        _cold(summary),
        _memory(summary),
        _comparison(summary),
        _tools(summary),
        _failures(summary),
        _callers(summary),
        _blocked(summary),
        _cost(summary),
        _lines(summary),
    ]
    return [replace(table, rows=tuple(tuple(map(_cell, row)) for row in table.rows)) for table in made if table.rows]


def _cell(text: str) -> str:
    """Names come from callers and their code: one line, and nothing in it that a terminal would obey."""
    return printable(text).replace("\n", " ")


def _invocations(s: Summary) -> Table:
    rows = [("invocations", str(s.invocations), "", "")]
    named = {"cold": s.cold, **{_FAILURES[kind]: rate for kind, rate in s.failures.items()}}
    rows += [(name, str(rate.count), _percent(rate.share), _between(rate)) for name, rate in named.items()]
    if s.failed_inits:
        rows.append(("failed init", str(s.failed_inits), "", ""))
    if s.unfinished:
        rows.append(("no REPORT yet", str(s.unfinished), "", ""))
    if s.concurrency.peak is not None:
        rows.append(("peak concurrency", str(s.concurrency.peak), "", ""))
    rows.append(("environments", str(s.concurrency.environments), "", ""))
    return Table("Invocations", ("", "count", "share", "95 % interval"), tuple(rows))


def _durations(s: Summary) -> Table:
    named = {f"duration, {name}": d for name, d in s.duration_ms.items()} | {"init": s.init_ms, "restore": s.restore_ms}
    named |= {"code, wall": s.calls.wall_ms, "code, CPU": s.calls.cpu_ms}
    rows = tuple(_distribution(name, d) for name, d in named.items() if d.n)
    quantiles = tuple(q.name for q in s.init_ms.quantiles)
    return Table("Time in ms [95 % interval]", ("", "n", *quantiles, "max"), rows)


def _distribution(name: str, d: Distribution) -> tuple[str, ...]:
    return (name, str(d.n), *(_quantile(q) for q in d.quantiles), f"{d.max:.1f}" if d.max is not None else "")


def _quantile(q: Quantile) -> str:
    if q.value is None:
        return f"n < {q.needed}"
    if q.low is None and q.high is None:
        return f"{q.value:.1f}"
    low = "?" if q.low is None else f"{q.low:.1f}"
    high = "?" if q.high is None else f"{q.high:.1f}"
    return f"{q.value:.1f} [{low}, {high}]"


def _cold(s: Summary) -> Table:
    rows = tuple(
        (row.version, _mb(row.memory_mb), row.init_type, f"{row.cold}/{row.invocations}", _percent(row.share))
        for row in s.cold_by
    )
    return Table("Cold starts", ("version", "memory", "by", "cold/all", "share"), rows)


def _memory(s: Summary) -> Table:
    rows = tuple(
        (
            _mb(m.size_mb),
            str(m.invocations),
            _mb(m.p95_used_mb) if m.p95_used_mb is not None else "too few",
            _mb(m.max_used_mb),
            f"{_mb(m.headroom_mb)} ({m.headroom_share:.0%})",
        )
        for m in s.memory
    )
    return Table("Memory", ("size", "n", "p95 used", "max used", "headroom"), rows)


def _comparison(s: Summary) -> Table:
    rows = tuple(
        (c.name, _of_unit(c, c.before), _of_unit(c, c.after), _change(c), c.verdict) for c in s.comparison or ()
    )
    against = (
        f"Against {show(s.compared_with.start, UTC)} to {show(s.compared_with.end, UTC)}" if s.compared_with else ""
    )
    return Table(against, ("", "then", "now", "change [95 % interval]", "verdict"), rows)


def _of_unit(c: Change, value: float | None) -> str:
    if value is None:
        return "none"
    return _percent(value) if c.unit == "share" else f"{value:.1f} {c.unit}"


def _change(c: Change) -> str:
    if c.change is None or c.low is None or c.high is None:
        return ""
    if c.unit == "share":
        return f"{c.change * 100:+.2f} [{c.low * 100:+.2f}, {c.high * 100:+.2f}] points"
    return f"x {c.change:.3f} [{c.low:.3f}, {c.high:.3f}]"


def _tools(s: Summary) -> Table:
    rows = tuple((t.tool, str(t.calls), str(t.failed), _percent(t.failed / t.calls)) for t in s.calls.tools)
    return Table("Tool calls", ("tool", "calls", "failed", "share"), rows)


def _failures(s: Summary) -> Table:
    return Table("Why code failed", ("type", "count"), tuple((kind, str(n)) for kind, n in s.calls.failures.items()))


def _callers(s: Summary) -> Table:
    rows = tuple(
        (c.api_key_id or "no key", str(c.calls), str(c.failed), str(c.blocked), f"{c.cpu_s:.1f}")
        for c in s.calls.callers
    )
    return Table("Callers, by API key id", ("key id", "calls", "failed", "blocked", "CPU s"), rows)


def _blocked(s: Summary) -> Table:
    """The most frequent ones: an attack, or a test of attacks, leaves hundreds."""
    by_count = sorted(s.blocked_operations.items(), key=lambda blocked: -blocked[1])
    rows = tuple((operation, str(n)) for operation, n in by_count[:MOST_BLOCKED])
    rest = by_count[MOST_BLOCKED:]
    below = f"{len(rest)} more operations, {sum(n for _, n in rest)} times, are in summary.json." if rest else ""
    return Table("Blocked operations", ("operation", "count"), rows, below)


def _cost(s: Summary) -> Table:
    c = s.cost
    parts = [
        ("duration", c.duration, f"{c.billed_gb_seconds:.3f} GB-s, {c.architecture}"),
        ("  of it INIT", c.init, "billed since 2025-08-01"),
        ("requests", c.requests, ""),
        ("/tmp over 512 MB", c.tmp, f"{c.tmp_mb:g} MB"),
        ("API Gateway", c.gateway, c.gateway_kind),
        ("SnapStart", c.snapstart, ""),
        ("provisioned concurrency", c.provisioned, ""),
        ("tenants' environments", c.tenants, "each when it is made"),
        ("log ingestion", c.logs, ""),
    ]
    places = 8 if c.total < 0.01 else 6 if c.total < 1 else 2  # for the whole column: its rows add up to its total
    rows = [(name, f"${amount:.{places}f}", why) for name, amount, why in parts if amount]
    rows.append(("total", f"${c.total:.{places}f}", ""))
    if c.per_million_invocations is not None:
        rows.append(("per million", f"${c.per_million_invocations:.2f}", "at this mix"))
    title = f"Cost, list prices {c.prices_region} {c.prices_as_of}"
    return Table(title, ("", "dollars", ""), tuple(rows), f"Left out: {', '.join(c.left_out)}.")


def _lines(s: Summary) -> Table:
    return Table("Log lines", ("kind", "count"), tuple((kind, str(n)) for kind, n in s.lines.items()))


def _percent(share: float) -> str:
    return f"{share * 100:.2f} %"


def _between(rate: Rate) -> str:
    return f"{_percent(rate.low)} to {_percent(rate.high)}"


def _mb(value: float | None) -> str:
    return "unsaid" if value is None else f"{value:g} MB"


def _dollars(amount: float) -> str:
    return f"${amount:.8f}" if amount < 0.01 else f"${amount:.2f}"


def text(summary: Summary, zone: tzinfo, *, width: int = 120, colour: bool = False) -> str:
    """The report for a terminal `width` columns wide; escape codes only with `colour`."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, force_terminal=colour, no_color=not colour, highlight=False)
    for line in headline(summary, zone):
        console.print(Text(line))
    for table in tables(summary):
        console.print()
        console.print(_rich(table))
        if table.below:
            console.print(Text(f" {table.below}", style="dim"))
    for note in summary.notes:
        console.print(Text(f"Note: {note}", style="yellow"))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _rich(table: Table) -> RichTable:
    drawn = RichTable(
        title=Text(table.title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    for number, column in enumerate(table.columns):
        drawn.add_column(Text(column), justify="left" if number == 0 else "right")
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def markdown(summary: Summary, zone: tzinfo, title: str = "Log report") -> str:
    """The same report as GitHub Markdown."""
    parts = [f"# {title}", "", *(f"{line}  " for line in headline(summary, zone))]
    for table in tables(summary):
        parts += ["", f"## {table.title}", "", _row(table.columns), _row(["---", *["---:"] * (len(table.columns) - 1)])]
        parts += [_row(row) for row in table.rows]
        parts += ["", table.below] if table.below else []
    if summary.notes:
        parts += ["", "## Notes", "", *(f"- {note}" for note in summary.notes)]
    return "\n".join(parts) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def html(summary: Summary, zone: tzinfo, picture: bytes, title: str = "Log report") -> str:
    """The same report as one HTML page that needs no other file; `picture` is a PNG."""
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("ops", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return pages.get_template("report.html.j2").render(
        title=title,
        headline=headline(summary, zone),
        tables=tables(summary),
        notes=summary.notes,
        picture=base64.b64encode(picture).decode(),
    )


def estimates_text(options: Sequence[Estimate], chosen_mb: int | None, *, width: int = 120) -> str:
    """The sizes of `ops tune memory` for a terminal."""
    rows = tuple(
        (
            f"{o.memory_mb} MB" + (" <- chosen" if o.memory_mb == chosen_mb else ""),
            str(o.measured) if o.measured else "predicted",
            f"{o.mean_ms:.1f}" + (f" [{o.low_ms:.1f}, {o.high_ms:.1f}]" if o.low_ms < o.high_ms else ""),
            f"{o.p95_ms:.1f}",
            f"${o.dollars * 1e6:.2f}",
        )
        for o in options
    )
    table = Table("Memory", ("size", "measured", "mean ms [95 % interval]", "p95 ms", "per million"), rows)
    return _plain(table, width)


def concurrency_text(advice: ConcurrencyAdvice, *, width: int = 120) -> str:
    """The choices of `ops tune concurrency` for a terminal."""
    rows = tuple(
        (
            c.name + (" <- chosen" if c.name == advice.chosen else ""),
            _percent(c.cold_share),
            "too few" if c.p50_ms is None else f"{c.p50_ms:.1f}",
            "too few" if c.p99_ms is None else f"{c.p99_ms:.1f}",
            _dollars(c.dollars),
        )
        for c in advice.choices
    )
    table = Table("Concurrency", ("choice", "cold", "p50 ms", "p99 ms", "dollars for the range"), rows)
    throttled = ", ".join(f"{at}: {count}" for at, count in advice.throttled_at_reserved.items())
    lines = [
        f"{advice.invocations} invocations in {advice.span_s:.0f} s, at most {advice.peak} at once.",
        f"Calls throttled at a reserved concurrency of {throttled}.",
        *(f"Assumed: {assumption}." for assumption in advice.assumptions),
    ]
    return _plain(table, width) + "\n".join(lines) + "\n"


def _plain(table: Table, width: int) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=width, no_color=True, highlight=False).print(_rich(table))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
