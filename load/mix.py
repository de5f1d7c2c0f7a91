"""Makes a profile of what callers really did: arrival times and scenario weights from the function's own call records.

The records hold no code, only the tool, its requirements and why a call failed; so calls that simply succeeded are
spread over the plain scenarios as every other profile does. It reads and writes no AWS and no file.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import yaml

from load.scenarios import ERAS

PATTERN: Final = '"tool call"'
"""CloudWatch's filter for the records, in either log format."""

PLAIN: Final[Mapping[str, int]] = {"print": 4, "numpy": 2, "pandas": 2, "figure": 1}
LARGEST_DECK: Final = 1000
MOST_REPLAYED: Final = 20_000
"""Arrivals that are written out one by one; of a busier time the mean rate is kept instead."""

_BY_TOOL: Final = {"list_preinstalled_packages": "packages", "get_environment_info": "info"}
_BY_ERROR: Final = {"security": "blocked", "timeout": "timeout", "package": "no-package"}


class NoCalls(ValueError):
    """There is nothing to make a profile of; the message says where was looked."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it came: when, in ms since 1970, and the scenario that stands for it ("plain" for any success)."""

    at_ms: int
    scenario: str


def read_calls(events: Iterable[tuple[int, str]]) -> list[Call]:
    """The calls among log events, in order of time. Events that are no call record are passed over."""
    found = [Call(at_ms, scenario) for at_ms, message in events if (scenario := _scenario_of(message)) is not None]
    return sorted(found, key=lambda call: call.at_ms)


def _scenario_of(message: str) -> str | None:
    try:
        record = json.loads(message)
    except ValueError:
        return None
    if not isinstance(record, dict) or record.get("message") != "tool call":
        return None
    tool = record.get("tool")
    if tool in _BY_TOOL:
        return _BY_TOOL[tool]
    if tool != "execute_python":
        return None
    if record.get("outcome") != "ok":
        return _BY_ERROR.get(str(record.get("error_type")), "error")
    return "install" if record.get("requirements") else "plain"


def profile_of(calls: Sequence[Call], source: str, poisson: bool = False) -> str:
    """A profile in YAML that sends the calls' mix at their times, or at their mean rate when `poisson` or too many.

    `source` names the log in a comment. Raises NoCalls.
    """
    if not calls:
        raise NoCalls(f"{source} holds no call records; were there calls in that time, and is it the function's log?")
    weights = _weights(Counter(call.scenario for call in calls))
    times_s = [(call.at_ms - calls[0].at_ms) / 1000 for call in calls]
    document = {
        "profile": "mix-from-logs",
        "seed": 1,
        "stages": [_stage(times_s, poisson)],
        "scenarios": weights,
        "eras": dict.fromkeys(ERAS, 1),
        # the timeout scenario runs until the endpoint's own limit
        "request_timeout_s": 60 if "timeout" in weights else 30,
        "drain_s": 60 if "timeout" in weights else 30,
        "limits": {"send_lag_p99_ms": 50},
        "thresholds": _thresholds(len(calls)),
    }
    text: str = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120)
    return _head(calls, source) + text


def _stage(times_s: Sequence[float], poisson: bool) -> dict[str, Any]:
    if len(times_s) > 1 and (poisson or len(times_s) > MOST_REPLAYED):
        length_s = times_s[-1] * len(times_s) / (len(times_s) - 1)
        if length_s > 0:
            rate = {"rate_per_s": round(len(times_s) / length_s, 6), "duration_s": round(length_s, 3)}
            return {"kind": "poisson", "name": "mix", **rate}
    return {"kind": "replay", "name": "mix", "times_s": list(times_s)}


def _weights(counts: Counter[str]) -> dict[str, int]:
    """Whole weights in the calls' proportions; nothing that was seen is rounded away."""
    spread = sum(PLAIN.values())
    shares = {name: n * spread for name, n in counts.items() if name != "plain"}
    shares |= {name: counts["plain"] * part for name, part in PLAIN.items() if counts["plain"]}
    divisor = math.gcd(*shares.values())
    whole = {name: share // divisor for name, share in shares.items()}
    total = sum(whole.values())
    if total > LARGEST_DECK:
        whole = {name: max(1, round(share * LARGEST_DECK / total)) for name, share in whole.items()}
    return dict(sorted(whole.items()))


def _thresholds(calls: int) -> list[str]:
    lines = ["count(requests) > 0", "rate(errors) < 0.5%" if calls >= 598 else "count(errors) == 0"]
    return [*lines, "p95(latency{cold:false}) < 2s"] if calls >= 200 else lines


def _head(calls: Sequence[Call], source: str) -> str:
    first, last = (datetime.fromtimestamp(call.at_ms / 1000, UTC) for call in (calls[0], calls[-1]))
    seen = ", ".join(f"{name} {n}" for name, n in Counter(call.scenario for call in calls).most_common())
    return (
        f"# Made from {len(calls)} call records of {source},\n"
        f"# {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC: {seen}.\n"
        f"# Plain calls are spread over {', '.join(PLAIN)}: the records hold no code. Eras are not recorded either.\n"
    )
