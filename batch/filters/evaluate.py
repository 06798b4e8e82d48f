"""Evaluate a filter on one part of a run: rows in, rows of `assertions` and counts out. Pure, independent of Ray.

pa.Table (schema PART) --evaluate--> Evaluated: the rows to add so that the layer matches the filter's actions.
Assertions that already hold are not added again; those without an action are withdrawn. Each target counts once,
however the work is split into parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from archive.annotations.assertions import assertion_id
from archive.annotations.layers import MACHINE, WITHDRAW, Layer
from archive.schemas import ASSERTIONS
from batch.filters.contract import (
    BOX_COLUMNS,
    COLUMNS,
    NO_RANK,
    Filter,
    FilterAction,
    FilterConfig,
    Rows,
    rows_of_table,
)

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
"""Digest and rank of a detection, or digest and NO_RANK of an image."""
_READ = (*("media_sha256", "rank", "label", "score", "human", *PART.names[len(COLUMNS) :]), *BOX_COLUMNS)


@dataclass(frozen=True, slots=True)
class FilterCounts:
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

    def __add__(self, other: FilterCounts) -> FilterCounts:
        return FilterCounts(*(ours + theirs for ours, theirs in zip(astuple(self), astuple(other), strict=True)))


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


@dataclass(frozen=True, slots=True)
class Evaluated:
    rows: pa.Table
    tally: FilterCounts


def evaluate(part: pa.Table, question: Question) -> Evaluated:
    """Return the rows to add and their counts.

    Raises ValueError if the filter returns two actions for one target, or a target that is not in its rows.
    """
    filter_, config = question.filter, question.config
    of_images = filter_.groups == "event"
    columns = {name: part[name].to_pylist() for name in _READ}
    if of_images:
        columns |= {"rank": [NO_RANK] * len(part), "standing_id": columns["image_standing_id"]}
    targets: list[Target] = list(zip(columns["media_sha256"], columns["rank"], strict=True))
    row_of = {target: row for row, target in enumerate(targets) if target[1] is not None}
    rows = _visible(rows_of_table(part, question.classes, question.class_lineage), part["hidden_below"].to_numpy())
    actions = _by_target(filter_.apply(config, rows))
    foreign = actions.keys() - row_of.keys()
    if foreign:
        raise ValueError(f"{filter_.kind} returned target {next(iter(foreign))}, which is not in its rows")

    def before(target: Target) -> dict[str, Any]:
        return {name: column[row_of[target]] for name, column in columns.items()}

    added: list[dict[str, Any]] = []
    changed = 0
    for target, action in actions.items():
        row = before(target)
        assertion = _assertion(action, row, question)
        if assertion["assertion_id"] != row["standing_id"]:
            added.append(assertion)
            changed += _is_changed(action, row)
    withdrawn = sorted(t for t, row in row_of.items() if columns["standing_id"][row] is not None and t not in actions)
    for target in withdrawn:
        row = before(target)
        added.append(_withdrawal(row, question))
        changed += _is_changed(None, row)
    detections = rows.rank != NO_RANK
    tally = FilterCounts(
        checked=len(rows.image_starts()) if of_images else int(np.count_nonzero(detections)),
        flagged=len(actions),
        grouped=sum(action.group_id is not None for action in actions.values()),
        changed=0 if of_images else changed,
        skipped_human=0 if of_images else sum(columns["human"][row_of[target]] for target in actions),
        skipped_invalid=int(np.count_nonzero(filter_.invalid(config, rows) & detections)) if filter_.invalid else 0,
        added=len(added),
        withdrawn=len(withdrawn),
    )
    return Evaluated(pa.Table.from_pylist(added, schema=ASSERTIONS), tally)


def _visible(rows: Rows, hidden: np.ndarray) -> Rows:
    """Drop detections that layers below hide; an image without others keeps one row, without a detection."""
    starts = rows.image_starts()
    emptied = np.zeros(len(rows), bool)
    emptied[starts[np.logical_and.reduceat(hidden, starts)]] = True
    visible, empty = rows.take(~hidden | emptied), emptied[~hidden | emptied]
    visible.rank[empty] = NO_RANK
    visible.label[empty] = visible.group_id[empty] = None
    visible.score[empty] = visible.boxes_px[empty] = np.nan
    if visible.logits is not None:
        visible.logits[empty] = np.nan
    return visible


def _by_target(actions: Iterable[FilterAction]) -> dict[Target, FilterAction]:
    by_target: dict[Target, FilterAction] = {}
    for action in actions:
        target = (action.media_sha256, NO_RANK if action.rank is None else int(action.rank))
        if target in by_target:
            raise ValueError(f"two actions for {target}: {by_target[target]} and {action}")
        by_target[target] = action
    return by_target


def _assertion(action: FilterAction, row: dict[str, Any], question: Question) -> dict[str, Any]:
    of_image = action.rank is None
    assertion: dict[str, Any] = {
        "layer_id": question.layer.layer_id,
        "method": MACHINE,
        "actor": f"{question.filter.kind}@{question.filter.version}",
        "action": action.action,
        "media_sha256": action.media_sha256,
        "inference_key": question.inference_key,
        "rank": None if of_image else int(action.rank or 0),
        **{name: None if of_image else row[name] for name in BOX_COLUMNS},
        "label": action.label,
        "score": _stored(action.score),
        "score_semantics": action.score_semantics,
        "reason": action.reason,
        "applied_to": "image" if of_image else row["determined_by"] or "detection",
        "asserted_at": question.asserted_at,
        "group_id": action.group_id,
    }
    return {"assertion_id": assertion_id(assertion)} | assertion


def _withdrawal(row: dict[str, Any], question: Question) -> dict[str, Any]:
    """Return the row that revokes the layer's current assertion on a target."""
    rank = None if row["rank"] == NO_RANK else row["rank"]
    assertion = _assertion(FilterAction(row["media_sha256"], rank, "suppress", "no longer said"), row, question)
    assertion |= {"action": WITHDRAW, "applied_to": row["standing_id"]}
    return assertion | {"assertion_id": assertion_id(assertion)}


def _is_changed(action: FilterAction | None, row: dict[str, Any]) -> bool:
    """Return whether a view shows the detection differently with this action than with the layer's current one."""
    if row["human"] or row["hidden_below"]:
        return False
    shown = row["label"], row["score"]
    before = _outcome(row["standing_action"], row["standing_label"], row["standing_score"], shown)
    if action is None:
        return before != (False, *shown)
    return before != _outcome(action.action, action.label, _stored(action.score), shown)


def _outcome(
    action: str | None, label: str | None, score: float | None, base: tuple[str, float]
) -> tuple[bool, str, float]:
    """Return whether a view hides the detection, and the label and score that it shows."""
    if action not in ("relabel", "rescore"):
        return action == "suppress", *base
    return False, label if action == "relabel" and label else base[0], base[1] if score is None else score


def _stored(score: float | None) -> float | None:
    """Return the score as the table stores it, as float32."""
    return None if score is None else float(np.float32(score))
