"""Sessions: a child kept between calls with its names, stopped while no call runs. Off unless a deployment asks.

A session lives in one environment and in memory only. Lambda may send the next call elsewhere or end the environment,
so a session is a convenience of a short conversation, never a place to keep anything.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from interpreter.watch import Held

NEW = "new"
IDLE_S = 900.0  # a session without a call for so long is ended


class SessionError(ValueError):
    """A session that cannot be had; the message is a sentence for the caller."""


@dataclass(frozen=True, slots=True)
class Session:
    """A kept child, its directory, and the template it came from."""

    id: str
    held: Held
    run_dir: str
    kind: str
    last_used: float


class Sessions:
    """The sessions of one environment, `most` at the most; the one unused for longest makes room for a new one."""

    def __init__(self, most: int, end: Callable[[Session], None]) -> None:
        self.most = most
        self._end = end
        self._now = time.monotonic
        self._kept: dict[str, Session] = {}

    def take(self, session_id: str) -> Session:
        """The session, which is the caller's until it is kept again. Raises SessionError where it is gone."""
        self.end_idle()
        if not self.most:
            raise SessionError("sessions are off in this deployment (INTERPRETER_SESSIONS)")
        if session_id not in self._kept:
            raise SessionError(
                f"session {session_id[:40]!r} is not in this environment: it ended, or the call reached another one; "
                f"start again with session_id {NEW!r}"
            )
        return self._kept.pop(session_id)

    def check_new(self) -> str:
        """An id for a new session. Raises SessionError where there are none to be had."""
        if not self.most:
            raise SessionError("sessions are off in this deployment (INTERPRETER_SESSIONS)")
        return secrets.token_urlsafe(16)

    def keep(self, session_id: str, held: Held, run_dir: str, kind: str) -> None:
        while len(self._kept) >= self.most:
            self._end(self._kept.pop(min(self._kept, key=lambda one: self._kept[one].last_used)))
        self._kept[session_id] = Session(session_id, held, run_dir, kind, self._now())

    def end_idle(self) -> None:
        for session in [one for one in self._kept.values() if self._now() - one.last_used > IDLE_S]:
            self._end(self._kept.pop(session.id))

    def end_all(self) -> None:
        while self._kept:
            self._end(self._kept.popitem()[1])

    @property
    def pids(self) -> set[int]:
        return {session.held.pid for session in self._kept.values()}

    @property
    def directories(self) -> set[str]:
        return {session.run_dir for session in self._kept.values()}
