"""Greedy non-maximum suppression, exact and bounded by count instead of by time.

Detections in network px --suppress--> the kept ones, ranked, at most max_detections
IoU is continuous (unless `inclusive_px`) and computed in float64; a box is dropped when IoU > iou
(strictly) with a kept box of its class (any class when not class_aware). Equal scores keep their input
order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model_store.config import Nms
from model_store.detections import Detections

Boxes = NDArray[np.float64]
Clashes = Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.bool_]]
"""(rows,), (columns,) -> (rows, columns): whether the first, kept, drops the second."""
BLOCK = 256
"""Boxes compared at a time: a matrix of half a megabyte, instead of a Python step per kept box."""


def suppress(detections: Detections, spec: Nms, image_px: float = 1.0) -> Detections:
    """Keep the best of each overlapping group; `saturated` when more than max_detections remain.

    `image_px` is the size of a pixel of the image in the unit of the boxes, for `inclusive_px`.
    """
    order = np.argsort(-detections.scores, kind="stable")
    if spec.kind == "greedy":
        boxes = detections.boxes_xyxy[order].astype(np.float64)
        classes = detections.class_ids[order]
        longer = image_px if spec.inclusive_px else 0.0

        def clashes(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.bool_]:
            clash = iou(boxes[rows], boxes[columns], longer) > spec.iou
            if spec.class_aware:
                clash &= classes[rows][:, np.newaxis] == classes[columns]
            return clash

        order = order[greedy(len(order), clashes, spec.max_detections)]
    saturated = detections.saturated or len(order) > spec.max_detections
    best = detections.select(order[: spec.max_detections])
    return replace(best, saturated=saturated).ranked()


def greedy(count: int, clashes: Clashes, most: int) -> NDArray[np.intp]:
    """Positions kept of `count` boxes, best first; one more than `most` when there are more.

    Block by block: first against what is kept, then among themselves.
    """
    kept: list[int] = []
    for start in range(0, count, BLOCK):
        block = np.arange(start, min(start + BLOCK, count))
        alive = np.ones(len(block), np.bool_)
        if kept:
            alive = ~np.any(clashes(np.array(kept), block), axis=0)
        among = clashes(block, block)
        for i in range(len(block)):
            if alive[i]:
                kept.append(int(block[i]))
                if len(kept) > most:
                    return np.array(kept, np.intp)
                alive[i + 1 :] &= ~among[i, i + 1 :]
    return np.array(kept, np.intp)


def iou(a: Boxes, b: Boxes, longer: float = 0.0) -> Boxes:
    """IoU of boxes (m, 4) with boxes (n, 4), (m, n); 0 where the union is empty."""
    inter, area_a, area_b = intersection(a, b, longer)
    union = area_a + area_b - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def intersection(a: Boxes, b: Boxes, longer: float = 0.0) -> tuple[Boxes, Boxes, Boxes]:
    """Areas (m, n) common to boxes (m, 4) and (n, 4), and each one's own, (m, 1) and (1, n).

    All sides are `longer` by so much; inverted boxes have the area 0.
    """
    rows = a[:, np.newaxis]
    return (
        _area(np.maximum(rows[..., :2], b[:, :2]), np.minimum(rows[..., 2:], b[:, 2:]), longer),
        _area(a[:, :2], a[:, 2:], longer)[:, np.newaxis],
        _area(b[:, :2], b[:, 2:], longer)[np.newaxis],
    )


def _area(low: Boxes, high: Boxes, longer: float) -> Boxes:
    sides = np.maximum(high - low + longer, 0.0)
    return sides[..., 0] * sides[..., 1]
