"""Compare repeat detections with quadratic loops, at each limit: IoU, images, span, days, score, area; stable ids."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batch.filters.contract import FilterAction
from batch.filters.kinds.repeat_detections import FILTER, LEAST_IOU, RepeatsConfig, match
from tests.batch.filters.make import NOTHING, detection, image, invalid, rows
from tests.batch.filters.repeats_oracle import IMAGE, START, Row, image_rows, oracle

DAY = timedelta(days=1)


def seen(number: int, taken: datetime | None = START, **more: Any) -> Row:
    """Return a detection in image `number`, with the default box unless given."""
    plain = {"media_sha256": image(number), "path": f"north/{number:05}.jpg", "taken_local": taken}
    return detection(**(plain | more))


def branch(images: int, days: float = 5.0, **more: Any) -> list[Row]:
    """Return the same box in `images` images, spread evenly over the days, with one at each end."""
    return [seen(n, START + timedelta(days=days) * n / max(images - 1, 1), **more) for n in range(images)]


def say(*given: Row, **config: Any) -> list[FilterAction]:
    table = rows(*given)
    found = list(FILTER.apply(RepeatsConfig(**config), table))
    assert found == list(FILTER.apply(RepeatsConfig(**config), table)), "the same is said of the same"
    assert len({(one.media_sha256, one.rank) for one in found}) == len(found)
    return found


def slots(*given: Row, **config: Any) -> list[list[tuple[int, int | None]]]:
    """Return (image, rank) of the boxes of each suspicious slot."""
    found = defaultdict(list)
    for one in say(*given, **config):
        found[one.group_id].append((int(one.media_sha256, 16), one.rank))
    return sorted(sorted(slot) for slot in found.values())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(IMAGE, max_size=25),
    st.sampled_from([0.7, 0.8, 0.9]),
    st.integers(2, 4),
    st.sampled_from([0.0, 0.5, 2.0]),
    st.integers(0, 3),
    st.sampled_from([(), ("fox",)]),
)
def test_it_matches_quadratic_loops(
    images: list[Any],
    min_iou: float,
    min_images: int,
    min_span_days: float,
    min_days: int,
    exclude_labels: tuple[str, ...],
) -> None:
    given = [row for number, one in enumerate(images) for row in image_rows(number, *one)]
    config = RepeatsConfig(
        min_iou=min_iou,
        min_images=min_images,
        min_span_days=min_span_days,
        min_days=min_days,
        exclude_labels=exclude_labels,
        max_area_frac=0.03,
    )
    wanted = oracle(given, config)
    found = list(FILTER.apply(config, rows(*given)))
    assert {(one.media_sha256, one.rank) for one in found} == wanted.keys()
    firsts = defaultdict(set)
    for one in found:
        assert one.rank is not None
        firsts[one.group_id].add(wanted[one.media_sha256, one.rank])
    assert all(len(slot) == 1 for slot in firsts.values()), "a slot has one first box"
    assert len(firsts) == len(set(wanted.values())), "and a first box one slot"


def test_twenty_boxes_in_ten_images_are_not_twenty_images() -> None:
    twice = [*branch(10, rank=0), *branch(10, rank=1)]
    assert say(*twice) == []
    assert [len(one) for one in slots(*twice, min_images=10)] == [20], "both boxes belong to it"


@pytest.mark.parametrize(
    ("last", "slot"),
    [(2 * DAY, True), (2 * DAY - timedelta(microseconds=1), False)],
    ids=["two days", "a microsecond less"],
)
def test_the_span_is_inclusive(last: timedelta, slot: bool) -> None:
    given = [seen(n, START + DAY) for n in range(18)]
    given += [seen(98, START), seen(99, START + last)]
    assert bool(say(*given)) is slot


def test_a_sleeping_deer_is_not_a_branch() -> None:
    asleep = [seen(n, START + timedelta(seconds=15 * n)) for n in range(40)]
    assert say(*asleep) == []
    assert len(say(*asleep, min_span_days=0, min_days=0)) == 40


def test_undated_images_count_but_have_no_day() -> None:
    undated = [seen(1000 + n, None) for n in range(17)]
    three = [seen(n, START + n * DAY) for n in range(3)]
    assert len(say(*three, *undated)) == 20
    assert say(*three[:2], *undated, seen(2000, None)) == []
    assert say(*undated, *(seen(2000 + n, None) for n in range(20))) == []
    assert len(say(*undated, min_images=17, min_span_days=0, min_days=0)) == 17


def test_a_clock_in_doubt_gives_no_span() -> None:
    """A change of batteries resets the clock to 2000, so the images only seem years apart."""
    day = [seen(n, START) for n in range(19)]
    reset = [seen(50 + n, datetime(2000, 1, 1 + n), clock_flags="before_2001") for n in range(3)]
    assert say(*day, *reset) == []
    assert len(say(*day, *(row | {"clock_flags": ""} for row in reset))) == 22


def test_an_iou_of_exactly_the_limit_is_a_match() -> None:
    narrow, narrower = {"x2_px": 280.0}, {"x2_px": 279.0}  # of 200 px: 0.9, 0.895
    assert len(say(seen(0), *(row | narrow for row in branch(19)[1:]), *branch(20)[19:])) == 20
    found = slots(*(row | ({} if n % 2 else narrower) for n, row in enumerate(branch(40))))
    assert [len(one) for one in found] == [20, 20]


def test_another_model_with_another_box_of_that_rank_has_another_slot() -> None:
    """A person accepted the branch; the next model ranks a nest before it."""
    (accepted,) = {one.group_id for one in say(*branch(20))}
    assert {one.action for one in say(*branch(20), accepted=(accepted,))} == {"suppress"}
    nest = branch(20, x1_px=600.0, x2_px=800.0)
    found = say(*nest, *branch(20, rank=1), accepted=(accepted,))
    assert [one.action for one in found] == ["group"] * 40


def test_the_first_box_counts_and_no_average() -> None:
    """A box that moves slowly leaves the slot once it no longer overlaps the first box enough."""
    creeping = [row | {"x1_px": 100.0 + 2 * n, "x2_px": 300.0 + 2 * n} for n, row in enumerate(branch(40))]
    found = slots(*creeping, min_images=2, min_span_days=0, min_days=0)
    assert found[0] == [(n, 0) for n in range(6)], "10 px of 200: IoU 190 / 210 = 0.905; 12 px: 0.887"


@pytest.mark.parametrize(
    ("more", "config", "looked_at"),
    [
        ({"score": 0.1}, {}, True),
        ({"score": 0.0999}, {}, False),
        ({"score": 0.7}, {"max_score": 0.7}, True),
        ({"score": 0.7001}, {"max_score": 0.7}, False),
        ({"x1_px": 0.0, "x2_px": 200.0, "y1_px": 0.0, "y2_px": 1000.0}, {}, True),
        ({"x1_px": 0.0, "x2_px": 200.5, "y1_px": 0.0, "y2_px": 1000.0}, {}, False),
        ({}, {"min_area_frac": 0.04}, True),
        ({}, {"min_area_frac": 0.0401}, False),
        ({}, {"exclude_labels": ["deer"]}, False),
        ({"x1_px": 1000.0, "x2_px": 1200.0}, {}, False),
        ({"height_px": 0.0}, {}, False),
    ],
)
def test_limits_select_boxes(more: Row, config: dict[str, Any], looked_at: bool) -> None:
    assert len(say(*branch(20, **more), **config)) == (20 if looked_at else 0)


def test_unmeasurable_boxes_are_counted_and_skipped() -> None:
    given = [*branch(20), seen(99, START + 9 * DAY, x2_px=float("nan")), seen(100, None, width_px=None)]
    given += [seen(101, None, **NOTHING)]
    assert len(say(*given)) == 20
    assert invalid(FILTER, RepeatsConfig(), rows(*given)) == [False] * 20 + [True, True, False]


def test_images_of_another_size_are_compared_by_their_shares() -> None:
    size = {"width_px": 2000.0, "height_px": 500.0}
    box = {"x1_px": 200.0, "x2_px": 600.0, "y1_px": 50.0, "y2_px": 150.0}
    given = [row | (size | box if n % 2 else {}) for n, row in enumerate(branch(20))]
    assert len(say(*given)) == 20
    assert say(*(row | (size if n % 2 else {}) for n, row in enumerate(branch(20)))) == []


def test_nothing_is_hidden_unless_it_is_accepted() -> None:
    other = branch(20, rank=1, x1_px=600.0, x2_px=800.0)
    found = say(*branch(20), *other)
    assert {one.action for one in found} == {"group"}
    first, second = sorted({str(one.group_id) for one in found})
    hidden = say(*branch(20), *other, accepted=[second])
    assert {(one.group_id, one.action) for one in hidden} == {(first, "group"), (second, "suppress")}
    automatic = say(*branch(20), *other, auto=True)
    assert {(one.group_id, one.action) for one in automatic} == {(first, "suppress"), (second, "suppress")}
    assert say(*branch(19), accepted=[first]) == [], "what is no slot is not hidden by its id"


def test_ids_and_reasons_stay_when_images_are_added() -> None:
    """Otherwise each new card would invalidate the review and repeat all assertions."""
    before = say(*branch(20))
    later = [seen(500 + n, START + timedelta(days=30 + n)) for n in range(5)]
    undated = [seen(600 + n, None) for n in range(5)]
    elsewhere = [row | {"camera_id": "a", "media_sha256": image(900 + n)} for n, row in enumerate(branch(30))]
    after = {(one.media_sha256, one.rank): one for one in say(*branch(20), *later, *undated)}
    assert len(after) == 30
    assert all(after[one.media_sha256, one.rank] == one for one in before)
    ids = {one.group_id for one in say(*elsewhere, *branch(20))}
    assert len(ids) == 2
    assert {one.group_id for one in before} < ids


def test_the_reason_has_the_limits() -> None:
    given = [row | {"x2_px": 285.0} for row in branch(20)]
    given[0] |= {"x2_px": 300.0}
    reasons = {one.media_sha256: one.reason for one in say(*given)}
    rule = "with the first box, in >= 20 images over >= 2 days, >= 3 of them with images"
    assert reasons[image(7)] == f"IoU 0.93 >= 0.9 {rule}"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"min_score": 0.5, "max_score": 0.4}, "min_score 0.5 is above max_score 0.4"),
        ({"min_area_frac": 0.5}, "min_area_frac 0.5 is above max_area_frac 0.2"),
        ({"accepted": ["nonsense"]}, "accepted.0"),
    ],
)
def test_an_invalid_config_is_rejected(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RepeatsConfig(**config)


def test_the_order_of_lists_makes_no_other_config() -> None:
    one, other = "a" * 32, "b" * 32
    a = RepeatsConfig(accepted=(other, one, one), exclude_labels=("fox", "deer"))
    assert a == RepeatsConfig(accepted=(one, other), exclude_labels=("deer", "fox", "fox"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(0, 60)] * 2, *[st.floats(0.01, 300)] * 2, st.integers(0, 1)), max_size=40),
    st.floats(LEAST_IOU, 1),
)
def test_the_grid_matches_a_search_over_all_exemplars(
    given: list[tuple[float, float, float, float, int]], min_iou: float
) -> None:
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in given]).reshape(-1, 4)
    # similar boxes, which are rare in random data
    boxes = np.concatenate((boxes, boxes * 1.01, boxes + 0.2, boxes + np.array([0, 0, 0.5, 0])))
    labels = np.resize(np.array([one[4] for one in given] or [0]), len(boxes))
    exemplars: list[int] = []
    wanted = []
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        best, best_iou = i, 0.0
        for j in exemplars:
            a1, b1, a2, b2 = boxes[j].tolist()
            wide, high = min(x2, a2) - max(x1, a1), min(y2, b2) - max(y1, b1)
            shared = max(wide, 0) * max(high, 0)
            iou = shared / ((a2 - a1) * (b2 - b1) + (x2 - x1) * (y2 - y1) - shared)
            if labels[i] == labels[j] and iou >= min_iou and iou > best_iou:
                best, best_iou = j, iou
        exemplars += [i] if best == i else []
        wanted.append((best, best_iou if best != i else 1.0))
    found, overlap = match(boxes, labels, min_iou)
    assert list(zip(found.tolist(), overlap.tolist(), strict=True)) == wanted


@pytest.mark.parametrize("min_iou", [LEAST_IOU, 0.9, 0.99, 1.0])
def test_the_grid_finds_boxes_that_barely_match(min_iou: float) -> None:
    """The box is longer or shorter than the exemplar, at either end, or shifted: the extreme matches."""
    by_lot = np.random.default_rng(1)
    change = min(1.0, min_iou + 1e-7)
    for _ in range(500):
        x, y = by_lot.uniform(0, 2000, 2)
        width, height = np.exp(by_lot.uniform(0, 6, 2))
        longer, shift = width / change, width * (1 - change) / (1 + change)
        for low, high in (
            (x, x + longer),
            (x + width - longer, x + width),
            (x, x + width * change),
            (x + width * (1 - change), x + width),
            (x + shift, x + width + shift),
            (x - shift, x + width - shift),
        ):
            box = np.array([[x, y, x + width, y + height], [low, y, high, y + height]])
            for pair in (box, box[:, [1, 0, 3, 2]]):
                if min_iou == 1:
                    pair[1] = pair[0]
                found, _ = match(pair, np.zeros(2, np.intp), min_iou)
                assert found.tolist() == [0, 0], pair
