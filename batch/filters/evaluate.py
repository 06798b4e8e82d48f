"""Evaluate a filter on one part of a run: rows in, rows of `assertions` and counts out. Pure, independent of Ray.

pa.Table (schema PART) --evaluate--> Evaluated: the rows to add so that the layer matches the filter's actions.
Assertions that already hold are not added again; those without an action are withdrawn. Each target counts once,
however the work is split into parts.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from archive.annotations.assertions import assertion_id
from archive.annotations.layers import MACHINE, WITHDRAW, Layer
from archive.schemas import ASSERTIONS
from batch.filters.columns import COLUMNS, rows_of_table
from batch.filters.contract import NO_RANK, Filter, FilterConfig, Rows, Said


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of targets.

    checked         detections (images, if the filter groups images) that the filter has judged
    flagged         checked targets with an action
    grouped         flagged targets with a group
    changed         targets with another label, score or visibility than before the run
    skipped_human   flagged targets that a person has annotated; nothing changes
    skipped_invalid targets with values that the filter cannot use
    added           rows added, including withdrawals
    withdrawn       added rows that withdraw an earlier assertion of the layer
    """

    checked: int = 0
    flagged: int = 0
    grouped: int = 0
    changed: int = 0
    skipped_human: int = 0
    skipped_invalid: int = 0
    added: int = 0
    withdrawn: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    def plus(self, other: Tally) -> Tally:
        ours, theirs = asdict(self), asdict(other)
        return Tally(**{name: ours[name] + theirs[name] for name in ours})


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
"""Columns for the filter, and the layer's current assertion on the same target (null: none)."""
Target = tuple[str, int]
_BOX_COLUMNS = ("x1_px", "y1_px", "x2_px", "y2_px")
_DETECTION_COLUMNS = {"rank", "label", "score", "group_id", "logits", *_BOX_COLUMNS}


@dataclass(frozen=True, slots=True)
class Question:
    """A filter with its config and its layer; `asserted_at` is later than every earlier assertion of the layer."""

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
    """Return the rows to add and their counts.

    Raises ValueError if the filter returns two actions for one target, or a target that is not in its rows.
    """
    rows = rows_of_table(_visible(part), question.classes, question.class_lineage)
    actions = _by_target(question.filter.apply(question.config, rows))
    row_of = _rows_of_targets(part, question.of_images)
    foreign = actions.keys() - row_of.keys()
    if foreign:
        raise ValueError(f"{question.filter.kind} returned target {next(iter(foreign))}, which is not in its rows")
    standing = _standing(part, row_of, question.of_images)
    columns = {name: part[name].to_pylist() for name in _READ}
    added: list[dict[str, Any]] = []
    changed = 0
    for target, action in actions.items():
        assertion = _assertion(action, row_of[target], columns, question)
        if target in standing and assertion["assertion_id"] == standing[target]:
            continue
        added.append(assertion)
        changed += _is_changed(action, row_of[target], columns)
    withdrawn = standing.keys() - actions.keys()
    for target in sorted(withdrawn):
        added.append(_withdrawal(target, standing[target], row_of[target], columns, question))
        changed += _is_changed(None, row_of[target], columns)
    tally = Tally(
        checked=_checked(rows, question),
        flagged=len(actions),
        grouped=sum(action.group_id is not None for action in actions.values()),
        changed=0 if question.of_images else changed,
        skipped_human=sum(_is_human(target, row_of, columns) for target in actions),
        skipped_invalid=_invalid(rows, question),
        added=len(added),
        withdrawn=len(withdrawn),
    )
    return Evaluated(pa.Table.from_pylist(added, schema=ASSERTIONS), tally)


_READ = (
    *("media_sha256", "rank", "label", "score", "human", "hidden_below", "determined_by"),
    *_BOX_COLUMNS,
    *("standing_id", "standing_action", "standing_label", "standing_score"),
)


def _visible(part: pa.Table) -> pa.Table:
    """Drop detections that layers below hide; an image without others keeps one row, without a detection."""
    names = [name for name in part.column_names if name in COLUMNS.names or name == "logits"]
    if not len(part):
        return part.select(names)
    hidden = part["hidden_below"].to_numpy(zero_copy_only=False).astype(bool)
    media = part["media_sha256"].to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.concatenate([[True], media[1:] != media[:-1]]))
    emptied = np.zeros(len(part), bool)
    emptied[starts[np.logical_and.reduceat(hidden, starts)]] = True
    visible = part.select(names).filter(pa.array(~hidden | emptied))
    empty = pa.array(emptied[~hidden | emptied])
    for name in _DETECTION_COLUMNS & set(names):
        column = visible[name]
        nulls = pa.nulls(len(visible), column.type)
        position = visible.schema.get_field_index(name)
        visible = visible.set_column(position, name, pc.if_else(empty, nulls, column))
    return visible


def _by_target(actions: Iterable[Said]) -> dict[Target, Said]:
    by_target: dict[Target, Said] = {}
    for action in actions:
        target = (action.media_sha256, NO_RANK if action.rank is None else int(action.rank))
        if target in by_target:
            raise ValueError(f"two actions for {target}: {by_target[target]} and {action}")
        by_target[target] = action
    return by_target


def _rows_of_targets(part: pa.Table, of_images: bool) -> dict[Target, int]:
    """Map each target to its row; an image, to its first row."""
    media = part["media_sha256"].to_pylist()
    if of_images:
        return {(sha, NO_RANK): row for row, sha in reversed(list(enumerate(media)))}
    ranks = part["rank"].to_pylist()
    pairs = enumerate(zip(media, ranks, strict=True))
    return {(sha, rank): row for row, (sha, rank) in pairs if rank is not None}


def _standing(part: pa.Table, row_of: dict[Target, int], of_images: bool) -> dict[Target, str]:
    """Map each target to the id of the layer's current assertion on it."""
    ids = part["image_standing_id" if of_images else "standing_id"].to_pylist()
    return {target: ids[row] for target, row in row_of.items() if ids[row] is not None}


def _assertion(action: Said, row: int, columns: dict[str, list[Any]], question: Question) -> dict[str, Any]:
    of_image = action.rank is None
    assertion: dict[str, Any] = {
        "layer_id": question.layer.layer_id,
        "method": MACHINE,
        "actor": f"{question.filter.kind}@{question.filter.version}",
        "action": action.action,
        "media_sha256": action.media_sha256,
        "inference_key": question.inference_key,
        "rank": None if of_image else int(action.rank or 0),
        **{name: None if of_image else columns[name][row] for name in _BOX_COLUMNS},
        "label": action.label,
        "score": None if action.score is None else float(np.float32(action.score)),
        "score_semantics": action.score_semantics,
        "reason": action.reason,
        "applied_to": "image" if of_image else columns["determined_by"][row] or "detection",
        "asserted_at": question.asserted_at,
        "group_id": action.group_id,
    }
    return {"assertion_id": assertion_id(assertion)} | assertion


def _withdrawal(
    target: Target, standing_id: str, row: int, columns: dict[str, list[Any]], question: Question
) -> dict[str, Any]:
    sha, rank = target
    action = Said(sha, None if rank == NO_RANK else rank, "suppress", "no longer said")
    assertion = _assertion(action, row, columns, question)
    assertion |= {"action": WITHDRAW, "applied_to": standing_id}
    return assertion | {"assertion_id": assertion_id(assertion)}


def _is_changed(action: Said | None, row: int, columns: dict[str, list[Any]]) -> bool:
    if columns["human"][row] or columns["hidden_below"][row]:
        return False
    label, score = columns["label"][row], columns["score"][row]
    before = _outcome(
        columns["standing_action"][row], columns["standing_label"][row], columns["standing_score"][row], (label, score)
    )
    after = (False, label, score)
    if action is not None:
        stored_score = None if action.score is None else float(np.float32(action.score))
        after = _outcome(action.action, action.label, stored_score, (label, score))
    return before != after


def _outcome(
    action: str | None, label: str | None, score: float | None, base: tuple[str, float]
) -> tuple[bool, str, float]:
    """Return whether a view hides the detection, and the label and score that it shows."""
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
    invalid = question.filter.invalid(question.config, rows)
    return int(np.count_nonzero(invalid & (rows.rank != NO_RANK)))


def _is_human(target: Target, row_of: dict[Target, int], columns: dict[str, list[Any]]) -> bool:
    return target[1] != NO_RANK and bool(columns["human"][row_of[target]])
