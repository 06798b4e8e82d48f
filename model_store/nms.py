"""Greedy non-maximum suppression, exact and bounded by count instead of by time.

Detections in network px --suppress--> the kept ones, ranked, at most max_detections
IoU is continuous (no +1 px) and computed in float64; a box is dropped when IoU > iou (strictly)
with a kept box of its class (any class when not class_aware). Equal scores keep their input order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_store.config import Nms
from model_store.detections import Detections

BLOCK = 256
"""Boxes compared at a time: a matrix of half a megabyte, instead of a Python step per kept box."""


def suppress(detections: Detections, spec: Nms) -> Detections:
    """Keep the best of each overlapping group; `saturated` when more than max_detections remain."""
    order = np.argsort(-detections.scores, kind="stable")
    kept = order if spec.kind == "none" else _greedy(detections, order, spec)
    best = detections.select(kept[: spec.max_detections])
    saturated = detections.saturated or len(kept) > spec.max_detections
    return Detections(best.boxes_xyxy, best.scores, best.class_ids, saturated).ranked()


def _greedy(detections: Detections, order: NDArray[np.intp], spec: Nms) -> NDArray[np.intp]:
    """Block by block: first against what is kept, then among themselves."""
    boxes = detections.boxes_xyxy[order].astype(np.float64)
    classes = detections.class_ids[order]
    kept: list[int] = []
    for start in range(0, len(order), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(order)))
        alive = np.ones(len(block), np.bool_)
        if kept:
            alive = ~np.any(_clashes(boxes, classes, np.array(kept), block, spec), axis=0)
        among = _clashes(boxes, classes, block, block, spec)
        for i in range(len(block)):
            if alive[i]:
                kept.append(int(block[i]))
                if len(kept) > spec.max_detections:
                    return order[kept]
                alive[i + 1 :] &= ~among[i, i + 1 :]
    return order[kept]


def _clashes(
    boxes: NDArray[np.float64],
    classes: NDArray[np.int32],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    spec: Nms,
) -> NDArray[np.bool_]:
    """(rows, columns): whether the first, kept, drops the second."""
    clash = iou(boxes[rows], boxes[columns]) > spec.iou
    if spec.class_aware:
        clash &= classes[rows][:, np.newaxis] == classes[columns]
    return clash


def iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of boxes (m, 4) with boxes (n, 4), (m, n); 0 where the union is empty."""
    a = a[:, np.newaxis]
    width = np.minimum(a[..., 2], b[:, 2]) - np.maximum(a[..., 0], b[:, 0])
    height = np.minimum(a[..., 3], b[:, 3]) - np.maximum(a[..., 1], b[:, 1])
    inter = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    union = _area(a) + _area(b) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 for inverted boxes."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return np.maximum(width, 0.0) * np.maximum(height, 0.0)
