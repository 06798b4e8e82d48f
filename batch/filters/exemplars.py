"""First boxes of their kind: each box is that of the best earlier exemplar, or becomes one.

boxes (n, 4), label numbers (n,) --match--> exemplar of each (n,), IoU with it (n,)

A grid over the size and centre of boxes keeps this linear: an exemplar stands in every cell in which a box that
matches it can be, so that a box has one cell to look into.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batch.filters.boxes import Floats

LEAST_IOU = 0.7
"""Below it an exemplar would stand in too many cells."""
CELLS = 4
"""Cells for each power of two of a side: 2 to 4 for the side of a box."""
SLACK = 1e-9
"""Of a length: rounding must not put a match into a cell beside."""
_Cell = tuple[int, int, int, int, int]
_Exemplar = tuple[int, float, float, float, float, float]


def match(
    boxes: Floats, labels: NDArray[np.intp], min_iou: float
) -> tuple[NDArray[np.intp], Floats]:
    """In the order given: a box belongs to the exemplar of its label with the highest IoU >= `min_iou`, of equal
    ones to the oldest; without one it is an exemplar itself, with IoU 1. Exemplars are told by their place in
    `boxes`. Boxes must have an area, and `min_iou` be LEAST_IOU or more.
    """
    grid: dict[_Cell, list[_Exemplar]] = {}
    found = np.empty(len(boxes), np.intp)
    overlap = np.ones(len(boxes))
    for i, (cell, box) in enumerate(zip(_cells(boxes, labels), boxes.tolist(), strict=True)):
        exemplar, iou = _best(grid.get(cell, ()), box, min_iou)
        if exemplar < 0:
            x1, y1, x2, y2 = box
            entry = (i, x1, y1, x2, y2, (x2 - x1) * (y2 - y1))
            for reached in _reached(cell[0], box, min_iou):
                grid.setdefault(reached, []).append(entry)
            found[i] = i
        else:
            found[i], overlap[i] = exemplar, iou
    return found, overlap


def _best(
    exemplars: list[_Exemplar] | tuple[()], box: list[float], least: float
) -> tuple[int, float]:
    """The oldest of those with the highest IoU, and that; -1 where none has `least`."""
    x1, y1, x2, y2 = box
    area = (x2 - x1) * (y2 - y1)
    found, best = -1, 0.0
    for exemplar, a1, b1, a2, b2, its_area in exemplars:
        wide = (x2 if x2 < a2 else a2) - (x1 if x1 > a1 else a1)
        high = (y2 if y2 < b2 else b2) - (y1 if y1 > b1 else b1)
        if wide <= 0 or high <= 0:
            continue
        shared = wide * high
        iou = shared / (its_area + area - shared)
        if iou >= least and iou > best:
            found, best = exemplar, iou
    return found, best


def _cells(boxes: Floats, labels: NDArray[np.intp]) -> Iterator[_Cell]:
    """The cell of each box: its label, and for width and height the power of two and the cell of its centre."""
    columns: list[list[int]] = [labels.tolist()]
    for low, high in ((boxes[:, 0], boxes[:, 2]), (boxes[:, 1], boxes[:, 3])):
        power = np.frexp(high - low)[1]
        cell = np.floor((low + high) / 2 / np.ldexp(1.0 / CELLS, power))
        columns += [power.tolist(), cell.astype(np.int64).tolist()]
    return zip(*columns, strict=True)  # type: ignore[return-value]


def _reached(label: int, box: list[float], min_iou: float) -> Iterator[_Cell]:
    x1, y1, x2, y2 = box
    down = list(_along(y1, y2, min_iou))
    for power_x, cell_x in _along(x1, x2, min_iou):
        for power_y, cell_y in down:
            yield label, power_x, cell_x, power_y, cell_y


def _along(low: float, high: float, min_iou: float) -> Iterator[tuple[int, int]]:
    """Powers of two and cells, on one axis, of all boxes whose IoU with this one can be `min_iou`.

    The IoU along an axis is no less than that of the boxes. With t of it, sides a and b share t (a + b) / (1 + t) or
    more: b is from t a to a / t long, and the centres are (a + b) / 2 less that apart at most, (1 - t) a / 2 t.
    """
    side, centre = high - low, (low + high) / 2
    apart = side * (1 - min_iou) / (2 * min_iou) + SLACK * (side + abs(centre))
    shortest, longest = side * (min_iou - SLACK), side * (1 / min_iou + SLACK)
    for power in range(math.frexp(shortest)[1], math.frexp(longest)[1] + 1):
        size = math.ldexp(1.0 / CELLS, power)
        first, last = math.floor((centre - apart) / size), math.floor((centre + apart) / size)
        for cell in range(first, last + 1):
            yield power, cell
