"""How the suite runs Python on a target: which tool, which argument, and where the output is in what comes back.

It must not judge; a foreign interpreter gets here by a target.yaml, not by changing a check.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from conformance.client import Client, Discovery
from conformance.messages import Era, Reply, text_blocks
from conformance.target import Interpreter

TOOL = "execute_python"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one execution gave back; `data` is the structured result, {} when there was none to read."""

    reply: Reply
    data: Mapping[str, object]

    @property
    def text(self) -> str:
        """Everything readable that came back: the structured result's strings, else the text blocks."""
        if self.data:
            return "\n".join(str(self.data.get(key) or "") for key in ("stdout", "result", "stderr", "warnings"))
        return "\n".join(text_blocks(self.reply.result or {}))

    @property
    def stdout(self) -> str:
        return str(self.data.get("stdout", "")) if self.data else self.text

    @property
    def error(self) -> Mapping[str, object]:
        """The error object, {} when there is none."""
        value = self.data.get("error")
        return value if isinstance(value, Mapping) else {}

    @property
    def violations(self) -> Sequence[object]:
        value = self.data.get("violations")
        return value if isinstance(value, list) else []

    @property
    def environment_id(self) -> str | None:
        """Which execution environment answered, where the endpoint tells."""
        return self.reply.answer.header("x-lambda-environment-id")


def need_interpreter(discovery: Discovery) -> None:
    """Skips the check when the endpoint has no tool that runs Python."""
    if discovery.interpreter.tool not in discovery.tools:
        pytest.skip(f"the endpoint has no tool {discovery.interpreter.tool}")


def execute(
    client: Client, era: Era, code: str, *, timeout_s: float | None = None, requirements: Sequence[str] | None = None
) -> Outcome:
    """Runs code on the target.

    Raises:
        WireError, Malformed
    """
    how = client.target.interpreter
    arguments: dict[str, object] = {**how.arguments, how.code: code}
    if requirements is not None:
        if how.requirements is None:
            pytest.skip("the target's interpreter takes no requirements")
        arguments[how.requirements] = list(requirements)
    return read_outcome(client.tool(era, how.tool, arguments, timeout_s=timeout_s), how)


def read_outcome(reply: Reply, how: Interpreter | None = None) -> Outcome:
    """The structured result of a reply, read from its text block when a server sends no structuredContent."""
    if how is not None and how.foreign:
        return Outcome(reply, _foreign(reply, how))
    result = reply.result or {}
    structured = result.get("structuredContent")
    if not isinstance(structured, dict) or "stdout" not in structured:
        structured = next((data for data in map(_object_in, text_blocks(result)) if data is not None), {})
    return Outcome(reply, structured)


def _foreign(reply: Reply, how: Interpreter) -> dict[str, object]:
    """The outcome of a foreign interpreter in our own words, as far as its target.yaml says where they are."""
    result = reply.result or {}
    text = "\n".join(text_blocks(result))
    found: object = text
    if isinstance(how.stdout, str) and how.stdout != "text":
        found = _at(result.get("structuredContent"), how.stdout)
        if found is None:
            found = _at(_object_in(text), how.stdout)
    if how.pattern and isinstance(found, str):
        match = re.search(how.pattern, found, re.DOTALL)
        found = match[1] if match else ""
    failed = bool(result.get("isError")) or bool(how.failure and re.search(how.failure, text))
    return {"success": reply.error is None and not failed, "stdout": str(found or ""), "stderr": text, "result": ""}


def _at(node: object, path: str) -> object:
    """The member of a JSON value under a dotted path, None when it is not there."""
    for name in path.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _object_in(text: str) -> dict[str, object] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
