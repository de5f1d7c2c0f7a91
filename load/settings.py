"""Where the endpoint and its key come from: flag, then environment, then `.env`. Never prints either's secret part."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

DOT_ENV_NAMES = ("MCP_ENDPOINT_URL", "MCP_API_KEY")


class SettingsError(ValueError):
    """A setting that cannot be used; the message says which and what to do."""


def read_dot_env(path: Path = Path(".env")) -> dict[str, str]:
    """The settings of this room and AWS_* from a `.env` file of NAME=value lines; {} when there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.strip().removeprefix("export ").partition("=") for line in text.splitlines())
    return {
        name.strip(): value.strip().strip("'\"")
        for name, equals, value in pairs
        if equals and (name.strip() in DOT_ENV_NAMES or name.strip().startswith("AWS_"))
    }


def setting(name: str, environment: Mapping[str, str] = os.environ, dot_env: Path = Path(".env")) -> str | None:
    """A setting from the environment, else from `.env`, else None. An empty value counts as absent."""
    return environment.get(name) or read_dot_env(dot_env).get(name) or None


def apply_aws_settings(dot_env: Path = Path(".env")) -> None:
    """Lets boto3 see the AWS_* lines of `.env`; what the environment already says stands."""
    for name, value in read_dot_env(dot_env).items():
        if name.startswith("AWS_"):
            os.environ.setdefault(name, value)


def api_key() -> str | None:
    """MCP_API_KEY, None when there is none. Raises SettingsError for one that no HTTP header can carry."""
    key = setting("MCP_API_KEY")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise SettingsError("MCP_API_KEY holds a character that an HTTP header cannot carry; copy it again")
    return key


def check_endpoint(url: str | None) -> str:
    """The endpoint URL when it can be called. Raises SettingsError."""
    if not url:
        raise SettingsError("no endpoint: give its URL, or set MCP_ENDPOINT_URL (…/{stage}/lambda/mcp/)")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"{url!r} is not an endpoint: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise SettingsError(f"{url!r} is not an endpoint; give a URL that starts with http:// or https://")
    if parts.username or parts.password:
        raise SettingsError("the endpoint URL holds credentials; take them out and set MCP_API_KEY")
    return url


def without_secrets(url: str) -> str:
    """The URL fit for a report: no user, password or query."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    netloc = f"[{host}]" if ":" in host else host
    return urlunsplit((parts.scheme, netloc + (f":{parts.port}" if parts.port else ""), parts.path, "", ""))


def is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
