"""Boxes in px, (n, 4) x1 y1 x2 y2 float64: which can be measured, and what two lists of them share, pair by pair.

Lengths are continuous: a box from 0 to 10 is 10 px wide, not 11.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def measurable(boxes_px: Floats) -> NDArray[np.bool_]:
    """(n,): finite, and x1 < x2, y1 < y2."""
    x1, y1, x2, y2 = boxes_px.T
    return np.isfinite(boxes_px).all(axis=1) & (x1 < x2) & (y1 < y2)


def area_px2(boxes_px: Floats) -> Floats:
    """(n,): 0 for an inverted box."""
    x1, y1, x2, y2 = boxes_px.T
    return np.maximum(x2 - x1, 0.0) * np.maximum(y2 - y1, 0.0)


def shared_px2(a_px: Floats, b_px: Floats) -> Floats:
    """(n,): area that the i-th box of one list has in common with the i-th of the other."""
    low = np.maximum(a_px[:, :2], b_px[:, :2])
    high = np.minimum(a_px[:, 2:], b_px[:, 2:])
    return area_px2(np.concatenate((low, high), axis=1))


def clipped(boxes_px: Floats, width_px: Floats, height_px: Floats) -> Floats:
    """(n, 4): what of each box lies in its image; without area where nothing does."""
    most = np.stack((width_px, height_px, width_px, height_px), axis=1)
    return np.clip(boxes_px, 0.0, most)
