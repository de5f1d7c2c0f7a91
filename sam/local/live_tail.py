"""StartLiveTail: the lines of log groups as they come, in AWS's event stream encoding; it keeps none of them.

boto3 puts `stream-` before the endpoint's host, which no local address answers to; a client for this one needs
Config(inject_host_prefix=False). Encoding: https://smithy.io/2.0/aws/amazon-eventstream.html
"""

import asyncio
import json
import struct
import uuid
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from .filter_pattern import Matches, compile_pattern
from .log_store import LogsError, LogStore, Stored
from .stack import ACCOUNT_ID

UPDATE_S = 1.0  # how often a client is told, lines or none
MOST_EVENTS = 500  # in one update; past that the rest is left out and the update says so
SESSION_S = 3 * 3600.0
_MOST_GROUPS = 10


async def live_tail(request: web.BaseRequest, asked: Mapping[str, Any], store: LogStore) -> web.StreamResponse:
    """Answer until the client goes, or its three hours are over. Raises LogsError and PatternError before it begins."""
    groups = [_group_of(identifier, store) for identifier in asked.get("logGroupIdentifiers") or []]
    if not 1 <= len(groups) <= _MOST_GROUPS:
        raise LogsError("InvalidParameterException", f"1 to {_MOST_GROUPS} logGroupIdentifiers are required.")
    names, prefixes = asked.get("logStreamNames") or [], asked.get("logStreamNamePrefixes") or []
    if (names and prefixes) or ((names or prefixes) and len(groups) > 1):
        raise LogsError("InvalidParameterException", "Streams are named one way, and of one log group.")
    matches = compile_pattern(asked.get("logEventFilterPattern") or "")
    tail = _Tail(groups, names, tuple(prefixes), matches)
    response = web.StreamResponse(headers={"Content-Type": "application/vnd.amazon.eventstream"})
    store.listeners.add(tail.hear)
    try:
        await response.prepare(request)
        await response.write(encoded({":event-type": "initial-response"}, {}))
        started = {name: value for name, value in asked.items() if value}
        await response.write(
            encoded(
                {":event-type": "sessionStart"},
                {**started, "requestId": str(uuid.uuid4()), "sessionId": str(uuid.uuid4())},
            )
        )
        for _ in range(int(SESSION_S / UPDATE_S)):
            await asyncio.sleep(UPDATE_S)
            await response.write(encoded({":event-type": "sessionUpdate"}, tail.update()))
        message = {"message": "The session has ended after three hours."}
        await response.write(encoded({":exception-type": "SessionTimeoutException"}, message, kind="exception"))
    except ConnectionResetError:
        pass  # the client has gone, as one does who has seen enough
    finally:
        store.listeners.discard(tail.hear)
    return response


def _group_of(identifier: str, store: LogStore) -> str:
    """The name in an ARN, or in `account:name`."""
    name = identifier.partition(":log-group:")[2] if ":log-group:" in identifier else identifier.rpartition(":")[2]
    return store.group(name).name


class _Tail:
    """What came since the last update. `hear` is called from whichever thread writes logs."""

    def __init__(
        self, groups: Sequence[str], names: Sequence[str], prefixes: tuple[str, ...], matches: Matches
    ) -> None:
        self._groups = frozenset(groups)
        self._names = frozenset(names)
        self._prefixes = prefixes
        self._matches = matches
        self._heard: list[tuple[str, str, Stored]] = []

    def hear(self, group: str, stream: str, events: Sequence[Stored]) -> None:
        if group not in self._groups or (self._names and stream not in self._names):
            return
        if self._prefixes and not stream.startswith(self._prefixes):
            return
        # One more than fits is enough to know that some were left out.
        room = MOST_EVENTS + 1 - len(self._heard)
        self._heard += [(group, stream, event) for event in events if self._matches(event.message)][: max(0, room)]

    def update(self) -> dict[str, Any]:
        """A sessionUpdate of what was heard, which is then forgotten."""
        heard, self._heard = self._heard, []
        results = [
            {
                "logGroupIdentifier": f"{ACCOUNT_ID}:{group}",
                "logStreamName": stream,
                "message": event.message,
                "timestamp": event.timestamp_ms,
                "ingestionTime": event.ingested_ms,
            }
            for group, stream, event in heard[:MOST_EVENTS]
        ]
        return {"sessionMetadata": {"sampled": len(heard) > MOST_EVENTS}, "sessionResults": results}


def encoded(headers: Mapping[str, str], payload: Mapping[str, Any], kind: str = "event") -> bytes:
    """One message: lengths, their checksum, headers, the payload as JSON, and a checksum of it all."""
    written = b""
    for name, value in {":message-type": kind, ":content-type": "application/json", **headers}.items():
        written += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", len(written) + len(body) + 16, len(written))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + written + body
    return message + struct.pack(">I", zlib.crc32(message))
