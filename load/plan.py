"""A load plan: stages, mix, limits and thresholds, read from a profile in YAML and the flags of a run.

It only reads and validates; what is sent is decided by `arrivals` and `scenarios`, what it means by `gate`.
"""

import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from load.arrivals import Arrival, Stage, schedule, total_s
from load.decks import deck
from load.executors.replay import Replay
from load.executors.users import Users
from load.scenarios import ERAS, SCENARIOS

PROFILES = Path(__file__).parent / "profiles"
THRESHOLDS = Path(__file__).parent / "thresholds.yaml"

MOST: Final = 10_000_000
"""Arrivals of a plan: four hours at 700 a second, some 5 GB of rows."""

type Weights = Annotated[dict[str, PositiveInt], Field(min_length=1)]


class PlanError(ValueError):
    """A plan that cannot be run; the message names the file, the value and what to write instead."""


class Limits(BaseModel):
    """Beyond these the generator, not the endpoint, decided the numbers, and the run is inconclusive.

    Sources: the send lag and CPU limits are those measured to keep an open-loop Locust truthful (a dispatcher that
    lags 5 ms at p99 still holds 2,000/s on one core; at 3,000/s it lags 222 ms and its percentiles are fiction).
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    send_lag_p99_ms: PositiveFloat = 10.0
    send_lag_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.05, description="A lag below this share of the median service time is also accepted."
    )
    dropped_share: Annotated[float, Field(ge=0, le=1)] = 0.001
    cpu_share: Annotated[float, Field(gt=0, le=1)] = 0.90


class Abort(BaseModel):
    """Stops a run that has failed already, from `after_s` on: once more than `error_share` of all answers are bad, or
    one of `thresholds` is missed beyond what chance and later answers could mend."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    error_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    thresholds: list[str] = Field(default_factory=list)
    after_s: Annotated[float, Field(ge=0)] = 10.0

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if self.error_share is None and not self.thresholds:
            raise ValueError("an abort needs error_share or thresholds")
        return self


class Need(BaseModel):
    """What must have happened for a run to have measured what it set out to: unmet, it is inconclusive, not failed."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    threshold: str = Field(description="A count in the manner of thresholds, as count(cold) >= 10.")
    otherwise: str = Field(description="Why it may not have happened and what to do, for the person who meets it.")


class Budget(BaseModel):
    """What a run may send without being asked about; the estimate takes every call for `memory_mb` and `billed_ms`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    requests: PositiveInt = 10_000
    dollars: PositiveFloat = 2.0
    memory_mb: PositiveInt = 2048
    billed_ms: PositiveFloat = 500.0


class Plan(BaseModel):
    """Everything that decides a run but the endpoint. One plan and seed: the same requests at the same times."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    profile: str
    description: str = ""
    seed: int = 1
    stages: Annotated[list[Stage], Field(min_length=1)]
    scenarios: Weights
    eras: Weights
    request_timeout_s: PositiveFloat = 30.0
    drain_s: Annotated[float, Field(ge=0)] = 30.0
    max_in_flight: PositiveInt = 1000
    budget: Budget = Budget()
    limits: Limits = Limits()
    abort: Abort | None = None
    thresholds: list[str] = Field(default_factory=list)
    needs: list[Need] = Field(default_factory=list)

    @field_validator("scenarios")
    @classmethod
    def _known_scenarios(cls, weights: dict[str, int]) -> dict[str, int]:
        return _known(weights, tuple(SCENARIOS), "scenario")

    @field_validator("eras")
    @classmethod
    def _known_eras(cls, weights: dict[str, int]) -> dict[str, int]:
        return _known(weights, ERAS, "era")

    @model_validator(mode="after")
    def _connections_for_all_users(self) -> Self:
        most = max((stage.users for stage in self.stages if isinstance(stage, Users)), default=0)
        if most > self.max_in_flight:
            raise ValueError(f"{most} users need as many connections; raise max_in_flight above {self.max_in_flight}")
        return self

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        most = sum(
            len(stage.times_s) if isinstance(stage, Replay) else stage.peak_per_s * stage.duration_s
            for stage in self.stages
        )
        if most > MOST:
            raise ValueError(f"up to {most:.3g} requests are more than one run keeps the rows of, {MOST:,}")
        return self

    @property
    def duration_s(self) -> float:
        return total_s(self.stages)

    def arrivals(self) -> Iterator[tuple[Arrival, str, str]]:
        """Every arrival with its scenario and era. Proportions hold in every full deck, not only on average."""
        scenarios = deck(self.scenarios, random.Random(f"{self.seed}/scenarios"))
        eras = deck(self.eras, random.Random(f"{self.seed}/eras"))
        for arrival in schedule(self.stages, self.seed):
            yield arrival, next(scenarios), next(eras)

    def planned(self) -> int:
        """How many arrivals the plan has; walks the schedule, so call it once."""
        return sum(1 for _ in schedule(self.stages, self.seed))

    def stage_names(self) -> set[str]:
        """What the rows' `stage` may be; walks the schedule."""
        users = {stage.name or stage.kind for stage in self.stages if isinstance(stage, Users)}
        return users | {arrival.stage for arrival in schedule(self.stages, self.seed)}

    @property
    def closed_loop(self) -> bool:
        """Whether any stage has users who wait for their answers."""
        return any(isinstance(stage, Users) for stage in self.stages)

    def expected(self) -> int:
        """What the plan is likely to send, for its budget: the schedule, and what users manage when each answer takes
        the budget's `billed_ms`."""
        answer_s = self.budget.billed_ms / 1000
        users = (stage for stage in self.stages if isinstance(stage, Users))
        return self.planned() + sum(math.ceil(one.users * one.duration_s / (one.think_s + answer_s)) for one in users)

    def estimated_dollars(self, requests: int) -> float:
        """What so many calls would cost, for the budget question only; `ops` prices real ones.

        Source: us-east-1 list prices, x86, copied 2026-09-28: Lambda $0.20 a million requests and $0.0000166667 a
        GB-second, API Gateway REST $3.50 a million.
        """
        gb_s = self.budget.memory_mb / 1024 * self.budget.billed_ms / 1000
        return requests * (0.20e-6 + 3.50e-6 + gb_s * 0.0000166667)

    def scaled(self, rate_per_s: float | None = None, duration_s: float | None = None) -> "Plan":
        """The same shape with its highest rate at `rate_per_s` and its whole length `duration_s`. Raises PlanError."""
        for what, wanted in (("rate", rate_per_s), ("duration", duration_s)):
            if wanted is not None and not 0 < wanted < math.inf:
                raise PlanError(f"{self.profile}: a {what} of {wanted:g} cannot be sent; give a number above 0")
        peak_per_s = max(stage.peak_per_s for stage in self.stages)
        if rate_per_s is not None and peak_per_s == 0:
            raise PlanError(f"{self.profile}: users make their own rate; set users and think_s")
        rate = 1.0 if rate_per_s is None else rate_per_s / peak_per_s
        time = 1.0 if duration_s is None else duration_s / self.duration_s
        try:
            stages = [stage.scaled(rate, time) for stage in self.stages]
        except (ValueError, OverflowError) as error:
            raise PlanError(f"{self.profile}: {error}") from error
        document = self.model_dump() | {"stages": [stage.model_dump() for stage in stages]}
        return parse_plan(document, self.profile)


def profile_names() -> list[str]:
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_plan(profile: str, thresholds_file: Path = THRESHOLDS) -> Plan:
    """The plan of a profile's name, or of a path to a YAML file.

    Thresholds are the profile's own and those `thresholds_file` lists for it. Raises PlanError.
    """
    path = PROFILES / f"{profile}.yaml"
    if not path.is_file():
        path = Path(profile)
    if not path.is_file():
        raise PlanError(f"there is no profile {profile!r}; use one of {', '.join(profile_names())}, or a YAML file")
    document = _read_yaml(path)
    document.setdefault("profile", path.stem)
    own = document.get("thresholds") or []
    if not isinstance(own, list):
        raise PlanError(f"{path}: thresholds must be a list of lines like 'p95(latency) < 800ms'")
    document["thresholds"] = [*own, *_thresholds_for(str(document["profile"]), thresholds_file)]
    return parse_plan(document, str(path))


def parse_plan(document: Mapping[str, object], source: str) -> Plan:
    """A plan from a mapping; `source` is named in the PlanError it may raise."""
    try:
        return Plan.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the plan"
        message = first["msg"].removeprefix("Value error, ")
        raise PlanError(f"{source}: {where}: {message} (got {str(first['input'])[:80]})") from error


def _thresholds_for(profile: str, path: Path) -> list[str]:
    lists = _read_yaml(path)
    chosen: list[str] = []
    for name in ("every", profile):
        lines = lists.get(name) or []
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise PlanError(f"{path}: {name} must be a list of lines like 'p95(latency) < 800ms'")
        chosen.extend(lines)
    return chosen


def _read_yaml(path: Path) -> dict[str, object]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path} is not text in UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise PlanError(f"{path} is not YAML: {str(error).splitlines()[0]}{where}") from error
    if not isinstance(document, dict):
        raise PlanError(f"{path} must hold a mapping of names to values")
    return document


def _known(weights: dict[str, int], names: tuple[str, ...], what: str) -> dict[str, int]:
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise ValueError(f"there is no {what} {unknown[0]!r}; use {', '.join(names)}")
    return weights
