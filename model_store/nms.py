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
        left = block[alive]
        spared = ~clashes(left, left)
        free = np.ones(len(left), np.bool_)
        for i, position in enumerate(left.tolist()):
            if free[i]:
                kept.append(position)
                if len(kept) > most:
                    return np.array(kept, np.intp)
                free &= spared[i]
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
    rows, columns = np.ascontiguousarray(a.T)[..., np.newaxis], np.ascontiguousarray(b.T)
    inter = _side(np.maximum(rows[0], columns[0]), np.minimum(rows[2], columns[2]), longer)
    inter *= _side(np.maximum(rows[1], columns[1]), np.minimum(rows[3], columns[3]), longer)
    area_a, area_b = (
        _side(x1, x2, longer) * _side(y1, y2, longer) for x1, y1, x2, y2 in (rows, columns)
    )
    return inter, area_a, area_b[np.newaxis]


def _side(low: Boxes, high: Boxes, longer: float) -> Boxes:
    side = high - low
    if longer:
        side += longer
    return np.maximum(side, 0.0, out=side)
