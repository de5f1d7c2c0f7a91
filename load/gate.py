"""Judges a run from its rows: thresholds in k6's manner, and whether the generator was fit to measure at all.

A threshold that the sample cannot carry, a run that sent nothing and a generator that was itself too slow are
inconclusive, never passed. It reads rows and run records only and must import without gevent.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from load.percentiles import chance_of_at_least, needed_for_quantile, needed_for_share, quantile
from load.plan import Limits, Need, Plan
from load.rows import CENSORED, NOT_JUDGED, OUTCOMES, Row, RunRecord, meant

EXIT_PASS: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_INCONCLUSIVE: Final = 4
EXIT_INTERRUPTED: Final = 130

CLOCKS_APART_S: Final = 0.5
"""Workers begin at one moment by their own clocks; a message between machines takes less than this."""

type Verdict = Literal["passed", "failed", "inconclusive"]
type RunVerdict = Literal["passed", "failed", "inconclusive", "unreachable", "interrupted"]

_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
_UPPER: Final = frozenset({"<", "<="})

_TIMINGS: Final[Mapping[str, Callable[[Row], float | None]]] = {
    "latency": lambda row: row.latency_ms if _timed(row) else None,
    "service": lambda row: row.service_ms if _timed(row) else None,
    "ttfb": lambda row: (
        None if row.first_byte_s is None or row.sent_s is None else (row.first_byte_s - row.sent_s) * 1000
    ),
    "lag": lambda row: row.lag_ms,
    "init": lambda row: row.timing("init"),
    "exec": lambda row: row.timing("exec"),
    "install": lambda row: row.timing("install"),
}

_COUNTED: Final[Mapping[str, Callable[[Row], bool]]] = {
    "requests": lambda row: True,
    "errors": lambda row: row.failed,
    "cold": lambda row: row.cold is True,
    "warm": lambda row: row.cold is False,
    "dropped": lambda row: row.outcome == "dropped",
    "in_flight": lambda row: row.outcome == "in_flight",
}
_COUNTS: Final = (*_COUNTED, "environments")

_PLAIN: Final[Mapping[str, Callable[[Sequence[float]], float]]] = {"min": min, "max": max, "avg": fmean}

_NEEDS_HEADERS: Final[Mapping[str, Callable[[Row], object]]] = {
    "cold": lambda row: row.cold,
    "warm": lambda row: row.cold,
    "environments": lambda row: row.environment_id,
}

_SELECTORS: Final[Mapping[str, Callable[[Row], object]]] = {
    "scenario": lambda row: row.scenario,
    "era": lambda row: row.era,
    "stage": lambda row: row.stage,
    "outcome": lambda row: row.outcome,
    "status": lambda row: row.status,
    "init_type": lambda row: row.init_type,
    "environment": lambda row: row.environment_id,
}

_LINE: Final = re.compile(
    r"\s*(?P<aggregate>[a-z]+[0-9.]*)\s*\(\s*(?P<metric>[a-z_]+)\s*(?:\{(?P<selectors>[^}]*)\})?\s*\)"
    r"\s*(?P<operator><=|>=|==|<|>)\s*(?P<limit>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>ms|s|%)?\s*"
)


class ThresholdError(ValueError):
    """A threshold line that cannot be read; the message shows the line and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """One line of thresholds. `limit` is in ms for timings, a share of 1 for rates, a number for counts."""

    text: str
    aggregate: str
    quantile: float | None
    metric: str
    selectors: tuple[tuple[str, str], ...]
    operator: str
    limit: float

    def holds(self, observed: float) -> bool:
        return _OPERATORS[self.operator](observed, self.limit)


class Judgement(BaseModel):
    """What became of one threshold. `n` is how many values it was judged on, `needed` how many it would take."""

    model_config = ConfigDict(extra="forbid")

    threshold: str
    verdict: Verdict
    observed: float | None = None
    unit: Literal["ms", "share", "count"]
    n: int
    needed: int | None = None
    reason: str = ""


class Fitness(BaseModel):
    """One check of the generator itself. Unfit means the numbers say something of it rather than of the endpoint."""

    model_config = ConfigDict(extra="forbid")

    check: str
    fit: bool
    observed: float | None = None
    limit: float | None = None
    reason: str = ""


def parse_threshold(line: str) -> Threshold:
    """Reads `p95(latency{scenario:numpy,cold:false}) < 800ms`. Raises ThresholdError."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise ThresholdError(f"threshold {line!r} does not read AGGREGATE(METRIC{{selector:value}}) < LIMIT")
    aggregate, metric, unit = match["aggregate"], match["metric"], match["unit"]
    level = _level(line, aggregate)
    known = _COUNTS if aggregate in ("count", "rate") else tuple(_TIMINGS)
    if metric not in known:
        raise ThresholdError(f"threshold {line!r}: {aggregate}() has no {metric!r}; use one of {', '.join(known)}")
    if aggregate == "rate" and metric == "environments":
        raise ThresholdError(f"threshold {line!r}: environments can be counted but have no rate")
    return Threshold(
        text=line.strip(),
        aggregate=aggregate,
        quantile=level,
        metric=metric,
        selectors=_selectors(line, match["selectors"] or ""),
        operator=match["operator"],
        limit=_limit(line, aggregate, float(match["limit"]), unit),
    )


def check_lines(plan: Plan) -> None:
    """Whether every threshold and need of the plan can be read, and can meet a row of it. Raises ThresholdError: a
    mistake in the last line should not cost the whole run."""
    chosen = [parse_threshold(line) for line in (*plan.thresholds, *(need.threshold for need in plan.needs))]
    known: dict[str, set[str]] = {"scenario": set(plan.scenarios), "era": set(plan.eras)}
    if any("stage" in dict(one.selectors) for one in chosen):
        known["stage"] = plan.stage_names()
    for one in chosen:
        for key, value in one.selectors:
            if value not in known.get(key, {value}):
                sent = ", ".join(sorted(known[key])[:12])
                raise ThresholdError(f"threshold {one.text!r}: the plan sends no {key} {value!r}; it sends {sent}")


def _level(line: str, aggregate: str) -> float | None:
    if aggregate in ("min", "max", "avg", "count", "rate"):
        return None
    if re.fullmatch(r"p[0-9]+(\.[0-9]+)?", aggregate) and 0 < float(aggregate[1:]) < 100:
        return float(aggregate[1:]) / 100
    raise ThresholdError(
        f"threshold {line!r}: {aggregate!r} is no aggregate; use p50…p99.9, min, max, avg, count or rate"
    )


def _limit(line: str, aggregate: str, number: float, unit: str | None) -> float:
    if aggregate == "rate":
        if unit != "%":
            raise ThresholdError(f"threshold {line!r}: a rate is a share; write its limit in %, as 0.1%")
        if number > 100:
            raise ThresholdError(f"threshold {line!r}: {number:g}% is more than everything")
        return number / 100
    if aggregate == "count":
        if unit is not None:
            raise ThresholdError(f"threshold {line!r}: a count has no unit; drop the {unit}")
        return number
    if unit not in ("ms", "s"):
        raise ThresholdError(f"threshold {line!r}: {aggregate} is a time; write its limit as 800ms or 1.5s")
    return number * 1000 if unit == "s" else number


def _selectors(line: str, text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, colon, value = (piece.strip() for piece in part.partition(":"))
        if not colon or not value:
            raise ThresholdError(f"threshold {line!r}: selector {part!r} does not read name:value")
        if key != "cold" and key not in _SELECTORS:
            names = ", ".join(("cold", *_SELECTORS))
            raise ThresholdError(f"threshold {line!r}: there is no selector {key!r}; use one of {names}")
        if key == "cold" and value not in ("true", "false"):
            raise ThresholdError(f"threshold {line!r}: cold is true or false, not {value!r}")
        if key == "outcome" and value not in OUTCOMES:
            raise ThresholdError(f"threshold {line!r}: there is no outcome {value!r}; use one of {', '.join(OUTCOMES)}")
        pairs.append((key, value))
    return tuple(pairs)


def judge(threshold: Threshold, rows: Sequence[Row]) -> Judgement:
    """Judges one threshold on all rows of a run."""
    chosen = [row for row in rows if _chosen(threshold, row)]
    if not chosen:
        unit: Literal["ms", "share", "count"] = "ms"
        if threshold.aggregate in ("rate", "count"):
            unit = "share" if threshold.aggregate == "rate" else "count"
        reason = "no request was made" if not rows else f"no request matches {_spelled(threshold.selectors)}"
        return Judgement(threshold=threshold.text, verdict="inconclusive", unit=unit, n=0, reason=reason)
    if threshold.aggregate == "count":
        return _judge_count(threshold, chosen)
    if threshold.aggregate == "rate":
        return _judge_rate(threshold, chosen)
    return _judge_timing(threshold, chosen)


def _chosen(threshold: Threshold, row: Row) -> bool:
    return all(_selected(row, key, value) for key, value in threshold.selectors)


def _selected(row: Row, key: str, value: str) -> bool:
    if key == "cold":
        # A timeout never tells its temperature; leaving it out of both populations would hide the slowest requests.
        return row.outcome in CENSORED or row.cold is (value == "true")
    return str(_SELECTORS[key](row)) == value


def _timed(row: Row) -> bool:
    """Whether a row's latency counts: good answers, and those that took at least so long. Failing fast is no speed."""
    return row.outcome == "ok" or row.outcome in CENSORED


def _judge_count(threshold: Threshold, rows: Sequence[Row]) -> Judgement:
    if threshold.metric in _NEEDS_HEADERS and all(_NEEDS_HEADERS[threshold.metric](row) is None for row in rows):
        reason = "no answer carried the X-Lambda headers that tell cold from warm and name the environment"
        return Judgement(threshold=threshold.text, verdict="inconclusive", unit="count", n=0, reason=reason)
    if threshold.metric == "environments":
        observed = len({row.environment_id for row in rows if row.environment_id})
    else:
        observed = sum(map(_COUNTED[threshold.metric], rows))
    verdict: Verdict = "passed" if threshold.holds(observed) else "failed"
    return Judgement(threshold=threshold.text, verdict=verdict, observed=observed, unit="count", n=len(rows))


def _judge_rate(threshold: Threshold, rows: Sequence[Row]) -> Judgement:
    population = _population(threshold.metric, rows)
    n, hits = len(population), sum(map(_COUNTED[threshold.metric], population))
    if n == 0:
        reason = "no request tells whether it counts"
        return Judgement(threshold=threshold.text, verdict="inconclusive", unit="share", n=0, reason=reason)
    needed = needed_for_share(threshold.limit) if threshold.operator in _UPPER and 0 < threshold.limit < 1 else 1
    chance = chance_of_at_least(hits, n, threshold.limit) if n < needed else 0.0
    return _weigh(threshold, hits / n, "share", n, needed, chance)


def _population(metric: str, rows: Sequence[Row]) -> Sequence[Row]:
    """Of which requests a rate is the share: errors of those the endpoint answered for, cold of those that tell."""
    if metric == "errors":
        return [row for row in rows if row.outcome not in NOT_JUDGED]
    if metric in ("cold", "warm"):
        return [row for row in rows if row.cold is not None]
    return rows


def _judge_timing(threshold: Threshold, rows: Sequence[Row]) -> Judgement:
    measure = _TIMINGS[threshold.metric]
    values = [value for row in rows if (value := measure(row)) is not None]
    n = len(values)
    if n == 0:
        reason = f"no good answer has a {threshold.metric} time"
        return Judgement(threshold=threshold.text, verdict="inconclusive", unit="ms", n=0, reason=reason)
    if threshold.quantile is None:
        return _weigh(threshold, _PLAIN[threshold.aggregate](values), "ms", n, 1, 0.0)
    needed = needed_for_quantile(threshold.quantile)
    above = sum(not threshold.holds(value) for value in values)
    upper = threshold.operator in _UPPER
    chance = chance_of_at_least(above, n, 1 - threshold.quantile) if upper and n < needed else 1.0
    return _weigh(threshold, quantile(values, threshold.quantile), "ms", n, needed, chance)


def _weigh(
    threshold: Threshold, observed: float, unit: Literal["ms", "share"], n: int, needed: int, chance: float
) -> Judgement:
    """`chance`: how likely so many exceedances are if the limit were just kept; below 5 % even a small sample fails."""
    verdict: Verdict = "passed" if threshold.holds(observed) else "failed"
    reason = ""
    if n < needed and (verdict == "passed" or chance >= 0.05):
        verdict, reason = "inconclusive", f"{n} requests cannot carry it; {needed} are needed"
    observed = round(observed, 6)
    return Judgement(
        threshold=threshold.text, verdict=verdict, observed=observed, unit=unit, n=n, needed=needed, reason=reason
    )


def exceedance(threshold: Threshold) -> Callable[[Row], bool | None]:
    """Whether a row counts against the threshold: True past its limit or counted, False not, None outside of what it
    judges."""
    if threshold.aggregate in ("rate", "count"):
        if threshold.metric == "environments":
            return lambda row: None

        def counted(row: Row) -> bool | None:
            if not _chosen(threshold, row) or not _population(threshold.metric, (row,)):
                return None
            return _COUNTED[threshold.metric](row)

        return counted
    measure = _TIMINGS[threshold.metric]

    def past(row: Row) -> bool | None:
        value = measure(row) if _chosen(threshold, row) else None
        return None if value is None else not threshold.holds(value)

    return past


def check_fitness(rows: Sequence[Row], records: Sequence[RunRecord], limits: Limits) -> list[Fitness]:
    """Whether the generator sent what the plan said, when it said, and kept every answer."""
    return [
        _sent_anything(rows),
        _workers(records),
        *(_clocks(record) for record in records[:1] if record.role == "master"),
        _finished(records),
        _all_recorded(rows, records),
        _send_lag(rows, limits),
        _dropped(rows, limits),
        _in_flight(rows),
        _cpu(records, limits),
    ]


def check_needs(rows: Sequence[Row], needs: Sequence[Need]) -> list[Fitness]:
    """Whether the run met what it set out to measure. Raises ThresholdError."""
    return [_check_need(need, judge(parse_threshold(need.threshold), rows)) for need in needs]


def _check_need(need: Need, found: Judgement) -> Fitness:
    limit = parse_threshold(need.threshold).limit
    if found.verdict == "passed":
        return Fitness(check=need.threshold, fit=True, observed=found.observed, limit=limit)
    reason = found.reason or f"{need.threshold} did not come about, it was {found.observed:g}: {need.otherwise}"
    return Fitness(check=need.threshold, fit=False, observed=found.observed, limit=limit, reason=reason)


def _sent_anything(rows: Sequence[Row]) -> Fitness:
    sent = sum(row.sent_s is not None for row in rows)
    return Fitness(check="requests", fit=sent > 0, observed=sent, limit=1, reason="" if sent else "no request was sent")


def _finished(records: Sequence[RunRecord]) -> Fitness:
    cut = [record for record in records if record.ended != "complete"]
    if not cut:
        return Fitness(check="complete", fit=True)
    first = cut[0]
    when = f"after {first.ended_s:.1f} s" if first.ended_s is not None else "without closing its record"
    who = f"worker {first.worker_index}" if first.role == "worker" else "the run"
    return Fitness(check="complete", fit=False, reason=f"{who} ended {when}, before its plan was done")


def _all_recorded(rows: Sequence[Row], records: Sequence[RunRecord]) -> Fitness:
    planned = meant(records)
    missing = planned - len({row.index for row in rows})
    reason = f"{missing} of {planned} planned arrivals left no row" if missing > 0 else ""
    if missing == 0 and len(rows) > planned:
        missing, reason = planned - len(rows), f"{len(rows) - planned} arrivals left more than one row"
    return Fitness(check="recorded", fit=missing == 0, observed=len(rows), limit=planned, reason=reason)


def _workers(records: Sequence[RunRecord]) -> Fitness:
    """Those that told the master they were done, and whose records are here, whichever are fewer."""
    first, expected = records[0], records[0].workers_expected
    here = sum(record.role == "worker" and record.ended in ("complete", "aborted") for record in records)
    seen = min(first.workers_seen, here) if first.role != "local" else 1
    reason = ""
    if seen < expected:
        reason = f"{seen} of {expected} workers finished their share"
        if here < first.workers_seen:
            reason = (
                f"the rows of {here} of {expected} workers are here; copy requests-w*.jsonl and run-w*.json of the "
                f"others into this directory and make the report again"
            )
    return Fitness(check="workers", fit=not reason, observed=seen, limit=expected, reason=reason)


def _clocks(record: RunRecord) -> Fitness:
    apart_s = record.clocks_apart_s
    fit = apart_s <= CLOCKS_APART_S
    reason = f"a worker's clock was {apart_s:.1f} s off the master's, and its load came at another time; set the clocks"
    limit = CLOCKS_APART_S
    return Fitness(check="clocks_apart_s", fit=fit, observed=apart_s, limit=limit, reason="" if fit else reason)


def _send_lag(rows: Sequence[Row], limits: Limits) -> Fitness:
    lags = [lag for row in rows if (lag := row.lag_ms) is not None]
    if not lags:
        return Fitness(check="send_lag_p99_ms", fit=True, reason="nothing was sent")
    services = [row.service_ms for row in rows if row.service_ms is not None]
    share = limits.send_lag_share * quantile(services, 0.5) if services else 0.0
    limit = max(limits.send_lag_p99_ms, share)
    lag = quantile(lags, 0.99)
    reason = f"requests left up to {lag:.1f} ms late (p99), more than {limit:.1f} ms: the generator was saturated"
    fit = lag <= limit
    return Fitness(check="send_lag_p99_ms", fit=fit, observed=lag, limit=round(limit, 3), reason="" if fit else reason)


def _dropped(rows: Sequence[Row], limits: Limits) -> Fitness:
    dropped = sum(row.outcome == "dropped" for row in rows)
    share = dropped / len(rows) if rows else 0.0
    fit = share <= limits.dropped_share
    reason = "" if fit else f"{dropped} of {len(rows)} arrivals were not sent: max_in_flight requests were open already"
    return Fitness(check="dropped_share", fit=fit, observed=round(share, 6), limit=limits.dropped_share, reason=reason)


def _in_flight(rows: Sequence[Row]) -> Fitness:
    lost = sum(row.outcome == "in_flight" for row in rows)
    reason = f"{lost} requests were still unanswered when the run ended; a longer drain_s would tell" if lost else ""
    return Fitness(check="in_flight", fit=lost == 0, observed=lost, limit=0, reason=reason)


def _cpu(records: Sequence[RunRecord], limits: Limits) -> Fitness:
    """The busiest five seconds of any sending process; the whole of a run that was shorter."""
    busiest = max((_busiest(record.cpu_share) for record in records), default=0.0)
    fit = busiest <= limits.cpu_share
    reason = "" if fit else f"the generator used {busiest:.0%} of its core, more than {limits.cpu_share:.0%}"
    return Fitness(check="cpu_share", fit=fit, observed=round(busiest, 3), limit=limits.cpu_share, reason=reason)


def _busiest(shares: Sequence[float], window: int = 5) -> float:
    if not shares:
        return 0.0
    window = min(window, len(shares))
    return max(sum(shares[i : i + window]) / window for i in range(len(shares) - window + 1))


def decide(
    rows: Sequence[Row],
    judgements: Sequence[Judgement],
    fitness: Sequence[Fitness],
    interrupted: bool = False,
    aborted: str = "",
) -> tuple[RunVerdict, int, str]:
    """The run's verdict, exit code and the sentence that explains it.

    `aborted` says why the run was stopped early, if it was. Order: interrupted, unreachable, aborted, a threshold that
    failed, anything inconclusive, passed. An unfit generator makes failed timings inconclusive too, but a wrong answer
    or a count stays what it is.
    """
    if interrupted:
        return "interrupted", EXIT_INTERRUPTED, "interrupted; the rows so far are kept"
    if reason := _unreachable(rows):
        return "unreachable", EXIT_UNREACHABLE, reason
    if aborted:
        return "failed", EXIT_FAILED, aborted
    unfit = [check for check in fitness if not check.fit]
    failed = [one for one in judgements if one.verdict == "failed" and (not unfit or one.unit != "ms")]
    sent_nothing = not any(row.sent_s is not None for row in rows)
    if failed and not sent_nothing:
        return (
            "failed",
            EXIT_FAILED,
            f"{len(failed)} of {len(judgements)} thresholds failed, first {failed[0].threshold}",
        )
    if unfit:
        return "inconclusive", EXIT_INCONCLUSIVE, unfit[0].reason
    if not judgements:
        return "inconclusive", EXIT_INCONCLUSIVE, "there was no threshold to judge by"
    open_ones = [one for one in judgements if one.verdict == "inconclusive"]
    if open_ones:
        return "inconclusive", EXIT_INCONCLUSIVE, f"{open_ones[0].threshold}: {open_ones[0].reason}"
    held = f"all {len(judgements)} thresholds" if len(judgements) > 1 else "the one threshold"
    return "passed", EXIT_PASS, f"{held} held"


def _unreachable(rows: Sequence[Row]) -> str:
    sent = [row for row in rows if row.sent_s is not None]
    if not sent:
        return ""
    said = sent[0].error
    if all(row.outcome == "connect_error" for row in sent):
        return f"no request reached the endpoint: {said}"
    if all(row.status in (301, 302, 307, 308) for row in sent):
        return f"the endpoint redirects every request, HTTP {sent[0].status}; give the URL that it leads to"
    if all(row.status in (404, 405) for row in sent):
        return f"no MCP is served here, every answer was HTTP {sent[0].status}; the path is …/{{stage}}/lambda/mcp/"
    if all(row.status in (401, 403) for row in sent):
        # API Gateway's words for a path that it does not have, key or no key
        path = "the URL's path, …/{stage}/lambda/mcp/, and " if "Missing Authentication Token" in (said or "") else ""
        return f"the endpoint refused every request, {said}; check {path}MCP_API_KEY"
    return ""


def _spelled(selectors: Sequence[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{key}:{value}" for key, value in selectors) + "}"
