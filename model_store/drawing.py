"""Boxes with words on a picture, in place: lines and letters grow with it.

pixels (h, w, 3) uint8, corners in its px --draw_box--> the same array, drawn on
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (OpenCV has no complete types)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2

Colour = tuple[int, int, int]


def draw_box(canvas: Any, box_xyxy: Sequence[float], words: str, colour: Colour) -> None:
    """One box with words at its top left corner; `colour` is in the order of the canvas's channels."""
    height, width = canvas.shape[:2]
    scale = max(width, height) / 1000
    thick = max(1, round(2 * scale))
    x1, y1, x2, y2 = (round(corner) for corner in box_xyxy)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, thick)
    corner = (x1 + thick, max(round(22 * scale), y1 - thick))
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.7 * scale
    cv2.putText(canvas, words, corner, font, size, colour, thick, cv2.LINE_AA)
