"""A box of an image to a JPEG of what is in it. Pure.

box (x1, y1, x2, y2) px --corners_px--> whole pixels inside the image --crop--> Snip(JPEG without any metadata)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg

from batch.snips.settings import Cut
from model_store.images import Pixels

Box = tuple[float, float, float, float]
Corners = tuple[int, int, int, int]
SAMPLING = "444"
"""Snips are small, and halved colours show."""


def corners_px(box_xyxy_px: Box, margin_frac: float, size_px: tuple[int, int]) -> Corners:
    """Left, top, right, bottom, of which right and bottom are not in it; at least one pixel of the image.

    `margin_frac` of the box's longer side is added on each side of it; `size_px` is width, height.
    """
    x1, y1, x2, y2 = box_xyxy_px
    margin_px = margin_frac * max(x2 - x1, y2 - y1)
    left, right = _side(x1 - margin_px, x2 + margin_px, size_px[0])
    top, bottom = _side(y1 - margin_px, y2 + margin_px, size_px[1])
    return left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Snip:
    """`size_px` is width, height."""

    data: bytes
    size_px: tuple[int, int]


def crop(pixels: Pixels, box: Mapping[str, Any], cut: Cut) -> Snip:
    """A `box` of a plan out of upright RGB pixels (h, w, 3).

    Raises ValueError for a side that JPEG cannot have (over 65,500 px).
    """
    height_px, width_px = pixels.shape[:2]
    sides = (box["x1_px"], box["y1_px"], box["x2_px"], box["y2_px"])
    left, top, right, bottom = corners_px(sides, cut.margin_frac, (width_px, height_px))
    part = np.ascontiguousarray(pixels[top:bottom, left:right])
    data = simplejpeg.encode_jpeg(part, cut.quality, "RGB", SAMPLING)
    return Snip(bytes(data), (right - left, bottom - top))


def _side(start: float, end: float, length_px: int) -> tuple[int, int]:
    first = min(max(0, math.floor(start)), length_px - 1)
    return first, max(first + 1, min(length_px, math.ceil(end)))
