"""Tracking: detections of adjacent images of an event that are the same animal, by where their boxes are.

frames of an event --cost of each pair, cheapest first, each box once--> chains --> one occurrence for each chain

cost = (1 - IoU) + (1 - smaller area / larger area) + distance of centres / diagonal of the earlier frame. There is no
likeness of looks in it: nothing computes embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from batch.filters.boxes import area_px2, measurable, shared_px2
from batch.filters.contract import NO_RANK, Filter, FilterConfig, Rows, Said
from batch.filters.group_id import group_id

MAX_COST = 1.25
PAIRS_AT_ONCE = 250_000
"""Bounds the memory of a step: about 40 MB of float64 columns."""


class TrackingConfig(FilterConfig):
    kind: Literal["tracking"] = "tracking"
    max_cost: float = Field(
        default=MAX_COST,
        gt=0,
        le=3,
        description="cost, 0 (the same box) to 3: a pair of boxes is linked only below it (strict)",
    )
    min_score: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="score, 0 to 1: boxes below it are in no occurrence; at it they are",
    )
    same_label: bool = Field(default=True, description="whether only boxes of one label are linked")
    plus_one: bool = Field(
        default=False,
        description="whether a box from x1 to x2 is x2 - x1 + 1 px wide, as where corners are counted as pixels",
    )
    singletons: bool = Field(
        default=True, description="whether a box that is linked to none is an occurrence of its own"
    )


@dataclass(frozen=True, slots=True)
class _Frames:
    """Frames with boxes, in order, event after event: where the boxes of each begin, how many they are, and whether
    the frame before it in this list is the image before it in its event.
    """

    start: NDArray[np.intp]
    boxes: NDArray[np.intp]
    adjacent: NDArray[np.bool_]


def invalid(config: TrackingConfig, rows: Rows) -> NDArray[np.bool_]:
    """(n,): boxes that cannot be measured, or whose image's size is not known."""
    return (rows.rank != NO_RANK) & ~_judged(rows)


def say(config: TrackingConfig, rows: Rows) -> Iterator[Said]:
    """`group` for each box of an event, with what its link to the frame before cost. Without boxes that a person
    has spoken of: a track ends before and begins after them.
    """
    rows, frames = _in_order(config, rows)
    before, cost = _links(config, rows, frames)
    first = list(range(len(rows)))
    for row, link in enumerate(before.tolist()):
        if link >= 0:
            first[row] = first[link]
    members = np.bincount(first, minlength=len(rows))
    for row, begin in enumerate(first):
        if members[begin] == 1 and not config.singletons:
            continue
        occurrence = group_id("tracking", rows.media_sha256[begin], int(rows.rank[begin]))
        link = before[row]
        reason = ""
        if link >= 0:
            reason = f"cost {cost[row]:.3f} to rank {rows.rank[link]} of the image before"
        yield Said(
            rows.media_sha256[row], int(rows.rank[row]), "group", reason, group_id=occurrence
        )


def _judged(rows: Rows) -> NDArray[np.bool_]:
    sized = (rows.width_px > 0) & (rows.height_px > 0)
    return (rows.rank != NO_RANK) & measurable(rows.boxes_px) & sized


def _in_order(config: TrackingConfig, rows: Rows) -> tuple[Rows, _Frames]:
    """The boxes to link, by event, frame and rank. An event's frames are in order of UTC where all have it."""
    image = np.cumsum(_changes(rows.media_sha256)) - 1
    starts = np.flatnonzero(_changes(rows.media_sha256))
    numbers: dict[str | None, int] = {}
    events = (numbers.setdefault(event, len(numbers)) for event in rows.event_id[starts])
    event = np.fromiter(events, np.int64, len(starts))
    place = _place_in_event(event, rows.taken_utc[starts])
    wanted = _judged(rows) & (rows.score >= config.min_score) & ~rows.human
    index = np.flatnonzero(wanted & (event != numbers.get(None, -1))[image])
    order = np.lexsort((rows.rank[index], place[image[index]], event[image[index]]))
    index = index[order]
    image = image[index]
    start = np.flatnonzero(_changes(image))
    of_event, at = event[image[start]], place[image[start]]
    adjacent = (np.diff(of_event, prepend=-1) == 0) & (np.diff(at, prepend=-1) == 1)
    return rows.take(index), _Frames(start, np.diff(start, append=len(index)), adjacent)


def _place_in_event(event: NDArray[np.int64], utc: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """The how-manieth of its event each image is; images are given in order of the camera's clock."""
    by_utc = (np.bincount(event, weights=np.isnat(utc)) == 0)[event]
    time = np.where(by_utc, utc.astype(np.int64), 0)
    order = np.lexsort((time, event))
    begins = _changes(event[order])
    count = np.arange(len(order))
    place = np.empty(len(order), np.int64)
    place[order] = count - np.maximum.accumulate(np.where(begins, count, 0))
    return place


def _links(
    config: TrackingConfig, rows: Rows, frames: _Frames
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """By row: the row of the frame before that it is linked to, -1 for none, and the cost."""
    before = np.full(len(rows), -1, np.intp)
    costs = np.full(len(rows), np.nan)
    later = np.flatnonzero(frames.adjacent)
    pairs = np.cumsum(frames.boxes[later] * frames.boxes[later - 1])
    part = pairs // PAIRS_AT_ONCE
    for some in np.split(later, np.flatnonzero(np.diff(part)) + 1):
        a, b = _pairs(frames, some)
        if config.same_label:
            same = rows.label[a] == rows.label[b]
            a, b = a[same], b[same]
        cost = _cost(rows, a, b, 1.0 if config.plus_one else 0.0)
        near = cost < config.max_cost
        a, b, cost = a[near], b[near], cost[near]
        order = np.lexsort((rows.rank[b], rows.rank[a], cost))
        for chosen in _cheapest_first(a[order], b[order], len(rows)):
            links = order[chosen]
            before[b[links]], costs[b[links]] = a[links], cost[links]
    return before, costs


def _pairs(frames: _Frames, later: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Every box of the frame before each of `later` with every box of it."""
    n_a, n_b = frames.boxes[later - 1], frames.boxes[later]
    n = n_a * n_b
    frame = np.repeat(np.arange(len(later)), n)
    within = np.arange(len(frame)) - np.repeat(np.cumsum(n) - n, n)
    a = frames.start[later - 1][frame] + within // n_b[frame]
    b = frames.start[later][frame] + within % n_b[frame]
    return a, b


def _cost(
    rows: Rows, a: NDArray[np.intp], b: NDArray[np.intp], plus_px: float
) -> NDArray[np.float64]:
    wider = np.array([0.0, 0.0, plus_px, plus_px])
    box_a, box_b = rows.boxes_px[a] + wider, rows.boxes_px[b] + wider
    area_a, area_b, shared = area_px2(box_a), area_px2(box_b), shared_px2(box_a, box_b)
    iou = shared / (area_a + area_b - shared)
    ratio = np.minimum(area_a, area_b) / np.maximum(area_a, area_b)
    shift = (box_b[:, :2] + box_b[:, 2:] - box_a[:, :2] - box_a[:, 2:]) / 2
    distance = np.sqrt(shift[:, 0] ** 2 + shift[:, 1] ** 2)
    diagonal = np.ceil(np.sqrt(rows.width_px[a] ** 2 + rows.height_px[a] ** 2))
    return (1 - iou) + (1 - ratio) + distance / diagonal


def _cheapest_first(a: NDArray[np.intp], b: NDArray[np.intp], n: int) -> Iterator[NDArray[np.intp]]:
    """Places of the pairs that a greedy walk down the list takes, each row once as `a` and once as `b`.

    A pair that is the first one left for both its rows is taken whatever becomes of the others; so all such pairs
    are taken at once, and the rest is looked at again.
    """
    first_a, first_b = np.empty(n, np.intp), np.empty(n, np.intp)
    taken_a, taken_b = np.zeros(n, bool), np.zeros(n, bool)
    left = np.arange(len(a))
    while len(left):
        backwards = left[::-1]
        first_a[a[backwards]] = backwards
        first_b[b[backwards]] = backwards
        chosen = left[(first_a[a[left]] == left) & (first_b[b[left]] == left)]
        yield chosen
        taken_a[a[chosen]], taken_b[b[chosen]] = True, True
        left = left[~taken_a[a[left]] & ~taken_b[b[left]]]


def _changes(values: NDArray[np.object_] | NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a value is not the one before it; the first is."""
    changes = np.ones(len(values), bool)
    changes[1:] = values[1:] != values[:-1]
    return changes


FILTER = Filter(
    config=TrackingConfig,
    apply=say,
    context="camera",
    order=85,
    groups="occurrence",
    invalid=invalid,
)
