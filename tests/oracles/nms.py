"""Greedy non-maximum suppression with plain loops in float64: the definition itself.

Boxes are continuous rectangles (no "+1 pixel"). The best remaining box is kept; it suppresses
every later box whose IoU with it is strictly greater than the threshold and, when class-aware,
whose class is the same. Equal scores: the lower input index goes first.
"""

from collections.abc import Sequence

Box = tuple[float, float, float, float]


def area(box: Box) -> float:
    """Width times height; 0 for an empty or inverted box."""
    x1, y1, x2, y2 = (float(value) for value in box)
    if x2 <= x1 or y2 <= y1:
        return 0.0
    return (x2 - x1) * (y2 - y1)


def iou(a: Box, b: Box) -> float:
    """Intersection over union; 0 when either box has no area, even if the two are identical."""
    area_a, area_b = area(a), area(b)
    if area_a == 0.0 or area_b == 0.0:
        return 0.0
    overlap = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return overlap / (area_a + area_b - overlap)


def nms(
    boxes: Sequence[Box],
    scores: Sequence[float],
    classes: Sequence[int],
    *,
    threshold: float,
    class_aware: bool = True,
    max_detections: int | None = None,
) -> list[int]:
    """Indices of the boxes kept, best first; at most `max_detections` over all classes together."""
    order = sorted(range(len(boxes)), key=lambda index: (-float(scores[index]), index))
    kept: list[int] = []
    for candidate in order:
        if max_detections is not None and len(kept) >= max_detections:
            break
        suppressed = False
        for winner in kept:
            rivals = classes[winner] == classes[candidate] or not class_aware
            if rivals and iou(boxes[winner], boxes[candidate]) > threshold:
                suppressed = True
                break
        if not suppressed:
            kept.append(candidate)
    return kept
