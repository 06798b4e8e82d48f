"""Find repeat detections: boxes that recur at one place of a camera's view for days, such as branches and stones.

boxes of a view, in order of time --best earlier first box--> slots --images, span, days--> suspicious slots

A slot is identified by its first box, never an average, so that it keeps its id when images are added. Boxes are hidden
only if a person has accepted the slot (`batch/filters/review.py`) or `auto` is on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from batch.filters.contract import Filter, FilterAction, FilterConfig, Rows, changes
from batch.filters.support.boxes import CameraView, Floats, unmeasurable, views
from batch.filters.support.names import Names, distinct, group_id, labelled, numbered
from batch.filters.support.reasons import compared, exact

DAY_US = 86_400_000_000
SlotId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


LEAST_IOU = 0.7
"""Minimum for `min_iou`: below it, an exemplar would be listed in too many cells."""
CELLS = 4
"""Cells for each power of two of a side: a box side spans 2 to 4 cells."""
SLACK = 1e-9
"""Relative tolerance of lengths, so that rounding cannot move a match into a neighbouring cell."""
_Cell = tuple[int, int, int, int, int]
_Exemplar = tuple[int, float, float, float, float, float]


class RepeatsConfig(FilterConfig):
    kind: Literal["repeat-detections"] = "repeat-detections"
    min_iou: float = Field(0.9, ge=LEAST_IOU, le=1)
    """IoU, 0 to 1: minimum with a slot's first box for a box to be in the slot (inclusive)"""
    min_images: int = Field(20, ge=2)
    """images: minimum number of distinct images with boxes in a suspicious slot"""
    min_span_days: float = Field(
        2.0,
        ge=0,
        description="days of 24 hours by the camera's clock: minimum time between the first and last image of a "
        "suspicious slot; 0: no limit",
    )
    min_days: int = Field(
        3,
        ge=0,
        description="calendar days by the camera's clock: minimum number of distinct days with "
        "images of a suspicious slot; 0: no limit",
    )
    min_score: float = Field(0.1, ge=0, le=1)
    """score, 0 to 1: minimum for boxes to be used (inclusive)"""
    max_score: float = Field(1.0, ge=0, le=1)
    """score, 0 to 1: maximum for boxes to be used (inclusive)"""
    min_area_frac: float = Field(0.0, ge=0, le=1)
    """share of the image's area, 0 to 1: minimum for boxes to be used (inclusive)"""
    max_area_frac: float = Field(0.2, gt=0, le=1)
    """share of the image's area, 0 to 1: maximum for boxes to be used (inclusive)"""
    exclude_labels: Names = ()
    """labels of boxes that are not used"""
    accepted: Annotated[tuple[SlotId, ...], AfterValidator(distinct)] = Field(
        (),
        description="ids of slots that a person has confirmed as not an animal; their boxes are "
        "hidden. Take them from an edited review.json",
    )
    auto: bool = False
    """treat all suspicious slots as accepted"""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_score > self.max_score:
            raise ValueError(f"min_score {self.min_score} is above max_score {self.max_score}")
        if self.min_area_frac > self.max_area_frac:
            raise ValueError(f"min_area_frac {self.min_area_frac} is above max_area_frac {self.max_area_frac}")
        return self


def actions(config: RepeatsConfig, rows: Rows) -> Iterator[FilterAction]:
    """Yield an action with the slot's id for each box of a suspicious slot: `suppress` if accepted, else `group`.

    The reason stays true when images are added: "IoU 0.957 >= 0.9 with the first box, in >= 20 images over >= 2 days".
    """
    for view in views(rows):
        yield from _of_view(config, view)


def _of_view(config: RepeatsConfig, view: CameraView) -> Iterator[FilterAction]:
    index = np.flatnonzero(_used(config, view))
    rows, image = view.rows.take(index), view.rows.image_numbers()[index]
    labels, _ = numbered(rows.label)
    exemplar, iou = match(view.boxes_px[index], labels, config.min_iou)
    limits = (
        f"in >= {config.min_images} images over >= {exact(config.min_span_days)} days, "
        f">= {config.min_days} of them with images"
    )
    accepted = set(config.accepted)
    for i in np.flatnonzero(_suspicious(config, rows, image, exemplar)[exemplar]).tolist():
        first = int(exemplar[i])
        slot = group_id(config.kind, *view.place, *rows.target(first), *rows.boxes_px[first].tolist())
        yield FilterAction(
            *rows.target(i),
            "suppress" if config.auto or slot in accepted else "group",
            compared("IoU", float(iou[i]), ">=", config.min_iou) + f" with the first box, {limits}",
            group_id=slot,
        )


def _used(config: RepeatsConfig, view: CameraView) -> NDArray[np.bool_]:
    """Return (n,) bool: boxes within all limits. Scores are compared as float32, as they are stored."""
    score, area_frac = view.rows.score, view.area_frac
    used = (score >= np.float32(config.min_score)) & (score <= np.float32(config.max_score))
    used &= (area_frac >= config.min_area_frac) & (area_frac <= config.max_area_frac)
    return used & labelled(view.rows, (), config.exclude_labels)


def _suspicious(
    config: RepeatsConfig, rows: Rows, image: NDArray[np.intp], exemplar: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Return (n,) bool for the slot with first box i. Undated or doubtful ones count as images, not as days."""
    n = len(rows)
    images = _count_distinct(exemplar, image, n)
    dated = ~np.isnat(rows.taken_local) & ~rows.clock_flags.astype(bool)
    slot, taken_us = exemplar[dated], rows.taken_local[dated].astype(np.int64)
    first_us, last_us = np.full(n, np.iinfo(np.int64).max), np.full(n, np.iinfo(np.int64).min)
    np.minimum.at(first_us, slot, taken_us)
    np.maximum.at(last_us, slot, taken_us)
    days = _count_distinct(slot, taken_us // DAY_US, n)
    span_days = np.where(days > 0, last_us - first_us, 0) / DAY_US
    enough = (images >= config.min_images) & (days >= config.min_days)
    return enough & (span_days >= config.min_span_days)


def _count_distinct(slot: NDArray[np.intp], value: NDArray[np.int64], n: int) -> NDArray[np.intp]:
    """Return the number of distinct values of each slot, (n,)."""
    order = np.lexsort((value, slot))
    slot, value = slot[order], value[order]
    new = changes(slot) | changes(value)
    return np.bincount(slot[new], minlength=n)


def match(boxes: Floats, labels: NDArray[np.intp], min_iou: float) -> tuple[NDArray[np.intp], Floats]:
    """Return the index in `boxes` of each box's exemplar, and the IoU with it, in the given order.

    A box belongs to the exemplar of its label with the highest IoU >= `min_iou`, the oldest if several are equal.
    Without one, it is an exemplar itself, with IoU 1. Boxes must have an area; `min_iou` must be at least LEAST_IOU.
    An exemplar is listed in every cell of a grid that can contain a matching box, so that a box searches one cell only.
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


FILTER = Filter(
    config=RepeatsConfig, apply=actions, context="camera", order=40, version=2, groups="slot", invalid=unmeasurable
)
