"""The negative controls do the product's work, and a verdict says NO where one is no worse than the product."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from archive.delta.tables import Tables
from benchmarks import catalogue, catalogue_by_hand, filters, planning, synthetic, unguarded_decoder
from benchmarks.pairwise_nms import iou_of, pairwise_nms
from model_store.config import Nms
from model_store.detections import Detections
from model_store.transform.nms import suppress

A, B, FAR = (0, 0, 10, 10), (0, 0, 10, 5), (50, 50, 60, 60)
BIG_MIB = 4096
PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "moose.jpg"


@pytest.mark.parametrize(
    ("a", "b", "iou"), [(A, A, 1.0), (A, B, 0.5), (A, FAR, 0.0), (A, (10, 0, 20, 10), 0.0), (A, (5, 0, 15, 10), 1 / 3)]
)
def test_iou(a: tuple[float, ...], b: tuple[float, ...], iou: float) -> None:
    assert iou_of(a, b) == iou_of(b, a) == pytest.approx(iou)


@pytest.mark.parametrize("class_aware", [True, False])
def test_the_product_keeps_what_the_textbook_keeps(class_aware: bool) -> None:
    chance = random.Random(3)
    corners = [(chance.randrange(60), chance.randrange(60)) for _ in range(400)]
    boxes = [(x, y, x + chance.randrange(1, 30), y + chance.randrange(1, 30)) for x, y in corners]
    scores = [chance.randrange(1, 64) / 64 for _ in boxes]  # some are equal; exact as float32
    classes = [chance.randrange(3) for _ in boxes]
    found = Detections(np.array(boxes, np.float32), np.array(scores, np.float32), np.array(classes, np.int32))
    kept = suppress(found, Nms(kind="greedy", iou=0.5, class_aware=class_aware, max_detections=400))
    rows = pairwise_nms(boxes, scores, classes, 0.5, class_aware)
    assert 0 < len(rows) < len(boxes)
    ours = zip(kept.boxes_xyxy.tolist(), kept.class_ids.tolist(), strict=True)
    assert sorted(ours) == sorted((list(boxes[i]), classes[i]) for i in rows)  # ties in any order


def test_an_ingest_by_hand_finds_every_file_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = Tables(str(tmp_path / "tables"))
    synthetic.synthetic_media(tables, 2_500)
    assert catalogue_by_hand.ingest_by_hand(tables, 2_500) == {}
    monkeypatch.setattr(synthetic.Simulated, "changed", 1)
    with pytest.raises(AssertionError, match="2499"):
        catalogue_by_hand.ingest_by_hand(tables, 2_500)


def test_steps_of_the_catalogue_find_what_was_simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = Tables(str(tmp_path / "tables"))
    monkeypatch.setattr(synthetic.Simulated, "new_each", 0)
    monkeypatch.setattr(synthetic.Simulated, "changed", 0)
    former = fsspec.get_filesystem_class("s3")
    synthetic.Simulated.register()
    try:
        assert catalogue.fill(tables, 2_500)["files"] == 1
        assert catalogue.ingest_unchanged(tables, 2_500) == {}
        assert catalogue.ingest_one_in_a_hundred_new(tables, 2_500)["of"] == 25
        assert catalogue.ingest_one_in_a_hundred_changed(tables, 2_500)["of"] == 25
        monkeypatch.setattr(synthetic.Simulated, "new_each", 0)
        assert catalogue.ingest_one_in_a_hundred_gone(tables, 2_500)["of"] == 25
    finally:
        fsspec.register_implementation("s3", former, clobber=True)


def test_hasty_commits_are_of_a_hundred_rows(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path / "tables"))
    assert catalogue_by_hand.commit_results_hastily(tables, 3_000) == {"of": 300, "files": 3}


@pytest.fixture
def photo() -> bytes:
    return PHOTO.read_bytes()


def holds(rows: list[tuple[str, Any, str, bool]]) -> list[bool]:
    return [ok for *_, ok in rows]


def test_planning_says_no_to_growth_and_to_a_control_that_is_no_worse() -> None:
    small, large = {"us_per_image": 3.0, "peak_mib": 200}, {"us_per_image": 5.0, "peak_mib": 900}
    worse = {"us_per_image": 9.0, "peak_mib": 300}
    assert holds(planning.bounds([small, large], worse)) == [True, True, True]
    assert holds(planning.bounds([small, large], small)) == [True, False, False]
    grown = large | {"us_per_image": 6.1}
    assert holds(planning.bounds([small, grown], worse)) == [False, True, True]


def test_the_catalogue_says_no_to_a_control_that_is_no_worse() -> None:
    steps = [
        {"step": "ingest unchanged", "us_a_file": 10.0, "rss_mib": 100},
        {"step": "commit results", "us_a_file": 9.0, "rss_mib": 100},
        {"step": "ingest unchanged", "us_a_file": 10.0, "rss_mib": 900},  # of a larger archive
    ]
    marks = [{"compacted every": e, "data files": n} for e, n in (("-", 9), ("-", 50), (64, 20))]

    def of(us: float, mib: int, last: int) -> list[bool]:
        controls = [
            {"step": "commit results hastily", "us_a_file": us, "rss_mib": 1},
            {"step": "ingest by hand", "us_a_file": 1.0, "rss_mib": mib},
        ]
        more = {"compacted every": 64, "data files": last}
        return holds(catalogue_by_hand.bounds(steps + controls, [*marks, more], 64))

    assert of(90.0, 300, 10) == [True, True, True]
    assert of(9.0, 100, 50) == [False, False, False]


def test_filters_say_no_to_a_control_that_is_no_worse_than_the_slowest() -> None:
    rows = [{"seconds": 1.0, "again_s": 3.0, "checked": 1_000}, {"seconds": 1.0, "again_s": 1.0, "checked": 1_000}]
    assert holds(filters.bounds(rows, {"seconds": 0.4, "checked": 4})) == [True]
    assert holds(filters.bounds(rows, {"seconds": 0.008, "checked": 4})) == [False]
    assert holds(filters.bounds(rows, {"seconds": 0.4, "checked": 0})) == [True]


@pytest.mark.parametrize(
    ("ended", "peak_mib", "harmed"),
    [
        ("signal 11", None, True),
        ("too slow", None, True),
        ("decoded", 500, True),
        ("decoded", 300, False),
        ("refused", 42, False),
        ("exit 1", None, False),  # it did not begin
    ],
)
def test_what_harm_is(ended: str, peak_mib: int | None, harmed: bool) -> None:
    row = {"OpenCV alone": "x", "ended": ended, "peak_mib": peak_mib, "replica_mib": 300}
    assert holds(unguarded_decoder.bounds([row])) == [harmed]


def test_a_decoder_alone_decodes_a_photograph_and_refuses_what_is_none(photo: bytes) -> None:
    decoded, refused = (unguarded_decoder.unguarded(body, BIG_MIB) for body in (photo, b"no picture"))
    assert (decoded["ended"], refused["ended"]) == ("decoded", "refused")
    assert 0 < refused["peak_mib"] < decoded["peak_mib"] < 500
