"""Exact greedy non-maximum suppression, limited by the number of boxes and not by time.

Detections in network px --suppress--> the kept ones, ranked, at most max_detections

IoU is continuous (unless `inclusive_px`) and computed in float64. A box is dropped if its IoU with a kept box of
its class (of any class without class_aware) is strictly above `iou`. Equal scores keep their input order.
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
"""(rows,), (columns,) -> (rows, columns): True if the first, once kept, drops the second."""
BLOCK = 256
"""Number of boxes compared at a time: a matrix of half a megabyte, instead of a Python step per kept box."""


def suppress(detections: Detections, spec: Nms, image_px: float = 1.0) -> Detections:
    """Keep the best of each overlapping group; `saturated` is set if more than max_detections remain.

    `image_px` is the size of an image pixel in the unit of the boxes, for `inclusive_px`.
    """
    order = np.argsort(-detections.scores, kind="stable")
    if spec.kind == "greedy":
        boxes = detections.boxes_xyxy[order].astype(np.float64)
        classes = detections.class_ids[order]
        longer = image_px if spec.inclusive_px else 0.0

        def clashes(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.bool_]:
            clash = iou(boxes[rows, np.newaxis], boxes[columns], longer) > spec.iou
            if spec.class_aware:
                clash &= classes[rows][:, np.newaxis] == classes[columns]
            return clash

        order = order[greedy(len(order), clashes, spec.max_detections)]
    saturated = detections.saturated or len(order) > spec.max_detections
    best = detections.select(order[: spec.max_detections])
    return replace(best, saturated=saturated).ranked()


def greedy(count: int, clashes: Clashes, most: int) -> NDArray[np.intp]:
    """Return the kept positions of `count` boxes, best first; `most` + 1 of them if there are more.

    Each block is compared with the kept boxes first, then within itself.
    """
    kept: list[int] = []
    for start in range(0, count, BLOCK):
        block = np.arange(start, min(start + BLOCK, count))
        alive = np.ones(len(block), np.bool_)
        if kept:
            alive = ~np.any(clashes(np.array(kept), block), axis=0)
        left = block[alive]
        keeps = ~clashes(left, left)
        free = np.ones(len(left), np.bool_)
        for i, position in enumerate(left.tolist()):
            if free[i]:
                kept.append(position)
                if len(kept) > most:
                    return np.array(kept, np.intp)
                free &= keeps[i]
    return np.array(kept, np.intp)


def iou(a: Boxes, b: Boxes, longer: float = 0.0) -> Boxes:
    """Return the intersection over union of boxes (…, 4) and (…, 4), which broadcast; 0 where the union is empty."""
    inter, area_a, area_b = _areas(a, b, longer)
    return _ratio(inter, area_a + area_b - inter)


def containment(a: Boxes, b: Boxes) -> Boxes:
    """Return the intersection over the smaller area of boxes (…, 4) and (…, 4), which broadcast."""
    inter, area_a, area_b = _areas(a, b, 0.0)
    return _ratio(inter, np.minimum(area_a, area_b))


def _areas(a: Boxes, b: Boxes, longer: float) -> tuple[Boxes, Boxes, Boxes]:
    """Return the intersections and both areas. `longer` is added to all sides; inverted boxes have the area 0."""
    a, b = (np.ascontiguousarray(np.moveaxis(boxes, -1, 0)) for boxes in (a, b))
    inter = _side(np.maximum(a[0], b[0]), np.minimum(a[2], b[2]), longer)
    inter *= _side(np.maximum(a[1], b[1]), np.minimum(a[3], b[3]), longer)
    area_a, area_b = (_side(x1, x2, longer) * _side(y1, y2, longer) for x1, y1, x2, y2 in (a, b))
    return inter, area_a, area_b


def _ratio(part: Boxes, whole: Boxes) -> Boxes:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _side(low: Boxes, high: Boxes, longer: float) -> Boxes:
    side = high - low
    if longer:
        side += longer
    return np.maximum(side, 0.0, out=side)
