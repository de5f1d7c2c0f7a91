"""The requirements that checks are tied to, read from requirements/*.yaml. Holds text and levels, never a verdict."""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

REQUIREMENTS = Path(__file__).parent / "requirements"


class Level(StrEnum):
    """How strongly the source says it. MUST fails a run; SHOULD and derived warn, and fail only with --strict."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    DERIVED = "derived"


STRENGTH = {Level.MUST: 2, Level.SHOULD: 1, Level.DERIVED: 0}


class Requirement(BaseModel):
    """One row of a catalogue: either `check` says how it is judged, or `unchecked` says why it is not.

    What is `http_alone` cannot be asked of a server of stdio.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    level: Level
    text: str
    source: str
    check: str | None = None
    unchecked: str | None = None
    catalogue: str
    http_alone: bool = False

    @model_validator(mode="after")
    def _one_of(self) -> "Requirement":
        if (self.check is None) == (self.unchecked is None):
            raise ValueError(f"{self.id} needs exactly one of `check: how` and `unchecked: why`.")
        return self


@cache
def load() -> dict[str, Requirement]:
    """Every requirement by id, in file order.

    Raises:
        ValueError: a row is malformed or an id appears twice.
    """
    found: dict[str, Requirement] = {}
    for path in sorted(REQUIREMENTS.glob("*.yaml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        aliases: dict[str, str] = document.get("files", {})
        over_http = tuple(document.get("http_alone", ()))
        for row in document["requirements"]:
            source = _spelled_out(row["source"], aliases)
            http_alone = row["id"].startswith(over_http)
            requirement = Requirement(**{**row, "source": source, "catalogue": path.stem, "http_alone": http_alone})
            if requirement.id in found:
                raise ValueError(f"Requirement {requirement.id} is listed twice, the second time in {path.name}.")
            found[requirement.id] = requirement
    return found


def _spelled_out(source: str, aliases: Mapping[str, str]) -> str:
    """A source with the short names of documents, which its file lists under `files`, spelled out."""
    return re.sub(r"\w+", lambda match: aliases.get(match[0], match[0]), source)


def strongest(ids: Iterable[str]) -> Level:
    """The level that decides a check's severity when it serves several requirements."""
    catalogue = load()
    return max((catalogue[one].level for one in ids), key=STRENGTH.__getitem__)
