"""Assign boxes to fixed slots of a camera's view with changing content, such as the holes of a bee hotel.

boxes of one image after another --shift of the camera, IoU with the slots, cheapest pair first--> slot of each box

A slot is the first box seen there, in the view of the camera's first image. It never moves, and it persists in images
where it has no box. A place needs `min_sightings` to be a slot. Ids stay the same when later images are added.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from batch.filters.contract import Filter, FilterConfig, Rows, Said
from batch.filters.support.camera_views import View, unmeasurable, views
from batch.filters.support.group_id import group_id
from batch.filters.support.numbering import numbered
from batch.filters.support.reasons import compared
from batch.filters.support.slot_tracking import Found, Rules, follow


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


class SlotsConfig(FilterConfig):
    kind: Literal["fixed-slots"] = "fixed-slots"
    min_iou: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="IoU, 0 to 1: minimum for a box to be in a slot, after removing the shift (inclusive)",
    )
    shift_iou: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="IoU, 0 to 1: minimum for a pair of box and slot to be used to measure the camera's shift "
        "(inclusive); not above min_iou",
    )
    min_shift_pairs: int = Field(
        default=3, ge=1, description="pairs: with fewer in an image, the camera is assumed not to have moved"
    )
    min_sightings: int = Field(
        default=3, ge=1, description="images: minimum number in which a place is seen for it to be a slot"
    )
    forget_after_images: int = Field(
        default=100,
        ge=1,
        description="images: a place that is not yet a slot is dropped if it is missing in more consecutive images "
        "than this (strict)",
    )
    by_label: bool = Field(
        default=True,
        description="true: a slot has one label; false: boxes of any label share it, such as a hole that is open, "
        "then sealed",
    )
    min_score: float = Field(
        default=0.1, ge=0, le=1, description="score, 0 to 1: minimum for a box to be in a slot (inclusive)"
    )
    exclude_labels: Annotated[tuple[str, ...], AfterValidator(_distinct)] = Field(
        default=(), description="labels of boxes that are not assigned to slots"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.shift_iou > self.min_iou:
            raise ValueError(f"shift_iou {self.shift_iou} is above min_iou {self.min_iou}")
        return self


def invalid(config: SlotsConfig, rows: Rows) -> NDArray[np.bool_]:
    """Return (n,) bool: detections with an unmeasurable box, or in an image of unknown size."""
    return unmeasurable(rows)


def say(config: SlotsConfig, rows: Rows) -> Iterator[Said]:
    """Yield `group` for each box in a slot, including the boxes seen before it became one.

    Reason: "sighting 7, IoU 0.713 >= 0.5, shift 3.0, -1.5 px".
    """
    for view in views(rows):
        yield from _of_view(config, view)


def _of_view(config: SlotsConfig, view: View) -> Iterator[Said]:
    used = _used(config, view)
    index, image = np.flatnonzero(used), view.image_numbers()[used]
    rows = view.rows.take(index)
    labels = np.zeros(len(index), np.intp)
    if config.by_label:
        labels, _ = numbered(rows.label)
    rules = Rules(
        min_iou=config.min_iou,
        shift_iou=config.shift_iou,
        min_shift_pairs=config.min_shift_pairs,
        min_sightings=config.min_sightings,
        forget_after_images=config.forget_after_images,
    )
    followed = follow(rules, view.boxes_px[index], labels, image)
    is_slot = np.bincount(followed.first_row, minlength=len(index)) >= config.min_sightings
    for i in np.flatnonzero(is_slot[followed.first_row]).tolist():
        first = int(followed.first_row[i])
        slot = group_id(config.kind, *view.place, *rows.target(first))
        reason = _reason(config, followed, i)
        yield Said(*rows.target(i), "group", reason, group_id=slot)


def _reason(config: SlotsConfig, followed: Found, i: int) -> str:
    sighting = f"sighting {followed.sighting[i]}"
    if followed.first_row[i] == i:
        return sighting
    x_px, y_px = followed.shift_px[i].tolist()
    shift = f", shift {x_px:.1f}, {y_px:.1f} px" if x_px or y_px else ""
    return f"{sighting}, {compared('IoU', float(followed.iou[i]), '>=', config.min_iou)}{shift}"


def _used(config: SlotsConfig, view: View) -> NDArray[np.bool_]:
    """Return (n,) bool: boxes to assign. Scores are compared as float32, as they are stored."""
    excluded = set(config.exclude_labels)
    included = np.fromiter((name not in excluded for name in view.rows.label), bool, len(view.rows))
    return included & (view.rows.score >= np.float32(config.min_score)) & (view.area_frac > 0)


FILTER = Filter(config=SlotsConfig, apply=say, context="camera", order=90, groups="slot", invalid=invalid)
