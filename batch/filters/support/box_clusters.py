"""Match each box to the best earlier exemplar, or make it a new exemplar.

boxes (n, 4), label numbers (n,) --match--> exemplar of each (n,), IoU with it (n,)

A grid over the size and centre of boxes keeps this linear: an exemplar is listed in every cell that can contain a
matching box, so that a box needs to search one cell only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batch.filters.support.boxes import Floats

LEAST_IOU = 0.7
"""Minimum for `min_iou`: below it, an exemplar would be listed in too many cells."""
CELLS = 4
"""Cells for each power of two of a side: a box side spans 2 to 4 cells."""
SLACK = 1e-9
"""Relative tolerance of lengths, so that rounding cannot move a match into a neighbouring cell."""
_Cell = tuple[int, int, int, int, int]
_Exemplar = tuple[int, float, float, float, float, float]


def match(boxes: Floats, labels: NDArray[np.intp], min_iou: float) -> tuple[NDArray[np.intp], Floats]:
    """Return the index in `boxes` of each box's exemplar, and the IoU with it, in the given order.

    A box belongs to the exemplar of its label with the highest IoU >= `min_iou`, the oldest if several are equal.
    Without one, it is an exemplar itself, with IoU 1. Boxes must have an area; `min_iou` must be at least LEAST_IOU.
    """
    grid: dict[_Cell, list[_Exemplar]] = {}
    exemplars = np.empty(len(boxes), np.intp)
    overlap = np.ones(len(boxes))
    for i, (cell, box) in enumerate(zip(_cells(boxes, labels), boxes.tolist(), strict=True)):
        exemplar, iou = _best(grid.get(cell, ()), box, min_iou)
        if exemplar < 0:
            x1, y1, x2, y2 = box
            entry = (i, x1, y1, x2, y2, (x2 - x1) * (y2 - y1))
            for matching in _matching_cells(cell[0], box, min_iou):
                grid.setdefault(matching, []).append(entry)
            exemplars[i] = i
        else:
            exemplars[i], overlap[i] = exemplar, iou
    return exemplars, overlap


def _best(exemplars: list[_Exemplar] | tuple[()], box: list[float], min_iou: float) -> tuple[int, float]:
    """Return the oldest exemplar with the highest IoU, and the IoU; -1 if none reaches `min_iou`."""
    x1, y1, x2, y2 = box
    area = (x2 - x1) * (y2 - y1)
    best, best_iou = -1, 0.0
    for exemplar, a1, b1, a2, b2, exemplar_area in exemplars:
        width = (x2 if x2 < a2 else a2) - (x1 if x1 > a1 else a1)
        height = (y2 if y2 < b2 else b2) - (y1 if y1 > b1 else b1)
        if width <= 0 or height <= 0:
            continue
        shared = width * height
        iou = shared / (exemplar_area + area - shared)
        if iou >= min_iou and iou > best_iou:
            best, best_iou = exemplar, iou
    return best, best_iou


def _cells(boxes: Floats, labels: NDArray[np.intp]) -> Iterator[_Cell]:
    """Yield the cell of each box: label, and on each axis the power of two of its side and the cell of its centre."""
    columns: list[list[int]] = [labels.tolist()]
    for low, high in ((boxes[:, 0], boxes[:, 2]), (boxes[:, 1], boxes[:, 3])):
        power = np.frexp(high - low)[1]
        cell = np.floor((low + high) / 2 / np.ldexp(1.0 / CELLS, power))
        columns += [power.tolist(), cell.astype(np.int64).tolist()]
    return zip(*columns, strict=True)  # type: ignore[return-value]


def _matching_cells(label: int, box: list[float], min_iou: float) -> Iterator[_Cell]:
    """Yield every cell that can contain a box with an IoU of at least `min_iou` with this one."""
    x1, y1, x2, y2 = box
    vertical = list(_along_axis(y1, y2, min_iou))
    for power_x, cell_x in _along_axis(x1, x2, min_iou):
        for power_y, cell_y in vertical:
            yield label, power_x, cell_x, power_y, cell_y


def _along_axis(low: float, high: float, min_iou: float) -> Iterator[tuple[int, int]]:
    """Yield the powers of two and cells, on one axis, of all boxes that can reach `min_iou` with this one.

    The IoU along an axis is at least that of the boxes. If it is t, sides a and b share at least t (a + b) / (1 + t).
    So b is t a to a / t long, and the centres are at most (a + b) / 2 minus the shared length apart: (1 - t) a / 2 t.
    """
    side, centre = high - low, (low + high) / 2
    apart = side * (1 - min_iou) / (2 * min_iou) + SLACK * (side + abs(centre))
    shortest, longest = side * (min_iou - SLACK), side * (1 / min_iou + SLACK)
    for power in range(math.frexp(shortest)[1], math.frexp(longest)[1] + 1):
        size = math.ldexp(1.0 / CELLS, power)
        first, last = math.floor((centre - apart) / size), math.floor((centre + apart) / size)
        for cell in range(first, last + 1):
            yield power, cell
