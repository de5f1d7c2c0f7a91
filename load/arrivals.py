"""When requests are meant to be sent: each load shape is a validated configuration that yields intended times.

Pure arithmetic. It must not read a clock, sleep, or import gevent: `locustfile` does the sending, and latency is
measured from the times made here, so a slow server cannot slow the schedule that judges it.
"""

import json
import math
import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

type Offset = tuple[float, str]
"""Seconds from the start of the stage, and the label of the part of the stage it belongs to ("" for the whole)."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One intended request. `at_s` counts from the start of the run; `stage` is the stage's name, or `name@part`."""

    index: int
    at_s: float
    stage: str


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(default="", description="Names the stage in reports and selectors; its kind when empty.")


class Constant(_Shape):
    """`rate_per_s` evenly spaced arrivals a second, the first at 0."""

    kind: Literal["constant"] = "constant"
    rate_per_s: PositiveFloat
    duration_s: PositiveFloat

    @property
    def peak_per_s(self) -> float:
        return self.rate_per_s

    def scaled(self, rate: float, time: float) -> Self:
        return self.model_copy(update={"rate_per_s": self.rate_per_s * rate, "duration_s": self.duration_s * time})

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        return _evenly(self.rate_per_s, self.duration_s)


class Ramp(_Shape):
    """A rate that moves in a straight line from `from_per_s` to `to_per_s`.

    Arrival i is where the integral of the rate reaches i, so the ramp has no steps and no drift.
    """

    kind: Literal["ramp"] = "ramp"
    from_per_s: Annotated[float, Field(ge=0)]
    to_per_s: Annotated[float, Field(ge=0)]
    duration_s: PositiveFloat

    @model_validator(mode="after")
    def _moves(self) -> Self:
        if self.from_per_s == 0 and self.to_per_s == 0:
            raise ValueError("a ramp from 0/s to 0/s sends nothing; give from_per_s or to_per_s a rate")
        return self

    @property
    def peak_per_s(self) -> float:
        return max(self.from_per_s, self.to_per_s)

    def scaled(self, rate: float, time: float) -> Self:
        update = {"from_per_s": self.from_per_s * rate, "to_per_s": self.to_per_s * rate}
        return self.model_copy(update=update | {"duration_s": self.duration_s * time})

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        start, slope = self.from_per_s, (self.to_per_s - self.from_per_s) / self.duration_s
        total = (self.from_per_s + self.to_per_s) / 2 * self.duration_s
        for i in range(_count(total)):
            if abs(slope) < 1e-12:
                yield i / start, ""
                continue
            # i = start*t + slope*t^2/2, solved for t; the clamp is for rounding at the very end of a falling ramp
            root = math.sqrt(max(0.0, start * start + 2 * slope * i))
            yield min(self.duration_s, (root - start) / slope), ""


class Step(_Shape):
    """A staircase: `steps` plateaus of `step_s` seconds each, to find the knee. Every plateau is a stage of its own."""

    kind: Literal["step"] = "step"
    start_per_s: PositiveFloat
    step_per_s: float
    steps: PositiveInt
    step_s: PositiveFloat

    @model_validator(mode="after")
    def _stays_above_zero(self) -> Self:
        last = self.start_per_s + self.step_per_s * (self.steps - 1)
        if last <= 0:
            raise ValueError(f"the last of {self.steps} steps would run at {last:g}/s; every step needs a rate above 0")
        return self

    @property
    def duration_s(self) -> float:
        return self.step_s * self.steps

    @property
    def peak_per_s(self) -> float:
        return max(self.start_per_s, self.start_per_s + self.step_per_s * (self.steps - 1))

    def scaled(self, rate: float, time: float) -> Self:
        update = {"start_per_s": self.start_per_s * rate, "step_per_s": self.step_per_s * rate}
        return self.model_copy(update=update | {"step_s": self.step_s * time})

    def plateaus(self) -> Iterator[tuple[float, str]]:
        """Each one's rate, and the label of its arrivals."""
        for k in range(self.steps):
            rate = self.start_per_s + self.step_per_s * k
            yield rate, f"{rate:g}/s"

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        for k, (rate, label) in enumerate(self.plateaus()):
            for at_s, _ in _evenly(rate, self.step_s):
                yield k * self.step_s + at_s, label


class Spike(_Shape):
    """A base rate, a sudden peak, and the base rate again to watch the recovery."""

    kind: Literal["spike"] = "spike"
    base_per_s: PositiveFloat
    peak_per_s: PositiveFloat
    before_s: PositiveFloat
    peak_s: PositiveFloat
    after_s: PositiveFloat

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.peak_per_s <= self.base_per_s:
            raise ValueError(f"a spike's peak ({self.peak_per_s:g}/s) must be above its base ({self.base_per_s:g}/s)")
        return self

    @property
    def duration_s(self) -> float:
        return self.before_s + self.peak_s + self.after_s

    def scaled(self, rate: float, time: float) -> Self:
        update = {"base_per_s": self.base_per_s * rate, "peak_per_s": self.peak_per_s * rate}
        spans = {"before_s": self.before_s * time, "peak_s": self.peak_s * time, "after_s": self.after_s * time}
        return self.model_copy(update=update | spans)

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        start = 0.0
        parts = (
            (self.base_per_s, self.before_s, "before"),
            (self.peak_per_s, self.peak_s, "peak"),
            (self.base_per_s, self.after_s, "after"),
        )
        for rate, span_s, label in parts:
            for at_s, _ in _evenly(rate, span_s):
                yield start + at_s, label
            start += span_s


class Burst(_Shape):
    """`size` arrivals at the same instant, `repeats` times, `every_s` seconds apart."""

    kind: Literal["burst"] = "burst"
    size: PositiveInt
    every_s: PositiveFloat = 1.0
    repeats: PositiveInt = 1

    @property
    def duration_s(self) -> float:
        return self.every_s * self.repeats

    @property
    def peak_per_s(self) -> float:
        return self.size / self.every_s

    def scaled(self, rate: float, time: float) -> Self:
        """The size follows the rate asked for once the spacing is stretched by `time`; at least one arrival stays."""
        size = max(1, round(self.size * rate * time))
        return self.model_copy(update={"size": size, "every_s": self.every_s * time})

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        for k in range(self.repeats):
            for _ in range(self.size):
                yield k * self.every_s, ""


class Poisson(_Shape):
    """Independent arrivals with exponential gaps, as unrelated callers would make. Repeatable by the plan's seed."""

    kind: Literal["poisson"] = "poisson"
    rate_per_s: PositiveFloat
    duration_s: PositiveFloat

    @property
    def peak_per_s(self) -> float:
        return self.rate_per_s

    def scaled(self, rate: float, time: float) -> Self:
        return self.model_copy(update={"rate_per_s": self.rate_per_s * rate, "duration_s": self.duration_s * time})

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        at_s = rng.expovariate(self.rate_per_s)
        while at_s < self.duration_s:
            yield at_s, ""
            at_s += rng.expovariate(self.rate_per_s)


class Replay(_Shape):
    """Arrivals as they once came: seconds, from a log, the first moved to 0. `speed` 2 plays them twice as fast.

    `path` names a file with one time a line, a number of seconds or a JSON object with `timestamp_ms`; it is read when
    the plan is, so that a plan holds its own times and every worker plays the same.
    """

    kind: Literal["replay"] = "replay"
    times_s: Annotated[tuple[float, ...], Field(min_length=1)]
    speed: PositiveFloat = 1.0

    @model_validator(mode="before")
    @classmethod
    def _read_path(cls, document: Any) -> Any:
        if not isinstance(document, dict) or "path" not in document:
            return document
        return {key: value for key, value in document.items() if key != "path"} | {
            "times_s": _read_times(document["path"])
        }

    @field_validator("times_s")
    @classmethod
    def _from_zero(cls, times_s: tuple[float, ...]) -> tuple[float, ...]:
        first_s = min(times_s)
        return tuple(sorted(round(at_s - first_s, 6) for at_s in times_s))

    @property
    def duration_s(self) -> float:
        """Until the last arrival, and one mean gap after it: n arrivals have n gaps, as in an even stage."""
        count = len(self.times_s)
        return max(self.times_s[-1] / self.speed * count / max(1, count - 1), 0.001)

    @property
    def peak_per_s(self) -> float:
        """The most arrivals in any one second from an arrival on."""
        played = [at_s / self.speed for at_s in self.times_s]
        return float(max(bisect_left(played, at_s + 1) - i for i, at_s in enumerate(played)))

    def scaled(self, rate: float, time: float) -> Self:
        """Only by time: a log's rate cannot be changed without changing its length. Raises ValueError."""
        if rate != 1:
            raise ValueError("a replay keeps its log's own rate; set its speed, or --duration")
        return self.model_copy(update={"speed": self.speed / time})

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        return ((at_s / self.speed, "") for at_s in self.times_s)


class Users(_Shape):
    """`users` who each wait for an answer and think `think_s` before the next question: a closed loop, no schedule.

    They start evenly over the first `ramp_s`. What each of them does is in `users`.
    """

    kind: Literal["users"] = "users"
    users: PositiveInt
    duration_s: PositiveFloat
    think_s: Annotated[float, Field(ge=0)] = 1.0
    ramp_s: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _all_start(self) -> Self:
        if self.ramp_s >= self.duration_s:
            raise ValueError(f"the last user would start at {self.ramp_s:g} s, when the stage is over")
        return self

    @property
    def peak_per_s(self) -> float:
        """None that can be known: users make their own rate."""
        return 0.0

    def scaled(self, rate: float, time: float) -> Self:
        """Only by time. Raises ValueError."""
        if rate != 1:
            raise ValueError("users make their own rate; set users and think_s")
        return self.model_copy(update={"duration_s": self.duration_s * time, "ramp_s": self.ramp_s * time})

    def offsets(self, rng: random.Random) -> Iterator[Offset]:
        return iter(())


type Stage = Annotated[Constant | Ramp | Step | Spike | Burst | Poisson | Replay | Users, Field(discriminator="kind")]


def schedule(stages: Sequence[Stage], seed: int) -> Iterator[Arrival]:
    """Every arrival of the stages one after another, in order of intended time.

    The same stages and seed give the same arrivals in every process, so that workers can each take their share of one
    schedule by index. Each stage draws from a generator of its own: changing one stage leaves the others' times alone.
    """
    index, start_s = 0, 0.0
    for position, stage in enumerate(stages):
        name = stage.name or stage.kind
        for at_s, part in stage.offsets(random.Random(f"{seed}/{position}")):
            yield Arrival(index, start_s + at_s, f"{name}@{part}" if part else name)
            index += 1
        start_s += stage.duration_s


def total_s(stages: Sequence[Stage]) -> float:
    """Seconds from the first stage's start to the last one's end."""
    return sum(stage.duration_s for stage in stages)


def _read_times(path: object) -> list[float]:
    """Times in seconds from a file of a replay. Raises ValueError, as pydantic wants it."""
    try:
        lines = Path(str(path)).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"cannot read the replay's {path}: {error.strerror}") from error
    times_s = []
    for number, line in enumerate((line.strip() for line in lines), start=1):
        if not line:
            continue
        try:
            times_s.append(json.loads(line)["timestamp_ms"] / 1000 if line.startswith("{") else float(line))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {line[:60]!r} is no time in seconds") from error
    return times_s


def _evenly(rate_per_s: float, duration_s: float) -> Iterator[Offset]:
    for i in range(_count(rate_per_s * duration_s)):
        yield i / rate_per_s, ""


def _count(expected: float) -> int:
    """Whole arrivals in `expected`; at least one, and 2.9999999996 counts as 3."""
    return max(1, math.ceil(expected - 1e-6))
