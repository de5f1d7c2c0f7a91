"""Writes the security scorecard: one page, as HTML, Markdown and JSON, for someone who must judge an interpreter.

It is made from a run's files alone, so any run can be scored again; it judges nothing that the checks have not judged.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment
from pydantic import BaseModel, ConfigDict, Field

from conformance.records import CheckRecord, SecurityVerdict, read_checks
from conformance.report.moment import moment
from conformance.report.results import read_run

TEMPLATES = Path(__file__).parent
OF_ATTACKS = ("BLOCKED", "CONTAINED", "LEAKED", "CRASHED", "UNSUPPORTED")
THROUGH = ("LEAKED", "CRASHED", "LATE")
SLOWEST = 3


class ClassScore(BaseModel):
    """One class of attack: how many programs met each verdict. `held` is the share blocked or contained of those that
    could be tried, None when none could."""

    name: str
    blocked: int = 0
    contained: int = 0
    leaked: int = 0
    crashed: int = 0
    unsupported: int = 0

    @property
    def tried(self) -> int:
        return self.blocked + self.contained + self.leaked + self.crashed

    @property
    def held(self) -> float | None:
        return (self.blocked + self.contained) / self.tried if self.tried else None


class Through(BaseModel):
    """A program that got through, made the endpoint ill or was answered too late; or an ordinary one refused."""

    program: str
    group: str
    verdict: str
    cwe: str
    claim: str
    why: str
    evidence: str


class Explained(BaseModel):
    """Of the refusals that have a type: how many name the operation, the line, both or neither."""

    refusals: int = 0
    operation_and_line: int = 0
    operation: int = 0
    line: int = 0
    nothing: int = 0


class Benign(BaseModel):
    """Ordinary programs: how many ran, and which were refused or printed something else. `bait` counts those whose text
    looks like an attack to whoever matches words."""

    programs: int = 0
    bait: int = 0
    unsupported: int = 0
    refused: tuple[Through, ...] = ()


class Resources(BaseModel):
    """Programs that take too much: how many were answered in time, and the longest waits in ms."""

    programs: int = 0
    answered: int = 0
    late: int = 0
    crashed: int = 0
    slowest_ms: dict[str, float] = {}


class Scorecard(BaseModel):
    """scorecard.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_name: Literal["security-scorecard/1"] = Field(default="security-scorecard/1", alias="schema")
    endpoint: str
    profile: str
    started: str
    duration_s: float
    attacks: ClassScore
    classes: tuple[ClassScore, ...]
    persistence: ClassScore
    explained: Explained
    benign: Benign
    resources: Resources
    environments_lost: int
    cold_starts_after: int
    not_run: dict[str, int]
    through: tuple[Through, ...]

    @property
    def rows(self) -> tuple[ClassScore, ...]:
        """The lines of the page's table."""
        return (*self.classes, self.persistence)

    @property
    def verdict(self) -> str:
        """One word for the head of the page: what a reviewer must look at first."""
        if not self.attacks.tried and not self.persistence.tried:
            return "nothing was tried"
        if self.through:
            return f"{len(self.through)} got through"
        return "nothing got through" if not self.benign.refused else "nothing got through, ordinary code refused"


def score(out: Path) -> Scorecard:
    """The scorecard of a run directory.

    Raises:
        FileNotFoundError: the directory holds no run.
    """
    run = read_run(out)
    checks = [check for check in read_checks(out / "checks.jsonl") if check.part == "security"]
    told = [check.security for check in checks if check.security is not None]
    attacks = [one for one in told if one.kind == "attack"]
    hostile = [one for one in told if one.kind != "benign"]
    return Scorecard(
        endpoint=run.endpoint,
        profile=run.profile,
        started=run.started,
        duration_s=run.duration_s,
        attacks=_class("attacks", attacks),
        classes=tuple(
            _class(name, [one for one in attacks if one.group == name])
            for name in sorted({one.group for one in attacks})
        ),
        persistence=_class("persistence", [one for one in told if one.kind == "persistence"]),
        explained=_explained(attacks),
        benign=_benign([one for one in told if one.kind == "benign"]),
        resources=_resources([one for one in told if one.kind == "resource"]),
        environments_lost=sum(one.lost for one in hostile),
        cold_starts_after=sum(one.cold_after for one in hostile),
        not_run=_not_run(checks),
        through=tuple(_through(one) for one in hostile if one.verdict in THROUGH),
    )


def _class(name: str, verdicts: Iterable[SecurityVerdict]) -> ClassScore:
    counted = {verdict.lower(): 0 for verdict in OF_ATTACKS}
    for one in verdicts:
        counted[one.verdict.lower()] += 1
    return ClassScore(name=name, **counted)


def _explained(attacks: Iterable[SecurityVerdict]) -> Explained:
    told = [one.explains for one in attacks if one.verdict == "BLOCKED" and one.explains]
    return Explained(
        refusals=len(told),
        operation_and_line=told.count("operation and line"),
        operation=told.count("operation"),
        line=told.count("line"),
        nothing=told.count("nothing"),
    )


def _benign(told: list[SecurityVerdict]) -> Benign:
    return Benign(
        programs=len(told),
        bait=sum(one.group == "bait" for one in told),
        unsupported=sum(one.verdict == "UNSUPPORTED" for one in told),
        refused=tuple(_through(one) for one in told if one.verdict not in ("OK", "UNSUPPORTED")),
    )


def _resources(told: list[SecurityVerdict]) -> Resources:
    slowest = sorted(told, key=lambda one: one.elapsed_ms, reverse=True)[:SLOWEST]
    return Resources(
        programs=len(told),
        answered=sum(one.verdict == "CONTAINED" for one in told),
        late=sum(one.verdict == "LATE" for one in told),
        crashed=sum(one.verdict == "CRASHED" for one in told),
        slowest_ms={one.program: one.elapsed_ms for one in slowest},
    )


def _through(one: SecurityVerdict) -> Through:
    return Through(
        program=one.program,
        group=one.group,
        verdict=one.verdict,
        cwe=one.cwe,
        claim=one.claim,
        why=one.why,
        evidence=one.evidence[:300],
    )


def _not_run(checks: Iterable[CheckRecord]) -> dict[str, int]:
    """Reason -> how many programs were left out for it: what the page does not speak of."""
    reasons: dict[str, int] = {}
    for check in checks:
        if check.status == "skipped" and check.security is None:
            reasons[check.message] = reasons.get(check.message, 0) + 1
    return reasons


def _render(name: str, card: Scorecard) -> str:
    made = Environment(autoescape=name.endswith(".html.jinja"), trim_blocks=True, lstrip_blocks=True)
    made.filters["percent"] = percent
    made.filters["moment"] = moment
    made.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    template = made.from_string((TEMPLATES / name).read_text(encoding="utf-8"))
    return template.render(card=card) + "\n"


def percent(share: float | None) -> str:
    """A share as a person reads it, never rounded up to all."""
    return "-" if share is None else f"{int(share * 1000) / 10:g} %"


def write_json(out: Path) -> Path:
    """Writes scorecard.json."""
    path = out / "scorecard.json"
    path.write_text(score(out).model_dump_json(indent=1, by_alias=True) + "\n", encoding="utf-8")
    return path


def write_markdown(out: Path) -> Path:
    """Writes scorecard.md."""
    path = out / "scorecard.md"
    path.write_text(_render("scorecard.md.jinja", score(out)), encoding="utf-8")
    return path


def write_html(out: Path) -> Path:
    """Writes scorecard.html, which needs nothing from the network and runs no script."""
    path = out / "scorecard.html"
    path.write_text(_render("scorecard.html.jinja", score(out)), encoding="utf-8")
    return path


def write_all(out: Path) -> list[Path]:
    """Writes the scorecard in its three forms, when the run tried any program."""
    if not any(check.security for check in read_checks(out / "checks.jsonl")):
        return []
    return [write(out) for write in (write_json, write_markdown, write_html)]


def as_dict(card: Scorecard) -> dict[str, Any]:
    """For machines, as scorecard.json has it."""
    return card.model_dump(mode="json", by_alias=True)
