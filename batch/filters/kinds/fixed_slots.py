"""Assign boxes to fixed slots of a camera's view with changing content, such as the holes of a bee hotel.

boxes of one image after another --shift of the camera, IoU with the slots, cheapest pair first--> slot of each box

For each image: measure the camera's shift (median over coarse pairs of box and place). Then match boxes to places
(cheapest pair first), and add a new place for each remaining box.

A slot is the first box seen there, in the view of the camera's first image. It never moves, and it persists in images
where it has no box. A place needs `min_sightings` to be a slot. Ids stay the same when later images are added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from batch.filters.contract import Filter, FilterAction, FilterConfig, Rows, changes
from batch.filters.support.boxes import CameraView, Floats, unmeasurable, views
from batch.filters.support.names import Names, group_id, labelled, numbered
from batch.filters.support.reasons import compared
from model_store.transform.nms import iou

Numbers = NDArray[np.intp]
Pairs = list[tuple[int, int]]
"""(number of a box in its image, number of a place)."""
_CORNERS = [0, 1, 0, 1]
"""Index that repeats x, y as x1, y1, x2, y2."""
_PLACE = np.dtype(
    [("box_px", np.float64, 4), *((name, np.intp) for name in ("label", "sightings", "last_image", "first_row"))]
)
"""An active place: its first box in px of the first image, and its counts. Places are in arrays, oldest first."""


class SlotsConfig(FilterConfig):
    kind: Literal["fixed-slots"] = "fixed-slots"
    min_iou: float = Field(0.5, gt=0, le=1)
    """IoU, 0 to 1: minimum for a box to be in a slot, after removing the shift (inclusive)"""
    shift_iou: float = Field(
        0.2,
        gt=0,
        le=1,
        description="IoU, 0 to 1: minimum for a pair of box and slot to be used to measure the camera's shift "
        "(inclusive); not above min_iou",
    )
    min_shift_pairs: int = Field(3, ge=1)
    """pairs: with fewer in an image, the camera is assumed not to have moved"""
    min_sightings: int = Field(3, ge=1)
    """images: minimum number in which a place is seen for it to be a slot"""
    forget_after_images: int = Field(
        100,
        ge=1,
        description="images: a place that is not yet a slot is dropped if it is missing in more "
        "consecutive images than this (strict)",
    )
    by_label: bool = True
    """true: a slot has one label; false: boxes of any label share it, such as a hole that is open, then sealed"""
    min_score: float = Field(0.1, ge=0, le=1)
    """score, 0 to 1: minimum for a box to be in a slot (inclusive)"""
    exclude_labels: Names = ()
    """labels of boxes that are not assigned to slots"""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.shift_iou > self.min_iou:
            raise ValueError(f"shift_iou {self.shift_iou} is above min_iou {self.min_iou}")
        return self


def actions(config: SlotsConfig, rows: Rows) -> Iterator[FilterAction]:
    """Yield `group` for each box in a slot, including the boxes seen before it became one.

    Reason: "sighting 7, IoU 0.713 >= 0.5, shift 3.0, -1.5 px".
    """
    for view in views(rows):
        yield from _of_view(config, view)


def _of_view(config: SlotsConfig, view: CameraView) -> Iterator[FilterAction]:
    index = np.flatnonzero(_used(config, view))
    rows, image = view.rows.take(index), view.rows.image_numbers()[index]
    labels = numbered(rows.label)[0] if config.by_label else np.zeros(len(index), np.intp)
    followed = _follow(config, view.boxes_px[index], labels, image)
    is_slot = np.bincount(followed.first_row, minlength=len(index)) >= config.min_sightings
    for i in np.flatnonzero(is_slot[followed.first_row]).tolist():
        first = int(followed.first_row[i])
        slot = group_id(config.kind, *view.place, *rows.target(first))
        reason = _reason(config, followed, i)
        yield FilterAction(*rows.target(i), "group", reason, group_id=slot)


def _reason(config: SlotsConfig, followed: _Followed, i: int) -> str:
    sighting = f"sighting {followed.sighting[i]}"
    if followed.first_row[i] == i:
        return sighting
    x_px, y_px = followed.shift_px[i].tolist()
    shift = f", shift {x_px:.1f}, {y_px:.1f} px" if x_px or y_px else ""
    return f"{sighting}, {compared('IoU', float(followed.iou[i]), '>=', config.min_iou)}{shift}"


def _used(config: SlotsConfig, view: CameraView) -> NDArray[np.bool_]:
    """Return (n,) bool: boxes to assign. Scores are compared as float32, as they are stored."""
    rows = view.rows
    return (
        labelled(rows, (), config.exclude_labels) & (rows.score >= np.float32(config.min_score)) & (view.area_frac > 0)
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Followed:
    """Place of each box: row of its first box, IoU with that box (1 for itself), sightings of the place up to this
    one, and the camera's shift that was removed, (n, 2).
    """

    first_row: Numbers
    iou: Floats
    sighting: Numbers
    shift_px: Floats


def _follow(config: SlotsConfig, boxes_px: Floats, labels: Numbers, image: Numbers) -> _Followed:
    """Return the place of each box. Rows are sorted by image, then rank; image numbers can have gaps."""
    n = len(boxes_px)
    found = _Followed(np.arange(n), np.ones(n), np.ones(n, np.intp), np.zeros((n, 2)))
    places, shift_px = np.zeros(0, _PLACE), np.zeros(2)
    begins = np.flatnonzero(changes(image)).tolist()
    for start, end in zip(begins, [*begins, n][1:], strict=True):
        current, now = slice(start, end), int(image[start])
        missing = now - 1 - places["last_image"]
        stale = (missing > config.forget_after_images) & (places["sightings"] < config.min_sightings)
        places = places[~stale]
        shifted_px = boxes_px[current] - shift_px[_CORNERS]
        overlap = _overlap(shifted_px, labels[current], places)
        moved_px = _moved_px(config, shifted_px, overlap, places)
        if moved_px.any():
            shift_px = shift_px + moved_px
            shifted_px = boxes_px[current] - shift_px[_CORNERS]
            overlap = _overlap(shifted_px, labels[current], places)
        found.shift_px[current] = shift_px
        free = np.ones(end - start, bool)
        for box, place in _pairs(overlap, config.min_iou, config.min_sightings, places):
            free[box] = False
            places["sightings"][place] += 1
            places["last_image"][place] = now
            found.first_row[start + box] = places["first_row"][place]
            found.sighting[start + box] = places["sightings"][place]
            found.iou[start + box] = overlap[box, place]
        new = np.zeros(np.count_nonzero(free), _PLACE)
        new["box_px"], new["label"], new["sightings"] = shifted_px[free], labels[current][free], 1
        new["last_image"], new["first_row"] = now, np.arange(start, end)[free]
        places = np.concatenate((places, new))
    return found


def _overlap(boxes_px: Floats, labels: Numbers, places: NDArray[np.void]) -> Floats:
    """Return the IoU, (boxes, places); 0 for places of another label."""
    return iou(boxes_px[:, np.newaxis], places["box_px"]) * (labels[:, np.newaxis] == places["label"])


def _moved_px(config: SlotsConfig, boxes_px: Floats, overlap: Floats, places: NDArray[np.void]) -> Floats:
    """Return the shift since the previous image, (2,) x, y: median distance of centres over coarse pairs."""
    pairs: Pairs = []
    if min(overlap.shape) >= config.min_shift_pairs:
        pairs = _pairs(overlap, config.shift_iou, config.min_sightings, places)
    if len(pairs) < config.min_shift_pairs:
        return np.zeros(2)
    box, place = np.array(pairs).T
    return np.median(_centres(boxes_px[box]) - _centres(places["box_px"][place]), axis=0)


def _centres(boxes_px: Floats) -> Floats:
    return (boxes_px[:, :2] + boxes_px[:, 2:]) / 2


def _pairs(overlap: Floats, min_iou: float, min_sightings: int, places: NDArray[np.void]) -> Pairs:
    """Pair each box and each place at most once: slots first, then by highest IoU, oldest place, lowest rank."""
    box, place = np.nonzero(overlap >= min_iou)
    if len(box) > 1:
        is_slot = places["sightings"][place] >= min_sightings
        order = np.lexsort((box, place, -overlap[box, place], ~is_slot))
        box, place = box[order], place[order]
    pairs: Pairs = []
    paired_boxes: set[int] = set()
    paired_places: set[int] = set()
    for i, j in zip(box.tolist(), place.tolist(), strict=True):
        if i not in paired_boxes and j not in paired_places:
            paired_boxes.add(i)
            paired_places.add(j)
            pairs.append((i, j))
    return pairs


FILTER = Filter(config=SlotsConfig, apply=actions, context="camera", order=90, groups="slot", invalid=unmeasurable)
