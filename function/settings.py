"""The deployment's settings, from environment variables, read once. A wrong value is one sentence and no start."""

from __future__ import annotations

import os
from collections.abc import Mapping

from interpreter.confinement import Limits
from interpreter.engine import HEAVY

HOST_MB = 170  # resident set of the handler and the templates, measured; the rest of the memory is the code's


class SettingsError(ValueError):
    """A variable whose value cannot be used."""


def limits_from(environment: Mapping[str, str] = os.environ) -> Limits:
    """Limits of a run: INTERPRETER_TIMEOUT_S (25), INTERPRETER_MEMORY_MB (what the function's memory leaves)."""
    defaults = Limits()
    function_mb = _number(environment, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 0)
    room_mb = max(function_mb - HOST_MB, 64) if function_mb else defaults.memory_mb
    return Limits(
        timeout_s=_number(environment, "INTERPRETER_TIMEOUT_S", defaults.timeout_s),
        memory_mb=int(_number(environment, "INTERPRETER_MEMORY_MB", room_mb)),
    )


def network_from(environment: Mapping[str, str] = os.environ) -> bool:
    """INTERPRETER_NETWORK: none (default) or public."""
    value = environment.get("INTERPRETER_NETWORK", "none")
    if value not in ("none", "public"):
        raise SettingsError(f"INTERPRETER_NETWORK is {value!r}; it must be none or public")
    return value == "public"


def preload_from(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """INTERPRETER_PRELOAD: modules of the heavy template, comma separated, after the standard ones."""
    more = [name.strip() for name in environment.get("INTERPRETER_PRELOAD", "").split(",") if name.strip()]
    return (*HEAVY, *more)


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value <= 0:
        raise SettingsError(f"{name} is {text!r}; it must be a number above 0")
    return value
