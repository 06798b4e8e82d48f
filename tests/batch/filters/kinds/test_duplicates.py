"""Compare duplicates with loops over fractions, at the exact thresholds, and over chains of boxes."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from fractions import Fraction
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batch.filters.contract import FilterAction, Rows
from batch.filters.kinds.duplicates import FILTER, DuplicatesConfig
from tests.batch.filters.make import NOTHING, detection, image, invalid, rows

SIDES = ("x1_px", "y1_px", "x2_px", "y2_px")


def boxed(number: int, rank: int, box: tuple[float, ...], **more: Any) -> dict[str, Any]:
    path = f"north/{number:04}.jpg"
    sides = dict(zip(SIDES, box, strict=True))
    return detection(media_sha256=image(number), path=path, rank=rank, **sides, **more)


def said(table: Rows, **config: Any) -> dict[tuple[str, int], str]:
    """Return the reasons by digest and rank."""
    found: list[FilterAction] = list(FILTER.apply(DuplicatesConfig(**config), table))
    assert all(one.action == "suppress" and one.rank is not None for one in found)
    out = {(one.media_sha256, one.rank or 0): one.reason for one in found}
    assert len(out) == len(found)
    return out


def ranks(*boxes: tuple[float, ...], **config: Any) -> list[int]:
    """Return the ranks of suppressed boxes of one image."""
    table = rows(*(boxed(1, rank, box) for rank, box in enumerate(boxes)))
    return sorted(rank for _, rank in said(table, **config))


def slow(detections: list[dict[str, Any]], config: dict[str, Any]) -> dict[tuple[str, int], int]:
    """Map each suppressed rank to the kept rank, for boxes of whole px."""
    images: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in detections:
        if row["rank"] is not None and is_box(row):
            images[row["media_sha256"]].append(row)
    out: dict[tuple[str, int], int] = {}
    for digest, found in images.items():
        kept: list[dict[str, Any]] = []
        for row in sorted(found, key=lambda row: row["rank"]):
            rivals = [better for better in kept if clash(better, row, config)]
            if rivals:
                out[digest, row["rank"]] = rivals[0]["rank"]
            else:
                kept.append(row)
    return out


def is_box(row: dict[str, Any]) -> bool:
    x1, y1, x2, y2 = (row[side] for side in SIDES)
    return all(-inf < side < inf for side in (x1, y1, x2, y2)) and x1 < x2 and y1 < y2


def clash(a: dict[str, Any], b: dict[str, Any], config: dict[str, Any]) -> bool:
    if config["class_aware"] and a["label"] != b["label"]:
        return False
    shared, area_a, area_b = (Fraction(n) for n in areas(a, b))
    iou = shared / (area_a + area_b - shared)
    within = shared / min(area_a, area_b)
    limit = config["containment"]
    return iou > exactly(config["iou"]) or (limit is not None and within > exactly(limit))


def areas(a: dict[str, Any], b: dict[str, Any]) -> tuple[int, int, int]:
    def pixels(row: dict[str, Any]) -> set[tuple[int, int]]:
        x1, y1, x2, y2 = (int(row[side]) for side in SIDES)
        return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}

    return len(pixels(a) & pixels(b)), len(pixels(a)), len(pixels(b))


def exactly(value: float) -> Fraction:
    return Fraction(Decimal(repr(value)))


side = st.integers(0, 6).map(float)
box = st.tuples(side, side, side, side)
wide_box = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), side, side, st.just(4.0), st.sampled_from([3.0, 4.0]))
any_box = st.one_of(wide_box, wide_box, box, st.tuples(side, side, st.sampled_from([nan, inf]), side))
of_image = st.lists(st.tuples(any_box, st.sampled_from(["deer", "fox"]), st.booleans()), max_size=8)
configs = st.fixed_dictionaries(
    {
        "iou": st.sampled_from([0.0, 0.2, 0.25, 0.5, 0.6, 0.9, 1.0]),
        "containment": st.sampled_from([None, 0.5, 0.75, 0.9]),
        "class_aware": st.booleans(),
    }
)


def table_of(images: list[list[Any]]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for number, found in enumerate(images):
        if not found:
            path = f"north/{number:04}.jpg"
            out.append(detection(**(NOTHING | {"media_sha256": image(number), "path": path})))
        for place, (sides, label, human) in enumerate(found):
            out.append(boxed(number, place * 3, sides, label=label, human=human))
    return out


@settings(deadline=None, max_examples=60)
@given(images=st.lists(of_image, max_size=4), config=configs)
def test_it_matches_loops_over_fractions(images: list[list[Any]], config: dict[str, Any]) -> None:
    detections = table_of(images)
    found = said(rows(*detections), **config)
    wanted = slow(detections, config)
    assert found.keys() == wanted.keys()
    for target, rank in wanted.items():
        assert f" with rank {rank}" in found[target]


def test_many_boxes_an_image_are_as_few() -> None:
    dice = np.random.default_rng(1)
    corner = dice.integers(0, 30, (3, 120, 2))
    size = dice.integers(4, 9, (3, 120, 2))
    detections = [
        boxed(number, rank, tuple(map(float, (*low, *(low + more)))))
        for number in range(3)
        for rank, (low, more) in enumerate(zip(corner[number], size[number], strict=True))
    ]
    config = {"iou": 0.3, "containment": 0.8, "class_aware": True}
    wanted = slow(detections, config)
    assert said(rows(*detections), **config).keys() == wanted.keys()
    assert 50 < len(wanted) < 350


@pytest.mark.parametrize("iou", [0.5, 0.49999999999999994])
def test_a_duplicate_has_more_than_the_threshold(iou: float) -> None:
    half = ((0.0, 0.0, 3.0, 1.0), (1.0, 0.0, 4.0, 1.0))
    assert ranks(*half, iou=iou) == ([] if iou == 0.5 else [1])


def test_lengths_have_no_pixel_more() -> None:
    assert ranks((0.0, 0.0, 2.0, 1.0), (1.0, 0.0, 3.0, 1.0), iou=0.34) == []
    assert ranks((0.0, 0.0, 1.0, 1.0), (1.0, 0.0, 2.0, 1.0), iou=0.0) == []


def test_containment_makes_a_box_within_a_box_a_duplicate() -> None:
    nested = ((0.0, 0.0, 100.0, 100.0), (10.0, 10.0, 20.0, 20.0))
    assert ranks(*nested) == []
    assert ranks(*nested, containment=0.9) == [1]
    assert ranks(nested[1], nested[0], containment=0.9) == [1]
    assert ranks(*nested, containment=1.0) == []


def test_reasons_have_the_overlap_and_the_kept_rank() -> None:
    one, two = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 8.0)
    deer = [boxed(1, 0, one), boxed(1, 4, two)]
    fox = [boxed(1, 0, one), boxed(1, 4, two, label="fox")]
    within = [boxed(1, 0, one), boxed(1, 4, (0.0, 0.0, 2.0, 2.0))]
    at = image(1), 4
    assert said(rows(*deer)) == {at: "iou 0.8 > 0.5 with rank 0"}
    assert said(rows(*fox)) == {}
    assert said(rows(*fox), class_aware=False) == {at: "iou 0.8 > 0.5 with rank 0; alternative: deer"}
    assert said(rows(*within), containment=0.9) == {at: "containment 1 > 0.9 with rank 0"}
    assert said(rows(*deer), iou=0.7999999) == {at: "iou 0.8 > 0.7999999 with rank 0"}


def test_all_but_the_best_of_a_heap_go() -> None:
    assert ranks(*[(0.0, 0.0, 5.0, 5.0)] * 300) == list(range(1, 300))


def test_unmeasurable_boxes_are_counted_and_skipped() -> None:
    table = rows(
        boxed(1, 0, (5.0, 5.0, 5.0, 9.0)),
        boxed(1, 1, (0.0, 0.0, 5.0, 5.0)),
        boxed(1, 2, (nan, 0.0, 5.0, 5.0)),
        boxed(1, 3, (0.0, 0.0, 5.0, 5.0)),
        boxed(1, 4, (5.0, 0.0, 0.0, 5.0)),
        detection(**(NOTHING | {"media_sha256": image(2), "path": "north/0002.jpg"})),
    )
    assert invalid(FILTER, DuplicatesConfig(), table) == [True, False, True, False, True, False]
    assert sorted(rank for _, rank in said(table)) == [3]


@pytest.mark.parametrize("wrong", [{"iou": 1.1}, {"iou": nan}, {"containment": -0.1}, {"nms": 0.5}])
def test_wrong_fields_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DuplicatesConfig(**wrong)
