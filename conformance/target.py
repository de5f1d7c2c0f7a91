"""What is judged: the endpoint, the credentials for it, and the profile that says what its deployment claims.

It must not keep a secret where a report could find it: `Target.redact` is applied to everything that is recorded.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from conformance.wire import Endpoint, Header, parse_url

PROFILES = Path(__file__).parent / "profiles"
ENV_KEYS = ("MCP_ENDPOINT_URL", "MCP_API_KEY")
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")


class UsageFault(Exception):
    """The command was given something unusable; the message is for a person."""


class Profile(BaseModel):
    """What a deployment claims. A claim that is not here is not judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    text: str
    claims: tuple[str, ...]


class Interpreter(BaseModel):
    """How Python is run on a target: a tool, its argument, and where in the answer the printed text is.

    `stdout` is "text" for the text blocks, or a dotted path into structuredContent, or into a text block that is JSON;
    `pattern` takes a part of that by its first group; `failure` is what the text of a failed execution matches, where
    isError does not tell.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: str = "execute_python"
    code: str = "code"
    arguments: dict[str, Any] = {}
    requirements: str | None = None
    stdout: str = "text"
    pattern: str | None = None
    failure: str | None = None
    foreign: bool = Field(default=True, exclude=True)


OUR_INTERPRETER = Interpreter(requirements="requirements", foreign=False)


class TargetFile(BaseModel):
    """A target.yaml: where the server is, by URL or by the command of a stdio server, and how it runs Python."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | None = None
    command: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    python: Interpreter | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "TargetFile":
        if self.url and self.command:
            raise ValueError("give `url` or `command`, not both")
        return self


def read_target_file(path: Path) -> TargetFile:
    """Reads a target.yaml.

    Raises:
        UsageFault
    """
    try:
        return TargetFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageFault(f"The target {path} cannot be read: {error.strerror}.") from None
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        told = str(error).replace("\n", " ")[:300]
        raise UsageFault(f"The target {path} is not as conformance/targets/README.md says: {told}") from None


@dataclass(frozen=True, slots=True)
class Target:
    """One endpoint with everything needed to talk to it."""

    endpoint: Endpoint
    profile: Profile
    timeout_s: float
    credentials: tuple[Header, ...] = field(default=(), repr=False)
    # Credentials that the endpoint must refuse, such as a token that has expired or was made for another server.
    refused: tuple[Header, ...] = field(default=(), repr=False)
    interpreter: Interpreter = OUR_INTERPRETER
    over_stdio: bool = False

    def redact(self, text: str) -> str:
        """The text with every credential's value replaced."""
        for _, value in (*self.credentials, *self.refused):
            # The bare token too, without its scheme; the whole value first, since it holds the token.
            for secret in (value, value.rpartition(" ")[2]):
                if len(secret) >= 4:
                    text = text.replace(secret, "***")
        return text


def load_profile(name: str) -> Profile:
    """Reads a profile by name, or by path when it ends in .yaml.

    Raises:
        UsageFault
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in PROFILES.glob("*.yaml")))
        raise UsageFault(f"There is no profile {name!r}; use one of {known}, or the path of a .yaml file.")
    try:
        return Profile(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError, TypeError) as error:
        raise UsageFault(f"Profile {path} cannot be read: {str(error).splitlines()[0]}.") from None


def read_dotenv(path: Path) -> dict[str, str]:
    """MCP_* settings of a .env file; {} when there is none. Lines are NAME=value, quotes optional."""
    if not path.is_file():
        return {}
    pairs = (line.partition("=") for line in path.read_text(encoding="utf-8").splitlines() if "=" in line)
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs if name.strip() in ENV_KEYS}


def read_header(option: str, environment: Mapping[str, str]) -> Header:
    """One `--header NAME=@file|env:VAR`; a literal value is refused because argv is readable by others.

    Raises:
        UsageFault
    """
    name, separator, where = option.partition("=")
    if not separator or not HEADER_NAME.match(name):
        raise UsageFault(f"--header {name!r} is not NAME=@file or NAME=env:VAR.")
    if where.startswith("@"):
        try:
            value = Path(where[1:]).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UsageFault(f"The file for header {name} cannot be read: {error.strerror}: {where[1:]}.") from None
    elif where.startswith("env:"):
        value = environment.get(where[4:], "")
    else:
        raise UsageFault(f"--header {name} wants its value from @file or env:VAR, so that no secret is in argv.")
    if not value or "\n" in value or "\r" in value:
        raise UsageFault(f"The value for header {name} from {where} is empty or has line breaks.")
    return name, value


def read_target(
    url: str | None,
    *,
    profile: str,
    headers: Sequence[str],
    refused_headers: Sequence[str] = (),
    timeout_s: float,
    file: TargetFile | None = None,
    environment: Mapping[str, str] = os.environ,
    dotenv: Path = Path(".env"),
) -> Target:
    """Puts a target together: flag before environment before .env.

    Raises:
        UsageFault
    """
    settings = {**read_dotenv(dotenv), **{key: environment[key] for key in ENV_KEYS if environment.get(key)}}
    chosen = url or (file.url if file else None) or settings.get("MCP_ENDPOINT_URL")
    if not chosen:
        raise UsageFault("No endpoint: give its URL, or set MCP_ENDPOINT_URL.")
    if timeout_s <= 0:
        raise UsageFault(f"--timeout {timeout_s:g} must be more than 0 seconds.")
    try:
        endpoint = parse_url(chosen)
    except ValueError as error:
        raise UsageFault(str(error)) from None
    credentials = [read_header(option, environment) for option in headers]
    if settings.get("MCP_API_KEY") and all(name.lower() != "x-api-key" for name, _ in credentials):
        credentials.append(("x-api-key", settings["MCP_API_KEY"]))
    return Target(
        endpoint,
        load_profile(profile),
        timeout_s,
        tuple(credentials),
        tuple(read_header(option, environment) for option in refused_headers),
        interpreter=file.python if file and file.python else OUR_INTERPRETER,
        over_stdio=bool(file and file.command),
    )
