"""One part of a filter run: rows in, rows of `assertions` out, with the counts of both. Pure; knows no Ray.

pa.Table (schema PART) --evaluate--> Evaluated: what is to be added, so that what the layer says by then is what the
filter says now. What holds already is not said again, and what it says no longer is withdrawn.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from archive.assertions import assertion_id
from archive.layers import MACHINE, WITHDRAW, Layer
from archive.schemas import ASSERTIONS
from batch.filters.columns import COLUMNS, rows_of_table
from batch.filters.contract import NO_RANK, Filter, FilterConfig, Rows, Said
from batch.filters.tally import Tally

PART = pa.schema(
    [
        *COLUMNS,
        ("hidden_below", pa.bool_()),
        ("determined_by", pa.string()),
        ("standing_id", pa.string()),
        ("standing_action", pa.string()),
        ("standing_label", pa.string()),
        ("standing_score", pa.float32()),
        ("image_standing_id", pa.string()),
    ]
)
"""What a filter sees, and what the layer says of the same targets by now (null: nothing)."""
Target = tuple[str, int]
_ID_COLUMNS = ("x1_px", "y1_px", "x2_px", "y2_px")
_OF_DETECTION = {"rank", "label", "score", "group_id", "logits", *_ID_COLUMNS}


@dataclass(frozen=True, slots=True)
class Question:
    """A filter with its config, and the layer that it says things in; `asserted_at` is later than all of that."""

    filter: Filter
    config: FilterConfig
    layer: Layer
    inference_key: str
    asserted_at: datetime
    classes: tuple[str, ...] = ()
    class_lineage: tuple[str, ...] = ()

    @property
    def of_images(self) -> bool:
        return self.filter.groups == "event"


@dataclass(frozen=True, slots=True)
class Evaluated:
    rows: pa.Table
    tally: Tally


def evaluate(part: pa.Table, question: Question) -> Evaluated:
    """Raises ValueError when the filter says two things about one target, or speaks of what it was not asked."""
    rows = rows_of_table(_seen(part), question.classes, question.class_lineage)
    said = _by_target(question.filter.apply(question.config, rows))
    places = _places(part, question.of_images)
    foreign = said.keys() - places.keys()
    if foreign:
        raise ValueError(f"{question.filter.kind} speaks of {next(iter(foreign))}, not in its rows")
    standing = _standing(part, places, question.of_images)
    columns = {name: part[name].to_pylist() for name in _READ}
    added: list[dict[str, Any]] = []
    changed = 0
    for target, one in said.items():
        row = _row(one, places[target], columns, question)
        if target in standing and row["assertion_id"] == standing[target]:
            continue
        added.append(row)
        changed += _is_changed(one, places[target], columns)
    gone = standing.keys() - said.keys()
    for target in sorted(gone):
        added.append(_withdrawal(target, standing[target], places[target], columns, question))
        changed += _is_changed(None, places[target], columns)
    tally = Tally(
        checked=_checked(rows, question),
        flagged=len(said),
        grouped=sum(one.group_id is not None for one in said.values()),
        changed=0 if question.of_images else changed,
        skipped_human=sum(_is_human(target, places, columns) for target in said),
        skipped_invalid=_invalid(rows, question),
        added=len(added),
        withdrawn=len(gone),
    )
    return Evaluated(pa.Table.from_pylist(added, schema=ASSERTIONS), tally)


_READ = (
    *("media_sha256", "rank", "label", "score", "human", "hidden_below", "determined_by"),
    *_ID_COLUMNS,
    *("standing_id", "standing_action", "standing_label", "standing_score"),
)


def _seen(part: pa.Table) -> pa.Table:
    """Without what layers below hide; an image of which all is hidden has one row left, without a detection."""
    names = [name for name in part.column_names if name in COLUMNS.names or name == "logits"]
    if not len(part):
        return part.select(names)
    hidden = part["hidden_below"].to_numpy(zero_copy_only=False).astype(bool)
    media = part["media_sha256"].to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.concatenate([[True], media[1:] != media[:-1]]))
    emptied = np.zeros(len(part), bool)
    emptied[starts[np.logical_and.reduceat(hidden, starts)]] = True
    seen = part.select(names).filter(pa.array(~hidden | emptied))
    empty = pa.array(emptied[~hidden | emptied])
    for name in _OF_DETECTION & set(names):
        column = seen[name]
        nothing = pa.nulls(len(seen), column.type)
        place = seen.schema.get_field_index(name)
        seen = seen.set_column(place, name, pc.if_else(empty, nothing, column))
    return seen


def _by_target(said: Iterable[Said]) -> dict[Target, Said]:
    found: dict[Target, Said] = {}
    for one in said:
        target = (one.media_sha256, NO_RANK if one.rank is None else int(one.rank))
        if target in found:
            raise ValueError(f"two things are said about {target}: {found[target]} and {one}")
        found[target] = one
    return found


def _places(part: pa.Table, of_images: bool) -> dict[Target, int]:
    """Target to its row; of an image, its first."""
    media = part["media_sha256"].to_pylist()
    if of_images:
        return {(sha, NO_RANK): place for place, sha in reversed(list(enumerate(media)))}
    ranks = part["rank"].to_pylist()
    pairs = enumerate(zip(media, ranks, strict=True))
    return {(sha, rank): place for place, (sha, rank) in pairs if rank is not None}


def _standing(part: pa.Table, places: dict[Target, int], of_images: bool) -> dict[Target, str]:
    ids = part["image_standing_id" if of_images else "standing_id"].to_pylist()
    return {target: ids[place] for target, place in places.items() if ids[place] is not None}


def _row(
    one: Said, place: int, columns: dict[str, list[Any]], question: Question
) -> dict[str, Any]:
    of_image = one.rank is None
    row: dict[str, Any] = {
        "layer_id": question.layer.layer_id,
        "method": MACHINE,
        "actor": f"{question.filter.kind}@{question.filter.version}",
        "action": one.action,
        "media_sha256": one.media_sha256,
        "inference_key": question.inference_key,
        "rank": None if of_image else int(one.rank or 0),
        **{name: None if of_image else columns[name][place] for name in _ID_COLUMNS},
        "label": one.label,
        "score": None if one.score is None else float(np.float32(one.score)),
        "score_semantics": one.score_semantics,
        "reason": one.reason,
        "applied_to": "image" if of_image else columns["determined_by"][place] or "detection",
        "asserted_at": question.asserted_at,
        "group_id": one.group_id,
    }
    return {"assertion_id": assertion_id(row)} | row


def _withdrawal(
    target: Target,
    standing_id: str,
    place: int,
    columns: dict[str, list[Any]],
    question: Question,
) -> dict[str, Any]:
    sha, rank = target
    said = Said(sha, None if rank == NO_RANK else rank, "suppress", "no longer said")
    row = _row(said, place, columns, question)
    row |= {"action": WITHDRAW, "applied_to": standing_id}
    return row | {"assertion_id": assertion_id(row)}


def _is_changed(one: Said | None, place: int, columns: dict[str, list[Any]]) -> bool:
    if columns["human"][place] or columns["hidden_below"][place]:
        return False
    label, score = columns["label"][place], columns["score"][place]
    before = _outcome(
        columns["standing_action"][place],
        columns["standing_label"][place],
        columns["standing_score"][place],
        (label, score),
    )
    now = (False, label, score)
    if one is not None:
        figure = None if one.score is None else float(np.float32(one.score))
        now = _outcome(one.action, one.label, figure, (label, score))
    return before != now


def _outcome(
    action: str | None, label: str | None, score: float | None, base: tuple[str, float]
) -> tuple[bool, str, float]:
    """Hidden or not, label, score: what a view shows of it."""
    match action:
        case "suppress":
            return True, *base
        case "relabel":
            return False, label or base[0], base[1] if score is None else score
        case "rescore":
            return False, base[0], base[1] if score is None else score
        case _:
            return False, *base


def _checked(rows: Rows, question: Question) -> int:
    if question.of_images:
        return len(set(rows.media_sha256.tolist()))
    return int(np.count_nonzero(rows.rank != NO_RANK))


def _invalid(rows: Rows, question: Question) -> int:
    if question.filter.invalid is None:
        return 0
    wrong = question.filter.invalid(question.config, rows)
    return int(np.count_nonzero(wrong & (rows.rank != NO_RANK)))


def _is_human(target: Target, places: dict[Target, int], columns: dict[str, list[Any]]) -> bool:
    return target[1] != NO_RANK and bool(columns["human"][places[target]])
