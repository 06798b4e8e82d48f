"""Record what people state about individuals: profiles, and which detection shows which animal.

record(tables, Batch(batch_id, actor, statements)) -> Recorded; undo(tables, batch_id, actor, of_batch) -> Recorded
The newest valid statement wins, for each field of a profile and for each detection (individuals.sql).
A merge is a profile with `merged_into`; a split is a new profile and the detections that move to it, in one batch.
Labels are statements of `assertions`. They have a table of their own, so that neither replaces the other.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pydantic import Field, model_validator

from archive.annotations.assertions import require_kept
from archive.defaults import PRODUCTION
from archive.delta.snapshot import dataset, memory_database
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import INDIVIDUALS
from archive.views.publications import view_named
from archive.views.query import RELATIONS, connect
from archive.views.similar import parts_of
from model_store.errors import BadRequest
from model_store.frozen import Frozen

TABLE = "individuals"
INDIVIDUAL_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
BATCH_ID = r"^[0-9a-f]{32}$"
MAX_STATEMENTS = 1_000
PROFILE = ("name", "species", "sex", "notes", "retired", "merged_into")
_BOXES = "select media_sha256, rank, x1_px, y1_px, x2_px, y2_px from boxes"
Text = Annotated[str | None, Field(max_length=200)]


class IndividualStatement(Frozen):
    """A statement about one individual.

    `profile` sets the given fields, "" clears one, and the others stay. `identify` states that a detection shows the
    individual, and `reject` that it does not: it is not suggested again.
    """

    action: Literal["profile", "identify", "reject"]
    individual_id: str = Field(pattern=INDIVIDUAL_ID)
    name: Text = None
    species: Text = None
    sex: Text = None
    notes: str | None = Field(default=None, max_length=4_000)
    retired: bool | None = Field(default=None, description="true: no longer suggested; its sightings stay")
    merged_into: str | None = Field(default=None, description='individual that it is; "": a separate one again')
    detection: str | None = Field(default=None, description="<media_sha256>-<rank>")

    @model_validator(mode="after")
    def _fields_of_its_action(self) -> IndividualStatement:
        if (self.action == "profile") == (self.detection is not None):
            raise ValueError("identify and reject need a detection, and a profile has none")
        given = [name for name in PROFILE if getattr(self, name) is not None]
        if given and self.action != "profile":
            raise ValueError(f"{', '.join(given)}: only a profile has these fields")
        return self


class Batch(Frozen):
    """Statements that are recorded and undone together. Their detections are those of the published `view`."""

    batch_id: str = Field(pattern=BATCH_ID, description="128 random bits of the client")
    actor: str = Field(min_length=1, max_length=200)
    statements: tuple[IndividualStatement, ...] = Field(min_length=1, max_length=MAX_STATEMENTS)
    view: str = PRODUCTION


class Recorded(Frozen):
    """Answer to a batch. `added` counts its rows, 0 if it was recorded before."""

    batch_id: str
    added: int


def record(tables: Tables, batch: Batch) -> Recorded:
    """Record a batch in one commit; if it was recorded before, nothing is added.

    Raises BadRequest for an unknown individual or detection, two statements about one thing, or a circle of merges;
    Conflict if the results of its detections were pruned concurrently; StorageError.
    """
    named = Counter((s.individual_id, s.detection) for s in batch.statements)
    named += Counter(("", s.detection) for s in batch.statements if s.action == "identify")
    if twice := [what for what, count in named.items() if count > 1]:
        raise BadRequest(f"two statements about {twice[0][1] or twice[0][0]} in one batch: leave one out")
    stored = dataset(tables.existing(TABLE), INDIVIDUALS).to_table(filter=pc.field("batch_id") == batch.batch_id)
    if len(stored):  # its detections may no longer be those of the view
        require_kept(tables, set(stored["inference_key"].to_pylist()) - {None})
        return Recorded(batch_id=batch.batch_id, added=0)
    boxes = _boxes(tables, batch)
    rows = [s.model_dump(exclude={"detection"}) | boxes.get(s.detection or "", {}) for s in batch.statements]
    added = _append(tables, batch.batch_id, batch.actor, rows)
    if boxes:
        require_kept(tables, {box["inference_key"] for box in boxes.values()})
    return added


def undo(tables: Tables, batch_id: str, actor: str, of_batch: str) -> Recorded:
    """Withdraw a batch: what was valid before is valid again. Undoing an undo restores the batch.

    Raises BadRequest for an unknown batch, a circle of merges, or a merge into an unknown individual; StorageError.
    """
    return _append(tables, batch_id, actor, [{"action": "withdraw", "withdraws": of_batch}])


def statements_of(tables: Tables, individual: str | None = None) -> list[dict[str, Any]]:
    """Return all statements, oldest first, or those about one individual. Raises StorageUnreachable."""
    rows = dataset(tables.existing(TABLE), INDIVIDUALS).to_table().to_pylist()
    of_batch = {row["batch_id"] for row in rows if row["individual_id"] == individual}
    about = [
        row for row in rows if individual is None or row["individual_id"] == individual or row["withdraws"] in of_batch
    ]
    return sorted(about, key=lambda row: row["stated_at"])


def _boxes(tables: Tables, batch: Batch) -> dict[str, dict[str, Any]]:
    """Return key, rank and corners of each detection that the batch names. Raises BadRequest for an unknown one."""
    parts = {s.detection: parts_of(s.detection) for s in batch.statements if s.detection}
    if not parts:
        return {}
    view = view_named(tables, batch.view)
    images = pa.chunked_array([pa.array(sorted({sha for sha, _ in parts.values()}), pa.string())])
    with connect(tables, view, images, statement=_BOXES) as sql:
        found = {(row["media_sha256"], row["rank"]): row for row in sql.sql(_BOXES).to_arrow_table().to_pylist()}
    for name, part in parts.items():
        if part not in found:
            raise BadRequest(f"unknown detection {name}: view '{view.name}' has no such row; see resight sql")
    return {name: found[part] | {"inference_key": view.inference_key} for name, part in parts.items()}


def _append(tables: Tables, batch_id: str, actor: str, rows: Sequence[dict[str, Any]]) -> Recorded:
    if not actor.strip():
        raise BadRequest("name the person who states this")

    def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        stored = dataset(snapshot, INDIVIDUALS).to_table()
        if batch_id in set(stored["batch_id"].to_pylist()):
            return wanted.slice(0, 0)
        newest = max((at for at in stored["stated_at"].to_pylist()), default=datetime.min.replace(tzinfo=UTC))
        at = max(datetime.now(UTC), newest + timedelta(microseconds=1))  # later than every other row, with any clock
        new = pa.Table.from_pylist(
            [_target(stored, row) | {"stated_at": at} for row in wanted.to_pylist()], INDIVIDUALS
        )
        _require_sound(pa.concat_tables([stored, new]), rows)
        return new

    named = [
        {"statement_id": hashlib.sha256(f"{batch_id}:{n}".encode()).hexdigest(), "batch_id": batch_id, "actor": actor}
        for n in range(len(rows))
    ]
    wanted = pa.Table.from_pylist([row | name for row, name in zip(rows, named, strict=True)], INDIVIDUALS)
    return Recorded(batch_id=batch_id, added=Writer(tables, TABLE).append_new(wanted, missing))


def _target(stored: pa.Table, row: dict[str, Any]) -> dict[str, Any]:
    """Return the row; one that withdraws a withdrawal restores the batch of that. Raises BadRequest."""
    if row["withdraws"] is None:
        return row
    of_batch = [other for other in stored.to_pylist() if other["batch_id"] == row["withdraws"]]
    if not of_batch:
        raise BadRequest(f"unknown batch {row['withdraws'][:40]}: it was never recorded")
    first = of_batch[0]
    if first["withdraws"] is None:
        return row
    action = "restore" if first["action"] == "withdraw" else "withdraw"
    return row | {"action": action, "withdraws": first["withdraws"]}


def _require_sound(after: pa.Table, new: Sequence[dict[str, Any]]) -> None:
    """Raise BadRequest if new statements name an unknown individual, or a merge would be into one, or in a circle."""
    with memory_database() as sql:
        sql.register("individuals_table", after)
        RELATIONS.create(sql, "merged_individuals")
        known = {name for (name,) in sql.execute("select individual_id from profiles where described").fetchall()}
        merged = "select individual_id, merged_into from profiles where merged_into is not null"
        into = dict(sql.execute(merged).fetchall())
    for name in (value for row in new for value in (row.get("individual_id"), row.get("merged_into")) if value):
        if name not in known:
            raise BadRequest(f"unknown individual '{name[:64]}': create it first; see resight individuals list")
    for name, target in into.items():  # all, as an undo can restore any of them
        if target not in known:
            raise BadRequest(f"'{target}' would be unknown, and '{name}' is merged into it: end that merge first")
        passed = {name}
        while (name := into.get(name, "")) and name not in passed:
            passed.add(name)
        if name:
            raise BadRequest(f"individual '{name}' would be merged into itself: end the other merge first")
