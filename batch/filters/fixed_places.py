"""Boxes of one image after another to the places where they were first seen, whatever the camera was moved by.

boxes (n, 4), label numbers (n,), image numbers (n,) --follow--> Found: first row of each box's place, IoU, sighting

An image: how far the camera has moved (median over coarse pairs of box and place), then which box is at which place
(cheapest pair first), then a new place for each box that is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from batch.filters.boxes import Floats
from model_store.nms import iou

Numbers = NDArray[np.intp]
Pairs = list[tuple[int, int]]
"""Number of a box in its image, number of a place."""


_CORNERS = [0, 1, 0, 1]
"""x, y to x1, y1, x2, y2."""


@dataclass(frozen=True, slots=True)
class Rules:
    """As the fields of `SlotsConfig`."""

    min_iou: float
    shift_iou: float
    min_shift_pairs: int
    min_sightings: int
    forget_after_images: int


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Of each box: the row in which its place was first seen, the IoU with that box (1 for itself), the shift taken
    off before (n, 2), and how often the place was seen by then.
    """

    first_row: Numbers
    iou: Floats
    sighting: Numbers
    shift_px: Floats


def _none() -> Numbers:
    return np.empty(0, np.intp)


@dataclass(slots=True, eq=False)
class _Places:
    """All that may be seen again, the oldest first; arrays of one length. Boxes are as the first image shows them."""

    boxes_px: Floats = field(default_factory=lambda: np.empty((0, 4)))
    labels: Numbers = field(default_factory=_none)
    sightings: Numbers = field(default_factory=_none)
    last_image: Numbers = field(default_factory=_none)
    first_row: Numbers = field(default_factory=_none)

    def add(self, boxes_px: Floats, labels: Numbers, image: int, rows: Numbers) -> None:
        self.boxes_px = np.concatenate((self.boxes_px, boxes_px))
        self.labels = np.concatenate((self.labels, labels))
        self.sightings = np.concatenate((self.sightings, np.ones(len(rows), np.intp)))
        self.last_image = np.concatenate((self.last_image, np.full(len(rows), image)))
        self.first_row = np.concatenate((self.first_row, rows))

    def forget(self, rules: Rules, now: int) -> None:
        """What is no slot and was missing in too many images."""
        missing = now - 1 - self.last_image
        stale = (missing > rules.forget_after_images) & (self.sightings < rules.min_sightings)
        if stale.any():
            self.boxes_px = self.boxes_px[~stale]
            self.labels = self.labels[~stale]
            self.sightings = self.sightings[~stale]
            self.last_image = self.last_image[~stale]
            self.first_row = self.first_row[~stale]

    def overlap(self, boxes_px: Floats, labels: Numbers) -> Floats:
        """(boxes, places) IoU; 0 with a place of another label."""
        return iou(boxes_px, self.boxes_px) * (labels[:, np.newaxis] == self.labels)


def follow(rules: Rules, boxes_px: Floats, labels: Numbers, image: Numbers) -> Found:
    """Rows of an image stand together, in order of rank; image numbers grow, and skip images without boxes."""
    n = len(boxes_px)
    rows = np.arange(n)
    found = Found(rows.copy(), np.ones(n), np.ones(n, np.intp), np.zeros((n, 2)))
    places, shift_px = _Places(), np.zeros(2)
    begins = np.flatnonzero(np.append(True, image[1:] != image[:-1])[:n]).tolist()
    for start, end in zip(begins, [*begins, n][1:], strict=True):
        here, now = slice(start, end), int(image[start])
        places.forget(rules, now)
        straight_px = boxes_px[here] - shift_px[_CORNERS]
        overlap = places.overlap(straight_px, labels[here])
        moved_px = _moved_px(rules, straight_px, overlap, places)
        if moved_px.any():
            shift_px = shift_px + moved_px
            straight_px = boxes_px[here] - shift_px[_CORNERS]
            overlap = places.overlap(straight_px, labels[here])
        found.shift_px[here] = shift_px
        free = np.ones(end - start, bool)
        for box, place in _pairs(overlap, rules.min_iou, rules.min_sightings, places):
            free[box] = False
            places.sightings[place] += 1
            places.last_image[place] = now
            found.first_row[start + box] = places.first_row[place]
            found.sighting[start + box] = places.sightings[place]
            found.iou[start + box] = overlap[box, place]
        if free.any():
            places.add(straight_px[free], labels[here][free], now, rows[here][free])
    return found


def _moved_px(rules: Rules, boxes_px: Floats, overlap: Floats, places: _Places) -> Floats:
    """(2,) x, y: median over the coarse pairs of how far a box's centre is from its place's."""
    pairs: Pairs = []
    if min(overlap.shape) >= rules.min_shift_pairs:
        pairs = _pairs(overlap, rules.shift_iou, rules.min_sightings, places)
    if len(pairs) < rules.min_shift_pairs:
        return np.zeros(2)
    box, place = np.array(pairs).T
    return np.median(_centres(boxes_px[box]) - _centres(places.boxes_px[place]), axis=0)


def _centres(boxes_px: Floats) -> Floats:
    return (boxes_px[:, :2] + boxes_px[:, 2:]) / 2


def _pairs(overlap: Floats, least: float, min_sightings: int, places: _Places) -> Pairs:
    """Each box and each place once: places that are slots by now come first, then the highest IoU, then the
    oldest place, then the lowest rank.
    """
    box, place = np.nonzero(overlap >= least)
    if len(box) > 1:
        is_slot = places.sightings[place] >= min_sightings
        order = np.lexsort((box, place, -overlap[box, place], ~is_slot))
        box, place = box[order], place[order]
    found: Pairs = []
    boxes: set[int] = set()
    taken: set[int] = set()
    for one, its in zip(box.tolist(), place.tolist(), strict=True):
        if one not in boxes and its not in taken:
            boxes.add(one)
            taken.add(its)
            found.append((one, its))
    return found
