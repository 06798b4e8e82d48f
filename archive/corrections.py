"""A table of detections in which people edited the column `label`, made into statements.

rows as 'resight export detections' writes them --corrections--> a Statement for each row whose label was changed
Another label is a relabel, and no label (or "-") means that nothing is there. An animal that a person added has no
rank: its box identifies it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import pyarrow as pa
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from archive.query import connect
from archive.statements import BOX, DIGEST, Statement, words
from archive.tables import Tables
from archive.views import View, Views

EXPORTED_LABEL = "exported_label"
"""The column beside `label` in an export: what the label was."""
COLUMNS = ("media_sha256", "inference_key", "rank", "label")
HELP = (
    f"columns: {', '.join(COLUMNS)} (to edit) and {EXPORTED_LABEL}, as 'resight export detections' writes them\n"
    "if a spreadsheet changed the others: export again, and import its columns as text"
)
_NOTHING = "-"
_NOW = """
    select media_sha256, rank, coalesce(r.label, b.label), coalesce(r.human, false), coalesce(r.hidden, false),
        x1_px, y1_px, x2_px, y2_px
    from boxes b left join resolved r using (media_sha256, rank)
    union all
    select media_sha256, null, label, true, false, x1_px, y1_px, x2_px, y2_px from added
"""
_Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else str(value).strip())]
_Empty = BeforeValidator(lambda value: None if value == "" else value)
Target = tuple[object, ...]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    media_sha256: str = Field(pattern=DIGEST)
    inference_key: Annotated[str | None, _Empty] = Field(pattern=DIGEST)
    rank: Annotated[int | None, _Empty] = Field(ge=0)
    label: _Text
    exported_label: _Text | None = None
    x1_px: Annotated[float | None, _Empty] = None
    y1_px: Annotated[float | None, _Empty] = None
    x2_px: Annotated[float | None, _Empty] = None
    y2_px: Annotated[float | None, _Empty] = None

    @property
    def corrected(self) -> str | None:
        """None: nothing is there."""
        return None if self.label in ("", _NOTHING) else self.label

    @property
    def target(self) -> Target:
        if self.rank is not None:
            return self.media_sha256, self.inference_key, self.rank
        return self.media_sha256, *(getattr(self, name) for name in BOX)


@dataclass
class Corrections:
    """Statements, and what is wrong, by number of the row. `repeated`: corrections that people have made already."""

    statements: dict[int, Statement] = field(default_factory=dict)
    wrong: dict[int, str] = field(default_factory=dict)
    unchanged: int = 0
    repeated: int = 0


def is_table(columns: set[str]) -> bool:
    return "action" not in columns and {"media_sha256", "label"} <= columns


def corrections(
    tables: Tables, rows: Sequence[Mapping[str, Any]], told: Mapping[str, Any]
) -> Corrections:
    """`told` has actor, asserted_at and reason of all statements. Raises BadRequest, StorageUnreachable."""
    found = Corrections()
    edited: dict[int, _Row] = {}
    first: dict[Target, int] = {}
    for number, row in enumerate(rows, 1):
        if not any(value not in (None, "") for value in row.values()):
            continue  # left by a spreadsheet
        try:
            one = _checked(row)
            other = first.setdefault(one.target, number)
            if other != number and edited[other].label != one.label:
                raise ValueError(
                    f"label {one.label!r}, but row {other} has {edited[other].label!r}"
                )
            if other == number:
                edited[number] = one
        except ValidationError as error:
            found.wrong[number] = words(error)
        except ValueError as error:
            found.wrong[number] = str(error)
    if found.wrong:
        return found
    now = _now(tables, list(edited.values()))
    for number, one in edited.items():
        shown = now.get(one.target)
        if shown is None and one.rank is not None:
            found.wrong[number] = (
                f"no detection {one.rank} of image {one.media_sha256} under inference key {one.inference_key}"
            )
            continue
        before = one.exported_label or (shown.label if shown else None)
        if one.corrected == before:
            found.unchanged += 1
        elif _is_said(one, shown):
            found.repeated += 1
        else:
            found.statements[number] = _statement(one, told)
    return found


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the view has of a detection now."""

    label: str
    by_person: bool
    hidden: bool


def _checked(row: Mapping[str, Any]) -> _Row:
    """Raises ValueError, ValidationError."""
    if None in row:
        raise ValueError("it has more fields than the header")
    one = _Row.model_validate(row)
    if (one.rank is None) != (one.inference_key is None):
        raise ValueError("inference_key and rank go together")
    if one.rank is None and None in one.target:
        raise ValueError(f"without a rank it needs {', '.join(BOX)}: the box that a person added")
    return one


def _now(tables: Tables, rows: Sequence[_Row]) -> dict[Target, _Shown]:
    """Return what layers and people make of all detections of these images now, for each inference key of the rows."""
    published, found = Views(tables.url).current(), dict[Target, _Shown]()
    images = pa.chunked_array([pa.array(sorted({row.media_sha256 for row in rows}), pa.string())])
    for key in sorted({row.inference_key or "" for row in rows}):
        view = View(inference_key=key, model_name="", model_version="", weights_sha256="")
        if published and published.inference_key == key:
            view = published
        with connect(tables, view, images) as sql:
            for sha, rank, label, by_person, hidden, *box in sql.sql(_NOW).fetchall():
                target = (sha, *box) if rank is None else (sha, key, rank)
                found[target] = _Shown(label.strip(), by_person, hidden)
    return found


def _is_said(one: _Row, shown: _Shown | None) -> bool:
    """Return whether a person's word is this already."""
    if one.corrected is None:
        return shown is None or (shown.by_person and shown.hidden)
    return shown is not None and shown == _Shown(one.corrected, by_person=True, hidden=False)


def _statement(one: _Row, told: Mapping[str, Any]) -> Statement:
    fields = {"media_sha256": one.media_sha256, "label": one.corrected, **told}
    if one.rank is not None:
        action = "relabel" if one.corrected else "suppress"
        return Statement(action=action, inference_key=one.inference_key, rank=one.rank, **fields)
    box = {name: getattr(one, name) for name in BOX}
    return Statement(action="add" if one.corrected else "withdraw", **box, **fields)
