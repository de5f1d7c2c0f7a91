"""JSON-RPC batches, which revision 2025-03-26 has and no other: taken apart, and their answers put together.

It must not judge a message (the guard does, each by itself) and must not let one request of a client do the work of
many: a batch runs one tool.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping, Sequence
from typing import Any

REVISION = "2025-03-26"
MAX_MESSAGES = 16
EVENT_STREAM = "text/event-stream"


class BatchError(Exception):
    """An array that is no batch to be served; the text is for a person."""


class CapturedAnswer:
    """An ASGI `send` that keeps one answer instead of sending it."""

    def __init__(self) -> None:
        self.status = 0
        self.media = ""
        self.body = b""

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            named = {name.lower(): value for name, value in message.get("headers", ())}
            self.media = named.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip()
        self.body += message.get("body", b"")


def split(body: bytes, version: str) -> list[bytes] | None:
    """The messages of a batch, None where `body` is none, or not one of this revision.

    Without a version header a client is one of 2025-03-26, by what the later revisions say of them.

    Raises:
        BatchError
    """
    if version not in ("", REVISION) or body.lstrip()[:1] != b"[":
        return None
    try:
        messages = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not 0 < len(messages) <= MAX_MESSAGES:
        raise BatchError(f"A batch must hold 1 to {MAX_MESSAGES} messages, not {len(messages)}")
    return [json.dumps(message).encode() for message in messages]


class Rules:
    """What a message may not be because it came in a batch; asked for each in turn."""

    def __init__(self) -> None:
        self.called = False

    def refuse(self, message: Any) -> str | None:
        """Why not, None when it may. One tool per batch: time, size of the answer, log and a client's quota are those
        of one call."""
        method = message.get("method") if isinstance(message, dict) else None
        if method == "initialize":
            return "initialize must not be part of a batch"
        if method == "tools/call" and self.called:
            return "A batch runs one tools/call; send this one by itself"
        self.called = self.called or method == "tools/call"
        return None


def join(answers: Sequence[CapturedAnswer]) -> tuple[int, str, bytes]:
    """(status, media type, body) of the one answer: events where any is an event stream, else a JSON array.

    A batch of notifications and responses alone is accepted with 202. What was refused without a word about its id, as
    for an Accept header that allows no answer, refuses the whole.
    """
    for one in answers:
        if one.status >= 400 and not one.body.startswith(b"{"):
            return one.status, one.media, one.body
    told = [one for one in answers if one.body]
    if not told:
        return 202, "", b""
    if any(one.media == EVENT_STREAM for one in told):
        return 200, EVENT_STREAM, b"".join(one.body if one.media == EVENT_STREAM else _event(one.body) for one in told)
    return 200, "application/json", b"[" + b",".join(one.body for one in told) + b"]"


def _event(body: bytes) -> bytes:
    return b"event: message\r\ndata: " + body.replace(b"\n", b" ") + b"\r\n\r\n"
