"""What the steps' files come to: the lines of the one screen and the rows of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from check.steps import MEANING, Step, read


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the verdict: what was looked at, how it stands, and the figures behind it."""

    name: str
    standing: str  # pass | fail | inconclusive | not run
    figures: str
    links: tuple[tuple[str, str], ...] = ()


class StepRecord(BaseModel):
    """One command that was run."""

    model_config = ConfigDict(extra="forbid")

    name: str
    command: str
    exit_code: int
    verdict: str
    seconds: float


class RowRecord(BaseModel):
    """One line of the screen; `files` are the reports behind it, by paths from the directory of verdict.json."""

    model_config = ConfigDict(extra="forbid")

    name: str
    standing: str = Field(description="pass, fail, inconclusive or not run")
    figures: str
    files: list[str]


class Verdict(BaseModel):
    """verdict.json, schema check/1. `problem` is why the run could not be finished; empty when it was."""

    model_config = ConfigDict(extra="forbid")

    schema_: Literal["check/1"] = Field(default="check/1", alias="schema")
    endpoint: str
    verdict: str
    exit_code: int
    problem: str
    started_at: datetime
    rows: list[RowRecord]
    steps: list[StepRecord]

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=1)


def verdict_of(
    endpoint: str, code: int, problem: str, started: datetime, table: Sequence[Row], steps: Sequence[Step]
) -> Verdict:
    """The run as verdict.json tells it; `code` is the exit code of the whole."""
    return Verdict(
        schema="check/1",
        endpoint=endpoint,
        verdict=MEANING[code],
        exit_code=code,
        problem=problem,
        started_at=started,
        rows=[
            RowRecord(
                name=row.name, standing=row.standing, figures=row.figures, files=[where for _, where in row.links]
            )
            for row in table
        ],
        steps=step_records(steps),
    )


def step_records(steps: Sequence[Step]) -> list[StepRecord]:
    """Steps as the JSON files hold them."""
    return [
        StepRecord(
            name=step.name,
            command=step.command,
            exit_code=step.exit_code,
            verdict=step.verdict,
            seconds=round(step.seconds, 1),
        )
        for step in steps
    ]


def rows(steps: dict[str, Step], info: dict[str, Any] | None) -> list[Row]:
    """The verdict's rows, in the order a person asks: protocol, security, load, cold starts, logs and cost, layers.

    `info` is what the endpoint says of its environment, {} where it says nothing, None where it was not asked.
    """
    found = []
    if "conformance" in steps:
        found += _conformance(steps["conformance"])
    if "load" in steps:
        found.append(_load(steps["load"]))
    if "coldstart" in steps:
        found.append(_coldstart(steps["coldstart"]))
    if "report" in steps:
        found.append(_report(steps["report"]))
    found.append(_layers(info))
    return found


def _standing(step: Step) -> str:
    return {0: "pass", 4: "inconclusive", 130: "inconclusive"}.get(step.exit_code, "fail")


def _links(step: Step, *names: str) -> tuple[tuple[str, str], ...]:
    shown = (*names, "terminal.txt")
    return tuple((name, f"{step.directory.name}/{name}") for name in shown if (step.directory / name).exists())


def _conformance(step: Step) -> list[Row]:
    report = read(step, "report.json")
    links = _links(step, "report.html", "report.json", "junit.xml", "checks.jsonl")
    links_of = {
        "protocol": links,
        "tools": links[:1],  # one report tells of both
        "security": _links(step, "scorecard.html", "scorecard.json"),
    }
    if not report:
        return [Row("conformance", _standing(step), step.verdict, links)]
    found = []
    for part in ("protocol", "tools", "security"):
        counts = report["parts"].get(part, {})
        bad = counts.get("failed", 0) + counts.get("error", 0)
        figures = f"{counts.get('passed', 0)} passed, {bad} failed, {counts.get('warning', 0)} warnings"
        if part == "protocol":
            spoken = [era for era, how in report["eras"].items() if how == "spoken"]
            figures += f", revisions {', '.join(spoken)}" if spoken else ", no revision spoken"
        if part == "security":
            figures += _security(read(step, "scorecard.json"))
        whole = counts.get("passed") and step.exit_code != 130  # interrupted, a part says little by what it had
        standing = "fail" if bad else "pass" if whole else "inconclusive"
        found.append(Row(part, standing, figures, links_of.get(part, ())))
    return found


def _security(scorecard: dict[str, Any]) -> str:
    """The scorecard's own figures; empty where nothing that runs code was there to be attacked."""
    if not scorecard:
        return ""
    attacks, benign = scorecard["attacks"], scorecard["benign"]
    crashed = f", {attacks['crashed']} crashed" if attacks["crashed"] else ""
    return (
        f"; attacks: {attacks['blocked']} blocked, {attacks['contained']} contained, {attacks['leaked']} got "
        f"through{crashed}; {len(benign['refused'])} of {benign['programs'] - benign['unsupported']} benign programs "
        "refused"
    )


def _load(step: Step) -> Row:
    summary = read(step, "summary.json")
    links = _links(step, "report.html", "summary.md", "summary.json", "requests.jsonl")
    if not summary:
        return Row("load", _standing(step), step.verdict, links)
    counts = summary["counts"]
    warm = _latency(summary, "warm")
    figures = f"{counts['ok']} of {counts['arrivals']} ok at {summary['rates']['sent_per_s']:.1f}/s"
    if warm:
        figures += f", warm p50 {warm['p50']:.0f} ms, p95 {warm['p95']:.0f} ms from the intended time"
    return Row("load", _standing(step), f"{figures}; {summary['reason']}", links)


def _latency(summary: dict[str, Any], temperature: str) -> dict[str, Any] | None:
    groups = summary["groups"]
    found = (group for group in groups if (group["scenario"], group["temperature"]) == ("all", temperature))
    group = next(found, None)
    return group["latency_ms"] if group else None


def _coldstart(step: Step) -> Row:
    burst = read(step, "coldstart.json")
    links = _links(step, "report.html", "coldstart.json", "requests.jsonl")
    if not burst:
        return Row("cold starts", _standing(step), step.verdict, links)
    figures = f"{burst['confirmed']} of {burst['burst']} confirmed, {burst['environments']} environments"
    if burst["init_ms"]:
        figures += f", init p50 {burst['init_ms']['p50']:.0f} ms"
    if burst.get("first_call_penalty_ms") is not None:
        figures += f", a first call costs {burst['first_call_penalty_ms']:.0f} ms more"
    return Row("cold starts", _standing(step), figures, links)


def _report(step: Step) -> Row:
    summary = read(step, "summary.json")
    links = _links(step, "report.html", "summary.md", "summary.json", "events.jsonl")
    if not summary:
        return Row("logs and cost", _standing(step), step.verdict, links)
    failures = ", ".join(f"{found['count']} {name}" for name, found in summary["failures"].items())
    figures = (
        f"{summary['invocations']} invocations, {summary['cold']['count']} cold, {failures}, "
        f"${summary['cost']['per_million_invocations']:.2f} per million at this mix"
    )
    if summary["memory"]:
        memory = summary["memory"][0]
        figures += f", memory {memory['max_used_mb']:.0f} of {memory['size_mb']:.0f} MB"
    return Row("logs and cost", _standing(step), figures, links)


def _layers(info: dict[str, Any] | None) -> Row:
    if info is None:
        return Row("confinement", "not run", "the run ended before this")
    layers = info.get("confinement", [])
    if not layers:
        return Row("confinement", "inconclusive", "the endpoint did not say")
    active = [layer["name"] for layer in layers if layer["active"]]
    missing = [layer["name"] for layer in layers if not layer["active"]]
    return Row(
        "confinement", "pass", "active: " + ", ".join(active) + ("; not here: " + ", ".join(missing) if missing else "")
    )
