"""Compare fixed slots with loops over lists: a shaken bee hotel, missing holes, changing labels, dropped places."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batch.filters.contract import FilterAction
from batch.filters.kinds.fixed_slots import FILTER, SlotsConfig
from tests.batch.filters.make import NOTHING, detection, image, invalid, rows

START = datetime(2026, 5, 1, 12, 0, 0)
HOLES = [(100.0 + 100 * (n % 4), 100.0 + 100 * (n // 4)) for n in range(8)]
"""Corners of 40 px holes, 100 px apart."""
Row = dict[str, Any]


def hole(frame: int, rank: int, x: float, y: float, **more: Any) -> Row:
    """Return a box of 40 by 40 px; there is one frame an hour."""
    plain = {
        "media_sha256": image(frame),
        "path": f"hotel/{frame:05}.jpg",
        "camera_id": "hotel",
        "taken_local": START + timedelta(hours=frame),
        "label": "hole",
        "rank": rank,
        "x1_px": x,
        "y1_px": y,
        "x2_px": x + 40,
        "y2_px": y + 40,
    }
    return detection(**(plain | more))


def nothing(frame: int) -> Row:
    return hole(frame, 0, 0, 0) | NOTHING


def hotel(frame: int, dx: float = 0, dy: float = 0, without: tuple[int, ...] = ()) -> list[Row]:
    """Return its holes, in reverse rank in odd frames, as ranks vary with scores."""
    there = [(x + dx, y + dy) for n, (x, y) in enumerate(HOLES) if n not in without]
    ordered = there if frame % 2 == 0 else there[::-1]
    return [hole(frame, rank, x, y) for rank, (x, y) in enumerate(ordered)]


def say(*given: Row, **config: Any) -> list[FilterAction]:
    table = rows(*given)
    found = list(FILTER.apply(SlotsConfig(**config), table))
    assert found == list(FILTER.apply(SlotsConfig(**config), table)), "the same is said of the same"
    assert all(one.action == "group" and one.group_id for one in found)
    assert len({(one.media_sha256, one.rank) for one in found}) == len(found)
    return found


def slots(*given: Row, **config: Any) -> list[list[tuple[int, int | None]]]:
    """Return (frame, rank) of the boxes of each slot."""
    found = defaultdict(list)
    for one in say(*given, **config):
        found[one.group_id].append((int(one.media_sha256, 16), one.rank))
    return sorted(sorted(slot) for slot in found.values())


# The oracle: lists and loops


@dataclass
class Place:
    box: tuple[float, float, float, float]
    label: str | None
    members: list[tuple[str, int]]
    last: int


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    area, other = ((one[2] - one[0]) * (one[3] - one[1]) for one in (a, b))
    return shared / (area + other - shared)


def back(box: tuple[float, ...], shift: tuple[float, float]) -> tuple[float, float, float, float]:
    return (box[0] - shift[0], box[1] - shift[1], box[2] - shift[0], box[3] - shift[1])


def pairs(
    boxes: list[tuple[str | None, tuple[float, ...]]], places: list[Place], least: float, k: int
) -> list[tuple[int, int]]:
    """Pair boxes and places by repeatedly taking the best remaining pair."""
    found: list[tuple[int, int]] = []
    while True:
        best: tuple[Any, ...] | None = None
        for i, (label, box) in enumerate(boxes):
            for j, place in enumerate(places):
                if label != place.label or i in [a for a, _ in found] or j in [b for _, b in found]:
                    continue
                iou = overlap(box, place.box)
                if iou >= least:
                    key = (len(place.members) < k, -iou, j, i)
                    best = min(best, key) if best else key
        if best is None:
            return found
        found.append((best[3], best[2]))


def oracle(frames: list[list[Row]], config: SlotsConfig) -> dict[tuple[str, int], tuple[str, int]]:
    """Map (image, rank) of each box in a slot to that of the slot's first box."""
    places: list[Place] = []
    every: list[Place] = []
    shift, k = (0.0, 0.0), config.min_sightings
    for now, frame in enumerate(frames):
        places = [one for one in places if len(one.members) >= k or now - one.last - 1 <= config.forget_after_images]
        used = [row for row in frame if row["rank"] is not None and row["score"] >= config.min_score]
        boxes: list[tuple[str | None, tuple[float, ...]]] = [
            (row["label"] if config.by_label else None, (row["x1_px"], row["y1_px"], row["x2_px"], row["y2_px"]))
            for row in used
        ]
        coarse = pairs([(label, back(box, shift)) for label, box in boxes], places, config.shift_iou, k)
        if len(coarse) >= config.min_shift_pairs:
            moved = []
            for axis in (0, 1):
                moved.append(
                    statistics.median(
                        (back(boxes[i][1], shift)[axis] + back(boxes[i][1], shift)[axis + 2]) / 2
                        - (places[j].box[axis] + places[j].box[axis + 2]) / 2
                        for i, j in coarse
                    )
                )
            shift = (shift[0] + moved[0], shift[1] + moved[1])
        straight = [(label, back(box, shift)) for label, box in boxes]
        fine = dict(pairs(straight, places, config.min_iou, k))
        for i, row in enumerate(used):
            target = (row["media_sha256"], row["rank"])
            if i in fine:
                places[fine[i]].members.append(target)
                places[fine[i]].last = now
            else:
                places.append(Place(back(straight[i][1], (0.0, 0.0)), straight[i][0], [target], now))
                every.append(places[-1])
    return {target: place.members[0] for place in every if len(place.members) >= k for target in place.members}


BOX = st.tuples(
    st.sampled_from(HOLES[:5]),
    *[st.integers(-8, 8)] * 2,
    st.sampled_from(["hole", "hole", "sealed"]),
    st.sampled_from([0.0625, 0.125, 0.5]),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-12, 12), st.integers(-12, 12), st.lists(BOX, max_size=6)), max_size=14),
    st.sampled_from([(0.5, 0.2), (0.25, 0.25), (0.8, 0.5)]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 5),
    st.booleans(),
)
def test_it_matches_loops_over_lists(
    shaken: list[Any],
    ious: tuple[float, float],
    min_sightings: int,
    min_shift_pairs: int,
    forget_after_images: int,
    by_label: bool,
) -> None:
    frames: list[list[Row]] = []
    for now, (dx, dy, boxes) in enumerate(shaken):
        frame = [
            hole(now, rank, x + mx + dx, y + my + dy, label=label, score=score)
            for rank, ((x, y), mx, my, label, score) in enumerate(boxes)
        ]
        frames.append(frame or [nothing(now)])
    config = SlotsConfig(
        min_iou=ious[0],
        shift_iou=ious[1],
        min_sightings=min_sightings,
        min_shift_pairs=min_shift_pairs,
        forget_after_images=forget_after_images,
        by_label=by_label,
    )
    wanted = oracle(frames, config)
    found = list(FILTER.apply(config, rows(*(row for frame in frames for row in frame))))
    assert {(one.media_sha256, one.rank) for one in found} == wanted.keys()
    firsts = defaultdict(set)
    for one in found:
        assert one.rank is not None
        firsts[one.group_id].add(wanted[one.media_sha256, one.rank])
    assert all(len(slot) == 1 for slot in firsts.values())
    assert len(firsts) == len(set(wanted.values()))


# By example


def where(slot: list[tuple[int, int | None]], given: list[Row]) -> set[tuple[float, float]]:
    corners = {(int(row["media_sha256"], 16), row["rank"]): (row["x1_px"], row["y1_px"]) for row in given}
    return {corners[member] for member in slot}


def test_a_hole_is_one_slot_whatever_its_rank() -> None:
    given = [row for frame in range(10) for row in hotel(frame)]
    found = slots(*given)
    assert [len(slot) for slot in found] == [10] * 8
    assert sorted(where(slot, given) for slot in found) == sorted({hole} for hole in HOLES)


def test_a_hole_that_is_missing_is_the_same_slot_when_it_comes_back() -> None:
    """A numbering by rank would be off by one after a missing hole."""
    given = [row for frame in range(4) for row in hotel(frame)]
    given += [row for frame in range(4, 400) for row in hotel(frame, without=(2,))]
    given += [row for frame in range(400, 402) for row in hotel(frame)]
    found = slots(*given)
    assert sorted(len(slot) for slot in found) == [6] + [402] * 7
    assert all(len(where(slot, given)) == 1 for slot in found)


def test_a_camera_that_is_pushed_moves_all_holes_and_no_slot() -> None:
    """A shift of 23 of 40 px: IoU 0.27 with the hole's old position."""
    given = [row for frame in range(5) for row in hotel(frame)]
    given += [row for frame in range(5, 10) for row in hotel(frame, dx=23)]
    given += [row for frame in range(10, 15) for row in hotel(frame, dx=46, dy=-5)]
    assert [len(slot) for slot in slots(*given)] == [15] * 8
    assert len(slots(*given, min_shift_pairs=99)) == 24, "each push is another hotel without it"
    reasons = {(one.media_sha256, one.rank): one.reason for one in say(*given)}
    assert reasons[image(0), 0] == "sighting 1"
    assert reasons[image(4), 0] == "sighting 5, IoU 1 >= 0.5"
    assert reasons[image(14), 7] == "sighting 15, IoU 1 >= 0.5, shift 46.0, -5.0 px"


def test_one_bee_does_not_move_the_camera() -> None:
    """The median of 8 holes and 2 bees is a hole's shift."""
    given = [row for frame in range(6) for row in hotel(frame)]
    given += [hole(frame, 8 + n, 500 + 20 * frame, 500 + 90 * n) for frame in range(6) for n in range(2)]
    assert [len(slot) for slot in slots(*given, min_iou=0.9)] == [6] * 8


@pytest.mark.parametrize(("moved", "same"), [(20.0, True), (20.5, False)])
def test_an_iou_of_exactly_the_limit_is_a_match(moved: float, same: bool) -> None:
    """Boxes of 60 by 40 px, 20 px apart: 40 / 80."""
    given = [hole(n, 0, 100, 100, x2_px=160.0) for n in range(3)]
    given += [hole(3, 0, 100 + moved, 100, x2_px=160.0 + moved)]
    assert [len(slot) for slot in slots(*given)] == [4 if same else 3]


@pytest.mark.parametrize(
    ("more", "config", "used"),
    [
        ({"score": 0.1}, {}, True),
        ({"score": 0.0999}, {}, False),
        ({"score": 0.7}, {"min_score": 0.7}, True),
        ({}, {"exclude_labels": ["hole"]}, False),
        ({"x1_px": 1000.0, "x2_px": 1040.0}, {}, False),
    ],
)
def test_minimum_score_and_excluded_labels(more: Row, config: dict[str, Any], used: bool) -> None:
    assert len(say(*(hole(n, 0, 100, 100, **more) for n in range(3)), **config)) == (3 if used else 0)


def test_unmeasurable_boxes_are_counted_and_skipped() -> None:
    given = [hole(n, 0, 100, 100) for n in range(3)]
    given += [hole(3, 0, 100, 100, y1_px=math.nan), nothing(4)]
    assert len(say(*given)) == 3
    assert invalid(FILTER, SlotsConfig(), rows(*given)) == [False] * 3 + [True, False]


def test_cameras_and_folders_are_apart() -> None:
    given = [hole(n, 0, 100, 100, camera_id=f"hotel {n % 2}") for n in range(4)]
    assert say(*given) == []
    folders = [hole(n, 0, 100, 100, camera_id=None, path=f"{'ab'[n % 2]}/{n}.jpg") for n in range(6)]
    assert slots(*folders) == [[(0, 0), (2, 0), (4, 0)], [(1, 0), (3, 0), (5, 0)]]


def test_images_of_another_size_are_compared_by_their_shares() -> None:
    size = {"width_px": 500.0, "height_px": 500.0, "x2_px": 70.0, "y2_px": 70.0}
    given = [hole(n, 0, 100, 100) if n % 2 else hole(n, 0, 50, 50, **size) for n in range(4)]
    assert [len(slot) for slot in slots(*given)] == [4]


def test_undated_images_come_last() -> None:
    dated = [hole(n, 0, 100, 100) for n in range(3)]
    undated = [hole(50 + n, 0, 100, 100, taken_local=None) for n in range(2)]
    before = {one.group_id for one in say(*dated)}
    after = say(*undated, *dated)
    assert {one.group_id for one in after} == before
    assert [one.reason.partition(",")[0] for one in after] == [f"sighting {n}" for n in range(1, 6)]


def test_actions_stay_when_images_are_added() -> None:
    first = [row for frame in range(10) for row in hotel(frame, dx=frame % 3)]
    more = [row for frame in range(10, 20) for row in hotel(frame, dx=9)]
    before = say(*first)
    after = {(one.media_sha256, one.rank): one for one in say(*first, *more)}
    assert len(before) == 80
    assert all(after[one.media_sha256, one.rank] == one for one in before)


@pytest.mark.parametrize(
    ("config", "words"), [({"shift_iou": 0.6}, "shift_iou 0.6 is above min_iou 0.5"), ({"min_iou": 0.0}, "min_iou")]
)
def test_an_invalid_config_is_rejected(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SlotsConfig(**config)
