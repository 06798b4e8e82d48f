"""Geometry of boxes in px, (n, 4) x1 y1 x2 y2 float64.

Lengths are continuous: a box from 0 to 10 is 10 px wide, not 11.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batch.filters.contract import NO_RANK, Rows

Floats = NDArray[np.float64]


def measurable(boxes_px: Floats) -> NDArray[np.bool_]:
    """Return (n,) bool: boxes that are finite, with x1 < x2 and y1 < y2."""
    x1, y1, x2, y2 = boxes_px.T
    return np.isfinite(boxes_px).all(axis=1) & (x1 < x2) & (y1 < y2)


def usable(rows: Rows) -> NDArray[np.bool_]:
    """Return (n,) bool: detections in an image with a size, with a measurable box, which may lie outside the image."""
    sized = (rows.width_px > 0) & (rows.height_px > 0) & np.isfinite(rows.width_px * rows.height_px)
    return (rows.rank != NO_RANK) & sized & measurable(rows.boxes_px)


def area_px2(boxes_px: Floats) -> Floats:
    """Return the areas, (n,); 0 for an inverted box."""
    x1, y1, x2, y2 = boxes_px.T
    return np.maximum(x2 - x1, 0.0) * np.maximum(y2 - y1, 0.0)


def clipped(boxes_px: Floats, width_px: Floats, height_px: Floats) -> Floats:
    """Return the boxes clipped to their images, (n, 4); a box outside its image has no area."""
    limit = np.stack((width_px, height_px, width_px, height_px), axis=1)
    return np.clip(boxes_px, 0.0, limit)
