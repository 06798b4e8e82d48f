"""Fixed slots: places of a camera's view that stay while what is seen there changes, such as the holes of a bee hotel.

boxes of one image after another --shift of the camera, IoU with the slots, cheapest pair first--> slot of each box

A slot is the first box seen there, in the view of the camera's first image; it is not moved, and one that is not seen
is missing in that image, not gone. What was seen a few times only is no slot. All slots have ids that stay the same
when images are added after them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from batch.filters.contract import Filter, FilterConfig, Rows, Said
from batch.filters.fixed_places import Found, Rules, follow
from batch.filters.group_id import group_id
from batch.filters.places import View, labels_as_numbers, unmeasurable, views
from batch.filters.reasons import compared


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
    rules = Rules(
        min_iou=config.min_iou,
        shift_iou=config.shift_iou,
        min_shift_pairs=config.min_shift_pairs,
        min_sightings=config.min_sightings,
        forget_after_images=config.forget_after_images,
    )
    found = follow(rules, view.boxes_px[index], labels, image)
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


def _reason(config: SlotsConfig, found: Found, i: int) -> str:
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


FILTER = Filter(
    config=SlotsConfig, apply=say, context="camera", order=90, groups="slot", invalid=invalid
)
