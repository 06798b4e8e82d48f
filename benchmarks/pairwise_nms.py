"""Textbook greedy suppression in plain Python, a pair of boxes at a time: the control of `decode_and_nms.py`.

boxes x1, y1, x2, y2, scores, class ids --by falling score--> positions kept, best first

A box is dropped if its IoU with a kept box is > iou, within its class if `class_aware`. Equal scores keep their
order.
"""

from __future__ import annotations

from collections.abc import Sequence

Box = Sequence[float]


def pairwise_nms(
    boxes: Sequence[Box], scores: Sequence[float], classes: Sequence[int], iou: float, class_aware: bool = True
) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        rivals = (k for k in kept if not class_aware or classes[k] == classes[i])
        if not any(iou_of(boxes[k], boxes[i]) > iou for k in rivals):
            kept.append(i)
    return kept


def iou_of(a: Box, b: Box) -> float:
    """Return intersection over union; 0 if the union is empty."""
    shared = _side(max(a[0], b[0]), min(a[2], b[2])) * _side(max(a[1], b[1]), min(a[3], b[3]))
    union = _area(a) + _area(b) - shared
    return shared / union if union > 0 else 0.0


def _area(box: Box) -> float:
    return _side(box[0], box[2]) * _side(box[1], box[3])


def _side(low: float, high: float) -> float:
    return max(high - low, 0.0)
