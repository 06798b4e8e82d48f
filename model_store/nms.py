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


def suppress(detections: Detections, spec: Nms) -> Detections:
    """Keep the best of each overlapping group; `saturated` when more than max_detections remain."""
    order = np.argsort(-detections.scores, kind="stable")
    kept = order if spec.kind == "none" else _greedy(detections, order, spec)
    best = detections.select(kept[: spec.max_detections])
    saturated = detections.saturated or len(kept) > spec.max_detections
    return Detections(best.boxes_xyxy, best.scores, best.class_ids, saturated).ranked()


def _greedy(detections: Detections, order: NDArray[np.intp], spec: Nms) -> NDArray[np.intp]:
    boxes = detections.boxes_xyxy[order].astype(np.float64)
    classes = detections.class_ids[order]
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)
    kept: list[int] = []
    alive = np.arange(len(order))
    while len(alive) and len(kept) <= spec.max_detections:
        first, rest = alive[0], alive[1:]
        kept.append(int(first))
        overlap = _iou(boxes[first], areas[first], boxes[rest], areas[rest]) > spec.iou
        if spec.class_aware:
            overlap &= classes[rest] == classes[first]
        alive = rest[~overlap]
    return order[kept]


def _iou(
    box: NDArray[np.float64],
    area: np.float64,
    boxes: NDArray[np.float64],
    areas: NDArray[np.float64],
) -> NDArray[np.float64]:
    """IoU of one box (4,) with boxes (n, 4); 0 where the union is empty."""
    corner_1 = np.maximum(box[:2], boxes[:, :2])
    corner_2 = np.minimum(box[2:], boxes[:, 2:])
    inter = np.prod(np.maximum(corner_2 - corner_1, 0.0), axis=1)
    union = area + areas - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
