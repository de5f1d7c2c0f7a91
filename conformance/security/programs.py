"""The corpus as data: what each program is, which claim it tests and why it matters. It must not run anything."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from conformance.records import Kind

CORPUS = Path(__file__).parent / "corpus"


class Program(BaseModel):
    """One entry of the corpus. Attacks and persistence call leaked() only after seeing their effect.

    `judge` says by what an attack is judged: the marker it prints, or the answer around what it prints (`answer`), its
    measured usage (`usage`), or the refusal that must stay on record (`refusal`). A probe's `second` call is made with
    `second_requirements`, where `{nonce}` stands for that of the run, and its `after` call looks at what has become of
    them and removes what the first has laid. `safe: false` keeps a program out of a default run: it may end the process
    it runs in, or needs the endpoint's limits to end it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    group: str
    claim: str
    why: str
    cwe: str
    kind: Kind = "attack"
    program: str
    second: str | None = None
    second_requirements: tuple[str, ...] | None = None
    after: str | None = None
    compare: Literal["equal"] | None = None
    judge: Literal["marker", "answer", "usage", "refusal"] = "marker"
    requirements: tuple[str, ...] | None = None
    expect: str | None = None
    module: str | None = None
    safe: bool = True

    @property
    def name(self) -> str:
        """Group and id, as reports and residue lists write it."""
        return f"{self.group}-{self.id}"


class Way(BaseModel):
    """One way to reach what operations need; `get` binds a function of that name. `with` names its operations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    operations: tuple[str, ...]
    get: str
    claim: str | None = None


@cache
def load() -> tuple[Program, ...]:
    """Every program of the corpus, file by file.

    Raises:
        ValueError: an entry is malformed or a name appears twice.
    """
    found: dict[str, Program] = {}
    for path in sorted(CORPUS.glob("*.yaml")):
        for program in read(yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)):
            if program.name in found:
                raise ValueError(f"Program {program.name} is in the corpus twice.")
            found[program.name] = program
    return tuple(found.values())


def read(document: Mapping[str, Any]) -> Iterator[Program]:
    """The programs of one file: those written out, and the members of its families of ways x operations."""
    shared = {key: value for key, value in document.items() if key not in ("programs", "families", "operations")}
    for entry in document.get("programs", ()):
        yield Program(**{**shared, **entry})
    for family in document.get("families", ()):
        for name, entry in family["ways"].items():
            way = Way(operations=entry["with"], **{key: value for key, value in entry.items() if key != "with"})
            for operation in way.operations:
                member = {"group": family["group"], "claim": way.claim or shared["claim"], "id": f"{name}-{operation}"}
                yield Program(**{**shared, **member}, program=way.get + document["operations"][operation])
