"""Link detections of the same animal in adjacent images of an event, by the position of their boxes.

frames of an event --cost of each pair, cheapest first, each box once--> chains --> one occurrence for each chain

cost = (1 - IoU) + (1 - smaller area / larger area) + distance of centres / diagonal of the earlier frame. It does not
compare appearance: no embeddings are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from batch.filters.contract import Filter, FilterAction, FilterConfig, Rows, changes
from batch.filters.support.boxes import area_px2, usable
from batch.filters.support.names import group_id, numbered
from model_store.transform.nms import iou

MAX_COST = 1.25
PAIRS_AT_ONCE = 250_000
"""Approximate pairs in a step; their float64 columns need about 40 MB."""


class TrackingConfig(FilterConfig):
    kind: Literal["tracking"] = "tracking"
    max_cost: float = Field(MAX_COST, gt=0, le=3)
    """cost, 0 (the same box) to 3: a pair of boxes is linked only below this (strict)"""
    min_score: float = Field(0.15, ge=0, le=1)
    """score, 0 to 1: minimum for a box to be in an occurrence (inclusive)"""
    same_label: bool = True
    """link only boxes of the same label"""
    plus_one: bool = False
    """treat a box from x1 to x2 as x2 - x1 + 1 px wide, for tools that count both corner pixels"""
    singletons: bool = True
    """make an occurrence for each box without links"""


@dataclass(frozen=True, slots=True)
class _Frames:
    """Frames with boxes, in order, event after event."""

    start: NDArray[np.intp]  # first row of each frame
    boxes: NDArray[np.intp]  # number of its rows
    adjacent: NDArray[np.bool_]  # the previous frame here is the previous image of the event


def actions(config: TrackingConfig, rows: Rows) -> Iterator[FilterAction]:
    """Yield `group` for each box of an event, with the cost of its link to the previous frame as reason.

    Boxes annotated by a person are left out: a track ends before and starts after them.
    """
    rows, frames = _in_order(config, rows)
    before, cost = _links(config, rows, frames)
    first = list(range(len(rows)))
    for row, link in enumerate(before.tolist()):
        if link >= 0:
            first[row] = first[link]
    members = np.bincount(first, minlength=len(rows))
    for row, start in enumerate(first):
        if members[start] == 1 and not config.singletons:
            continue
        occurrence = group_id("tracking", *rows.target(start))
        link = before[row]
        reason = ""
        if link >= 0:
            reason = f"cost {cost[row]:.3f} to rank {rows.rank[link]} of the image before"
        yield FilterAction(*rows.target(row), "group", reason, group_id=occurrence)


def _in_order(config: TrackingConfig, rows: Rows) -> tuple[Rows, _Frames]:
    """Return the boxes to link, by event, frame and rank. An event's frames are in order of UTC if all have it."""
    image, starts = rows.image_numbers(), rows.image_starts()
    event, numbers = numbered(rows.event_id[starts])
    position = _position_in_event(event, rows.taken_utc[starts])
    taken = usable(rows) & (rows.score >= config.min_score) & ~rows.human
    index = np.flatnonzero(taken & (event != numbers.get(None, -1))[image])
    order = np.lexsort((rows.rank[index], position[image[index]], event[image[index]]))
    index = index[order]
    image = image[index]
    start = np.flatnonzero(changes(image))
    frame_event, frame_position = event[image[start]], position[image[start]]
    adjacent = np.diff(frame_event, prepend=-1) == 0
    adjacent &= np.diff(frame_position, prepend=-1) == 1
    return rows.take(index), _Frames(start, np.diff(start, append=len(index)), adjacent)


def _position_in_event(event: NDArray[np.int64], utc: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Return each image's position in its event, from 0; images come in order of the camera's clock."""
    by_utc = (np.bincount(event, weights=np.isnat(utc)) == 0)[event]
    time = np.where(by_utc, utc.astype(np.int64), 0)
    order = np.lexsort((time, event))
    begins = changes(event[order])
    count = np.arange(len(order))
    position = np.empty(len(order), np.int64)
    position[order] = count - np.maximum.accumulate(np.where(begins, count, 0))
    return position


def _links(config: TrackingConfig, rows: Rows, frames: _Frames) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return for each row its linked row in the previous frame (-1: none) and the cost."""
    before = np.full(len(rows), -1, np.intp)
    costs = np.full(len(rows), np.nan)
    later = np.flatnonzero(frames.adjacent)
    if not len(later):
        return before, costs
    pairs = np.cumsum(frames.boxes[later] * frames.boxes[later - 1])
    part = pairs // PAIRS_AT_ONCE
    for batch in np.split(later, np.flatnonzero(np.diff(part)) + 1):
        near = [_near(config, rows, a, b) for a, b in _pairs(frames, batch)]
        a, b, cost = (np.concatenate(column) for column in zip(*near, strict=True))
        order = np.lexsort((rows.rank[b], rows.rank[a], cost))
        for chosen in _cheapest_first(a[order], b[order], len(rows)):
            links = order[chosen]
            before[b[links]], costs[b[links]] = a[links], cost[links]
    return before, costs


def _pairs(frames: _Frames, later: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield all pairs of a box in the frame before each of `later` (a) and a box in that frame (b), in steps."""
    n_b = frames.boxes[later]
    n = frames.boxes[later - 1] * n_b
    end = np.cumsum(n)
    total = int(n.sum())
    for first in range(0, total, PAIRS_AT_ONCE):
        pair = np.arange(first, min(first + PAIRS_AT_ONCE, total))
        frame = np.searchsorted(end, pair, side="right")
        within = pair - (end - n)[frame]
        a = frames.start[later - 1][frame] + within // n_b[frame]
        b = frames.start[later][frame] + within % n_b[frame]
        yield a, b


def _near(
    config: TrackingConfig, rows: Rows, a: NDArray[np.intp], b: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return the pairs that may be linked, and their costs."""
    if config.same_label:
        same = rows.label[a] == rows.label[b]
        a, b = a[same], b[same]
    cost = _cost(rows, a, b, 1.0 if config.plus_one else 0.0)
    near = cost < config.max_cost
    return a[near], b[near], cost[near]


def _cost(rows: Rows, a: NDArray[np.intp], b: NDArray[np.intp], plus_px: float) -> NDArray[np.float64]:
    extra = np.array([0.0, 0.0, plus_px, plus_px])
    box_a, box_b = rows.boxes_px[a] + extra, rows.boxes_px[b] + extra
    area_a, area_b = area_px2(box_a), area_px2(box_b)
    ratio = np.minimum(area_a, area_b) / np.maximum(area_a, area_b)
    shift = (box_b[:, :2] + box_b[:, 2:] - box_a[:, :2] - box_a[:, 2:]) / 2
    distance = np.sqrt(shift[:, 0] ** 2 + shift[:, 1] ** 2)
    diagonal = np.ceil(np.sqrt(rows.width_px[a] ** 2 + rows.height_px[a] ** 2))
    return (1 - iou(box_a, box_b)) + (1 - ratio) + distance / diagonal


def _cheapest_first(a: NDArray[np.intp], b: NDArray[np.intp], n: int) -> Iterator[NDArray[np.intp]]:
    """Yield the indices of pairs that a greedy pass takes, with each row once as `a` and once as `b`.

    A pair that is first for both its rows is always taken. Each round takes all such pairs at once.
    """
    first_a, first_b = np.empty(n, np.intp), np.empty(n, np.intp)
    taken_a, taken_b = np.zeros(n, bool), np.zeros(n, bool)
    remaining = np.arange(len(a))
    while len(remaining):
        backwards = remaining[::-1]
        first_a[a[backwards]] = backwards
        first_b[b[backwards]] = backwards
        is_first = (first_a[a[remaining]] == remaining) & (first_b[b[remaining]] == remaining)
        chosen = remaining[is_first]
        yield chosen
        taken_a[a[chosen]], taken_b[b[chosen]] = True, True
        remaining = remaining[~taken_a[a[remaining]] & ~taken_b[b[remaining]]]


FILTER = Filter(
    config=TrackingConfig,
    apply=actions,
    context="camera",
    order=85,
    groups="occurrence",
    invalid=lambda _, rows: ~usable(rows),
)
