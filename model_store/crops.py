"""A part of an image by its box: the one rounding of snips, of classified crops over HTTP, and of runs.

box (x1, y1, x2, y2) px --corners_px--> whole pixels inside the image --crop--> a view of them
"""

from __future__ import annotations

import math

from model_store.images import Pixels

Box = tuple[float, float, float, float]
Corners = tuple[int, int, int, int]


def corners_px(box_xyxy_px: Box, margin_frac: float, size_px: tuple[int, int]) -> Corners:
    """Left, top, right, bottom, of which right and bottom are not in it; at least one pixel of the image.

    `margin_frac` of the box's longer side is added on each side of it; `size_px` is width, height.
    """
    x1, y1, x2, y2 = box_xyxy_px
    margin_px = margin_frac * max(x2 - x1, y2 - y1)
    left, right = _side(x1 - margin_px, x2 + margin_px, size_px[0])
    top, bottom = _side(y1 - margin_px, y2 + margin_px, size_px[1])
    return left, top, right, bottom


def crop(image: Pixels, box_xyxy_px: Box, margin_frac: float = 0.0) -> Pixels:
    """Pixels (h, w, 3) of the box and its margin, a view; every pixel that the box touches is in it."""
    height_px, width_px = image.shape[:2]
    left, top, right, bottom = corners_px(box_xyxy_px, margin_frac, (width_px, height_px))
    return image[top:bottom, left:right]


def _side(start: float, end: float, length_px: int) -> tuple[int, int]:
    first = min(max(0, math.floor(start)), length_px - 1)
    return first, max(first + 1, min(length_px, math.ceil(end)))
