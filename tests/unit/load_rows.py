"""Rows and run records for the load tests, good in every respect but what a test names."""

from typing import Any

from load.plan import Plan, parse_plan
from load.rows import Row, RunRecord


def row(index: int = 0, latency_ms: float | None = 10.0, **other: Any) -> Row:
    """A good warm answer that left on time; `latency_ms=None` for one that was never sent."""
    intended_s = other.pop("intended_s", index * 0.1)
    sent_s = None if latency_ms is None else intended_s + other.pop("lag_ms", 0.5) / 1000
    service_ms = None if latency_ms is None else latency_ms - 0.5
    good: dict[str, Any] = {
        "index": index,
        "stage": "steady",
        "scenario": "print",
        "era": "2025-11-25",
        "intended_s": intended_s,
        "sent_s": sent_s,
        "first_byte_s": None if latency_ms is None else intended_s + latency_ms / 1000,
        "done_s": None if latency_ms is None else intended_s + latency_ms / 1000,
        "latency_ms": latency_ms,
        "service_ms": service_ms,
        "status": 200,
        "outcome": "ok",
        "environment_id": "env-a",
        "invocation": 2,
        "init_type": "on-demand",
        "cold": False,
    }
    return Row(**{**good, **other})


def rows(count: int, **other: Any) -> list[Row]:
    return [row(index, **other) for index in range(count)]


def plan(**other: Any) -> Plan:
    document: dict[str, Any] = {
        "profile": "test",
        "stages": [{"kind": "constant", "rate_per_s": 10, "duration_s": 10}],
        "scenarios": {"print": 1},
        "eras": {"2025-11-25": 1},
        "thresholds": ["count(errors) == 0"],
    }
    return parse_plan({**document, **other}, "test")


def record(planned: int = 100, **other: Any) -> RunRecord:
    """A local run that went to its end."""
    good: dict[str, Any] = {
        "profile": "test",
        "endpoint": "http://127.0.0.1:1/mcp",
        "plan": plan(**other.pop("plan", {})).model_dump(mode="json"),
        "anchor_unix_s": 1_795_500_000.0,
        "planned": planned,
        "dispatched": planned,
        "ended": "complete",
        "ended_s": 10.0,
        "cpu_share": [0.2, 0.3],
    }
    return RunRecord(**{**good, **other})
