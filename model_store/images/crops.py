"""Cut boxes out of images, and draw them.

box (x1, y1, x2, y2) px --corners_px--> whole pixels inside the image, with the same rounding for snips, requests and
runs
pixels (h, w, 3) uint8, marks in image px, the most important first --draw_marks--> the same array, drawn on
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2

Box = tuple[float, float, float, float]
Corners = tuple[int, int, int, int]
Colour = tuple[int, int, int]
FONT = cv2.FONT_HERSHEY_SIMPLEX
MIN_FONT_SCALE = 0.4
"""About 9 px: smaller text is illegible."""
BLACK = (0, 0, 0)


def corners_px(box_xyxy_px: Box, margin_frac: float, size_px: tuple[int, int]) -> Corners:
    """Return left, top, right, bottom of every pixel that the box and its margin touch, at least one of the image.

    Right and bottom are exclusive.

    `margin_frac` of the box's longer side is added on each side of it; `size_px` is width, height.
    """
    x1, y1, x2, y2 = box_xyxy_px
    margin_px = margin_frac * max(x2 - x1, y2 - y1)
    left, right = _side(x1 - margin_px, x2 + margin_px, size_px[0])
    top, bottom = _side(y1 - margin_px, y2 + margin_px, size_px[1])
    return left, top, right, bottom


def _side(start: float, end: float, length_px: int) -> tuple[int, int]:
    first = min(max(0, math.floor(start)), length_px - 1)
    return first, max(first + 1, min(length_px, math.ceil(end)))


class Mark(NamedTuple):
    """A box with its label ("" for none). `colour` is light, and in the channel order of the canvas."""

    box_xyxy: Sequence[float]
    words: str
    colour: Colour


def draw_marks(canvas: Any, marks: Sequence[Mark]) -> None:
    """Draw all boxes, the first on top, then a label at a corner of each, black on its colour.

    A label is omitted if earlier labels cover all of its possible positions.
    """
    scale = max(canvas.shape[:2]) / 1000
    thick = max(1, round(2 * scale))
    for mark in reversed(marks):
        x1, y1, x2, y2 = (round(corner) for corner in mark.box_xyxy)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), mark.colour, thick)
    size = max(MIN_FONT_SCALE, 0.9 * scale)
    taken: list[Corners] = []
    for mark in marks:
        if mark.words:
            _label(canvas, mark, size, taken)


def _label(canvas: Any, mark: Mark, size: float, taken: list[Corners]) -> None:
    thick, pad = max(1, round(1.5 * size)), max(2, round(6 * size))
    (text_width, text_height), below = cv2.getTextSize(mark.words, FONT, size, thick)
    width, height = text_width + 2 * pad, text_height + below + pad
    for x, y in _places(mark.box_xyxy, width, height, canvas.shape):
        area = (x, y, x + width, y + height)
        if not any(_overlap(area, other) for other in taken):
            taken.append(area)
            cv2.rectangle(canvas, area[:2], (area[2] - 1, area[3] - 1), mark.colour, cv2.FILLED)
            corner = (x + pad, y + text_height + pad // 2)
            cv2.putText(canvas, mark.words, corner, FONT, size, BLACK, thick, cv2.LINE_AA)
            return


def _places(box_xyxy: Sequence[float], width: int, height: int, shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield possible positions of a label: above, in and below the box, left and right, within the image."""
    x1, y1, x2, y2 = (round(corner) for corner in box_xyxy)
    for y in (y1 - height, y1, y2, y2 - height):
        for x in (x1, x2 - width):
            yield (max(0, min(x, shape[1] - width)), max(0, min(y, shape[0] - height)))


def _overlap(a: Corners, b: Corners) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
