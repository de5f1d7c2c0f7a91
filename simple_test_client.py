#!/usr/bin/env python3
"""Asks an MCP endpoint the three questions of the deployment test and shows what it answers.

Python's standard library is all it needs, so that it can be copied to wherever an endpoint has to be reachable from.
The gate with records and reports is `python -m conformance URL --smoke`; this shows, and keeps nothing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

EPILOG = """examples:
  python3 simple_test_client.py https://ID.execute-api.us-east-1.amazonaws.com/prod/lambda/mcp/
  MCP_API_KEY=... python3 simple_test_client.py      the endpoint from MCP_ENDPOINT_URL or .env

exit codes: 0 all three answered as they should, 1 one did not, 2 usage, 3 unreachable or key refused, 130 interrupted
"""
ADDITION = 'result = 2 + 3\nprint(f"计算结果: {result}")'
PACKAGES = ("numpy", "pandas", "matplotlib")
# Statuses that say something of the address or the key, and nothing of the interpreter behind it.
SHUT = {
    401: "the key",
    403: "the key (MCP_API_KEY), and that the URL has the stage and /lambda/mcp/",
    404: "the path",
    405: "the path",
}


class Shut(Exception):
    """Nobody let us in; one sentence for a person."""


class Wrong(Exception):
    """The endpoint answered, and not as it should; one sentence for a person."""


class Broken(Wrong):
    """Not even the function answered: a gateway's 5xx."""


def run(argv: list[str], environment: Mapping[str, str] = os.environ, dotenv: Path = Path(".env")) -> int:
    """Asks the three questions and returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Three calls to a code interpreter: its environment, 2 + 3, and its packages.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", nargs="?", metavar="URL", help="the MCP endpoint (default MCP_ENDPOINT_URL)")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds for one answer (60)")
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    settings = {**read_dotenv(dotenv), **{name: value for name, value in environment.items() if value}}
    url = options.url or settings.get("MCP_ENDPOINT_URL", "")
    if not re.match(r"https?://[^/\s]+", url):
        print(f"{url or 'No URL'}: give an endpoint that starts with http:// or https://", file=sys.stderr)
        return 2
    try:
        return ask_all(url, settings.get("MCP_API_KEY"), options.timeout)
    except Shut as refusal:
        print(refusal, file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130


def read_dotenv(path: Path) -> dict[str, str]:
    """MCP_* of a .env file; {} when there is none."""
    if not path.is_file():
        return {}
    pairs = (line.partition("=") for line in path.read_text(encoding="utf-8").splitlines())
    return {n.strip(): v.strip().strip("\"'") for n, equals, v in pairs if equals and n.strip().startswith("MCP_")}


def ask_all(url: str, key: str | None, timeout_s: float) -> int:
    """Raises Shut when nobody is there, or no question gets further than a gateway."""
    print(f"Testing {url}\n")
    passed = broken = 0
    for number, (title, tool, arguments, show) in enumerate(QUESTIONS, start=1):
        print(f"[{number}/{len(QUESTIONS)}] {title}", flush=True)
        try:
            data, told = call(url, key, timeout_s, tool, arguments)
            lines = show(data)
        except Wrong as fault:
            broken += isinstance(fault, Broken)
            print(f"      FAILED: {fault}\n")
            continue
        passed += 1
        print("".join(f"      {line}\n" for line in (*lines, f"ok, {told}")))
    if broken == len(QUESTIONS):
        raise Shut(f"{url} answered 5xx to every question; check the deployment and its logs.")
    print(f"{passed} of {len(QUESTIONS)} passed")
    return 0 if passed == len(QUESTIONS) else 1


def call(
    url: str, key: str | None, timeout_s: float, tool: str, arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """One tools/call without a handshake; the structured result, and how long it took. Raises Shut or Wrong."""
    message = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    request = urllib.request.Request(url, json.dumps(message).encode(), headers | ({"x-api-key": key} if key else {}))
    began = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            text, answered = response.read().decode("utf-8", "replace"), response.headers
    except urllib.error.HTTPError as error:
        said = error.read().decode("utf-8", "replace")[:200]
        if error.code in SHUT:
            raise Shut(f"{url} answered {error.code} {said}; check {SHUT[error.code]}.") from None
        raise (Broken if error.code >= 500 else Wrong)(f"HTTP {error.code} {said}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise Shut(f"{url} cannot be reached: {reason}; check the URL and that the endpoint is up.") from None
    took_ms = (time.monotonic() - began) * 1000
    heat = {None: "", "1": ", cold start"}.get(answered.get("X-Lambda-Invocation"), ", warm")
    return result_of(text), f"{took_ms:.0f} ms{heat}"


def result_of(text: str) -> dict[str, Any]:
    """The structured result of an answer, which is JSON or one server-sent event. Raises Wrong."""
    data = next((line[5:] for line in text.splitlines() if line.startswith("data:")), text)
    try:
        answer = json.loads(data)
    except ValueError:
        raise Wrong(f"the answer is not JSON: {text[:200]!r}") from None
    found = answer.get("result") if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        raise Wrong(f"no result but {json.dumps(answer)[:200]}")
    structured = found.get("structuredContent")
    if not isinstance(structured, dict) or found.get("isError"):
        raise Wrong(f"the tool failed: {json.dumps(found, ensure_ascii=False)[:300]}")
    return structured


def show_environment(data: dict[str, Any]) -> list[str]:
    version = str(data.get("python_version", ""))
    if not re.match(r"3\.\d+\.\d+", version):
        raise Wrong(f"python_version is {version!r}")
    layers = [str(one.get("name")) for one in data.get("confinement", []) if one.get("active")]
    lines = [f"Python {version.split()[0]}, {data.get('platform')}, memory {data.get('memory_mb')} MB"]
    return lines + ([f"confinement: {', '.join(layers)}"] if layers else [])


def show_addition(data: dict[str, Any]) -> list[str]:
    if data.get("success") is not True or str(data.get("stdout", "")).strip() != "计算结果: 5":
        raise Wrong(f"stdout is not 计算结果: 5 but {data.get('stdout')!r}; error {data.get('error')}")
    return [f"success: true, result: {data.get('result')}, stdout: {str(data['stdout']).strip()}"]


def show_packages(data: dict[str, Any]) -> list[str]:
    listed = {}
    for one in data.get("packages", []):
        if isinstance(one, dict):
            listed[str(one.get("name", "")).lower()] = str(one.get("version", ""))
    missing = [name for name in PACKAGES if not re.match(r"\d+\.\d+", listed.get(name, ""))]
    if missing:
        raise Wrong(f"{', '.join(missing)} not listed with a version among {len(listed)} packages")
    return [f"{len(listed)} packages, " + ", ".join(f"{name} {listed[name]}" for name in PACKAGES)]


Question = tuple[str, str, dict[str, Any], Callable[[dict[str, Any]], list[str]]]
QUESTIONS: tuple[Question, ...] = (
    ("get_environment_info", "get_environment_info", {}, show_environment),
    ("execute_python: 2 + 3", "execute_python", {"code": ADDITION}, show_addition),
    ("list_preinstalled_packages", "list_preinstalled_packages", {}, show_packages),
)


def main() -> None:
    """Entry point."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
