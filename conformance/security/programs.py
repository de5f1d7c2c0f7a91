"""The corpus as data: what each program is, which claim it tests and why it matters. It must not run anything."""

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

CORPUS = Path(__file__).parent / "corpus"
Kind = Literal["attack", "persistence", "benign", "resource"]


class Program(BaseModel):
    """One entry of the corpus. Attacks and persistence call leaked() only after seeing their effect."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    group: str
    claim: str
    why: str
    cwe: str
    kind: Kind = "attack"
    program: str
    second: str | None = None
    compare: Literal["equal"] | None = None
    requirements: tuple[str, ...] | None = None
    expect: str | None = None
    module: str | None = None
    safe: bool = True


@cache
def load() -> tuple[Program, ...]:
    """Every program of the corpus, file by file.

    Raises:
        ValueError: an entry is malformed or an id appears twice.
    """
    found: dict[str, Program] = {}
    for path in sorted(CORPUS.glob("*.yaml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        shared = {key: value for key, value in document.items() if key != "programs"}
        for entry in document["programs"]:
            program = Program(**{**shared, **entry})
            if program.id in found and found[program.id].group == program.group:
                raise ValueError(f"Program {program.group}/{program.id} is in the corpus twice.")
            found[f"{program.group}/{program.id}"] = program
    return tuple(found.values())
