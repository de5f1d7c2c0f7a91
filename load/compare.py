"""Compares two runs: faster, slower, same or inconclusive, warm and cold apart, never by a bare percentile difference.

A "p99 may not grow by 10 %" gate fails 36 to 43 % of unchanged systems that have 1 % cold starts (measured, n = 1,000).
So the ratio of medians is judged, by a confidence interval together with a minimum effect. Runs taken in turns are
judged round against round, so that what drifts between rounds widens the interval; of two single runs only the calls
can be resampled, and a drift between them looks like a change. It reads raw rows and must import without gevent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from load.gate import EXIT_FAILED, EXIT_INCONCLUSIVE, EXIT_PASS
from load.rows import NOT_JUDGED, Row, run_directories
from load.summary import Summary, Temperature, summarize_directory, temperature, timed

type Verdict = Literal["faster", "slower", "same", "inconclusive"]
type Floats = np.ndarray[tuple[int], np.dtype[np.float64]]

RESAMPLES: Final = 20_000
LEAST: Final = 20
"""Below this many good answers on either side, the interval of a median is mostly the accident of which came."""
LEAST_ROUNDS: Final = 4
"""Below this many rounds their spread is not known: Student's t needs 12.7 standard errors from two, 3.2 from four."""
LEAST_A_ROUND: Final = 3
"""Good answers a side needs in a round; how much a median of so few varies is in the spread of the rounds."""
FAILED_APART: Final = 0.01
ALPHA: Final = 0.05


class Comparison(BaseModel):
    """One population in both runs. `ratio` is the candidate's median over the base's; the interval holds it with
    `confidence`."""

    model_config = ConfigDict(extra="forbid")

    scenario: str
    temperature: Temperature
    verdict: Verdict
    ratio: float | None
    low: float | None
    high: float | None
    confidence: float = Field(
        default=1 - ALPHA,
        description="0.95 for all scenarios together; one of m other populations has 1 - 0.05/m (Bonferroni), because "
        "a single slower one fails the comparison.",
    )
    base_n: int
    candidate_n: int
    base_p50_ms: float | None
    candidate_p50_ms: float | None
    rounds: int = Field(
        default=0, description="Paired rounds the interval is from; 0: from single calls, which know of no drift."
    )
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Pair:
    """The sorted latencies of both sides, ms: of one population, whole or in one round."""

    base: Floats
    candidate: Floats

    @property
    def fewest(self) -> int:
        return min(len(self.base), len(self.candidate))

    @property
    def log_ratio(self) -> float:
        return float(np.log(_median(self.candidate)) - np.log(_median(self.base)))


@dataclass(frozen=True, slots=True)
class _Estimate:
    """A population before it is judged: its log ratio and what else that may have been, or why there is none."""

    scenario: str
    heat: Temperature
    whole: _Pair
    log_ratio: float = 0.0
    draws: Floats | None = None
    rounds: int = 0
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
    base_requests: int = Field(default=0, description="Those that the endpoint answered for, as for rate(errors).")
    base_failed: int = 0
    candidate_requests: int = 0
    candidate_failed: int = 0
    overall: list[Comparison]
    scenarios: list[Comparison]

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=1)


def compare(
    base: Sequence[Row],
    candidate: Sequence[Row],
    effect: float = 0.05,
    seed: int = 1,
    unfit: str = "",
    rounds: Sequence[tuple[Sequence[Row], Sequence[Row]]] = (),
) -> CompareReport:
    """Judges `candidate` against `base`. `effect` is the smallest ratio that matters (0.05: five percent).

    `rounds` are the same rows by round, base and candidate, when the two took turns; from LEAST_ROUNDS on the rounds
    are compared and not the calls. `unfit` says why one of the runs cannot be trusted; then the comparison is
    inconclusive whatever the numbers.
    """
    rng = np.random.default_rng(seed)
    if len(rounds) < LEAST_ROUNDS:
        rounds = ()
    names = sorted({row.scenario for row in (*base, *candidate)})
    overall: list[_Estimate] = []
    scenarios: list[_Estimate] = []
    heats: tuple[Temperature, ...] = ("warm", "cold", "unknown")
    for heat in heats:
        pairs = {name: _pair(base, candidate, name, heat) for name in names}
        pairs = {name: pair for name, pair in pairs.items() if len(pair.base) or len(pair.candidate)}
        if not pairs:
            continue
        by_round = [{name: _pair(a, b, name, heat) for name in pairs} for a, b in rounds]
        if rounds:
            found = [_of_rounds(name, heat, pairs[name], [one[name] for one in by_round], rng) for name in pairs]
            overall.append(_all_of_rounds(heat, pairs, by_round, rng) if len(found) > 1 else _as_all(found[0]))
        else:
            found = [_of_calls(name, heat, pair, rng) for name, pair in pairs.items()]
            overall.append(_all_of_calls(heat, pairs, rng) if len(found) > 1 else _as_all(found[0]))
        scenarios += found
    judged_overall, judged_scenarios = _judge(overall, scenarios, effect)
    tried = [[row for row in side if row.outcome not in NOT_JUDGED] for side in (base, candidate)]
    failed = [sum(row.failed for row in side) for side in tried]
    unfit = unfit or _apart_by_failures(failed[0], len(tried[0]), failed[1], len(tried[1]))
    verdict, exit_code, reason = _decide(judged_overall, judged_scenarios, unfit)
    return CompareReport(
        schema="compare/1",
        verdict=verdict,
        exit_code=exit_code,
        reason=reason,
        effect=effect,
        seed=seed,
        base_requests=len(tried[0]),
        base_failed=failed[0],
        candidate_requests=len(tried[1]),
        candidate_failed=failed[1],
        overall=judged_overall,
        scenarios=judged_scenarios,
    )


def _apart_by_failures(base_failed: int, base: int, candidate_failed: int, candidate: int) -> str:
    """Why the good answers alone do not compare the sides: one failed more often, by over a percent of its requests
    and three standard deviations. Empty when none did."""
    if not base or not candidate:
        return ""
    share = (base_failed + candidate_failed) / (base + candidate)
    apart = abs(base_failed / base - candidate_failed / candidate)
    if apart <= max(FAILED_APART, 3 * (share * (1 - share) * (1 / base + 1 / candidate)) ** 0.5):
        return ""
    return (
        f"{candidate_failed} of {candidate} requests of the candidate failed, {base_failed} of {base} of the base: "
        f"how fast the others were does not compare them"
    )


def why_unfit(base: Sequence[Summary], candidate: Sequence[Summary]) -> str:
    """The first reason why a run of either side measured its generator, not the endpoint; empty when none did."""
    for name, summaries in (("base", base), ("candidate", candidate)):
        for check in (check for summary in summaries for check in summary.fitness):
            if not check.fit:
                return f"the {name} run is unfit: {check.reason}"
    return ""


def compare_directories(base: Path, candidate: Path, effect: float, seed: int) -> CompareReport:
    """Compares two run directories, or two directories of runs: round against round where both name the same rounds,
    as `ab` leaves them, else with their rows pooled. Raises BadRecord."""
    sides = [
        {directory.name: summarize_directory(directory) for directory in run_directories(side)}
        for side in (base, candidate)
    ]
    summaries = [[summary for summary, _ in side.values()] for side in sides]
    rows = [[row for _, rows in side.values() for row in rows] for side in sides]
    rounds = []
    if sides[0].keys() == sides[1].keys():
        rounds = [(sides[0][name][1], sides[1][name][1]) for name in sides[0]]
    return compare(rows[0], rows[1], effect, seed, why_unfit(summaries[0], summaries[1]), rounds)


def _pair(base: Sequence[Row], candidate: Sequence[Row], scenario: str, heat: Temperature) -> _Pair:
    return _Pair(_values(base, scenario, heat), _values(candidate, scenario, heat))


def _values(rows: Sequence[Row], scenario: str, heat: Temperature) -> Floats:
    chosen = [row for row in rows if row.scenario == scenario and temperature(row) == heat]
    return np.sort(np.asarray(timed(chosen, lambda row: row.latency_ms), dtype=float))


def _of_calls(scenario: str, heat: Temperature, pair: _Pair, rng: np.random.Generator) -> _Estimate:
    if pair.fewest < LEAST:
        return _too_few(scenario, heat, pair)
    return _Estimate(scenario, heat, pair, pair.log_ratio, _resampled_log_ratios(pair, rng))


def _all_of_calls(heat: Temperature, pairs: dict[str, _Pair], rng: np.random.Generator) -> _Estimate:
    """All scenarios that both runs have enough of, weighed alike: a changed mix must not look like a changed speed."""
    usable = [pair for pair in pairs.values() if pair.fewest >= LEAST]
    whole = _together(pairs)
    if not usable:
        return _too_few("all", heat, whole)
    draws = np.mean([_resampled_log_ratios(pair, rng) for pair in usable], axis=0)
    return _Estimate("all", heat, whole, float(np.mean([pair.log_ratio for pair in usable])), draws)


def _of_rounds(
    scenario: str, heat: Temperature, whole: _Pair, by_round: Sequence[_Pair], rng: np.random.Generator
) -> _Estimate:
    if whole.fewest < LEAST:
        return _too_few(scenario, heat, whole)
    return _from_rounds(scenario, heat, whole, [r.log_ratio for r in by_round if r.fewest >= LEAST_A_ROUND], rng)


def _all_of_rounds(
    heat: Temperature, pairs: dict[str, _Pair], by_round: Sequence[dict[str, _Pair]], rng: np.random.Generator
) -> _Estimate:
    """The scenarios that every usable round has enough of, weighed alike in each round."""
    whole = _together(pairs)
    names = [name for name, pair in pairs.items() if pair.fewest >= LEAST]
    if not names:
        return _too_few("all", heat, whole)
    usable = [one for one in by_round if all(one[name].fewest >= LEAST_A_ROUND for name in names)]
    ratios = [float(np.mean([one[name].log_ratio for name in names])) for one in usable]
    return _from_rounds("all", heat, whole, ratios, rng)


def _from_rounds(
    scenario: str, heat: Temperature, whole: _Pair, log_ratios: Sequence[float], rng: np.random.Generator
) -> _Estimate:
    """The mean of the rounds' log ratios, with Student's t for what it may have been: each round is one observation
    of a pair, so whatever differs between rounds, drift among it, is in their spread.

    The percentile bootstrap of rounds would be too sure of so few: of four it holds the truth 80 % of the time where it
    says 95 %, of eight 89 % (Efron and Tibshirani 1993, chapter 12; simulated in tests/unit/test_load_compare.py).
    """
    n = len(log_ratios)
    if n < LEAST_ROUNDS:
        reason = f"{n} rounds have {LEAST_A_ROUND} good answers on both sides; {LEAST_ROUNDS} such rounds are needed"
        return _Estimate(scenario, heat, whole, reason=reason)
    mean, error = float(np.mean(log_ratios)), float(np.std(log_ratios, ddof=1)) / n**0.5
    return _Estimate(scenario, heat, whole, mean, mean + error * rng.standard_t(n - 1, RESAMPLES), n)


def _too_few(scenario: str, heat: Temperature, pair: _Pair) -> _Estimate:
    reason = f"{pair.fewest} good answers on one side; {LEAST} of one scenario are needed on each"
    return _Estimate(scenario, heat, pair, reason=reason)


def _together(pairs: dict[str, _Pair]) -> _Pair:
    return _Pair(
        np.concatenate([pair.base for pair in pairs.values()]),
        np.concatenate([pair.candidate for pair in pairs.values()]),
    )


def _as_all(only: _Estimate) -> _Estimate:
    """Of one scenario, all scenarios together are the same question."""
    return replace(only, scenario="all")


def _judge(
    overall: Sequence[_Estimate], scenarios: Sequence[_Estimate], effect: float
) -> tuple[list[Comparison], list[Comparison]]:
    """The main question at 95 %; the others share 5 % among them, because one of them suffices for "slower"."""
    main = _main(overall)
    asked_again = {main.heat} if main is not None and sum(one.heat == main.heat for one in scenarios) == 1 else set()
    others = [one for one in (*overall, *scenarios) if one is not main and one.heat not in asked_again]
    alpha = ALPHA / max(1, sum(one.draws is not None for one in others))

    def judged(one: _Estimate) -> Comparison:
        of_main = one is main or one.heat in asked_again
        return _judged(one, ALPHA if of_main else alpha, effect)

    return [judged(one) for one in overall], [judged(one) for one in scenarios]


def _main[T: (_Estimate, Comparison)](overall: Sequence[T]) -> T | None:
    """Warm answers, or those of an endpoint that does not tell: most runs have too few cold starts to ask for one."""
    return next((one for one in overall if _heat(one) != "cold"), None)


def _heat(one: _Estimate | Comparison) -> Temperature:
    return one.heat if isinstance(one, _Estimate) else one.temperature


def _judged(one: _Estimate, alpha: float, effect: float) -> Comparison:
    known: dict[str, float] = {}
    verdict: Verdict = "inconclusive"
    reason = one.reason
    if one.draws is not None:
        low, high = (float(np.exp(np.quantile(one.draws, q))) for q in (alpha / 2, 1 - alpha / 2))
        ratio = float(np.exp(one.log_ratio))
        verdict = _verdict(ratio, low, high, effect)
        known = {"ratio": round(ratio, 4), "low": round(low, 4), "high": round(high, 4)}
        if verdict == "inconclusive":
            reason = f"the interval {low:.3f}–{high:.3f} allows more than one verdict"
    of_one = one.scenario != "all" and one.draws is not None
    return Comparison(
        scenario=one.scenario,
        temperature=one.heat,
        verdict=verdict,
        ratio=known.get("ratio"),
        low=known.get("low"),
        high=known.get("high"),
        confidence=round(1 - alpha, 5),
        base_n=len(one.whole.base),
        candidate_n=len(one.whole.candidate),
        base_p50_ms=_median(one.whole.base) if of_one else None,
        candidate_p50_ms=_median(one.whole.candidate) if of_one else None,
        rounds=one.rounds,
        reason=reason,
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


def _resampled_log_ratios(pair: _Pair, rng: np.random.Generator) -> Floats:
    found: Floats = np.log(_resampled_medians(pair.candidate, rng)) - np.log(_resampled_medians(pair.base, rng))
    return found


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
    main = _main(overall)
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
    for heading in ("ratio", "interval", "held at", "n base", "n candidate", "p50 base", "p50 candidate"):
        table.add_column(heading, justify="right")
    for one in (*report.overall, *report.scenarios):
        table.add_row(
            one.scenario,
            one.temperature,
            Text(one.verdict, style=colours[one.verdict]),
            "–" if one.ratio is None else f"{one.ratio:.3f}",
            "–" if one.low is None else f"{one.low:.3f}–{one.high:.3f}",
            "–" if one.low is None else f"{one.confidence:.1%}",
            str(one.base_n),
            str(one.candidate_n),
            "–" if one.base_p50_ms is None else f"{one.base_p50_ms:.1f} ms",
            "–" if one.candidate_p50_ms is None else f"{one.candidate_p50_ms:.1f} ms",
        )
    console.print(table)
    failed = (
        f"failed: {report.base_failed} of {report.base_requests} requests of the base, {report.candidate_failed} of "
        f"{report.candidate_requests} of the candidate"
    )
    console.print(failed, style="dim", highlight=False)
    rounds = max((one.rounds for one in (*report.overall, *report.scenarios)), default=0)
    how = f"intervals from {rounds} rounds in turns" if rounds else "intervals from calls: a drift between runs counts"
    console.print(how, style="dim", highlight=False)
    console.print(Text(f"{report.verdict}: {report.reason}", style=f"bold {colours[report.verdict]}"))
