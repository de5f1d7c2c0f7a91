"""Draws the pictures: duration and memory over time for a report, duration and dollars over memory for tuning.

It must not compute figures of its own, nor need a display.
"""

from collections.abc import Sequence
from datetime import tzinfo
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.dates as mdates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ops.invocations import FAILURES, Invocations
from ops.memory_model import Estimate
from ops.percentiles import Sample
from ops.times import of_ms

# More points than this make a blot and a slow file: the plot then shows an even sample of the warm successes.
MAX_POINTS = 20_000
FEW = 300  # points up to which each is drawn large enough to be found
_COLOURS = {"warm": "#4878a8", "cold": "#e08214", "timeout": "#b2182b", "oom": "#762a83", "error": "#1a1a1a"}
_MARKERS = {"warm": ".", "cold": "D", "timeout": "X", "oom": "P", "error": "x"}


def draw(inv: Invocations, path: Path, zone: tzinfo, title: str) -> None:
    """Writes the picture of `inv`, which must hold an invocation, to `path` as PNG, its times in `zone`."""
    figure = Figure(figsize=(11, 7), dpi=110, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    figure.suptitle(title)
    at = _dates(inv.ended_ms)
    _durations(above, inv, at)
    _memory(below, inv, at)
    locator = mdates.AutoDateLocator(tz=zone)  # type: ignore[no-untyped-call]
    below.xaxis.set_major_locator(locator)
    below.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator, tz=zone))  # type: ignore[no-untyped-call]
    below.set_xlabel(f"end of invocation, {of_ms(inv.ended_ms[-1], zone).tzname()}")
    figure.savefig(path)


def _dates(epoch_ms: Sample) -> Sample:
    return epoch_ms / 86_400_000  # matplotlib counts days since 1970-01-01


def _durations(axes: Axes, inv: Invocations, at: Sample) -> None:
    failed = inv.outcomes != "ok"
    kinds = {"warm": ~failed & ~inv.is_cold, "cold": ~failed & inv.is_cold}
    kinds |= {kind: inv.outcomes == kind for kind in FAILURES}
    for kind, here in kinds.items():
        chosen = np.flatnonzero(here)
        if not len(chosen):
            continue
        label = f"{kind} ({len(chosen)})"
        if len(chosen) > MAX_POINTS:
            chosen = chosen[:: len(chosen) // MAX_POINTS + 1]
            label += f", every {len(np.flatnonzero(here)) // len(chosen)}th shown"
        size = 12 if kind == "warm" and len(chosen) > FEW else 34
        axes.scatter(
            at[chosen], inv.occupied_ms[chosen], s=size, c=_COLOURS[kind], marker=_MARKERS[kind], label=label, lw=1
        )
    axes.set_yscale("log")
    axes.set_ylabel("duration incl. init or restore, ms")
    axes.grid(alpha=0.25, which="both")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _memory(axes: Axes, inv: Invocations, at: Sample) -> None:
    step = max(1, len(at) // MAX_POINTS)
    order = np.argsort(at)[::step]
    size = 3 if len(order) > FEW else 6
    axes.plot(at[order], inv.max_memory_used_mb[order], ".", ms=size, color=_COLOURS["warm"], label="max used")
    axes.step(at[order], inv.memory_size_mb[order], where="post", color=_COLOURS["timeout"], lw=1, label="size")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("memory, MB")
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def draw_sizes(options: Sequence[Estimate], chosen_mb: int, path: Path) -> None:
    """Writes duration and dollars over memory size to `path` as PNG: measured sizes filled, predicted ones hollow."""
    figure = Figure(figsize=(9, 5), dpi=110, layout="constrained")
    times = figure.subplots()
    dollars = times.twinx()
    for axes, colour, values in (
        (times, _COLOURS["warm"], [o.mean_ms for o in options]),
        (dollars, _COLOURS["timeout"], [o.dollars * 1e6 for o in options]),
    ):
        axes.plot([o.memory_mb for o in options], values, color=colour, lw=1)
        for option, value in zip(options, values, strict=True):
            face = colour if option.measured else "white"
            axes.plot(option.memory_mb, value, "o", color=colour, markerfacecolor=face)
    low, high = [o.mean_ms - o.low_ms for o in options], [o.high_ms - o.mean_ms for o in options]
    times.errorbar(
        [o.memory_mb for o in options],
        [o.mean_ms for o in options],
        yerr=np.clip([low, high], 0, None),
        fmt="none",
        ecolor=_COLOURS["warm"],
        capsize=3,
    )
    times.axvline(chosen_mb, color="#888", lw=1, ls="--")
    times.set_ylim(bottom=0)
    dollars.set_ylim(bottom=0)
    times.set_xlabel("memory, MB (filled: measured, hollow: predicted, dashed: chosen)")
    times.set_ylabel("mean duration, ms", color=_COLOURS["warm"])
    dollars.set_ylabel("dollars per million invocations", color=_COLOURS["timeout"])
    figure.savefig(path)
