"""Greedy non-maximum suppression with plain loops in float64: the definition itself.

Boxes are continuous rectangles, unless `one_px` is 1: then x2 and y2 name the last pixel inside,
and every width and height, of intersections too, is one more. The best remaining box is kept; it
suppresses every later box whose IoU with it is strictly greater than the threshold and, when
class-aware, whose class is the same. Equal scores: the lower input index goes first.
"""

from collections.abc import Sequence

Box = tuple[float, float, float, float]


def area(box: Box, one_px: float = 0.0) -> float:
    """Width times height, each with `one_px` added; 0 when either is then 0 or less."""
    x1, y1, x2, y2 = (float(value) for value in box)
    width, height = x2 - x1 + one_px, y2 - y1 + one_px
    if width <= 0 or height <= 0:
        return 0.0
    return width * height


def intersection(a: Box, b: Box, one_px: float = 0.0) -> float:
    """The area that two boxes share."""
    shared = (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    return area(shared, one_px)


def iou(a: Box, b: Box, one_px: float = 0.0) -> float:
    """Intersection over union; 0 when either box has no area, even if the two are identical."""
    area_a, area_b = area(a, one_px), area(b, one_px)
    if area_a == 0.0 or area_b == 0.0:
        return 0.0
    overlap = intersection(a, b, one_px)
    return overlap / (area_a + area_b - overlap)


def nms(
    boxes: Sequence[Box],
    scores: Sequence[float],
    classes: Sequence[int],
    *,
    threshold: float,
    class_aware: bool = True,
    max_detections: int | None = None,
    one_px: float = 0.0,
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
            if rivals and iou(boxes[winner], boxes[candidate], one_px) > threshold:
                suppressed = True
                break
        if not suppressed:
            kept.append(candidate)
    return kept
