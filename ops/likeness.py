"""Makes payloads that ask of the function what its real calls asked: their CPU time, waiting and memory, in their mix.

It cannot give back the calls: the function's records hold no code, only its digest and size. What is drawn from them is
what memory changes the time of. Left out, and counted: calls that failed, and calls that installed packages, whose time
is a download's. Bursts of CPU between waits, threads and files are not in the records, so they are not in the payloads.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ops import records
from ops.bench import Payload, call_event, proxy_event
from ops.failures import Inconclusive
from ops.logs import LogEvent
from ops.memory_model import FULL_CORE_MB

FEWEST = 20
"""Calls of execute_python below which their mix is not known."""
CLASSES = 5
_CODE = "execute_python"


@dataclass(frozen=True, slots=True)
class Demand:
    """What one call of execute_python took: CPU and waiting in ms, the most memory of its code in MB."""

    cpu_ms: float
    wait_ms: float
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Mix:
    """The demands of good calls of execute_python, the number of calls of each other tool, and of those left out."""

    demands: list[Demand]
    others: dict[str, int]
    left_out: dict[str, int]


def mix_of(events: Iterable[LogEvent]) -> Mix:
    """The calls among log events; waiting is what CPU time at the memory size of their REPORT does not explain."""
    calls: list[records.Logged] = []
    sizes: dict[str, float] = {}
    for event in events:
        record = records.parse(event.message)
        if isinstance(record, records.Report) and record.memory_size_mb:
            sizes[record.request_id] = record.memory_size_mb
        elif isinstance(record, records.Logged) and "tool" in record.fields and "outcome" in record.fields:
            calls.append(record)
    made = Mix([], {}, {})
    for call in calls:
        _count(call, sizes, made)
    return made


def _count(call: records.Logged, sizes: dict[str, float], mix: Mix) -> None:
    fields, size = call.fields, sizes.get(call.request_id or "")
    tool = str(fields["tool"])
    if fields["outcome"] != "ok":
        why = "failed"
    elif tool != _CODE:
        mix.others[tool] = mix.others.get(tool, 0) + 1
        return
    elif fields.get("requirements"):
        why = "installed packages"
    elif size is None or not all(isinstance(fields.get(n), int | float) for n in ("cpu_ms", "wall_ms", "max_rss_mb")):
        why = "lack a REPORT or their usage"
    else:
        cpu_ms = float(fields["cpu_ms"])
        wait_ms = max(0.0, float(fields["wall_ms"]) - cpu_ms / min(1.0, size / FULL_CORE_MB))
        mix.demands.append(Demand(cpu_ms, wait_ms, float(fields["max_rss_mb"])))
        return
    mix.left_out[why] = mix.left_out.get(why, 0) + 1


def payloads_like(mix: Mix, classes: int = CLASSES) -> list[Payload]:
    """A payload for each class of equal count, from light to heavy calls, and one for each other tool, with weights.

    Raises Inconclusive below twenty calls of execute_python.
    """
    if len(mix.demands) < FEWEST:
        left = ", ".join(f"{n} that {why}" for why, n in mix.left_out.items())
        raise Inconclusive(
            f"The logs hold {len(mix.demands)} good calls of {_CODE}{f' ({left})' if left else ''}, and a mix takes "
            f"{FEWEST} of them; pull a longer range."
        )
    ordered = sorted(mix.demands, key=lambda d: d.cpu_ms + d.wait_ms)
    baseline_mb = min(d.memory_mb for d in ordered)
    drawn = [
        Payload(describe(mean), proxy_event(code_of(mean, baseline_mb)), float(len(part)))
        for part in np.array_split(np.arange(len(ordered)), classes)
        if (mean := _mean([ordered[i] for i in part]))
    ]
    others = [Payload(tool, call_event(tool, {}), float(n)) for tool, n in sorted(mix.others.items())]
    return drawn + others


def _mean(part: Sequence[Demand]) -> Demand:
    return Demand(*(float(np.mean([getattr(d, name) for d in part])) for name in ("cpu_ms", "wait_ms", "memory_mb")))


def describe(demand: Demand) -> str:
    """`12 ms of CPU, 3 ms of waiting, 40 MB`."""
    return f"{demand.cpu_ms:.0f} ms of CPU, {demand.wait_ms:.0f} ms of waiting, {demand.memory_mb:.0f} MB"


def code_of(demand: Demand, baseline_mb: float) -> str:
    """Python that takes so much: memory beyond what every call holds, written to; then CPU time; then waiting."""
    pages = int(max(0.0, demand.memory_mb - baseline_mb) * 256)
    return (
        "import time\n"
        f"end = time.process_time() + {demand.cpu_ms / 1000:.6f}\n"
        f"held = bytearray({pages} * 4096)\n"
        f"for page in range({pages}):\n"
        "    held[page * 4096] = 1\n"
        "while time.process_time() < end:\n"
        "    pass\n"
        f"time.sleep({demand.wait_ms / 1000:.6f})\n"
    )
