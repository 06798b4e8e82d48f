"""A box of an image to a JPEG of what is in it. Pure.

box (x1, y1, x2, y2) px --corners_px--> whole pixels inside the image --crop--> Snip(JPEG without any metadata)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg

from batch.snips.settings import Cut
from model_store.crops import corners_px
from model_store.images import Pixels

SAMPLING = "444"
"""Snips are small, and halved colours show."""


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
