"""Give the local time of a camera its offset from UTC, from the time zone that people state for a deployment.

A camera does not follow summer time, so a zone such as Europe/Berlin gives the offset at the start. None is guessed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo


@lru_cache
def clock_of(zone: str, start: datetime) -> tzinfo:
    """Return the offset of a zone at the start of a deployment: the clock of a camera keeps it in summer and winter."""
    offset = start.replace(tzinfo=zone_of(zone)).utcoffset() or timedelta()
    return timezone(timedelta(minutes=offset // timedelta(minutes=1)))


def zone_of(name: str) -> tzinfo:
    """Return the zone of a name such as Europe/Berlin or an offset such as +02:00, which are valid already."""
    if name[0] not in "+-":
        return ZoneInfo(name)
    hours, minutes = int(name[1:3]), int(name[4:6])
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if name[0] == "-" else offset)


def with_offset(local: datetime, zone: tzinfo) -> str:
    """Return ISO 8601 in seconds with the offset from UTC, such as 2026-05-01T12:00:00+02:00."""
    return local.replace(microsecond=0, tzinfo=zone).isoformat()


def utc(moment: datetime) -> str:
    """Return a time with a zone as UTC in seconds, such as 2026-05-01T10:00:00Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
