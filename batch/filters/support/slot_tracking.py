"""Assign boxes of successive images to the places where they were first seen, and correct for camera shifts.

boxes (n, 4), label numbers (n,), image numbers (n,) --follow--> Found: first row of each box's place, IoU, sighting

For each image: measure the camera's shift (median over coarse pairs of box and place). Then match boxes to places
(cheapest pair first), and add a new place for each remaining box.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from batch.filters.support.boxes import Floats
from model_store.transform.nms import iou

Numbers = NDArray[np.intp]
Pairs = list[tuple[int, int]]
"""(number of a box in its image, number of a place)."""


_CORNERS = [0, 1, 0, 1]
"""Index that repeats x, y as x1, y1, x2, y2."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Parameters; see the fields of `SlotsConfig`."""

    min_iou: float
    shift_iou: float
    min_shift_pairs: int
    min_sightings: int
    forget_after_images: int


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Place of each box: row of its first box, IoU with that box (1 for itself), sightings of the place up to this
    one, and the camera's shift that was removed, (n, 2).
    """

    first_row: Numbers
    iou: Floats
    sighting: Numbers
    shift_px: Floats


def _none() -> Numbers:
    return np.empty(0, np.intp)


@dataclass(slots=True, eq=False)
class _Places:
    """Active places, oldest first, as arrays of one length. Boxes are in px of the first image."""

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
        """Drop places that are not slots and were missing in too many images."""
        missing = now - 1 - self.last_image
        stale = (missing > rules.forget_after_images) & (self.sightings < rules.min_sightings)
        if stale.any():
            self.boxes_px = self.boxes_px[~stale]
            self.labels = self.labels[~stale]
            self.sightings = self.sightings[~stale]
            self.last_image = self.last_image[~stale]
            self.first_row = self.first_row[~stale]

    def overlap(self, boxes_px: Floats, labels: Numbers) -> Floats:
        """Return the IoU, (boxes, places); 0 for places of another label."""
        return iou(boxes_px[:, np.newaxis], self.boxes_px) * (labels[:, np.newaxis] == self.labels)


def follow(rules: Rules, boxes_px: Floats, labels: Numbers, image: Numbers) -> Found:
    """Return the place of each box. Rows are sorted by image, then rank; image numbers can have gaps."""
    n = len(boxes_px)
    rows = np.arange(n)
    found = Found(rows.copy(), np.ones(n), np.ones(n, np.intp), np.zeros((n, 2)))
    places, shift_px = _Places(), np.zeros(2)
    begins = np.flatnonzero(np.append(True, image[1:] != image[:-1])[:n]).tolist()
    for start, end in zip(begins, [*begins, n][1:], strict=True):
        current, now = slice(start, end), int(image[start])
        places.forget(rules, now)
        shifted_px = boxes_px[current] - shift_px[_CORNERS]
        overlap = places.overlap(shifted_px, labels[current])
        moved_px = _moved_px(rules, shifted_px, overlap, places)
        if moved_px.any():
            shift_px = shift_px + moved_px
            shifted_px = boxes_px[current] - shift_px[_CORNERS]
            overlap = places.overlap(shifted_px, labels[current])
        found.shift_px[current] = shift_px
        free = np.ones(end - start, bool)
        for box, place in _pairs(overlap, rules.min_iou, rules.min_sightings, places):
            free[box] = False
            places.sightings[place] += 1
            places.last_image[place] = now
            found.first_row[start + box] = places.first_row[place]
            found.sighting[start + box] = places.sightings[place]
            found.iou[start + box] = overlap[box, place]
        if free.any():
            places.add(shifted_px[free], labels[current][free], now, rows[current][free])
    return found


def _moved_px(rules: Rules, boxes_px: Floats, overlap: Floats, places: _Places) -> Floats:
    """Return the shift since the previous image, (2,) x, y: median distance of centres over coarse pairs."""
    pairs: Pairs = []
    if min(overlap.shape) >= rules.min_shift_pairs:
        pairs = _pairs(overlap, rules.shift_iou, rules.min_sightings, places)
    if len(pairs) < rules.min_shift_pairs:
        return np.zeros(2)
    box, place = np.array(pairs).T
    return np.median(_centres(boxes_px[box]) - _centres(places.boxes_px[place]), axis=0)


def _centres(boxes_px: Floats) -> Floats:
    return (boxes_px[:, :2] + boxes_px[:, 2:]) / 2


def _pairs(overlap: Floats, min_iou: float, min_sightings: int, places: _Places) -> Pairs:
    """Pair each box and each place at most once: slots first, then by highest IoU, oldest place, lowest rank."""
    box, place = np.nonzero(overlap >= min_iou)
    if len(box) > 1:
        is_slot = places.sightings[place] >= min_sightings
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
