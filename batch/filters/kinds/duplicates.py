"""Suppress duplicate boxes: of overlapping boxes in an image, keep the one with the best rank.

boxes of an image, by rank --each kept box against all after it--> suppress, naming the kept rank

Greedy: a suppressed box suppresses nothing. All images advance together: step k compares the k-th box of each image,
if it is kept, with the remaining boxes of that image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from batch.filters.contract import Filter, FilterAction, FilterConfig, Rows
from batch.filters.support.boxes import Floats, measurable
from batch.filters.support.names import numbered
from batch.filters.support.reasons import compared
from model_store.transform.nms import containment, iou

KEPT = -1


class DuplicatesConfig(FilterConfig):
    kind: Literal["duplicates"] = "duplicates"
    iou: float = Field(
        0.5,
        ge=0,
        le=1,
        description="intersection over union, 0 to 1: a box is a duplicate of a kept box of "
        "better rank if it is more than this (strict)",
    )
    containment: float | None = Field(
        None,
        ge=0,
        le=1,
        description="intersection over the smaller area, 0 to 1: a box is also a duplicate if it is more than this "
        "(strict), for boxes within boxes; 0.9 is a good value; none: not used",
    )
    class_aware: bool = Field(
        True,
        description="compare only boxes of the same label; false: a duplicate can have another label, and the reason "
        "names the label of the kept box as the alternative",
    )


def actions(config: DuplicatesConfig, rows: Rows) -> Iterator[FilterAction]:
    """Yield `suppress` for each duplicate. Reason: "iou 0.83 > 0.5 with rank 0"."""
    rows = rows.take(measurable(rows.boxes_px))
    keeper = _keepers(config, rows)
    duplicate = np.flatnonzero(keeper != KEPT)
    kept = keeper[duplicate]
    both = rows.boxes_px[duplicate], rows.boxes_px[kept]
    overlap, inside = iou(*both), containment(*both)
    for pair, (i, j) in enumerate(zip(duplicate.tolist(), kept.tolist(), strict=True)):
        if overlap[pair] > config.iou or config.containment is None:
            reason = compared("iou", float(overlap[pair]), ">", config.iou)
        else:
            reason = compared("containment", float(inside[pair]), ">", config.containment)
        reason += f" with rank {rows.rank[j]}"
        if rows.label[i] != rows.label[j]:
            reason += f"; alternative: {rows.label[j]}"
        yield FilterAction(*rows.target(i), "suppress", reason)


def _keepers(config: DuplicatesConfig, rows: Rows) -> NDArray[np.intp]:
    """Return the row that suppresses each row, (n,), or KEPT."""
    n = len(rows)
    start = rows.image_starts()[rows.image_numbers()]
    position = np.arange(n) - start
    label = numbered(rows.label)[0] if config.class_aware else np.zeros(n, np.intp)
    keeper = np.full(n, KEPT, np.intp)
    x1, x2 = np.ascontiguousarray(rows.boxes_px[:, ::2].T)
    remaining = np.flatnonzero(position > 0)
    step = 0
    while len(remaining):
        kept = start[remaining] + step
        apart = (x2[kept] <= x1[remaining]) | (x2[remaining] <= x1[kept])
        candidate, kept = remaining[~apart], kept[~apart]
        comparable = (keeper[kept] == KEPT) & (label[kept] == label[candidate])
        candidate, kept = candidate[comparable], kept[comparable]
        duplicate = _duplicate(config, rows.boxes_px[candidate], rows.boxes_px[kept])
        keeper[candidate[duplicate]] = kept[duplicate]
        step += 1
        remaining = remaining[(keeper[remaining] == KEPT) & (position[remaining] > step)]
    return keeper


def _duplicate(config: DuplicatesConfig, a_px: Floats, b_px: Floats) -> NDArray[np.bool_]:
    duplicate = iou(a_px, b_px) > config.iou
    if config.containment is not None:
        duplicate |= containment(a_px, b_px) > config.containment
    return duplicate


FILTER = Filter(
    config=DuplicatesConfig,
    apply=actions,
    context="image",
    order=10,
    invalid=lambda _, rows: ~measurable(rows.boxes_px),  # such boxes neither suppress nor are suppressed
)
