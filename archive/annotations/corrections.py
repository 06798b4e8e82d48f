"""Convert an exported table of detections with an edited column `label` into statements.

rows as 'resight export detections' writes them --corrections--> a Statement for each row with a changed label
Another label is a relabel; no label (or "-") means that the detection is false. An animal that a person added has no
rank: its box identifies it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from archive.annotations.annotation_file import BOX, DIGEST, Statement, given_fields, words
from archive.delta.tables import Tables
from archive.views.query import connect
from archive.views.views import View, Views
from model_store.frozen import Frozen

EXPORTED_LABEL = "exported_label"
"""Column of an export with the original `label`."""
COLUMNS = ("media_sha256", "inference_key", "rank", "label")
HELP = (
    f"columns: {', '.join(COLUMNS)} (to edit) and {EXPORTED_LABEL}, as 'resight export detections' writes them\n"
    "if a spreadsheet changed the others: export again, and import its columns as text"
)
_NOTHING = "-"
_CURRENT = """
    select media_sha256, rank, coalesce(r.label, b.label), coalesce(r.human, false), coalesce(r.hidden, false),
        x1_px, y1_px, x2_px, y2_px
    from boxes b left join resolved r using (media_sha256, rank)
    union all
    select media_sha256, null, label, true, false, x1_px, y1_px, x2_px, y2_px from added
"""
_Label = Annotated[str, StringConstraints(strip_whitespace=True)]
_Corner = Annotated[float, AfterValidator(lambda value: float(np.float32(value)))]
"""A coordinate as the tables store it: CSV has only the digits that a 32-bit number needs."""
Target = tuple[object, ...]


class _Row(Frozen):
    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    media_sha256: str = Field(pattern=DIGEST)
    inference_key: str | None = Field(default=None, pattern=DIGEST)
    rank: int | None = Field(default=None, ge=0)
    label: _Label = ""
    exported_label: _Label | None = None
    x1_px: _Corner | None = None
    y1_px: _Corner | None = None
    x2_px: _Corner | None = None
    y2_px: _Corner | None = None

    @model_validator(mode="after")
    def _names_a_detection(self) -> _Row:
        if (self.rank is None) != (self.inference_key is None):
            raise ValueError("inference_key and rank must be given together")
        if self.rank is None and None in self.target:
            raise ValueError(f"without a rank it needs {', '.join(BOX)}: the box that a person added")
        return self

    @property
    def corrected(self) -> str | None:
        """Return the corrected label, or None if the box is empty."""
        return None if self.label in ("", _NOTHING) else self.label

    @property
    def target(self) -> Target:
        if self.rank is not None:
            return self.media_sha256, self.inference_key, self.rank
        return self.media_sha256, *(getattr(self, name) for name in BOX)


@dataclass
class Corrections:
    """Statements and errors by row number, and counts of rows that add nothing.

    `unchanged` rows have the exported label; for `repeated` rows the same correction is recorded already.
    """

    statements: dict[int, Statement] = field(default_factory=dict)
    wrong: dict[int, str] = field(default_factory=dict)
    unchanged: int = 0
    repeated: int = 0


def is_table(columns: set[str]) -> bool:
    return "action" not in columns and {"media_sha256", "label"} <= columns


def corrections(tables: Tables, rows: Sequence[object], common: Mapping[str, Any]) -> Corrections:
    """Compare labels with the exported ones; `common` has actor, asserted_at and reason of all statements.

    Raises BadRequest, StorageUnreachable.
    """
    result = Corrections()
    edited: dict[int, _Row] = {}
    first: dict[Target, int] = {}
    for number, values in enumerate(rows, 1):
        try:
            given = given_fields(values, {})
            if not given:
                continue  # an empty row of a spreadsheet
            fields = cast("Mapping[str, object]", values)
            if fields.get(EXPORTED_LABEL, "") is None:  # a row of CSV that ends before it
                raise ValueError(f"it has no {EXPORTED_LABEL}: is the file cut off?")
            lacking = [name for name in COLUMNS if name not in fields]
            if lacking:  # a missing field is not a cleared one
                raise ValueError(f'{", ".join(lacking)}: missing; use null or "" for an empty field')
            row = _Row.model_validate(given)
            other = first.setdefault(row.target, number)
            if other != number and edited[other].label != row.label:
                raise ValueError(f"label {row.label!r}, but row {other} has {edited[other].label!r}")
            if other == number:
                edited[number] = row
        except ValidationError as error:
            result.wrong[number] = words(error)
        except ValueError as error:
            result.wrong[number] = str(error)
    current = _current(tables, list(edited.values()))
    for number, row in edited.items():
        shown = current.get(row.target)
        if shown is None and row.rank is not None:
            result.wrong[number] = (
                f"image {row.media_sha256} has no detection {row.rank} under inference key {row.inference_key}"
            )
            continue
        before = row.exported_label or (shown.label if shown else None)
        if row.corrected == before:
            result.unchanged += 1
        elif _is_recorded(row, shown):
            result.repeated += 1
        else:
            result.statements[number] = _statement(row, common)
    return result


class _Shown(NamedTuple):
    """The current state of a detection in the view."""

    label: str
    by_person: bool
    hidden: bool


def _current(tables: Tables, rows: Sequence[_Row]) -> dict[Target, _Shown]:
    """Return the current state of all detections of these images, for each inference key of the rows."""
    published, found = Views(tables.url).current(), dict[Target, _Shown]()
    images = pa.chunked_array([pa.array(sorted({row.media_sha256 for row in rows}), pa.string())])
    for key in sorted({row.inference_key or "" for row in rows}):
        view = View(inference_key=key, model_name="", model_version="", weights_sha256="")
        if published and published.inference_key == key:
            view = published
        with connect(tables, view, images, statement=_CURRENT) as sql:
            for sha, rank, label, by_person, hidden, *box in sql.execute(_CURRENT).fetchall():
                target = (sha, *box) if rank is None else (sha, key, rank)
                found[target] = _Shown(label.strip(), by_person, hidden)
    return found


def _is_recorded(row: _Row, shown: _Shown | None) -> bool:
    """Return whether a person has already made this correction."""
    if row.corrected is None:
        return shown is None or (shown.by_person and shown.hidden)
    return shown is not None and shown == _Shown(row.corrected, by_person=True, hidden=False)


def _statement(row: _Row, common: Mapping[str, Any]) -> Statement:
    fields = {"media_sha256": row.media_sha256, "label": row.corrected, **common}
    if row.rank is not None:
        action = "relabel" if row.corrected else "suppress"
        return Statement(action=action, inference_key=row.inference_key, rank=row.rank, **fields)
    box = {name: getattr(row, name) for name in BOX}
    return Statement(action="add" if row.corrected else "withdraw", **box, **fields)
