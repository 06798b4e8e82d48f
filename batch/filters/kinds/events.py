"""Group images of one camera into events, separated by gaps in time, or by the camera's own sequence numbers.

images of a camera in order of time --a gap of more than gap_s starts the next--> group of each image

Where maker notes number the images of a sequence ("3 of 10"), "1 of n" starts an event, and the others follow it.

The gap is to the previous image, not to the event's first. If every dated image of the camera has a UTC time, order
and gaps use UTC; a change of summer time then neither splits nor merges events. Otherwise the order is the camera's
clock, and a gap uses UTC if both neighbours have it. Images of unknown cameras are grouped by folder.
Frames of a video clip, and images taken between them, are in one event; frames also without a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from archive.catalogue.clips import clip_of
from batch.filters.contract import Filter, FilterAction, FilterConfig, Rows
from batch.filters.support.boxes import places
from batch.filters.support.names import group_id

US = 1_000_000
WEEK_S = 604_800.0
SEQUENCE_GAP_S = 600.0
"""Two images further apart are of two sequences, also if their numbers increase because others were deleted."""


class EventsConfig(FilterConfig):
    kind: Literal["events"] = "events"
    gap_s: float = Field(60.0, ge=0, le=WEEK_S)
    """seconds: an image starts a new event if it is more than this (strict) after the previous image"""
    max_event_s: float | None = Field(None, gt=0, le=1e9)
    """seconds: an image more than this (strict) after its event's first starts a new event; none: no limit"""
    sequences: bool = True
    """whether an image with a sequence number starts an event at '1 of n' instead of after a gap"""


def actions(config: EventsConfig, rows: Rows) -> Iterator[FilterAction]:
    """Yield `group` for each image. The reason lists doubts: "undated", "clock: before_2001",
    "clock went back 3600 s", "cut after 3600 s", joined by "; ".
    """
    if not len(rows):
        return
    images = rows.take(rows.image_starts())
    place, names = places(images)
    order = _order(images, place)
    within_clip = _within_clip(images.path[order], images.taken_local[order], place[order])
    gap = _gaps(images.taken_local[order], images.taken_utc[order])
    gap = np.where(within_clip & np.isnat(gap), np.timedelta64(0, "us"), gap)
    undated = np.isnat(images.taken_local[order])
    same_place = np.diff(place[order], prepend=-1) == 0
    back = same_place & (gap < np.timedelta64(0, "us"))
    breaks = gap > _duration(config.gap_s)
    if config.sequences:
        number, length = images.sequence_number[order], images.sequence_length[order]
        follows = (np.diff(number, prepend=0) > 0) & (np.diff(length, prepend=0) == 0)
        follows &= gap <= _duration(SEQUENCE_GAP_S)
        breaks = np.where(length > 1, ~follows, breaks)
    begins = ~same_place | (undated | back | breaks) & ~within_clip
    cut = np.zeros(len(order), bool)
    if config.max_event_s is not None:
        cut = _cuts(begins, gap, _duration(config.max_event_s))
    event = ""
    media, flags = images.media_sha256.tolist(), images.clock_flags.tolist()
    for i, image in enumerate(order.tolist()):
        digest = media[image]
        if begins[i] or cut[i]:
            event = group_id("events", *names[place[image]], digest)
        doubts = (
            "undated" if undated[i] else "",
            f"clock: {flags[image].replace(',', ', ')}" if flags[image] else "",
            f"clock went back {-gap[i] / np.timedelta64(US, 'us'):g} s" if back[i] else "",
            f"cut after {config.max_event_s:g} s" if cut[i] else "",
        )
        yield FilterAction(digest, None, "group", "; ".join(filter(None, doubts)), group_id=event)


def _order(images: Rows, place: NDArray[np.intp]) -> NDArray[np.intp]:
    """Sort by place, time (undated last), and then in row order: path, digest."""
    undated = np.isnat(images.taken_local)
    local_only = ~undated & np.isnat(images.taken_utc)
    by_utc = (np.bincount(place, weights=local_only) == 0)[place]
    time = np.where(by_utc, images.taken_utc, images.taken_local).astype(np.int64)
    return np.lexsort((time, undated, place))


def _within_clip(
    paths: NDArray[np.object_], local: NDArray[np.datetime64], place: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Return (n,) bool: images after the first frame of a clip, up to its last one. A clip has one path and start."""
    frames: dict[tuple[Any, ...], list[int]] = {}
    for i, (path, taken, where) in enumerate(zip(paths.tolist(), local.tolist(), place.tolist(), strict=True)):
        clip, at_ms = clip_of(path)
        if at_ms is not None:
            start = taken and taken - timedelta(milliseconds=at_ms)
            frames.setdefault((where, clip, start), []).append(i)
    within = np.zeros(len(paths), bool)
    for of_clip in frames.values():
        within[of_clip[0] + 1 : of_clip[-1] + 1] = True
    return within


def _gaps(local: NDArray[np.datetime64], utc: NDArray[np.datetime64]) -> NDArray[np.timedelta64]:
    """Return the time since the previous image, in UTC if both have it; NaT for the first and next to undated."""
    undated = np.array(["NaT"], "datetime64[us]")
    in_utc = np.diff(utc, prepend=undated)
    return np.where(np.isnat(in_utc), np.diff(local, prepend=undated), in_utc)


def _cuts(begins: NDArray[np.bool_], gap: NDArray[np.timedelta64], max_event: np.timedelta64) -> NDArray[np.bool_]:
    """Return the images that start a new event because the sum of gaps is more than `max_event`, (n,) bool."""
    cut = np.zeros(len(begins), bool)
    elapsed = np.cumsum(np.where(begins, 0, gap.astype(np.int64)))
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(begins))
    limit = int(max_event.astype(np.int64))
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


def _duration(seconds: float) -> np.timedelta64:
    return np.timedelta64(round(seconds * US), "us")


FILTER = Filter(config=EventsConfig, apply=actions, context="camera", order=70, version=2, groups="event")
