"""Compare tracking with a greedy pass over sorted lists: at the exact cost, with ties, and at the ends of events."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batch.filters.contract import FilterAction
from batch.filters.kinds import tracking
from batch.filters.kinds.tracking import FILTER, TrackingConfig
from tests.batch.filters.make import NOTHING, detection, image, invalid, rows

START = datetime(2024, 10, 27, 2, 0, 0)
SIDE = {"width_px": 400.0, "height_px": 300.0}
"""Size of an image with a diagonal of 500 px."""


def box(frame: int, rank: int, x: float, y: float = 0, side: float = 100, **more: Any) -> Any:
    """Return a square box; there is one frame a second."""
    given = {
        "media_sha256": image(frame),
        "path": f"north/{frame:04}.jpg",
        "taken_local": START + timedelta(seconds=frame),
        "event_id": "e",
        "rank": rank,
        "x1_px": x,
        "y1_px": y,
        "x2_px": x + side,
        "y2_px": y + side,
    }
    return detection(**(SIDE | given | more))


def nothing(frame: int) -> Any:
    return box(frame, 0, 0) | NOTHING


def said(*given: dict[str, Any], **config: Any) -> list[FilterAction]:
    found = list(FILTER.apply(TrackingConfig(**config), rows(*given)))
    assert all(one.action == "group" and one.group_id for one in found)
    assert len({(one.media_sha256, one.rank) for one in found}) == len(found)
    return found


def tracks(*given: dict[str, Any], **config: Any) -> list[list[tuple[int, int | None]]]:
    """Return (frame, rank) of the members of each occurrence."""
    found = defaultdict(list)
    for one in said(*given, **config):
        found[one.group_id].append((int(one.media_sha256, 16), one.rank))
    return sorted(sorted(track) for track in found.values())


def test_the_cost_is_of_overlap_size_and_distance() -> None:
    """Boxes 50 px apart share a third of the union, at a tenth of the diagonal; one has twice the area."""
    moved = said(box(0, 0, 0), box(1, 0, 50))
    assert moved[1].reason.startswith(f"cost {2 / 3 + 0.1:.3f} ")
    grown = said(box(0, 0, 0), box(1, 0, 0, x2_px=200.0))
    assert grown[1].reason.startswith(f"cost {1 / 2 + 1 / 2 + 0.1:.3f} ")


def test_a_cost_of_exactly_the_maximum_links_nothing() -> None:
    """Boxes of one size, without overlap, a quarter of the diagonal apart cost 1.25."""
    apart = box(0, 0, 0), box(1, 0, 125)
    assert tracks(*apart, max_cost=1.25) == [[(0, 0)], [(1, 0)]]
    assert tracks(*apart, max_cost=math.nextafter(1.25, 2)) == [[(0, 0), (1, 0)]]


def test_the_diagonal_is_of_the_earlier_frame_and_rounded_up() -> None:
    wide = {"width_px": 400.5, "height_px": 300.0}
    for earlier, later, diagonal in ((wide, SIDE, 501), (SIDE, wide, 500)):
        found = said(box(0, 0, 0, **earlier), box(1, 0, 50, **later))
        assert found[1].reason.startswith(f"cost {2 / 3 + 50 / diagonal:.3f} ")


def test_corners_counted_as_pixels() -> None:
    found = said(box(0, 0, 0, side=9), box(1, 0, 5, side=9), plus_one=True)
    assert found[1].reason.startswith(f"cost {1 - 50 / 150 + 5 / 500:.3f} ")


def test_a_frame_without_detections_ends_the_track() -> None:
    assert tracks(box(0, 0, 0), nothing(1), box(2, 0, 0)) == [[(0, 0)], [(2, 0)]]
    assert tracks(box(0, 0, 0), box(1, 0, 0, score=0.1), box(2, 0, 0)) == [[(0, 0)], [(2, 0)]]
    assert tracks(box(0, 0, 0), box(2, 0, 0)) == [[(0, 0), (2, 0)]]


def test_events_of_folders_may_be_between_one_another() -> None:
    def one(frame: int, event: str) -> Any:
        return box(frame, 0, 0, camera_id=None, event_id=event)

    given = [one(0, "x"), one(1, "y"), one(2, "x"), one(3, "y")]
    assert tracks(*given) == [[(0, 0), (2, 0)], [(1, 0), (3, 0)]]


def test_frames_are_in_order_of_utc_where_all_have_it() -> None:
    """The clock goes back an hour between the second and third image; by the clock, the third would come first."""
    utc = [START + timedelta(seconds=frame) for frame in range(3)]
    local = [utc[0], utc[1], utc[2] - timedelta(hours=1)]
    given = [box(frame, 0, 100 * frame, taken_utc=utc[frame], taken_local=local[frame]) for frame in range(3)]
    assert tracks(*given) == [[(0, 0), (1, 0), (2, 0)]]
    without = [row | {"taken_utc": None} for row in given]
    assert tracks(*without) == [[(0, 0), (1, 0)], [(2, 0)]]


def test_a_score_at_the_minimum_is_in_and_below_it_is_not() -> None:
    assert tracks(box(0, 0, 0, score=0.15)) == [[(0, 0)]]
    assert tracks(box(0, 0, 0, score=0.149)) == []


def test_unmeasurable_boxes_are_counted_without_action() -> None:
    unknown = {"width_px": None, "height_px": None}
    given = [box(0, 0, 0), box(1, 0, 0, **unknown), box(1, 1, 0, side=0), box(1, 2, 0, x1_px=math.nan), box(2, 0, 0)]
    assert tracks(*given) == [[(0, 0)], [(2, 0)]]
    assert invalid(FILTER, TrackingConfig(), rows(*given, nothing(3))) == [False, True, True, True, False, False]


def test_ids_stay_when_later_frames_are_added() -> None:
    old = [box(0, 0, 0), box(1, 0, 10), box(1, 1, 200)]
    new = [box(2, 0, 20), box(2, 1, 210)]
    before = {(one.media_sha256, one.rank): one for one in said(*old)}
    after = {(one.media_sha256, one.rank): one for one in said(*old, *new)}
    assert all(after[key] == one for key, one in before.items())
    assert len({one.group_id for one in after.values()}) == 2


@pytest.mark.parametrize("wrong", [{"max_cost": 0}, {"min_score": -1}, {"cosine": True}])
def test_an_invalid_config_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TrackingConfig(**wrong)


@st.composite
def boxes(draw: st.DrawFn) -> list[dict[str, Any]]:
    event_of = draw(st.lists(st.sampled_from(["e", "e", "f", None]), min_size=6, max_size=6))
    spots = st.tuples(
        st.sampled_from([0, 10, 20, 60]),
        st.sampled_from([0, 15]),
        st.sampled_from([20, 30, 0]),
        st.sampled_from(["deer", "deer", "fox"]),
        st.sampled_from([0.1, 0.5]),
        st.sampled_from([False, False, False, True]),
    )
    keys = st.tuples(st.integers(0, 5), st.integers(0, 4))
    found = draw(st.dictionaries(keys, spots, max_size=20))
    empty = [nothing(frame) for frame in range(6) if all(key[0] != frame for key in found)]
    made = [
        box(frame, rank, x, y, side, label=label, score=score, human=human)
        for (frame, rank), (x, y, side, label, score, human) in found.items()
    ]
    return [row | {"event_id": event_of[int(row["media_sha256"], 16)]} for row in empty + made]


def cost_of(a: dict[str, Any], b: dict[str, Any], plus: int) -> float:
    def area(x1: float, y1: float, x2: float, y2: float) -> float:
        return max(x2 - x1 + plus, 0) * max(y2 - y1 + plus, 0)

    one, two = ([row[name] for name in ("x1_px", "y1_px", "x2_px", "y2_px")] for row in (a, b))
    common = area(max(one[0], two[0]), max(one[1], two[1]), min(one[2], two[2]), min(one[3], two[3]))
    small, large = sorted((area(*one), area(*two)))
    iou, ratio = common / (small + large - common), small / large
    dx = (one[0] + one[2]) / 2 - (two[0] + two[2]) / 2
    dy = (one[1] + one[3]) / 2 - (two[1] + two[3]) / 2
    return (1 - iou) + (1 - ratio) + math.sqrt(dx * dx + dy * dy) / 500


def walked(given: list[dict[str, Any]], max_cost: float, same: bool, plus: int) -> Any:
    track_of, members = {}, defaultdict(list)
    for event in "ef":
        frames = sorted({r["media_sha256"] for r in given if r["event_id"] == event})
        before: list[dict[str, Any]] = []
        for frame in frames:
            now = [
                row
                for row in given
                if row["media_sha256"] == frame
                and row["rank"] is not None
                and row["score"] >= 0.15
                and not row["human"]
                and row["x1_px"] < row["x2_px"]
            ]
            pairs = sorted(
                (cost_of(a, b, plus), a["rank"], b["rank"])
                for a in before
                for b in now
                if not same or a["label"] == b["label"]
            )
            old, new = {row["rank"]: row for row in before}, {row["rank"]: row for row in now}
            for cost, a, b in pairs:
                if cost < max_cost and a in old and b in new:
                    track_of[frame, b] = track_of[old.pop(a)["media_sha256"], a]
                    del new[b]
            for rank in new:
                track_of[frame, rank] = (frame, rank)
            before = now
    for (frame, rank), track in track_of.items():
        members[track].append((int(frame, 16), rank))
    return sorted(sorted(track) for track in members.values())


@settings(deadline=None, max_examples=60)
@given(boxes(), st.sampled_from([0.3, 1.0, 1.25, 3.0]), st.booleans(), st.booleans())
def test_it_matches_a_greedy_pass(given: list[dict[str, Any]], max_cost: float, same: bool, plus: bool) -> None:
    options: dict[str, Any] = {"max_cost": max_cost, "same_label": same, "plus_one": plus}
    assert tracks(*given, **options) == walked(given, max_cost, same, int(plus))
    assert said(*given, **options) == said(*given[::-1], **options)


def test_many_batches_match_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [box(frame, rank, 30 * rank) for frame in range(12) for rank in range(frame % 5)]
    at_once = said(*given)
    sizes, cost = [], tracking._cost
    monkeypatch.setattr(tracking, "PAIRS_AT_ONCE", 7)
    monkeypatch.setattr(tracking, "_cost", lambda rows, a, *more: sizes.append(len(a)) or cost(rows, a, *more))
    assert said(*given) == at_once
    assert max(sizes) == 7, "the 12 pairs of two frames are split too"
