"""Given what a person types for a time, the absolute moment it means is found, or it is refused; never guessed at."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ops.failures import UsageError
from ops.times import local_zone, parse_duration, parse_moment, show

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 24, 6, 15, tzinfo=UTC)  # 07:15 in Berlin


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("90s", 90, id="seconds"),
        pytest.param("5m", 300, id="minutes"),
        pytest.param("2h30m", 9000, id="hours-and-minutes"),
        pytest.param("10d3h", 10 * 86400 + 3 * 3600, id="days-and-hours"),
        pytest.param("1.5h", 5400, id="fraction"),
        pytest.param("1w", 604800, id="week"),
        pytest.param("5 minutes ago", 300, id="words"),
        pytest.param("2 hours 30 mins", 9000, id="words-and-units"),
    ],
)
def test_a_length_of_time(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)
    assert parse_moment(text, NOW, BERLIN) == NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("now", "2026-11-24T06:15:00+00:00", id="now"),
        pytest.param("today", "2026-11-23T23:00:00+00:00", id="today-in-zone"),
        pytest.param("yesterday", "2026-11-22T23:00:00+00:00", id="yesterday-in-zone"),
        pytest.param("07:00", "2026-11-24T06:00:00+00:00", id="clock-today"),
        pytest.param("22:30", "2026-11-23T21:30:00+00:00", id="clock-yesterday"),
        pytest.param("2026-11-24", "2026-11-23T23:00:00+00:00", id="date-in-zone"),
        pytest.param("2026-11-24T03:00", "2026-11-24T02:00:00+00:00", id="iso-in-zone"),
        pytest.param("2026-11-24T03:00:00Z", "2026-11-24T03:00:00+00:00", id="iso-utc"),
        pytest.param("2026-11-24T03:00:00-05:00", "2026-11-24T08:00:00+00:00", id="iso-offset"),
        pytest.param("2026-07-01T12:00", "2026-07-01T10:00:00+00:00", id="iso-in-summer-time"),
        pytest.param("1795500900", "2026-11-24T06:15:00+00:00", id="epoch-seconds"),
        pytest.param("1795500900123", "2026-11-24T06:15:00.123000+00:00", id="epoch-milliseconds"),
    ],
)
def test_a_moment(text, expected):
    assert parse_moment(text, NOW, BERLIN).isoformat() == expected


@pytest.mark.parametrize(
    "text",
    [
        "5 months ago",
        "2h30",
        "h",
        "",
        "1h1h",
        "10",
        "25:00",
        "soon",
        "2026-13-01",
        "-5m",
        "1y",
        "5m3",
        "5mx",
        "99999999d",
        "3000w",
        "1960-01-01",
        "0001-01-01T00:00+05:00",
        "9999-12-31T23:59-12:00",
    ],
)
def test_what_is_not_wholly_understood_is_refused_with_examples(text):
    with pytest.raises(UsageError, match="write it like"):
        parse_moment(text, NOW, BERLIN)


def test_yesterday_is_a_day_on_the_calendar_even_when_the_clocks_change():
    after_change = datetime(2026, 10, 25, 12, tzinfo=BERLIN)  # a day of 25 hours
    assert parse_moment("today", after_change, BERLIN).isoformat() == "2026-10-24T22:00:00+00:00"
    assert parse_moment("2026-10-26", after_change, BERLIN).isoformat() == "2026-10-25T23:00:00+00:00"


def test_the_zone_comes_from_tz_else_from_localtime(tmp_path):
    link = tmp_path / "localtime"
    link.symlink_to(Path("/usr/share/zoneinfo/Asia/Tokyo"))
    assert str(local_zone("Europe/Berlin", link)) == "Europe/Berlin"
    assert str(local_zone(":Europe/Berlin", link)) == "Europe/Berlin"
    assert str(local_zone(None, link)) == "Asia/Tokyo"
    with pytest.raises(UsageError, match="names no time zone"):
        local_zone("Mars/Base", link)


def test_a_moment_is_shown_with_its_zone():
    assert show(NOW, BERLIN) == "2026-11-24 07:15:00 CET"
