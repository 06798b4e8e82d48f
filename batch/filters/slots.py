"""Fixed slots: places of a camera's view that stay while what is seen there changes, such as the holes of a bee hotel.

boxes of one image after another --shift of the camera, IoU with the slots, cheapest pair first--> slot of each box

A slot is the first box seen there, in the view of the camera's first image; it is not moved, and one that is not seen
is missing in that image, not gone. What was seen a few times only is no slot. All slots have ids that stay the same
when images are added after them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from batch.filters.boxes import Floats
from batch.filters.contract import Filter, FilterConfig, Rows, Said
from batch.filters.group_id import group_id
from batch.filters.places import View, labels_as_numbers, unmeasurable, views
from batch.filters.reasons import compared
from model_store.nms import iou

Pairs = list[tuple[int, int]]
"""Number of a box in its image, number of a slot."""


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


class SlotsConfig(FilterConfig):
    kind: Literal["fixed-slots"] = "fixed-slots"
    min_iou: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="IoU, 0 to 1: a box can be in a slot from this on (inclusive), the shift taken off",
    )
    shift_iou: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="IoU, 0 to 1: pairs of a box and a slot tell how far the camera has moved from this on "
        "(inclusive); not above min_iou",
    )
    min_shift_pairs: int = Field(
        default=3,
        ge=1,
        description="pairs: with fewer of them in an image, the camera is taken to be where it was",
    )
    min_sightings: int = Field(
        default=3,
        ge=1,
        description="images: a place is a slot when it was seen in so many, or more",
    )
    forget_after_images: int = Field(
        default=100,
        ge=1,
        description="images: a place that is no slot yet is forgotten when it is missing in more images than this "
        "(strict), one after another",
    )
    by_label: bool = Field(
        default=True,
        description="whether a slot is of one label; false: a hole that is open, then sealed, is one slot",
    )
    min_score: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="score, 0 to 1: boxes below it are in no slot; at it they are",
    )
    exclude_labels: Annotated[tuple[str, ...], AfterValidator(_distinct)] = Field(
        default=(), description="labels whose boxes are in no slot"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.shift_iou > self.min_iou:
            raise ValueError(f"shift_iou {self.shift_iou} is above min_iou {self.min_iou}")
        return self


@dataclass(slots=True)
class _Places:
    """All places of a view that may be seen again, the oldest first; arrays of one length."""

    boxes_px: Floats = field(default_factory=lambda: np.empty((0, 4)))
    labels: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    sightings: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    last_image: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    first_row: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))

    def add(
        self, boxes_px: Floats, labels: NDArray[np.intp], image: int, row: NDArray[np.intp]
    ) -> None:
        n = len(row)
        self.boxes_px = np.concatenate((self.boxes_px, boxes_px))
        self.labels = np.append(self.labels, labels)
        self.sightings = np.append(self.sightings, np.ones(n, np.intp))
        self.last_image = np.append(self.last_image, np.full(n, image))
        self.first_row = np.append(self.first_row, row)

    def keep(self, which: NDArray[np.bool_]) -> None:
        for name in ("boxes_px", "labels", "sightings", "last_image", "first_row"):
            setattr(self, name, getattr(self, name)[which])


@dataclass(slots=True, eq=False)
class _Found:
    """Of each box: the row that its place was first seen in, how it lies there, and how often the place was seen."""

    first_row: NDArray[np.intp]
    iou: Floats
    sighting: NDArray[np.intp]
    shift_px: Floats


def invalid(config: SlotsConfig, rows: Rows) -> NDArray[np.bool_]:
    """(n,): detections whose box cannot be measured, or whose image's size is not known."""
    return unmeasurable(rows)


def say(config: SlotsConfig, rows: Rows) -> Iterator[Said]:
    """`group` for each box in a slot, also for those seen before it was one. The reason is like
    "sighting 7, IoU 0.713 >= 0.5, shift 3.0, -1.5 px".
    """
    for view in views(rows):
        yield from _of_view(config, view)


def _of_view(config: SlotsConfig, view: View) -> Iterator[Said]:
    used = _used(config, view)
    index, image = np.flatnonzero(used), view.image_numbers()[used]
    rows = view.rows.take(index)
    labels = np.zeros(len(index), np.intp)
    if config.by_label:
        labels = labels_as_numbers(rows.label)
    found = _follow(config, view.boxes_px[index], labels, image)
    is_slot = np.bincount(found.first_row, minlength=len(index)) >= config.min_sightings
    slot_ids: dict[int, str] = {}
    for i in np.flatnonzero(is_slot[found.first_row]).tolist():
        first = int(found.first_row[i])
        slot = slot_ids.get(first) or slot_ids.setdefault(
            first,
            group_id(config.kind, *view.place, rows.media_sha256[first], int(rows.rank[first])),
        )
        reason = _reason(config, found, i)
        yield Said(rows.media_sha256[i], int(rows.rank[i]), "group", reason, group_id=slot)


def _reason(config: SlotsConfig, found: _Found, i: int) -> str:
    sighting = f"sighting {found.sighting[i]}"
    if found.first_row[i] == i:
        return sighting
    x_px, y_px = found.shift_px[i].tolist()
    shift = f", shift {x_px:.1f}, {y_px:.1f} px" if x_px or y_px else ""
    return f"{sighting}, {compared('IoU', float(found.iou[i]), '>=', config.min_iou)}{shift}"


def _used(config: SlotsConfig, view: View) -> NDArray[np.bool_]:
    """(n,): scores are compared as float32, in which they are stored."""
    excluded = set(config.exclude_labels)
    wanted = np.fromiter((name not in excluded for name in view.rows.label), bool, len(view.rows))
    return wanted & (view.rows.score >= np.float32(config.min_score)) & (view.area_frac > 0)


def _follow(
    config: SlotsConfig, boxes_px: Floats, labels: NDArray[np.intp], image: NDArray[np.intp]
) -> _Found:
    """One image after another: where the camera is, then which place each box is; the rest are new places."""
    n = len(boxes_px)
    rows = np.arange(n)
    found = _Found(rows.copy(), np.ones(n), np.ones(n, np.intp), np.zeros((n, 2)))
    places, shift_px = _Places(), np.zeros(2)
    begins = np.flatnonzero(np.append(True, image[1:] != image[:-1])[:n]).tolist()
    for start, end in zip(begins, [*begins, n][1:], strict=True):
        here, now = slice(start, end), int(image[start])
        missing = now - places.last_image - 1
        places.keep(
            (places.sightings >= config.min_sightings) | (missing <= config.forget_after_images)
        )
        shift_px = shift_px + _moved(
            config, boxes_px[here] - np.tile(shift_px, 2), labels[here], places
        )
        straight_px = boxes_px[here] - np.tile(shift_px, 2)
        overlap = _overlap(straight_px, labels[here], places)
        free = np.ones(end - start, bool)
        for box, place in _pairs(overlap, config.min_iou, places.sightings >= config.min_sightings):
            free[box] = False
            places.sightings[place] += 1
            places.last_image[place] = now
            found.first_row[start + box] = places.first_row[place]
            found.sighting[start + box] = places.sightings[place]
            found.iou[start + box] = overlap[box, place]
        found.shift_px[here] = shift_px
        if free.any():
            places.add(straight_px[free], labels[here][free], now, rows[here][free])
    return found


def _moved(
    config: SlotsConfig, boxes_px: Floats, labels: NDArray[np.intp], places: _Places
) -> Floats:
    """(2,) x, y: median over the coarse pairs of how far a box's centre is from its place's."""
    overlap = _overlap(boxes_px, labels, places)
    pairs = _pairs(overlap, config.shift_iou, places.sightings >= config.min_sightings)
    if len(pairs) < config.min_shift_pairs:
        return np.zeros(2)
    box, place = np.array(pairs).T
    return np.median(_centres(boxes_px[box]) - _centres(places.boxes_px[place]), axis=0)


def _centres(boxes_px: Floats) -> Floats:
    return (boxes_px[:, :2] + boxes_px[:, 2:]) / 2


def _overlap(boxes_px: Floats, labels: NDArray[np.intp], places: _Places) -> Floats:
    """(boxes, places) IoU; 0 of another label."""
    found = iou(boxes_px, places.boxes_px)
    found[labels[:, np.newaxis] != places.labels] = 0.0
    return found


def _pairs(overlap: Floats, least: float, is_slot: NDArray[np.bool_]) -> Pairs:
    """Each box and each place once: places that are slots by now come first, then the highest IoU, then the
    oldest place, then the lowest rank.
    """
    box, place = np.nonzero(overlap >= least)
    order = np.lexsort((box, place, -overlap[box, place], ~is_slot[place]))
    found: Pairs = []
    boxes: set[int] = set()
    taken: set[int] = set()
    for one, its in zip(box[order].tolist(), place[order].tolist(), strict=True):
        if one not in boxes and its not in taken:
            boxes.add(one)
            taken.add(its)
            found.append((one, its))
    return found


FILTER = Filter(
    config=SlotsConfig, apply=say, context="camera", order=90, groups="slot", invalid=invalid
)
