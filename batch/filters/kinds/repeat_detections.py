"""Find repeat detections: boxes that recur at one place of a camera's view for days, such as branches and stones.

boxes of a view, in order of time --best earlier first box--> slots --images, span, days--> suspicious slots

A slot is identified by its first box, never an average, so that it keeps its id when images are added. Boxes are hidden
only if a person has accepted the slot (`batch/filters/review.py`) or `auto` is on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from batch.filters.contract import Filter, FilterConfig, Rows, Said
from batch.filters.support.box_clusters import LEAST_IOU, match
from batch.filters.support.camera_views import View, unmeasurable, views
from batch.filters.support.group_id import group_id
from batch.filters.support.numbering import numbered
from batch.filters.support.reasons import compared, exact

DAY_US = 86_400_000_000
SlotId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


class RepeatsConfig(FilterConfig):
    kind: Literal["repeat-detections"] = "repeat-detections"
    min_iou: float = Field(
        default=0.9,
        ge=LEAST_IOU,
        le=1,
        description="IoU, 0 to 1: minimum with a slot's first box for a box to be in the slot (inclusive)",
    )
    min_images: int = Field(
        default=20, ge=2, description="images: minimum number of distinct images with boxes in a suspicious slot"
    )
    min_span_days: float = Field(
        default=2.0,
        ge=0,
        description="days of 24 hours by the camera's clock: minimum time between the first and last image of a "
        "suspicious slot; 0: no limit",
    )
    min_days: int = Field(
        default=3,
        ge=0,
        description="calendar days by the camera's clock: minimum number of distinct days with images of a "
        "suspicious slot; 0: no limit",
    )
    min_score: float = Field(
        default=0.1, ge=0, le=1, description="score, 0 to 1: minimum for boxes to be used (inclusive)"
    )
    max_score: float = Field(
        default=1.0, ge=0, le=1, description="score, 0 to 1: maximum for boxes to be used (inclusive)"
    )
    min_area_frac: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the image's area, 0 to 1: minimum for boxes to be used (inclusive)",
    )
    max_area_frac: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="share of the image's area, 0 to 1: maximum for boxes to be used (inclusive)",
    )
    exclude_labels: Annotated[tuple[str, ...], AfterValidator(_distinct)] = Field(
        default=(), description="labels of boxes that are not used"
    )
    accepted: Annotated[tuple[SlotId, ...], AfterValidator(_distinct)] = Field(
        default=(),
        description="ids of slots that a person has confirmed as not an animal; their boxes are hidden. Take them "
        "from an edited review.json",
    )
    auto: bool = Field(default=False, description="treat all suspicious slots as accepted")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_score > self.max_score:
            raise ValueError(f"min_score {self.min_score} is above max_score {self.max_score}")
        if self.min_area_frac > self.max_area_frac:
            raise ValueError(f"min_area_frac {self.min_area_frac} is above max_area_frac {self.max_area_frac}")
        return self


def invalid(config: RepeatsConfig, rows: Rows) -> NDArray[np.bool_]:
    """Return (n,) bool: detections with an unmeasurable box, or in an image of unknown size."""
    return unmeasurable(rows)


def say(config: RepeatsConfig, rows: Rows) -> Iterator[Said]:
    """Yield an action with the slot's id for each box of a suspicious slot: `suppress` if accepted, else `group`.

    The reason stays true when images are added: "IoU 0.957 >= 0.9 with the first box, in >= 20 images over >= 2 days".
    """
    for view in views(rows):
        yield from _of_view(config, view)


def _of_view(config: RepeatsConfig, view: View) -> Iterator[Said]:
    index = np.flatnonzero(_used(config, view))
    rows, image = view.rows.take(index), view.image_numbers()[index]
    labels, _ = numbered(rows.label)
    exemplar, iou = match(view.boxes_px[index], labels, config.min_iou)
    limits = (
        f"in >= {config.min_images} images over >= {exact(config.min_span_days)} days, "
        f">= {config.min_days} of them with images"
    )
    accepted = set(config.accepted)
    for i in np.flatnonzero(_suspicious(config, rows, image, exemplar)[exemplar]).tolist():
        first = int(exemplar[i])
        slot = group_id(config.kind, *view.place, *rows.target(first))
        yield Said(
            *rows.target(i),
            "suppress" if config.auto or slot in accepted else "group",
            compared("IoU", float(iou[i]), ">=", config.min_iou) + f" with the first box, {limits}",
            group_id=slot,
        )


def _used(config: RepeatsConfig, view: View) -> NDArray[np.bool_]:
    """Return (n,) bool: boxes within all limits. Scores are compared as float32, as they are stored."""
    score, area_frac = view.rows.score, view.area_frac
    used = (score >= np.float32(config.min_score)) & (score <= np.float32(config.max_score))
    used &= (area_frac >= config.min_area_frac) & (area_frac <= config.max_area_frac)
    excluded = set(config.exclude_labels)
    if excluded:
        used &= np.fromiter((name not in excluded for name in view.rows.label), bool, len(used))
    return used


def _suspicious(
    config: RepeatsConfig, rows: Rows, image: NDArray[np.intp], exemplar: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Return (n,) bool for the slot with first box i. Undated images, and those with clock flags, count as images
    but not as days.
    """
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
    new = np.append(True, (slot[1:] != slot[:-1]) | (value[1:] != value[:-1]))[: len(slot)]
    return np.bincount(slot[new], minlength=n)


FILTER = Filter(config=RepeatsConfig, apply=say, context="camera", order=40, groups="slot", invalid=invalid)
