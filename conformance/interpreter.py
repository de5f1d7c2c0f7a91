"""How the suite runs Python on a target: which tool, which argument, and where the output is in what comes back.

It must not judge; a foreign interpreter gets here by another `Outcome`, not by changing a check.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from conformance.client import Client, Discovery
from conformance.messages import Era, Reply, text_blocks

TOOL = "execute_python"
CODE = "code"


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
    if TOOL not in discovery.tools:
        pytest.skip(f"the endpoint has no tool {TOOL}")


def execute(
    client: Client, era: Era, code: str, *, timeout_s: float | None = None, requirements: Sequence[str] | None = None
) -> Outcome:
    """Runs code on the target.

    Raises:
        WireError, Malformed
    """
    arguments: dict[str, object] = {CODE: code}
    if requirements is not None:
        arguments["requirements"] = list(requirements)
    return read_outcome(client.tool(era, TOOL, arguments, timeout_s=timeout_s))


def read_outcome(reply: Reply) -> Outcome:
    """The structured result of a reply, read from its text block when a server sends no structuredContent."""
    result = reply.result or {}
    structured = result.get("structuredContent")
    if not isinstance(structured, dict) or "stdout" not in structured:
        structured = next((data for data in map(_object_in, text_blocks(result)) if data is not None), {})
    return Outcome(reply, structured)


def _object_in(text: str) -> dict[str, object] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
