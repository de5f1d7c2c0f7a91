"""Arrivals as a log has them."""

import json
import random
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, field_validator, model_validator

from load.executors.shape import Offset, Shape


class Replay(Shape):
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
