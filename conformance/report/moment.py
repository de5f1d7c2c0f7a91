"""Tells a moment of a record the same in every report that a person reads."""

from datetime import datetime


def moment(iso: str) -> str:
    """A moment of a record in the reader's own zone, which it names."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
