"""Record cameras, locations and deployments: which camera was where, from when until when, and how its clock ran.

facts --record--> rows of the table `deployments`, in one commit; the newest row of a fact is valid
current(tables) -> the valid rows; all_rows(snapshot) -> all rows, oldest first
A deployment lasts from `from_local` until `until_local` (exclusive) by the camera's own clock, as `captured_at_local`.
Deployments of a camera do not overlap, so an image belongs to at most one, which no clock offset changes.
A fact that is deleted has a last row with `deleted`; its earlier rows stay, so `revert` restores it.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator

from archive.catalogue.local_time import LocalTime
from archive.delta.snapshot import dataset
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import DEPLOYMENTS, MEDIA
from model_store.errors import BadRequest, Conflict, ModelNotFound
from model_store.frozen import Frozen, wrong_fields

TABLE = "deployments"
MAX_NAME_CHARS = 300
MAX_OFFSET_S = 100 * 366 * 86_400
"""Maximum clock offset, 100 years: a camera that was never set may start in 1970."""
_OFFSET = re.compile(r"[+-](0\d|1[0-4]):[0-5]\d")
_OF_MACHINE = {"localtime", "Factory"}
"""Names of the time zone database that mean another zone on each machine, or none."""

Kind = Literal["camera", "location", "deployment"]
Row = dict[str, Any]
Key = tuple[str, str]
"""Kind and id of a fact."""


@lru_cache
def time_zones() -> frozenset[str]:
    """Return the names of the IANA time zones on this machine."""
    return frozenset(zoneinfo.available_timezones() - _OF_MACHINE)


def _require_zone(zone: str) -> str:
    if zone not in time_zones() and not _OFFSET.fullmatch(zone):
        raise ValueError(
            f"unknown time zone '{zone[:100]}': use a name such as Europe/Berlin, or an offset from UTC such as +02:00"
        )
    return zone


TimeZone = Annotated[str, AfterValidator(_require_zone)]
"""Name of an IANA time zone, or an offset from UTC such as +02:00."""


def _require_name(name: str) -> str:
    name = unicodedata.normalize("NFC", name)  # as cameras of `media`: names of files on a Mac are not
    if not name.isprintable() or name != name.strip():
        raise ValueError(f"invalid name {name[:100]!r}: use printable characters, without spaces around it")
    return name


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS), AfterValidator(_require_name)]


class Camera(Frozen):
    """A camera, by the `camera_id` of its images."""

    kind: ClassVar[Kind] = "camera"
    camera_id: Name
    notes: str | None = Field(default=None, max_length=4000)


class _Place(Frozen):
    location: Name
    latitude: float | None = Field(default=None, ge=-90, le=90, description="degrees, north positive")
    longitude: float | None = Field(
        default=None, ge=-180, le=180, description="degrees, east positive", validate_default=True
    )
    notes: str | None = Field(default=None, max_length=4000)

    @field_validator("longitude")
    @classmethod
    def _both_coordinates(cls, longitude: float | None, info: ValidationInfo) -> float | None:
        if "latitude" in info.data and (info.data["latitude"] is None) != (longitude is None):
            raise ValueError("latitude and longitude must be given together")
        return longitude


class Location(_Place):
    """A place, by its name. Its coordinates apply to deployments that have none."""

    kind: ClassVar[Kind] = "location"


class Deployment(_Place):
    """A camera at a location. Without an id, it is the deployment of the same camera and start, or a new one."""

    kind: ClassVar[Kind] = "deployment"
    deployment_id: Name | None = None
    camera_id: Name
    from_local: LocalTime = Field(description="start, by the camera's own clock")
    until_local: LocalTime | None = Field(
        default=None, description="end (exclusive), by the camera's own clock; null: it continues"
    )
    time_zone: TimeZone | None = Field(
        default=None, description="name such as Europe/Berlin, or offset from UTC such as +02:00"
    )
    clock_offset_s: int | None = Field(
        default=None,
        ge=-MAX_OFFSET_S,
        le=MAX_OFFSET_S,
        description="seconds to add to the camera's time to correct it; null: not checked",
    )
    clock_reason: str | None = Field(default=None, max_length=4000, description="reason for that offset")

    @field_validator("until_local")
    @classmethod
    def _ends_after_its_start(cls, until: datetime | None, info: ValidationInfo) -> datetime | None:
        start = info.data.get("from_local")
        if until is not None and start is not None and until <= start:
            raise ValueError(f"{until.isoformat()} is not after from_local {start.isoformat()}")
        return until


Fact = Camera | Location | Deployment
KINDS: dict[str, type[Fact]] = {kind.kind: kind for kind in (Camera, Location, Deployment)}


def all_rows(table: DeltaTable | None) -> list[Row]:
    """Return all rows of a snapshot, oldest first."""
    rows = dataset(table, DEPLOYMENTS).to_table().to_pylist()
    return sorted(rows, key=lambda row: row["change"])


def valid(rows: Sequence[Row]) -> dict[Key, Row]:
    """Return the newest row of each fact that is not deleted; `rows` are oldest first."""
    newest = {(row["kind"], row["fact_id"]): row for row in rows}
    return {key: row for key, row in newest.items() if not row["deleted"]}


def current(tables: Tables) -> dict[Key, Row]:
    """Return the valid row of each fact. Raises StorageUnreachable."""
    return valid(all_rows(tables.existing(TABLE)))


def record(tables: Tables, facts: Mapping[str, Fact], actor: str) -> tuple[list[str], int]:
    """Record all facts in one commit, or none; return their ids, and the number of those that changed.

    The keys of `facts` begin the errors about them, such as "row 3". Facts that are valid already add nothing. Raises
    Conflict as `changes`, StorageUnreachable, TableConflict.
    """
    ids: list[str] = []

    def changed(rows: list[Row]) -> list[Row]:
        nonlocal ids
        ids, new = changes(rows, facts, actor)
        return new

    added = _append(tables, changed, actor)
    return ids, added


def changes(rows: Sequence[Row], facts: Mapping[str, Fact], actor: str) -> tuple[list[str], list[Row]]:
    """Return the id of each fact, and the new rows that make all of them valid after `rows`, oldest first.

    Raises Conflict if deployments of a camera would overlap, or two facts have one id.
    """
    found = valid(rows)
    ids = _identified(found, facts)
    wanted = {(fact.kind, ids[name]): _columns(fact) for name, fact in facts.items()}
    _require_apart(found | wanted, {(facts[name].kind, ids[name]): name for name in facts})
    new: list[Row] = []
    for (kind, fact_id), columns in wanted.items():
        before = found.get((kind, fact_id))
        if before is None or any(before[name] != value for name, value in columns.items()):
            offset = columns.get("clock_offset_s")
            stated_by = None if offset is None else actor
            if before is not None and before["clock_offset_s"] == offset:
                stated_by = before["clock_stated_by"]
            new.append(columns | {"kind": kind, "fact_id": fact_id, "clock_stated_by": stated_by})
    return list(ids.values()), new


def remove(tables: Tables, kind: Kind, fact_ids: Sequence[str], actor: str) -> int:
    """Mark facts as deleted, all or none; return their number.

    Raises ModelNotFound for an unknown fact, Conflict if images or deployments refer to it, StorageUnreachable,
    TableConflict.
    """
    images = {name: _images_of(tables, name) for name in fact_ids} if kind == "camera" else {}
    tried: set[str] = set()

    def changed(rows: list[Row]) -> list[Row]:
        found, new = valid(rows), list[Row]()
        for fact_id in dict.fromkeys(fact_ids):
            refers = _references(found, kind, fact_id, images.get(fact_id, 0))
            if refers:
                raise Conflict(f"{kind} '{fact_id[:100]}' cannot be deleted: {refers} refer to it; remove these first")
            row = found.get((kind, fact_id))
            if row is None and fact_id not in tried:  # else our own commit lost its acknowledgement
                raise _unknown(kind, fact_id)
            tried.add(fact_id)
            if row is not None:
                new.append(row | {"deleted": True})
        return new

    return _append(tables, changed, actor)


def revert(tables: Tables, change: int, actor: str) -> str:
    """Record a fact again as an earlier change stated it, also a deleted one; return its id.

    Raises ModelNotFound for an unknown change, Conflict as `record`.
    """
    rows = [row for row in all_rows(tables.existing(TABLE)) if row["change"] == change]
    if not rows:
        raise ModelNotFound(f"unknown change {change} of deployments: see their history")
    (fact_id,), _ = record(tables, {"": fact_of(rows[0])}, actor)
    return fact_id


def correct_clock(tables: Tables, deployment_id: str, offset_s: int, reason: str, actor: str) -> bool:
    """State the clock offset of a deployment, with a reason; return whether that changed it.

    Raises BadRequest for an offset above MAX_OFFSET_S, ModelNotFound for an unknown deployment, and as `record`.
    """
    row = current(tables).get(("deployment", deployment_id))
    if row is None:
        raise _unknown("deployment", deployment_id)
    stated = {"clock_offset_s": offset_s, "clock_reason": reason or None}
    try:
        fact = Deployment.model_validate(fact_of(row).model_dump() | stated)
    except ValidationError as error:
        raise BadRequest(wrong_fields(error, Deployment)) from error
    return bool(record(tables, {"": fact}, actor)[1])


def fact_of(row: Mapping[str, Any]) -> Fact:
    model = KINDS[row["kind"]]
    values = dict(row) | ({"deployment_id": row["fact_id"]} if model is Deployment else {})
    return model.model_validate({name: values[name] for name in model.model_fields})


def _columns(fact: Fact) -> Row:
    """Return the columns of a fact; times are text, as in `media`."""
    values = fact.model_dump(exclude={"deployment_id"})
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in values.items()}


def _identified(found: Mapping[Key, Row], facts: Mapping[str, Fact]) -> dict[str, str]:
    """Return the id of each fact. Raises Conflict if two have the same."""
    starts = {
        (row["camera_id"], row["from_local"]): row["fact_id"] for row in found.values() if row["kind"] == "deployment"
    }
    ids: dict[str, str] = {}
    owners: dict[Key, str] = {}
    for name, fact in facts.items():
        match fact:
            case Camera():
                ids[name] = fact.camera_id
            case Deployment():
                start = (fact.camera_id, fact.from_local.isoformat())
                ids[name] = fact.deployment_id or starts.get(start) or _new_id(found, start)
            case Location():
                ids[name] = fact.location
        first = owners.setdefault((fact.kind, ids[name]), name)
        if first != name and fact != facts[first]:
            raise Conflict(f"{name}: {first} is about the same {fact.kind} '{ids[name]}': leave one out")
    return ids


def _new_id(found: Mapping[Key, Row], start: tuple[str, str]) -> str:
    """Return an id of a deployment from its start, so that a file gives the same ids in every archive."""
    for number in range(len(found) + 1):
        text = "\0".join((*start, str(number)))
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        if ("deployment", name) not in found:
            return name
    raise AssertionError("more ids than facts")


def _require_apart(after: Mapping[Key, Row], names: Mapping[Key, str]) -> None:
    """Raise Conflict if a new deployment overlaps another one of its camera; `names` has the new ones."""
    of_camera: dict[str, list[tuple[Key, Row]]] = {}
    for key, row in after.items():
        if key[0] == "deployment":
            of_camera.setdefault(row["camera_id"], []).append((key, row))
    lines: list[str] = []
    for camera, deployments in of_camera.items():
        deployments.sort(key=lambda item: (item[1]["from_local"], item[0]))
        last = deployments[0]  # the one with the latest end so far
        for one in deployments[1:]:
            if _end(last[1]) > one[1]["from_local"]:
                new, other = (one, last) if one[0] in names else (last, one)
                if new[0] in names:  # else both are stored, by another program
                    name = f"{names[new[0]]}: " if names[new[0]] else ""
                    than = names.get(other[0]) or f"deployment {other[0][1]}"
                    lines.append(
                        f"{name}camera '{camera}' from {_period(new[1])} overlaps {than}, from {_period(other[1])}: "
                        "end one before the other begins"
                    )
            last = max(last, one, key=lambda item: _end(item[1]))
    if lines:
        words = "\n".join(lines)
        raise Conflict(words, fields={"from_local": words})


def _end(row: Row) -> str:
    return row["until_local"] or "~"  # later than every time


def _period(row: Row) -> str:
    return f"{row['from_local']} until {row['until_local'] or 'now'}"


def _references(found: Mapping[Key, Row], kind: Kind, fact_id: str, images: int) -> str:
    column = {"camera": "camera_id", "location": "location", "deployment": ""}[kind]
    deployments = sum(1 for row in found.values() if column and row["kind"] == "deployment" and row[column] == fact_id)
    counts = {"deployments": deployments, "images": images}
    return " and ".join(f"{count} {name}" for name, count in counts.items() if count)


def _images_of(tables: Tables, camera: str) -> int:
    """Return the number of present files of a camera."""
    present = (pc.field("camera_id") == camera) & pc.field("missing_since").is_null()
    present &= pc.field("frame_count").is_null()
    return int(dataset(tables.existing("media"), MEDIA).count_rows(filter=present))


def _unknown(kind: Kind, fact_id: str) -> ModelNotFound:
    return ModelNotFound(f"unknown {kind} '{fact_id[:100]}': it was never recorded, or is deleted")


def _append(tables: Tables, changed: Callable[[list[Row]], list[Row]], actor: str) -> int:
    """Append the rows that `changed(all rows)` returns, again after each lost race; return their number."""
    if not actor.strip():
        raise BadRequest("name the person who states this")
    stated = {"actor": actor, "stated_at": datetime.now(UTC)}

    def missing(snapshot: DeltaTable, _: pa.Table) -> pa.Table:
        rows = all_rows(snapshot)
        last = rows[-1]["change"] if rows else 0
        new = [{"deleted": False, **row, **stated, "change": last + n} for n, row in enumerate(changed(rows), 1)]
        return pa.Table.from_pylist(new, schema=DEPLOYMENTS)

    return Writer(tables, TABLE).append_new(DEPLOYMENTS.empty_table(), missing)
