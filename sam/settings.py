"""The deployment's settings: etc/environment.sh with the environment over it, and what is written back to files.

It deploys nothing and asks AWS nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NAMES = ("AWS_PROFILE", "AWS_REGION", "BUCKET", "O_LAYER_ARN")
# P_... that are no parameters of sam/template.yaml.
OWN = ("P_FN_NAME", "P_LAYER_DOCSTRINGS")


class SettingsError(Exception):
    """A setting cannot be used; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`values` by name, as in etc/environment.sh."""

    values: Mapping[str, str]

    def get(self, name: str, default: str = "") -> str:
        return self.values.get(name) or default

    @property
    def stack(self) -> str:
        """The stack's name, which is the function's."""
        return self.get("P_FN_NAME", "code-interpreter")

    @property
    def python(self) -> str:
        return self.get("P_RUNTIME", "python3.12").removeprefix("python")

    @property
    def architecture(self) -> str:
        return self.get("P_ARCHITECTURE", "x86_64")

    @property
    def isolation(self) -> str:
        return self.get("P_ISOLATION", "tenant")

    def parameters(self) -> dict[str, str]:
        """The template's parameters that are set: P_FN_MEMORY is PFnMemory."""
        given = {
            parameter_name(name): value
            for name, value in self.values.items()
            if name.startswith("P_") and name not in OWN and value
        }
        if self.get("O_LAYER_ARN"):
            given.setdefault("PLayerArn", self.values["O_LAYER_ARN"])
        return given


def parameter_name(setting: str) -> str:
    return "".join(part.capitalize() for part in setting.split("_"))


def read(file: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of `file`, if there is one, with `environment` over them. Raises SettingsError."""
    values = {}
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = re.fullmatch(r"(?:export )?([A-Z][A-Z0-9_]*)=(\S*)\s*", line)
        if found is None or found[2][:1] in ("'", '"'):
            raise SettingsError(f"{file}:{number} must be NAME=value without spaces and quotes, got {line!r}")
        values[found[1]] = found[2]
    known = {name: value for name, value in environment.items() if name in NAMES or name.startswith("P_")}
    if "AWS_REGION" not in known and environment.get("AWS_DEFAULT_REGION"):
        known["AWS_REGION"] = environment["AWS_DEFAULT_REGION"]
    return Settings(values | known)


def write(file: Path, changes: Mapping[str, str | None], *, private: bool = False) -> None:
    """Set the lines NAME=value of `file`, take out those that are None, and leave the rest as it is. With `private`
    only the owner can read the file."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    left = dict(changes)
    kept = []
    for line in lines:
        name = line.partition("=")[0].strip()
        if name not in changes:
            kept.append(line)
        elif name in left and (value := left.pop(name)) is not None:
            kept.append(f"{name}={value}")
    kept += [f"{name}={value}" for name, value in left.items() if value is not None]
    file.parent.mkdir(parents=True, exist_ok=True)
    if private:
        file.touch(mode=0o600)
        file.chmod(0o600)
    file.write_text("\n".join(kept) + "\n", encoding="utf-8")


def line_of(file: Path, name: str) -> str | None:
    """The value of NAME=value in `file`, or None."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return next((line.partition("=")[2] for line in reversed(lines) if line.partition("=")[0].strip() == name), None)
