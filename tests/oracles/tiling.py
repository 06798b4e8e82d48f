"""A large image cut into overlapping tiles, and the tiles' boxes merged. Plain loops, float64.

(w, h)  --tiles-->  (x, y, w, h) of each tile in image px
a list of Box a tile, in image px  --merge-->  one list of Box, best first

Boxes of one tile never meet in `merge`: they have been through their own NMS. This module knows
nothing of the product: it is what the product is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.oracles.anchor_decoders import Box
from tests.oracles.nms import area, intersection, iou

Corners = tuple[float, float, float, float]


def grid(length: int, tile: int, overlap_frac: float) -> list[int]:
    """Starts of the tiles on an axis of `length` px; the first is 0, the last ends at `length`.

    As many tiles of `tile` px as are needed when each overlaps the next by at least that fraction,
    spread evenly. An axis no longer than a tile is one tile of its own length.
    """
    if length <= tile:
        return [0]
    step = max(1, math.floor(tile * (1 - overlap_frac)))
    count = 2
    while (count - 1) * step + tile < length:
        count += 1
    return [round(index * (length - tile) / (count - 1)) for index in range(count)]


def tiles(w: int, h: int, tile: int, overlap_frac: float, whole: bool) -> list[tuple[int, int, int, int]]:
    """(x, y, w, h) row by row; then, if `whole` and there are several, all of the image."""
    found: list[tuple[int, int, int, int]] = []
    for y in grid(h, tile, overlap_frac):
        for x in grid(w, tile, overlap_frac):
            found.append((x, y, min(tile, w), min(tile, h)))
    if whole and len(found) > 1:
        found.append((0, 0, w, h))
    return found


def overlap(a: Corners, b: Corners, measure: str) -> float:
    """`iou`, or `smaller`: the intersection over the smaller area. 0 when that area is 0."""
    if measure == "iou":
        return iou(a, b)
    if measure != "smaller":
        raise ValueError(f"no measure {measure!r}")
    smaller = min(area(a), area(b))
    return 0.0 if smaller == 0 else intersection(a, b) / smaller


def hull(a: Corners, b: Corners) -> Corners:
    """The smallest box around both."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def merge(
    parts: Sequence[Sequence[Box]], kind: str, measure: str, over: float, class_aware: bool, max_detections: int
) -> tuple[list[Box], bool]:
    """(boxes in image px, best first; whether more than `max_detections` would have been kept).

    By score, then tile, then place in the tile: a box is dropped when its overlap with a kept box
    of another tile (and, when class-aware, of its own class) is strictly greater than `over`. With
    kind `union` the first such kept box grows to the hull of both; any other kind leaves kept boxes
    alone. Overlaps are always those of the boxes as they came in. The cut comes after the whole
    walk.
    """
    queue: list[tuple[float, int, int, Box]] = []
    for tile, boxes in enumerate(parts):
        for place, box in enumerate(boxes):
            queue.append((-box.score, tile, place, box))
    kept: list[tuple[int, Box]] = []
    hulls: list[Corners] = []
    for _, tile, _, box in sorted(queue):
        for index, (other_tile, other) in enumerate(kept):
            rivals = other_tile != tile and (box.class_id == other.class_id or not class_aware)
            if rivals and overlap(other[:4], box[:4], measure) > over:
                if kind == "union":
                    hulls[index] = hull(hulls[index], box[:4])
                break
        else:
            kept.append((tile, box))
            hulls.append(box[:4])
    merged = [Box(*corners, box.score, box.class_id) for corners, (_, box) in zip(hulls, kept, strict=True)]
    return merged[:max_detections], len(merged) > max_detections
