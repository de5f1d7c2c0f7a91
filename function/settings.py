"""The deployment's settings, from environment variables, read once. A wrong value is one sentence and no start."""

from __future__ import annotations

import os
from collections.abc import Mapping

from interpreter.confinement import Limits
from interpreter.engine import HEAVY, Interpreter
from interpreter.packages import PackagePolicy, normal_name

HOST_MB = 170  # resident set of the handler and the templates, measured; the rest of the memory is the code's


class SettingsError(ValueError):
    """A variable whose value cannot be used."""


def make_interpreter(environment: Mapping[str, str] = os.environ) -> Interpreter:
    """The interpreter a deployment asks for.

    INTERPRETER_TIMEOUT_S (25), INTERPRETER_MEMORY_MB (what the function's memory leaves), INTERPRETER_TASKS (32 threads
    of a run; 0 closes threads and with them every way to a new process), INTERPRETER_NETWORK (none | public),
    INTERPRETER_PRELOAD (modules of the heavy template beside the standard ones), INTERPRETER_SESSIONS (0: how many an
    environment keeps), INTERPRETER_REQUIRE (empty | kernel), INTERPRETER_AUDIT_HOOK (on | off, to measure what the
    other layers hold), INTERPRETER_INDEX_URL, INTERPRETER_PACKAGES_ALLOW and INTERPRETER_PACKAGES_DENY (names, comma
    separated).
    Raises SettingsError.
    """
    interpreter = Interpreter(
        limits(environment),
        preload=(*HEAVY, *_list(environment, "INTERPRETER_PRELOAD")),
        network=_choice(environment, "INTERPRETER_NETWORK", ("none", "public")) == "public",
        hook=_choice(environment, "INTERPRETER_AUDIT_HOOK", ("on", "off")) == "on",
        sessions=int(_number(environment, "INTERPRETER_SESSIONS", 0, least=0)),
        packages=PackagePolicy(
            index_url=environment.get("INTERPRETER_INDEX_URL") or None,
            allow=frozenset(map(normal_name, _list(environment, "INTERPRETER_PACKAGES_ALLOW"))),
            deny=frozenset(map(normal_name, _list(environment, "INTERPRETER_PACKAGES_DENY"))),
        ),
    )
    required = _choice(environment, "INTERPRETER_REQUIRE", ("", "kernel"))
    if required == "kernel" and not interpreter.kernel.whole:
        interpreter.close()
        raise SettingsError(
            "INTERPRETER_REQUIRE is kernel, but this kernel, or the filter around this process, grants no seccomp and "
            "Landlock; inside a Lambda function it never does, so leave the variable empty there"
        )
    return interpreter


def limits(environment: Mapping[str, str] = os.environ) -> Limits:
    """Limits of a run."""
    defaults = Limits()
    function_mb = _number(environment, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 0)
    room_mb = max(function_mb - HOST_MB, 64) if function_mb else defaults.memory_mb
    return Limits(
        timeout_s=_number(environment, "INTERPRETER_TIMEOUT_S", defaults.timeout_s),
        memory_mb=int(_number(environment, "INTERPRETER_MEMORY_MB", room_mb)),
        processes=int(_number(environment, "INTERPRETER_TASKS", defaults.processes, least=0)),
    )


def _list(environment: Mapping[str, str], name: str) -> list[str]:
    return [item.strip() for item in environment.get(name, "").split(",") if item.strip()]


def _choice(environment: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    value = environment.get(name, choices[0])
    if value not in choices:
        raise SettingsError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}")
    return value


def _number(environment: Mapping[str, str], name: str, default: float, least: float = 0.001) -> float:
    text = environment.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value < least:
        raise SettingsError(f"{name} is {text!r}; it must be a number, at least {least:g}")
    return value
