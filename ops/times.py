"""Reads the times a person types (`2h30m`, `yesterday`, ISO) and prints them back with their zone.

Pure: the present and the zone come as arguments. A text that is not wholly understood is refused, never guessed at.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ops.failures import UsageError

_SECONDS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_UNITS = r"w|weeks?|d|days?|h|hours?|hrs?|m|minutes?|mins?|s|seconds?|secs?"
_DURATION = re.compile(rf"(?:(?:\d+(?:\.\d+)?)\s*(?:{_UNITS})\s*)+(?:ago)?")
_PART = re.compile(rf"(\d+(?:\.\d+)?)\s*({_UNITS})(?![a-z])")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_EPOCH = re.compile(r"\d{10}(?:\d{3})?")
_EPOCH_BEGAN = datetime(1970, 1, 1, tzinfo=UTC)
_EXAMPLES = "90s, 2h30m, 10d3h, now, today, yesterday, 14:30, 2026-11-24, 2026-11-24T06:15:00Z"


def parse_duration(text: str) -> timedelta:
    """A length of time such as `90s`, `2h30m`, `1.5h`, `10d3h`, `5 minutes`; each unit at most once.

    Raises UsageError for anything else.
    """
    cleaned = text.strip().lower()
    parts = [(float(number), unit[0]) for number, unit in _PART.findall(cleaned)]
    units = [unit for _, unit in parts]
    if not _DURATION.fullmatch(cleaned) or len(set(units)) != len(units):
        raise UsageError(f"Cannot read {text!r} as a length of time; write it like 90s, 5m, 2h30m or 10d3h.")
    return timedelta(seconds=sum(number * _SECONDS[unit] for number, unit in parts))


def parse_moment(text: str, now: datetime, zone: tzinfo) -> datetime:
    """The moment `text` names, as an aware datetime in UTC.

    A length of time counts back from `now`; days and clock times without a zone are in `zone`; 10 or 13 digits are
    epoch seconds or milliseconds. Raises UsageError for anything else, and for what lies outside 1970 to 9999.
    """
    try:
        moment = _moment(text, now, zone)
    except OverflowError:
        moment = None
    if moment is None or moment < _EPOCH_BEGAN:
        raise UsageError(f"{text!r} lies outside the years 1970 to 9999; write it like one of {_EXAMPLES}.")
    return moment


def _moment(text: str, now: datetime, zone: tzinfo) -> datetime:
    cleaned = text.strip().lower()
    here = now.astimezone(zone)
    midnight = here.replace(hour=0, minute=0, second=0, microsecond=0)
    if cleaned == "now":
        return now.astimezone(UTC)
    if cleaned == "today":
        return midnight.astimezone(UTC)
    if cleaned == "yesterday":
        return (midnight - timedelta(days=1)).astimezone(UTC)
    if _EPOCH.fullmatch(cleaned):
        return datetime.fromtimestamp(int(cleaned) / (1000 if len(cleaned) == 13 else 1), UTC)
    if _DURATION.fullmatch(cleaned):
        return now.astimezone(UTC) - parse_duration(cleaned)
    if match := _CLOCK.fullmatch(cleaned):
        return _last_time_of_day(match, here, text)
    return _iso(text, zone)


def _last_time_of_day(match: re.Match[str], here: datetime, text: str) -> datetime:
    hour, minute, second = int(match[1]), int(match[2]), int(match[3] or 0)
    if hour > 23 or minute > 59 or second > 59:
        raise UsageError(f"There is no time of day {text!r}; write it like 14:30.")
    moment = here.replace(hour=hour, minute=minute, second=second, microsecond=0)
    return (moment if moment <= here else moment - timedelta(days=1)).astimezone(UTC)


def _iso(text: str, zone: tzinfo) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"Cannot read the time {text!r}; write it like one of {_EXAMPLES}.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)


def local_zone(environ_tz: str | None, localtime: Path = Path("/etc/localtime")) -> tzinfo:
    """The user's zone: TZ, else what /etc/localtime points at, else the system's present offset."""
    name = (environ_tz or "").removeprefix(":")
    if not name and localtime.is_symlink():
        _, _, name = str(localtime.readlink()).partition("zoneinfo/")
    if name:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            if environ_tz:
                raise UsageError(f"TZ={environ_tz!r} names no time zone; use one like Europe/Berlin or UTC.") from None
    return datetime.now().astimezone().tzinfo or UTC


def to_ms(moment: datetime) -> int:
    """Epoch milliseconds, as CloudWatch counts."""
    return round(moment.timestamp() * 1000)


def of_ms(epoch_ms: float, zone: tzinfo) -> datetime:
    """The moment of an epoch in milliseconds, in `zone`."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).astimezone(zone)


def show(moment: datetime, zone: tzinfo) -> str:
    """`2026-11-24 07:15:00 CET`: to the second, in `zone`, with its name."""
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %Z")
