"""Events: images of one camera, one soon after the other.

images of a camera in order of time --a gap of more than gap_s begins the next--> group of each image

The gap is to the image before, not to the event's first. Time is UTC where every dated image of the camera has it,
for order and gap: a change to or from summer time then neither splits nor merges. Else the order is the camera's
clock, and the gap is in UTC where both neighbours have it. Images of unknown camera are those of their folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from batch.filters.contract import Filter, FilterConfig, Rows, Said
from batch.filters.group_id import group_id
from batch.filters.places import places

US = 1_000_000
WEEK_S = 604_800.0


class EventsConfig(FilterConfig):
    kind: Literal["events"] = "events"
    gap_s: float = Field(
        default=60.0,
        ge=0,
        le=WEEK_S,
        description="seconds: an image begins a new event when it is more than this (strict) after the image before",
    )
    max_event_s: float | None = Field(
        default=None,
        gt=0,
        description="seconds: an image more than this (strict) after its event's first begins a new event; "
        "none: events may go on for as long as images come",
    )


def say(config: EventsConfig, rows: Rows) -> Iterator[Said]:
    """One `group` for each image. The reason is empty, or what is doubtful: "undated", "clock: before_2001",
    "clock went back 3600 s", "cut after 3600 s", joined by "; ".
    """
    if not len(rows):
        return
    images = rows.take(np.fromiter((part.start for part in rows.images()), np.intp))
    place, names = places(images)
    order = _order(images, place)
    gap = _gaps(images.taken_local[order], images.taken_utc[order])
    undated = np.isnat(images.taken_local[order])
    same_place = np.diff(place[order], prepend=-1) == 0
    back = same_place & (gap < np.timedelta64(0, "us"))
    begins = ~same_place | undated | back | (gap > _duration(config.gap_s))
    cut = np.zeros(len(order), bool)
    if config.max_event_s is not None:
        cut = _cuts(begins, gap, _duration(config.max_event_s))
    event = ""
    media, flags = images.media_sha256.tolist(), images.clock_flags.tolist()
    for at, image in enumerate(order.tolist()):
        digest = media[image]
        if begins[at] or cut[at]:
            event = group_id("events", *names[place[image]], digest)
        doubts = (
            "undated" if undated[at] else "",
            _clock(flags[image]),
            f"clock went back {-gap[at] / np.timedelta64(US, 'us'):g} s" if back[at] else "",
            f"cut after {config.max_event_s:g} s" if cut[at] else "",
        )
        yield Said(digest, None, "group", "; ".join(filter(None, doubts)), group_id=event)


def _order(images: Rows, place: NDArray[np.intp]) -> NDArray[np.intp]:
    """By place, time (undated last), and then as the rows are: path, digest."""
    undated = np.isnat(images.taken_local)
    local_only = ~undated & np.isnat(images.taken_utc)
    by_utc = (np.bincount(place, weights=local_only) == 0)[place]
    time = np.where(by_utc, images.taken_utc, images.taken_local).astype(np.int64)
    return np.lexsort((time, undated, place))


def _gaps(local: NDArray[np.datetime64], utc: NDArray[np.datetime64]) -> NDArray[np.timedelta64]:
    """To the image before, in UTC where both have it; NaT of the first and next to the undated."""
    none = np.array(["NaT"], "datetime64[us]")
    in_utc = np.diff(utc, prepend=none)
    return np.where(np.isnat(in_utc), np.diff(local, prepend=none), in_utc)


def _cuts(
    begins: NDArray[np.bool_], gap: NDArray[np.timedelta64], longest: np.timedelta64
) -> NDArray[np.bool_]:
    """Where an event is cut because the sum of its gaps has become more than `longest`."""
    cut = np.zeros(len(begins), bool)
    elapsed = np.cumsum(np.where(begins, 0, gap.astype(np.int64)))
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(begins))
    limit = int(longest.astype(np.int64))
    long = elapsed[ends - 1] - elapsed[starts] > limit
    for start, end in zip(starts[long].tolist(), ends[long].tolist(), strict=True):
        first = start
        while True:
            within = elapsed[first:end]
            first += int(np.searchsorted(within, within[0] + limit, side="right"))
            if first == end:
                break
            cut[first] = True
    return cut


def _clock(flags: str | None) -> str:
    return f"clock: {flags.replace(',', ', ')}" if flags else ""


def _duration(seconds: float) -> np.timedelta64:
    return np.timedelta64(round(seconds * US), "us")


FILTER = Filter(config=EventsConfig, apply=say, context="camera", order=70, groups="event")
