"""Read deployments.csv of a Camtrap DP package (version 1.0) as deployments.

row of the file --camtrap_fields--> fields of a Deployment; Deployments --end_before_the_next--> without overlaps
Its times have an offset from UTC, and those of a Deployment are by the camera's own clock. The clock is assumed to keep
the offset that it had at the start, because cameras do not follow summer time. A time in UTC lacks that
offset, so the time zone must be stated. `deploymentEnd` is usually the time of the last image, so a deployment ends one
second later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta, timezone, tzinfo
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from archive.catalogue.deployments import Deployment

REQUIRED = ("deploymentID", "deploymentStart")
"""Columns that only these files have."""
_COPIED = {
    "deploymentID": "deployment_id",
    "cameraID": "camera_id",
    "latitude": "latitude",
    "longitude": "longitude",
    "deploymentComments": "notes",
}
_AFTER_LAST_IMAGE = timedelta(seconds=1)


def is_camtrap(columns: Collection[str]) -> bool:
    """Return whether a row with these columns is of a deployments.csv of Camtrap DP."""
    return all(name in columns for name in REQUIRED)


def camtrap_fields(row: Mapping[str, Any], zone: str | None = None) -> dict[str, Any]:
    """Return the fields of a Deployment; `zone` gives the clock's offset at the start, by default that of the start.

    Raises ValueError for a time without an offset, or in UTC without a `zone`.
    """
    start = _moment(row, "deploymentStart")
    if zone:
        start = start.astimezone(_zone(zone))
    elif not start.utcoffset():
        raise ValueError(
            f"deploymentStart {row['deploymentStart']} is in UTC: state the zone in which the cameras' clocks were "
            "set, as in --time-zone Europe/Berlin"
        )
    fields = {name: row[column] for column, name in _COPIED.items() if column in row}
    fields |= {"from_local": start.replace(tzinfo=None), "time_zone": start.isoformat()[-6:]}
    if place := row.get("locationName") or row.get("locationID"):
        fields["location"] = place
    if "deploymentEnd" in row and not str(row["deploymentEnd"]).startswith("9999"):  # it continues
        clock = timezone(start.utcoffset() or timedelta())
        end = _moment(row, "deploymentEnd").astimezone(clock).replace(tzinfo=None)
        fields["until_local"] = end + _AFTER_LAST_IMAGE
    return fields


def end_before_the_next(deployments: Mapping[str, Deployment]) -> dict[str, Deployment]:
    """Return the deployments without overlaps of a camera that come from the added second."""
    after = dict(deployments)
    for (name, one), (_, following) in pairwise(
        sorted(after.items(), key=lambda item: (item[1].camera_id, item[1].from_local))
    ):
        until, start = one.until_local, following.from_local
        if one.camera_id == following.camera_id and until and start < until <= start + _AFTER_LAST_IMAGE:
            after[name] = one.model_copy(update={"until_local": start})
    return after


def _moment(row: Mapping[str, Any], column: str) -> datetime:
    text = str(row.get(column, ""))
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None and 1 < moment.year < 9999:
            return moment
    except ValueError:
        pass
    raise ValueError(
        f"{column} '{text[:100]}' is not a time with an offset from UTC, such as 2026-05-01T09:30:00+02:00"
    )


def _zone(name: str) -> tzinfo:
    try:
        if name[0] in "+-":
            return datetime.strptime(name, "%z").tzinfo  # type: ignore[return-value]  # %z gives one
        return ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(
            f"unknown time zone '{name[:100]}': use a name such as Europe/Berlin, or an offset such as +02:00"
        ) from None
