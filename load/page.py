"""One self-contained HTML page of a run: verdict, tables and plots as inline SVG. Needs no network and no script.

Plots are drawn once in the text colour of the page, so that they read in light and in dark.
"""

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from load.percentiles import distribution
from load.report import latency_cells, notes, observed, shown_groups
from load.rows import Row
from load.server_side import ServerSide
from load.summary import Summary, temperature, timed

INK = "#0a0b0c"
"""Stands for the page's text colour in a drawn SVG, and is replaced by currentColor."""

COLOURS = {"warm": "#2f7ed8", "cold": "#e4781f", "unknown": "#8a8f98", "failed": "#d33a49"}

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #57606a; --line: #d0d7de; --paper: #fff; --soft: #f6f8fa;
        --link: #0b57a4; --pass: #116329; --fail: #a40e26; --warn: #7d4e00; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --dim: #9aa4af; --line: #3d444d; --paper: #0d1117; --soft: #161b22; --link: #79b8ff;
          --pass: #56d364; --fail: #ff8e87; --warn: #e3b341; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1.25rem 3rem; background: var(--paper); color: var(--ink);
       font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; }
p { margin: 0 0 .5rem; overflow-wrap: anywhere; } .note { color: var(--dim); }
.verdict { font-weight: 600; } .passed { color: var(--pass); } .failed, .unreachable { color: var(--fail); }
.inconclusive, .interrupted { color: var(--warn); }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .35rem 1.25rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left;
         vertical-align: top; white-space: nowrap; }
thead th { color: var(--dim); font-weight: 400; font-size: .875rem; } tbody th { font-weight: 600; }
.n { text-align: right; font-variant-numeric: tabular-nums; } th:last-child, td:last-child { padding-right: 0; }
tr.total { background: var(--soft); }
td:last-child:not(.n) { white-space: normal; min-width: 15rem; }
.says { display: inline-block; white-space: normal; min-width: 15rem; max-width: 36rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } svg { display: block; width: 100%; min-width: 44rem; height: auto; }
.wide:focus-visible { outline: 3px solid var(--link); } code { font: .875rem/1.4 ui-monospace, monospace; }
.wide + .note { margin-top: .75rem; }
@media (max-width: 40rem) { tbody th { white-space: normal; min-width: 8rem; } th code { overflow-wrap: anywhere; } }
@media print {
  :root { color-scheme: light; } body { max-width: none; padding: 0; font-size: 9pt; }
  h2 { break-after: avoid; } tr, svg { break-inside: avoid; } .wide { overflow: visible; } svg { min-width: 0; }
  th, td { padding-right: .75rem; white-space: normal; } .says, td:last-child:not(.n) { min-width: 0; }
}
"""

_MARKS = {"passed": "✓", "failed": "✗", "unreachable": "✗"}
"""So that a verdict is not told by its colour alone; the others are open questions."""


def page(summary: Summary, rows: Sequence[Row], server: ServerSide | None = None) -> str:
    """The whole document; with the function's own figures beside the client's when its log was joined."""
    started = f"{summary.started_at.astimezone():%Y-%m-%d %H:%M:%S %Z}"
    counts = summary.counts
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>Load {escape(summary.profile)}: {summary.verdict}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>Load {escape(summary.profile)}: {_badge(summary.verdict, summary.verdict)}</h1>",
        f"<p>{escape(summary.reason)}.</p>",
        f"<p class='note'>{escape(summary.endpoint)} · {started} · {summary.duration_s:g} s · seed {summary.seed}</p>",
        f"<p>{counts.sent} of {counts.planned} planned requests sent ({summary.rates.sent_per_s:g} of "
        f"{summary.rates.intended_per_s:g}/s), {counts.ok} good, {counts.errors} failed, {counts.dropped} dropped, "
        f"{counts.in_flight} unanswered; {counts.cold} cold, {counts.warm} warm, "
        f"{counts.environments} environments.</p>",
        "<h2>Thresholds</h2>",
        _gate(summary),
        "<h2>Fit to judge by</h2>",
        _fitness(summary),
        "<h2>Latency from the intended time</h2>",
        *(f"<p class='note'>{escape(str(knee))}</p>" for knee in summary.knees),
        *(f"<p class='note'>{note}</p>" for note in notes(summary)),
        _latencies(summary),
        _figure("Latency over time", lambda axes: _plot_time(axes, rows)),
        _figure("Percentile spectrum", lambda axes: _plot_spectrum(axes, rows)),
        _figure("The schedule and what left on it", lambda axes: _plot_arrivals(axes, rows)),
        _figure("Requests open and environments", lambda axes: _plot_open(axes, rows)),
    ]
    if any(row.cold for row in rows):
        parts.append(_figure("Cold starts: init against what the caller waited", lambda axes: _plot_cold(axes, rows)))
    if server is not None:
        parts += ["<h2>By the function's own log</h2>", _server_side(server)]
    parts += ["<h2>Latency by stage, ms</h2>", _stages(summary)]
    if summary.errors:
        parts += ["<h2>Failures</h2>", _errors(summary)]
    versions = " · ".join(f"{name} {version}" for name, version in summary.versions.items())
    parts.append(f"<p class='note'>{escape(versions)}</p></main></body></html>")
    return "\n".join(part for part in parts if part)


def _table(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int], total: bool = False
) -> str:
    """A table in a box of its own that scrolls; the first cell of a row names it, and an empty head is no header."""

    def cells(tags: Sequence[str], row: Sequence[str]) -> str:
        kinds = (" class='n'" if i in numbers else "" for i in range(len(row)))
        return "".join(
            f"<{tag}{kind}>{cell}</{tag.split()[0]}>" for tag, kind, cell in zip(tags, kinds, row, strict=True)
        )

    top = cells(["th scope='col'" if name else "td" for name in head], head)
    tags = ["th scope='row'", *["td"] * (len(head) - 1)]
    body = "".join(
        f"<tr{' class=total' if total and i == 0 else ''}>{cells(tags, row)}</tr>" for i, row in enumerate(rows)
    )
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class='wide' tabindex='0' role='region' aria-label='{escape(title)}'>{table}</div>"


def _gate(summary: Summary) -> str:
    rows = [
        (
            f"<code>{escape(one.threshold)}</code>",
            _badge(one.verdict, one.verdict),
            observed(one),
            str(one.n),
            escape(one.reason),
        )
        for one in summary.gate
    ]
    return _table("Thresholds", ("threshold", "verdict", "observed", "n", "note"), rows, {2, 3})


def _badge(kind: str, text: str) -> str:
    return f"<span class='verdict {kind}'>{_MARKS.get(kind, '?')} {escape(text)}</span>"


def _fitness(summary: Summary) -> str:
    rows = [
        (
            escape(check.check.replace("_", " ")),
            _badge("passed", "fit") if check.fit else _badge("inconclusive", "unfit"),
            "–" if check.observed is None else f"{check.observed:g}",
            "–" if check.limit is None else f"{check.limit:g}",
            escape(check.reason),
        )
        for check in summary.fitness
    ]
    return _table("Fit to judge by", ("check", "verdict", "observed", "limit", "note"), rows, {2, 3})


def _latencies(summary: Summary) -> str:
    rows = [
        (
            escape(group.scenario),
            group.temperature,
            str(group.requests),
            str(group.errors),
            *latency_cells(group.latency_ms),
        )
        for group in shown_groups(summary)
    ]
    head = ("scenario", "temperature", "n", "failed", "p50", "p90", "p95", "p99", "max")
    note = "<p class='note'>ms; ~ marks a percentile that so few requests cannot carry.</p>"
    return _table("Latency", head, rows, set(range(2, 9)), total=True) + note


def _server_side(server: ServerSide) -> str:
    rows = [
        (name, "0", *latency_cells(None)) if values is None else (name, str(values.n), *latency_cells(values))
        for name, values in (
            ("duration, warm", server.duration_warm_ms),
            ("duration, cold", server.duration_cold_ms),
            ("init", server.init_ms),
            ("beyond the function: gateway, network, queueing", server.beyond_ms),
        )
    ]
    badge = _badge({"agreed": "passed", "disagreed": "failed"}.get(server.verdict, server.verdict), server.verdict)
    said = f"<p>{badge} {escape(server.reason)}; {server.cold_by_both} cold by both. {escape(server.log_group)}</p>"
    return said + _table(
        "By the function's own log", ("ms", "n", "p50", "p90", "p95", "p99", "max"), rows, set(range(1, 7))
    )


def _stages(summary: Summary) -> str:
    rows = [
        (escape(stage.stage), str(stage.requests), str(stage.errors), str(stage.cold), *latency_cells(stage.latency_ms))
        for stage in summary.stages
    ]
    return _table("Stages", ("stage", "n", "failed", "cold", "p50", "p90", "p95", "p99", "max"), rows, set(range(1, 9)))


def _errors(summary: Summary) -> str:
    rows = [
        (escape(kind.outcome), str(kind.count), _says(kind.error), escape(kind.example_request_id or ""))
        for kind in summary.errors
    ]
    return _table("Failures", ("outcome", "count", "says", "example request id"), rows, {1})


def _says(text: str) -> str:
    return f"<span class='says'>{escape(text)}</span>"


def _figure(title: str, draw: Callable[[Axes], bool]) -> str:
    """A titled plot as inline SVG; nothing when `draw` had nothing to show."""
    style: dict[Any, Any] = {
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "svg.fonttype": "none",
        "svg.hashsalt": title,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        axes = figure.subplots()
        if not draw(axes):
            return ""
        axes.grid(True, alpha=0.25)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, dpi=150, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'id="([^"]+)"', lambda m: f'id="{_slug(title)}-{m[1]}"', svg)
    svg = re.sub(r"(#)((?:m|p|image|C)[0-9a-f_]+|[A-Za-z]+_[0-9]+)\b", lambda m: f"#{_slug(title)}-{m[2]}", svg)
    svg = svg.replace("<svg", f"<svg role='img' aria-label='{escape(title)}'", 1)
    name = escape(f"{title}, plot")
    return f"<h2>{escape(title)}</h2><div class='wide' tabindex='0' role='region' aria-label='{name}'>{svg}</div>"


def _slug(title: str) -> str:
    return re.sub(r"[^a-z]+", "-", title.lower()).strip("-")


def _plot_time(axes: Axes, rows: Sequence[Row]) -> bool:
    timed_rows = [row for row in rows if row.latency_ms is not None]
    if not timed_rows:
        return False
    for kind, marker in (("warm", "."), ("unknown", "."), ("cold", "^"), ("failed", "x")):
        chosen = [row for row in timed_rows if ("failed" if row.outcome != "ok" else temperature(row)) == kind]
        if chosen:
            x, y = [row.intended_s for row in chosen], [max(row.latency_ms or 0.0, 0.05) for row in chosen]
            size = 12 if marker == "." else 28
            axes.scatter(
                x,
                y,
                s=size,
                marker=marker,
                color=COLOURS[kind],
                label=f"{kind} ({len(chosen)})",
                rasterized=len(x) > 2000,
            )
    axes.set_xlabel("intended time, s")
    _log_ms(axes)
    _legend(axes)
    return True


def _plot_spectrum(axes: Axes, rows: Sequence[Row]) -> bool:
    """Latency against how rare it is: 90 %, 99 %, 99.9 % at equal distances, as HDR plots have it."""
    drawn = False
    for kind in ("warm", "unknown", "cold"):
        values = np.sort(timed([row for row in rows if temperature(row) == kind], lambda row: row.latency_ms))
        if len(values) < 2:
            continue
        beyond = 1 - (np.arange(len(values)) + 0.5) / len(values)
        axes.step(1 / beyond, values, where="post", color=COLOURS[kind], label=f"{kind} (n={len(values)})")
        drawn = True
    if not drawn:
        return False
    axes.set_xscale("log")
    ticks = [(1, "min"), (2, "50 %"), (10, "90 %"), (20, "95 %"), (100, "99 %"), (1000, "99.9 %"), (10000, "99.99 %")]
    _, right = axes.get_xlim()
    shown = [tick for tick in ticks if tick[0] <= right]
    axes.set_xticks([x for x, _ in shown], [label for _, label in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("percentile")
    _log_ms(axes)
    _legend(axes)
    return True


def _plot_arrivals(axes: Axes, rows: Sequence[Row]) -> bool:
    """The schedule and what left on it: the two lines part where the generator was late or dropped."""
    if not rows:
        return False
    sent = [row.sent_s for row in rows if row.sent_s is not None]
    edges = _seconds(max([row.intended_s for row in rows] + sent))
    meant, _ = np.histogram([row.intended_s for row in rows], bins=edges)
    left, _ = np.histogram(sent, bins=edges)
    axes.stairs(meant, edges, color=COLOURS["unknown"], label="meant", linewidth=4, alpha=0.5)
    axes.stairs(left, edges, color=COLOURS["warm"], label="sent", linewidth=1.5)
    axes.set_xlabel("time, s")
    axes.set_ylabel("arrivals each second")
    axes.set_ylim(bottom=0)
    _legend(axes)
    return True


def _plot_open(axes: Axes, rows: Sequence[Row]) -> bool:
    """Requests open at once, and how many environments had answered by then."""
    sent = [row for row in rows if row.sent_s is not None]
    if not sent:
        return False
    opened = [(row.sent_s or 0.0, 1) for row in sent]
    closed = [(row.done_s, -1) for row in sent if row.done_s is not None]
    changes = sorted(opened + closed)
    open_now = np.cumsum([change for _, change in changes])
    moments = [moment for moment, _ in changes]
    axes.step(moments, open_now, where="post", color=COLOURS["warm"], label="requests open", linewidth=1)
    first_answers: dict[str, float] = {}
    for row in sent:
        if row.environment_id and row.done_s is not None:
            first_answers[row.environment_id] = min(row.done_s, first_answers.get(row.environment_id, row.done_s))
    if first_answers:
        seen_s = sorted(first_answers.values())
        x, y = [*seen_s, moments[-1]], [*range(1, len(seen_s) + 1), len(seen_s)]
        axes.step(x, y, where="post", color=COLOURS["cold"], label="environments that had answered")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("time, s")
    axes.set_ylabel("how many")
    axes.set_ylim(bottom=0)
    _legend(axes)
    return True


def _seconds(last_s: float) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.arange(0, int(last_s) + 2)


def _log_ms(axes: Axes) -> None:
    """Latency on a log scale with plain numbers, as many as the range has room for."""
    axes.set_yscale("log")
    axes.set_ylabel("latency, ms")
    low, high = axes.get_ylim()
    decades = np.log10(high / low)
    subs = (1.0,) if decades > 4 else (1.0, 2.0, 5.0) if decades > 0.7 else tuple(np.arange(1.0, 10.0))
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(axes: Axes) -> None:
    """Above the plot, where it hides no point."""
    axes.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def _plot_cold(axes: Axes, rows: Sequence[Row]) -> bool:
    points = [(init, row.latency_ms) for row in rows if row.cold and row.latency_ms and (init := row.timing("init"))]
    if not points:
        return False
    axes.scatter([x for x, _ in points], [y for _, y in points], color=COLOURS["cold"], marker="^", s=28, label="cold")
    warm = distribution(timed([row for row in rows if row.cold is False], lambda row: row.latency_ms))
    if warm is not None:
        axes.axhline(warm.p50, color=COLOURS["warm"], linewidth=1, label=f"warm median {warm.p50:.0f} ms")
    axes.axline((0, 0), slope=1, color=COLOURS["unknown"], linewidth=1, linestyle="--", label="init alone")
    axes.set_xlabel("init, ms (Server-Timing)")
    axes.set_ylabel("latency, ms")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0, top=1.08 * max(y for _, y in points))
    _legend(axes)
    return True
