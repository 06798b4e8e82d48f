"""Read files of deployments, as people keep them in a spreadsheet, and record all rows or none.

file --read_deployments--> a deployment for each row --record--> the table `deployments`
Formats and their variations are those of `archive/annotations/annotation_file.py`. The columns are Resight's, or those
of Camtrap DP (`archive/annotations/camtrap_deployments.py`). Adding a file again adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from archive.annotations.annotation_file import given_fields, read_rows
from archive.annotations.camtrap_deployments import camtrap_fields, end_before_the_next, is_camtrap
from archive.annotations.import_file import SHOWN_ERRORS
from archive.catalogue.deployments import Deployment, record
from archive.delta.tables import Tables
from archive.views.query import query
from model_store.errors import BadRequest, Conflict, StorageUnreachable
from model_store.frozen import wrong_fields

SHORT = {"camera": "camera_id", "from": "from_local", "until": "until_local"}
"""Other names of columns."""
IGNORED = ("clock_stated_by", "actor", "stated_at")
"""Columns of exported deployments that a new statement sets itself."""
HELP = (
    f"columns: {', '.join(Deployment.model_fields)}\n"
    "example: camera_id,location,latitude,longitude,from_local,until_local,time_zone,clock_offset_s,notes\n"
    "         north,Oak hill,52.51,13.4,2026-05-01T09:30,2026-06-12T16:00,Europe/Berlin,,new batteries\n"
    "or deployments.csv of Camtrap DP"
)


def read_deployments(file: Path, zone: str | None = None) -> dict[str, Deployment]:
    """Return the deployments of a file by row, as "row 1". Raises BadRequest that lists the errors by row.

    `zone` is that of the cameras' clocks, for a file of Camtrap DP (`camtrap_fields`).
    """
    deployments: dict[str, Deployment] = {}
    errors: list[str] = []
    rows = read_rows(file)
    camtrap = bool(rows) and isinstance(rows[0], dict) and is_camtrap(rows[0])
    for number, row in enumerate(rows, 1):
        name = f"row {number}"
        try:
            deployments[name] = Deployment.model_validate(_fields(row, zone))
        except ValidationError as error:
            errors.append(f"{name}: {wrong_fields(error, Deployment)}")
        except ValueError as error:
            errors.append(f"{name}: {error}")
    if errors:
        raise BadRequest(_refused(file, errors))
    if not deployments:
        raise BadRequest(_refused(file, ["it has no rows"]))
    return end_before_the_next(deployments) if camtrap else deployments


def add_file(tables: Tables, file: Path, actor: str, zone: str | None = None) -> tuple[list[str], int]:
    """Record the deployments of a file (`read_deployments`); return their ids, and the number of those that changed.

    Raises BadRequest, Conflict for overlaps, StorageUnreachable, TableConflict.
    """
    try:
        return record(tables, read_deployments(file, zone), actor)
    except Conflict as error:
        raise Conflict(_refused(file, str(error).split("\n"))) from error


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
    if isinstance(row, dict) and is_camtrap(row):
        return camtrap_fields(fields, zone)
    if zone:
        raise ValueError("a time zone is only stated for a file of Camtrap DP: use the column time_zone")
    named = {SHORT.get(name.strip().lower(), name.strip().lower()): v for name, v in fields.items()}
    return {
        name: value.strip() if isinstance(value, str) else value
        for name, value in named.items()
        if name not in IGNORED and value != ""
    }


def _refused(file: Path, errors: list[str]) -> str:
    more = [f"and {len(errors) - SHOWN_ERRORS} more"] if len(errors) > SHOWN_ERRORS else []
    return "\n".join([f"{file}: nothing was added", *errors[:SHOWN_ERRORS], *more, HELP])
