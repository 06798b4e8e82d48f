"""Read files of deployments, as people keep them in a spreadsheet, and record all rows or none.

file --read_deployments--> a deployment for each row --record--> the table `deployments`
Formats and their variations are those of `archive/annotations/annotation_file.py`. The columns are Resight's, or those
of deployments.csv in Camtrap DP 1.0. Its times have an offset from UTC, while a Deployment is in times of the camera's
clock. Cameras do not follow summer time, so the clock keeps the offset of the start. A time in UTC lacks that offset,
so the time zone must be stated. Adding a file again adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone, tzinfo
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import ValidationError

from archive.annotations.annotation_file import given_fields, read_rows
from archive.annotations.import_file import nothing_added
from archive.catalogue.deployments import Deployment, Key, Row, current, record
from archive.delta.tables import Tables
from archive.views.query import query
from model_store.errors import BadRequest, Conflict, StorageUnreachable
from model_store.frozen import wrong_fields

SHORT = {"camera": "camera_id", "from": "from_local", "until": "until_local"}
"""Other names of columns."""
IGNORED = ("clock_stated_by", "actor", "stated_at")
"""Columns of exported deployments that a new statement sets itself."""
_COPIED = {
    "deploymentID": "deployment_id",
    "cameraID": "camera_id",
    "latitude": "latitude",
    "longitude": "longitude",
    "deploymentComments": "notes",
}
MISSING = ("NA", "NaN", "nan")
"""Cells without a value in Camtrap DP, except empty ones."""
_AFTER_LAST_IMAGE = timedelta(seconds=1)
"""Added to `deploymentEnd`, which is usually the time of the last image."""
CONTINUES = "continues: its end is the time of its last image"
"""Comment of Resight's own export on a deployment without an end."""
HELP = (
    f"columns: {', '.join(Deployment.model_fields)}\n"
    "example: camera_id,location,latitude,longitude,from_local,until_local,time_zone,clock_offset_s,notes\n"
    "         north,Oak hill,52.51,13.4,2026-05-01T09:30,2026-06-12T16:00,Europe/Berlin,,new batteries\n"
    "or deployments.csv of Camtrap DP"
)


def read_deployments(
    file: Path, zone: str | None = None, stated: Mapping[Key, Row] | None = None
) -> dict[str, Deployment]:
    """Return the deployments of a file by row, as "row 1". Raises BadRequest that lists the errors by row.

    `zone` is that of the cameras' clocks, for a file of Camtrap DP (`camtrap_fields`); their clock offsets are those
    of the facts that are `stated` already.
    """
    deployments: dict[str, Deployment] = {}
    errors: list[str] = []
    rows = read_rows(file)
    camtrap = bool(rows) and _is_camtrap(rows[0])
    for number, row in enumerate(rows, 1):
        name = f"row {number}"
        try:
            deployment = Deployment.model_validate(_fields(row, zone))
            if before := (stated or {}).get(("deployment", deployment.deployment_id or "")):
                deployment = _with_clock(deployment, before) if camtrap else deployment
                deployment = _at_place(deployment, before, (stated or {}).get(("location", before["location"])))
            deployments[name] = deployment
        except ValidationError as error:
            if unknown := wrong_fields(error, Deployment, unknown_only=True):  # a column, so it is in every row
                raise BadRequest(nothing_added(file, [f"{name}: {unknown}"], HELP)) from error
            errors.append(f"{name}: {wrong_fields(error, Deployment)}")
        except ValueError as error:
            errors.append(f"{name}: {error}")
    if errors or not deployments:
        raise BadRequest(nothing_added(file, errors or ["it has no rows"], HELP))
    return _end_before_the_next(deployments) if camtrap else deployments


def add_file(tables: Tables, file: Path, actor: str, zone: str | None = None) -> tuple[list[str], int]:
    """Record the deployments of a file (`read_deployments`); return their ids, and the number of those that changed.

    Raises BadRequest, Conflict for overlaps, StorageUnreachable, TableConflict.
    """
    try:
        return record(tables, read_deployments(file, zone, current(tables)), actor)
    except Conflict as error:
        raise Conflict(nothing_added(file, str(error).split("\n"), HELP)) from error


def remarks(tables: Tables, deployments: Mapping[str, Deployment]) -> list[str]:
    """Return warnings for cameras without images, which may be misspelt."""
    try:
        found = query(tables, "select distinct camera_id from images where camera_id is not null")
    except StorageUnreachable:  # nothing is ingested yet
        return []
    cameras = set(found["camera_id"].to_pylist())
    warnings: list[str] = []
    for camera in sorted({d.camera_id for d in deployments.values()} - cameras):
        near = get_close_matches(camera, cameras)
        more = f"; did you mean {' or '.join(near)}?" if near else ""
        warnings.append(f"no image is of the camera '{camera}'{more}")
    return warnings


def _fields(row: object, zone: str | None) -> dict[str, Any]:
    """Return the given values by field, without spaces around them. Raises ValueError."""
    fields = given_fields(row, {})
    if _is_camtrap(row):
        return camtrap_fields(fields, zone)
    if zone:
        raise ValueError("a time zone is only stated for a file of Camtrap DP: use the column time_zone")
    named = {SHORT.get(name.strip().lower(), name.strip().lower()): v for name, v in fields.items()}
    return {
        name: value.strip() if isinstance(value, str) else value
        for name, value in named.items()
        if name not in IGNORED and value != ""
    }


def _is_camtrap(row: object) -> bool:
    """Return whether a row has columns that only a deployments.csv of Camtrap DP has."""
    return isinstance(row, dict) and "deploymentID" in row and "deploymentStart" in row


def camtrap_fields(row: Mapping[str, Any], zone: str | None = None) -> dict[str, Any]:
    """Return the fields of a Deployment; `zone` gives the clock's offset at the start, by default that of the start.

    Raises ValueError for a time without an offset, or in UTC without a `zone`.
    """
    row = {column: value for column, value in row.items() if value not in MISSING}
    start = _moment(row, "deploymentStart")
    if zone:
        start = start.astimezone(zone_of(zone))
    elif not start.utcoffset():
        raise ValueError(
            f"deploymentStart {row['deploymentStart']} is in UTC: state the zone in which the cameras' clocks were "
            "set, as in --time-zone Europe/Berlin"
        )
    fields = {name: row[column] for column, name in _COPIED.items() if column in row}
    fields |= {"from_local": start.replace(tzinfo=None), "time_zone": start.isoformat()[-6:]}
    if place := row.get("locationName") or row.get("locationID"):
        fields["location"] = place
    if (notes := str(row.get("deploymentComments", ""))).endswith(CONTINUES):
        fields["notes"] = notes.removesuffix(CONTINUES).removesuffix("; ") or None
    elif "deploymentEnd" in row and not str(row["deploymentEnd"]).startswith("9999"):  # it continues
        clock = timezone(start.utcoffset() or timedelta())
        end = _moment(row, "deploymentEnd").astimezone(clock).replace(tzinfo=None)
        fields["until_local"] = end + _AFTER_LAST_IMAGE
    return fields


def _with_clock(deployment: Deployment, before: Row) -> Deployment:
    """Return a deployment of Camtrap DP with the clock offset that it had `before`, and the end and zone if equal.

    Its times are corrected by the offset, as Resight exports them, or not. Raises ValueError if neither fits.
    """
    offset_s = before["clock_offset_s"]
    shift = deployment.from_local - datetime.fromisoformat(before["from_local"]) if offset_s else timedelta()
    if shift and shift != timedelta(seconds=offset_s):
        raise ValueError(
            f"the start {deployment.from_local.isoformat()} is not {before['from_local']}, with or without the clock "
            f"offset {offset_s} s that was stated: state the deployment in a table with from_local and clock_offset_s"
        )
    until, zone = deployment.until_local and deployment.until_local - shift, deployment.time_zone
    if until and before["until_local"] == (until - _AFTER_LAST_IMAGE).isoformat():
        until -= _AFTER_LAST_IMAGE
    if named := before["time_zone"]:  # as +02:00 in the file
        moment = deployment.from_local.replace(tzinfo=zone_of(named))
        zone = named if moment.isoformat()[-6:] == zone else zone
    kept = {"clock_offset_s": offset_s, "clock_reason": before["clock_reason"], "time_zone": zone}
    return deployment.model_copy(update={**kept, "from_local": deployment.from_local - shift, "until_local": until})


def _at_place(deployment: Deployment, before: Row, place: Row | None) -> Deployment:
    """Return a deployment without coordinates if it had none `before`, and has those of its `place` in the file."""
    names = ("latitude", "longitude")
    if before["latitude"] is None and place and all(getattr(deployment, name) == place[name] for name in names):
        return deployment.model_copy(update=dict.fromkeys(names))
    return deployment


def _end_before_the_next(deployments: Mapping[str, Deployment]) -> dict[str, Deployment]:
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


def zone_of(name: str) -> tzinfo:
    """Return the zone of a name such as Europe/Berlin, or of an offset such as +02:00. Raises ValueError."""
    try:
        if name[0] in "+-":
            return datetime.strptime(name, "%z").tzinfo  # type: ignore[return-value]  # %z gives one
        return ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(
            f"unknown time zone '{name[:100]}': use a name such as Europe/Berlin, or an offset such as +02:00"
        ) from None
