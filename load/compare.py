"""Compares two runs: faster, slower, same or inconclusive, warm and cold apart, never by a bare percentile difference.

A "p99 may not grow by 10 %" gate fails 36 to 43 % of unchanged systems that have 1 % cold starts (measured, n = 1,000).
So the ratio of medians is judged, by its bootstrap confidence interval together with a minimum effect. It reads raw
rows and must import without gevent.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from load.gate import EXIT_FAILED, EXIT_INCONCLUSIVE, EXIT_PASS
from load.rows import Row, run_directories
from load.summary import Summary, Temperature, summarize_directory, temperature, timed

type Verdict = Literal["faster", "slower", "same", "inconclusive"]
type Floats = np.ndarray[tuple[int], np.dtype[np.float64]]

RESAMPLES: Final = 4000
LEAST: Final = 20
"""Below this many good answers on either side, the interval of a median is mostly the accident of which came."""


class Comparison(BaseModel):
    """One population in both runs. `ratio` is the candidate's median over the base's; the interval holds it at 95 %."""

    model_config = ConfigDict(extra="forbid")

    scenario: str
    temperature: Temperature
    verdict: Verdict
    ratio: float | None
    low: float | None
    high: float | None
    base_n: int
    candidate_n: int
    base_p50_ms: float | None
    candidate_p50_ms: float | None
    reason: str = ""


class CompareReport(BaseModel):
    """compare.json, schema compare/1. `overall` weighs every scenario's ratio alike (their geometric mean)."""

    model_config = ConfigDict(extra="forbid")

    schema_: Literal["compare/1"] = Field(default="compare/1", alias="schema")
    verdict: Verdict
    exit_code: int
    reason: str
    effect: float
    seed: int
    overall: list[Comparison]
    scenarios: list[Comparison]

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=1)


def compare(
    base: Sequence[Row], candidate: Sequence[Row], effect: float = 0.05, seed: int = 1, unfit: str = ""
) -> CompareReport:
    """Judges `candidate` against `base`. `effect` is the smallest ratio that matters (0.05: five percent).

    `unfit` says why one of the runs cannot be trusted; then the comparison is inconclusive whatever the numbers.
    """
    rng = np.random.default_rng(seed)
    names = sorted({row.scenario for row in (*base, *candidate)})
    scenarios: list[Comparison] = []
    overall: list[Comparison] = []
    heats: tuple[Temperature, ...] = ("warm", "cold", "unknown")
    for heat in heats:
        pairs = {name: (_values(base, name, heat), _values(candidate, name, heat)) for name in names}
        pairs = {name: pair for name, pair in pairs.items() if len(pair[0]) or len(pair[1])}
        if not pairs:
            continue
        found = [_compare_one(name, heat, a, b, effect, rng) for name, (a, b) in pairs.items()]
        scenarios += found
        overall.append(_compare_all(heat, pairs, effect, rng))
    verdict, exit_code, reason = _decide(overall, scenarios, unfit)
    return CompareReport(
        schema="compare/1",
        verdict=verdict,
        exit_code=exit_code,
        reason=reason,
        effect=effect,
        seed=seed,
        overall=overall,
        scenarios=scenarios,
    )


def why_unfit(base: Sequence[Summary], candidate: Sequence[Summary]) -> str:
    """The first reason why a run of either side measured its generator, not the endpoint; empty when none did."""
    for name, summaries in (("base", base), ("candidate", candidate)):
        for check in (check for summary in summaries for check in summary.fitness):
            if not check.fit:
                return f"the {name} run is unfit: {check.reason}"
    return ""


def compare_directories(base: Path, candidate: Path, effect: float, seed: int) -> CompareReport:
    """Compares two run directories, or two directories of runs with their rows pooled. Raises BadRecord."""
    sides = [[summarize_directory(directory) for directory in run_directories(side)] for side in (base, candidate)]
    summaries = [[summary for summary, _ in side] for side in sides]
    rows = [[row for _, rows in side for row in rows] for side in sides]
    return compare(rows[0], rows[1], effect, seed, why_unfit(summaries[0], summaries[1]))


def _values(rows: Sequence[Row], scenario: str, heat: Temperature) -> Floats:
    chosen = [row for row in rows if row.scenario == scenario and temperature(row) == heat]
    return np.sort(np.asarray(timed(chosen, lambda row: row.latency_ms), dtype=float))


def _compare_one(
    scenario: str, heat: Temperature, a: Floats, b: Floats, effect: float, rng: np.random.Generator
) -> Comparison:
    if min(len(a), len(b)) < LEAST:
        return _too_few(scenario, heat, len(a), len(b))
    logs = np.log(_resampled_medians(b, rng)) - np.log(_resampled_medians(a, rng))
    ratio = _median(b) / _median(a)
    return _judged(scenario, heat, ratio, logs, effect, (len(a), len(b)), (_median(a), _median(b)))


def _compare_all(
    heat: Temperature, pairs: dict[str, tuple[Floats, Floats]], effect: float, rng: np.random.Generator
) -> Comparison:
    """All scenarios that both runs have enough of, weighed alike: a changed mix must not look like a changed speed."""
    usable = [pair for pair in pairs.values() if min(len(pair[0]), len(pair[1])) >= LEAST]
    sizes = (sum(len(a) for a, _ in pairs.values()), sum(len(b) for _, b in pairs.values()))
    if not usable:
        return _too_few("all", heat, *sizes)
    logs = np.mean([np.log(_resampled_medians(b, rng)) - np.log(_resampled_medians(a, rng)) for a, b in usable], axis=0)
    ratio = float(np.exp(np.mean([np.log(_median(b) / _median(a)) for a, b in usable])))
    return _judged("all", heat, ratio, logs, effect, sizes, (None, None))


def _judged(
    scenario: str,
    heat: Temperature,
    ratio: float,
    logs: Floats,
    effect: float,
    sizes: tuple[int, int],
    medians: tuple[float | None, float | None],
) -> Comparison:
    low, high = (float(np.exp(np.quantile(logs, q))) for q in (0.025, 0.975))
    verdict = _verdict(ratio, low, high, effect)
    reason = "" if verdict != "inconclusive" else f"the interval {low:.3f}–{high:.3f} allows more than one verdict"
    return Comparison(
        scenario=scenario,
        temperature=heat,
        verdict=verdict,
        ratio=round(ratio, 4),
        low=round(low, 4),
        high=round(high, 4),
        base_n=sizes[0],
        candidate_n=sizes[1],
        base_p50_ms=medians[0],
        candidate_p50_ms=medians[1],
        reason=reason,
    )


def _too_few(scenario: str, heat: Temperature, base_n: int, candidate_n: int) -> Comparison:
    return Comparison(
        scenario=scenario,
        temperature=heat,
        verdict="inconclusive",
        ratio=None,
        low=None,
        high=None,
        base_n=base_n,
        candidate_n=candidate_n,
        base_p50_ms=None,
        candidate_p50_ms=None,
        reason=f"{min(base_n, candidate_n)} good answers on one side; {LEAST} of one scenario are needed on each",
    )


def _verdict(ratio: float, low: float, high: float, effect: float) -> Verdict:
    """Slower and faster need the interval clear of 1 and the ratio past the effect; same, the interval within it."""
    if low > 1 and ratio >= 1 + effect:
        return "slower"
    if high < 1 and ratio <= 1 / (1 + effect):
        return "faster"
    if low >= 1 / (1 + effect) and high <= 1 + effect:
        return "same"
    return "inconclusive"


def _median(values: Floats) -> float:
    return float(values[(len(values) - 1) // 2])


def _resampled_medians(values: Floats, rng: np.random.Generator) -> Floats:
    """Medians of RESAMPLES bootstrap samples of sorted values, without drawing the samples.

    The k-th smallest of n uniform draws is Beta(k, n - k + 1), and drawing with replacement is looking up the sorted
    value at n times such a draw: exactly the bootstrap of an order statistic (Efron 1979, §3), in time free of n.
    """
    n = len(values)
    k = (n - 1) // 2 + 1
    places = np.minimum((rng.beta(k, n - k + 1, RESAMPLES) * n).astype(int), n - 1)
    medians: Floats = values[places]
    return medians


def _decide(overall: Sequence[Comparison], scenarios: Sequence[Comparison], unfit: str) -> tuple[Verdict, int, str]:
    """Slower anywhere fails. Otherwise the warm verdict decides: most runs have too few cold starts to ask for one."""
    if unfit:
        return "inconclusive", EXIT_INCONCLUSIVE, unfit
    slower = [one for one in (*overall, *scenarios) if one.verdict == "slower"]
    if slower:
        worst = max(slower, key=lambda one: one.ratio or 0.0)
        return "slower", EXIT_FAILED, f"{worst.scenario} {worst.temperature} takes {worst.ratio} times as long"
    main = next((one for one in overall if one.temperature != "cold"), None)
    if main is None:
        return "inconclusive", EXIT_INCONCLUSIVE, "neither run has warm answers to compare"
    if main.verdict == "inconclusive":
        return "inconclusive", EXIT_INCONCLUSIVE, main.reason
    return (
        main.verdict,
        EXIT_PASS,
        f"{main.temperature} answers take {main.ratio} times as long ({main.low}–{main.high})",
    )


def print_comparison(report: CompareReport, console: Console) -> None:
    """The comparison for a person at a terminal."""
    colours = {"faster": "green", "same": "green", "slower": "red", "inconclusive": "yellow"}
    table = Table(box=None, pad_edge=False)
    for heading in ("scenario", "temperature", "verdict"):
        table.add_column(heading)
    for heading in ("ratio", "95 % interval", "n base", "n candidate", "p50 base", "p50 candidate"):
        table.add_column(heading, justify="right")
    for one in (*report.overall, *report.scenarios):
        table.add_row(
            one.scenario,
            one.temperature,
            Text(one.verdict, style=colours[one.verdict]),
            "–" if one.ratio is None else f"{one.ratio:.3f}",
            "–" if one.low is None else f"{one.low:.3f}–{one.high:.3f}",
            str(one.base_n),
            str(one.candidate_n),
            "–" if one.base_p50_ms is None else f"{one.base_p50_ms:.1f} ms",
            "–" if one.candidate_p50_ms is None else f"{one.candidate_p50_ms:.1f} ms",
        )
    console.print(table)
    console.print(Text(f"{report.verdict}: {report.reason}", style=f"bold {colours[report.verdict]}"))
