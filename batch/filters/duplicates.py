"""Duplicate boxes: of boxes that overlap, the one of the best rank stays.

boxes of an image, by rank --each kept box against all after it--> suppress, naming the rank that stays

Greedy: a suppressed box suppresses nothing. All images take a step at once: in step k the k-th box of each, if
it is kept, is compared with what is left of its image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from batch.filters.boxes import Floats, area_px2, measurable, shared_px2
from batch.filters.contract import NO_RANK, Filter, FilterConfig, Rows, Said
from batch.filters.reasons import compared

KEPT = -1


class DuplicatesConfig(FilterConfig):
    kind: Literal["duplicates"] = "duplicates"
    iou: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="intersection over union, 0 to 1: a box is a duplicate of a kept one of better rank when "
        "theirs is more than this (strict)",
    )
    containment: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="intersection over the smaller area, 0 to 1: a duplicate also when it is more than this "
        "(strict), for boxes within boxes; 0.9 is a good value; none: not asked",
    )
    class_aware: bool = Field(
        default=True,
        description="whether only boxes of the same label are compared; else a duplicate may have another label, "
        "and the reason names that of the kept box as the alternative",
    )


def invalid(config: DuplicatesConfig, rows: Rows) -> NDArray[np.bool_]:
    """(n,): boxes that cannot be measured; they neither suppress nor are suppressed."""
    return (rows.rank != NO_RANK) & ~measurable(rows.boxes_px)


def say(config: DuplicatesConfig, rows: Rows) -> Iterator[Said]:
    """One `suppress` for each duplicate. Reason: "iou 0.83 > 0.5 with rank 0"."""
    rows = rows.take(measurable(rows.boxes_px) & (rows.rank != NO_RANK))
    keeper = _keepers(config, rows)
    doubled = np.flatnonzero(keeper != KEPT)
    kept = keeper[doubled]
    iou, containment = _overlap(rows.boxes_px[doubled], rows.boxes_px[kept])
    for at, (i, j) in enumerate(zip(doubled.tolist(), kept.tolist(), strict=True)):
        if iou[at] > config.iou or config.containment is None:
            reason = compared("iou", float(iou[at]), ">", config.iou)
        else:
            reason = compared("containment", float(containment[at]), ">", config.containment)
        reason += f" with rank {rows.rank[j]}"
        if rows.label[i] != rows.label[j]:
            reason += f"; alternative: {rows.label[j]}"
        yield Said(rows.media_sha256[i], int(rows.rank[i]), "suppress", reason)


def _keepers(config: DuplicatesConfig, rows: Rows) -> NDArray[np.intp]:
    """(n,): the row that suppresses each, or KEPT."""
    n = len(rows)
    starts = np.fromiter((part.start for part in rows.images()), np.intp)
    start = np.repeat(starts, np.diff(starts, append=n))
    position = np.arange(n) - start
    label = _numbers(rows.label) if config.class_aware else np.zeros(n, np.intp)
    keeper = np.full(n, KEPT, np.intp)
    x1, x2 = np.ascontiguousarray(rows.boxes_px[:, ::2].T)
    left = np.flatnonzero(position > 0)
    step = 0
    while len(left):
        against = start[left] + step
        beside = (x2[against] <= x1[left]) | (x2[left] <= x1[against])
        rival, against = left[~beside], against[~beside]
        asked = (keeper[against] == KEPT) & (label[against] == label[rival])
        rival, against = rival[asked], against[asked]
        same = _duplicate(config, rows.boxes_px[rival], rows.boxes_px[against])
        keeper[rival[same]] = against[same]
        step += 1
        left = left[(keeper[left] == KEPT) & (position[left] > step)]
    return keeper


def _duplicate(config: DuplicatesConfig, a_px: Floats, b_px: Floats) -> NDArray[np.bool_]:
    iou, containment = _overlap(a_px, b_px)
    if config.containment is None:
        return iou > config.iou
    return (iou > config.iou) | (containment > config.containment)


def _overlap(a_px: Floats, b_px: Floats) -> tuple[Floats, Floats]:
    """Intersection over union, and over the smaller of the two; (n,) each."""
    shared, a_px2, b_px2 = shared_px2(a_px, b_px), area_px2(a_px), area_px2(b_px)
    return shared / (a_px2 + b_px2 - shared), shared / np.minimum(a_px2, b_px2)


def _numbers(labels: NDArray[np.object_]) -> NDArray[np.intp]:
    """(n,): equal for equal labels."""
    numbers: dict[object, int] = {}
    return np.fromiter(
        (numbers.setdefault(label, len(numbers)) for label in labels), np.intp, len(labels)
    )


FILTER = Filter(config=DuplicatesConfig, apply=say, context="image", order=10, invalid=invalid)
