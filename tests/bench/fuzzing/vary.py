"""Varies inputs that are JSON at heart: by their tree, so that most stay JSON, and now and then by their bytes."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

# What programs trip over: edges of types, of encodings, and words that mean something to what reads them.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, 1e308, float("nan"), float("inf"),
    "", " ", "0", "null", "\0", "\ud800", "\udfff", "\U0010ffff", "\u2028", "é", "a" * 300,
    "../../x", "/etc/passwd", "%00", "=?utf-8?q?x?=",
    [], {}, [[]], [None], {"": None}, {"a": {"a": {"a": {}}}}, "tools/call", "tools/list", "initialize", "ping",
    "server/discover", "notifications/initialized", "2.0", "2025-11-25", "2026-07-28", "2024-11-05", "execute_python",
    "get_environment_info", "list_preinstalled_packages", "image/png", "text/html", "security", "timeout",
    "AAAA", "A===", "application/json", "text/event-stream", "*/*", "base64", "new",
    "six; python_version < '3'", "six[x]", "x;extra=='y'",
)  # fmt: skip
DEEPEST = 400


def vary(data: bytes, source: random.Random, rounds: int = 4) -> bytes:
    """`data` with a few changes to its tree; as it is where it is no JSON."""
    try:
        tree = json.loads(data)
        for _ in range(source.randint(1, rounds)):
            tree = _changed(tree, source)
        return json.dumps(tree, ensure_ascii=source.random() < 0.8).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return data


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything below `tree`."""
    found: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        one = pending.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in keys:
            found.append((one, key))
            pending.append(one[key])
    return found


def _changed(tree: Any, source: random.Random) -> Any:
    places = _places(tree)
    if not places:
        return source.choice(VALUES)
    container, key = source.choice(places)
    change: Callable[[Any, Any, Any, random.Random], None] = source.choice(CHANGES)
    change(places, container, key, source)
    return tree


def _replace(_places: Any, container: Any, key: Any, source: random.Random) -> None:
    container[key] = copy.deepcopy(source.choice(VALUES))


def _remove(_places: Any, container: Any, key: Any, _source: random.Random) -> None:
    del container[key]


def _rename(_places: Any, container: Any, key: Any, source: random.Random) -> None:
    if isinstance(container, dict):
        name = source.choice([one for one in VALUES if isinstance(one, str)])
        container[name] = container.pop(key)


def _graft(places: Any, container: Any, key: Any, source: random.Random) -> None:
    other, name = source.choice(places)
    if name in other if isinstance(other, dict) else name < len(other):
        container[key] = copy.deepcopy(other[name])


def _wrap(_places: Any, container: Any, key: Any, source: random.Random) -> None:
    value = container[key]
    for _ in range(source.choice((1, 1, 1, 3, DEEPEST))):
        value = [value] if source.random() < 0.5 else {"a": value}
    container[key] = value


def _stretch(_places: Any, container: Any, key: Any, source: random.Random) -> None:
    value = container[key]
    if isinstance(value, str | list) and len(value) < (4096 if isinstance(value, str) else 8):
        container[key] = value * source.choice((2, 3, 17))
    elif isinstance(value, int | float):
        container[key] = -value if source.random() < 0.5 else value * 256 if abs(value) < 2**60 else 0


def _spoil(_places: Any, container: Any, key: Any, source: random.Random) -> None:
    value = container[key]
    if isinstance(value, str):
        at = source.randint(0, len(value))
        piece = source.choice([one for one in VALUES if isinstance(one, str)])
        container[key] = value[:at] + piece + value[at + source.randint(0, 3) :]


CHANGES = (_replace, _replace, _remove, _rename, _graft, _wrap, _stretch, _spoil, _spoil)
