"""Repeat detections: boxes that come back at one place of a camera's view for days are a branch or a stone.

boxes of a view, in order of time --the best earlier first box--> slots --images, span, days--> suspicious ones

A slot is named by the first box seen there, never an average, so it keeps its id when images are added. Nothing is
hidden unless a person has accepted the slot (`batch/filters/review.py`) or `auto` is on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from batch.filters.contract import Filter, FilterConfig, Rows, Said
from batch.filters.exemplars import LEAST_IOU, match
from batch.filters.group_id import group_id
from batch.filters.places import View, labels_as_numbers, unmeasurable, views
from batch.filters.reasons import compared, exact

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
        description="IoU, 0 to 1: a box is that of a slot's first box from this on (inclusive)",
    )
    min_images: int = Field(
        default=20,
        ge=2,
        description="images: a slot is suspicious when boxes of so many distinct images, or more, are in it",
    )
    min_span_days: float = Field(
        default=2.0,
        ge=0,
        description="days of 24 hours by the camera's clock: and when its first and its last image are so far "
        "apart, or more; 0: not asked",
    )
    min_days: int = Field(
        default=3,
        ge=0,
        description="calendar days by the camera's clock: and when its images are of so many distinct days, or "
        "more; 0: not asked",
    )
    min_score: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="score, 0 to 1: boxes below it are not looked at; at it they are",
    )
    max_score: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="score, 0 to 1: boxes above it are not looked at; at it they are",
    )
    min_area_frac: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the image's area, 0 to 1: boxes that have less of it are not looked at (strict)",
    )
    max_area_frac: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="share of the image's area, 0 to 1: boxes that have more of it are not looked at (strict)",
    )
    exclude_labels: Annotated[tuple[str, ...], AfterValidator(_distinct)] = Field(
        default=(), description="labels whose boxes are not looked at"
    )
    accepted: Annotated[tuple[SlotId, ...], AfterValidator(_distinct)] = Field(
        default=(),
        description="ids of slots that a person has accepted as no animals: their boxes are not shown; from "
        "an edited review.json",
    )
    auto: bool = Field(
        default=False, description="whether all suspicious slots are as if they were accepted"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_score > self.max_score:
            raise ValueError(f"min_score {self.min_score} is above max_score {self.max_score}")
        if self.min_area_frac > self.max_area_frac:
            raise ValueError(
                f"min_area_frac {self.min_area_frac} is above max_area_frac {self.max_area_frac}"
            )
        return self


def invalid(config: RepeatsConfig, rows: Rows) -> NDArray[np.bool_]:
    """(n,): detections whose box cannot be measured, or whose image's size is not known."""
    return unmeasurable(rows)


def say(config: RepeatsConfig, rows: Rows) -> Iterator[Said]:
    """One for each box of a suspicious slot, with the slot's id: `suppress` when it is accepted, else `group`.

    The reason holds whatever images are added: "IoU 0.957 >= 0.9 with the first box, in >= 20 images over >= 2 days".
    """
    for view in views(rows):
        yield from _of_view(config, view)


def _of_view(config: RepeatsConfig, view: View) -> Iterator[Said]:
    index = np.flatnonzero(_looked_at(config, view))
    rows, image = view.rows.take(index), view.image_numbers()[index]
    labels = labels_as_numbers(rows.label)
    exemplar, iou = match(view.boxes_px[index], labels, config.min_iou)
    seen = (
        f"in >= {config.min_images} images over >= {exact(config.min_span_days)} days, "
        f">= {config.min_days} of them with images"
    )
    accepted = set(config.accepted)
    slot_ids: dict[int, str] = {}
    for i in np.flatnonzero(_suspicious(config, rows, image, exemplar)[exemplar]).tolist():
        first = int(exemplar[i])
        slot = slot_ids.get(first) or slot_ids.setdefault(
            first,
            group_id(config.kind, *view.place, rows.media_sha256[first], int(rows.rank[first])),
        )
        yield Said(
            rows.media_sha256[i],
            int(rows.rank[i]),
            "suppress" if config.auto or slot in accepted else "group",
            compared("IoU", float(iou[i]), ">=", config.min_iou) + f" with the first box, {seen}",
            group_id=slot,
        )


def _looked_at(config: RepeatsConfig, view: View) -> NDArray[np.bool_]:
    """(n,): scores are compared as float32, in which they are stored."""
    score, area_frac = view.rows.score, view.area_frac
    fits = (score >= np.float32(config.min_score)) & (score <= np.float32(config.max_score))
    fits &= (area_frac >= config.min_area_frac) & (area_frac <= config.max_area_frac)
    excluded = set(config.exclude_labels)
    if excluded:
        fits &= np.fromiter((name not in excluded for name in view.rows.label), bool, len(fits))
    return fits


def _suspicious(
    config: RepeatsConfig, rows: Rows, image: NDArray[np.intp], exemplar: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """(n,): of the slot whose first box is the i-th. Undated images, and those whose clock is in doubt, are images
    but of no day.
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
    """(n,): how many distinct values each slot has."""
    order = np.lexsort((value, slot))
    slot, value = slot[order], value[order]
    new = np.append(True, (slot[1:] != slot[:-1]) | (value[1:] != value[:-1]))[: len(slot)]
    return np.bincount(slot[new], minlength=n)


FILTER = Filter(
    config=RepeatsConfig, apply=say, context="camera", order=40, groups="slot", invalid=invalid
)
