"""COCO files, read by pycocotools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from archive.formats.coco import CocoOptions, write, write_results
from model_store.frozen import Frozen
from tests.archive.formats.some_images import DEER, FACTS, FOX, burst, image

IMAGES = [image(9, status="missing", blank_by=None), *burst()]
IMAGES[-1].camera_id = None
BOXES = [(each, box) for each in IMAGES for box in each.detections]


@pytest.fixture
def dataset(tmp_path: Path) -> Any:
    write(IMAGES, FACTS, tmp_path / "a.json", CocoOptions(licence="CC-BY-4.0"))
    return COCO(str(tmp_path / "a.json"))


def test_a_data_set_has_each_box_of_the_view(dataset: Any) -> None:
    assert len(dataset.anns) == len(BOXES)
    for row, (each, box) in zip(dataset.anns.values(), BOXES, strict=True):
        left, top, width, height = row["bbox"]
        corners = (left, top, left + width, top + height)
        assert corners == pytest.approx((box.x1, box.y1, box.x2, box.y2), abs=0.011)
        assert row["area"] == pytest.approx(width * height, abs=0.01)
        assert row.get("score") == box.score
        assert dataset.cats[row["category_id"]]["name"] == box.label
        assert dataset.imgs[row["image_id"]]["file_name"] == each.path


def test_images_have_the_fields_of_camera_traps(dataset: Any) -> None:
    first, *_, failed = dataset.imgs.values()
    assert (first["location"], first["datetime"]) == ("north", "2026-05-01 10:30:01"), "corrected by an hour"
    frames = [(row["seq_id"], row["frame_num"]) for row in dataset.imgs.values()]
    assert frames == [("e1", 1), ("e1", 2), ("e1", 3), ("e2", 1), ("e3", 1)]
    assert (failed["corrupt"], failed["width"], first["corrupt"]) == (True, 0, False)
    assert "location" not in failed  # without a camera; null is not a text
    assert first["license"] == dataset.dataset["licenses"][0]["id"]
    assert dataset.dataset["info"].keys() >= {"version", "description"}  # which are required
    assert dataset.dataset["info"]["images"] == {"ok": 3, "empty": 1, "failed": 1, "missing": 1}


def test_categories_are_those_of_the_model_then_those_of_people(dataset: Any) -> None:
    assert {row["id"]: row["name"] for row in dataset.cats.values()} == {1: "deer", 2: "person", 3: "fox"}


def test_results_fit_the_data_set_of_the_same_images(dataset: Any, tmp_path: Path) -> None:
    write_results(IMAGES, FACTS, tmp_path / "r.json", Frozen())
    rows = json.loads((tmp_path / "r.json").read_text())
    assert [set(row) for row in rows] == [{"image_id", "category_id", "bbox", "score"}] * len(BOXES)
    found: Any = dataset.loadRes(str(tmp_path / "r.json"))
    for result, row in zip(found.anns.values(), dataset.anns.values(), strict=True):
        for name in ("image_id", "category_id", "bbox"):
            assert result[name] == row[name]
        assert result["score"] == row.get("score", 1.0)  # a box that a person added is certain


@pytest.mark.parametrize("boxes", [(), (FOX, DEER)])
def test_an_archive_of_no_or_one_image_is_valid_json(tmp_path: Path, boxes: tuple[object]) -> None:
    images = [image(1, *boxes)] if boxes else []  # type: ignore[arg-type]
    write(images, FACTS, tmp_path / "a.json", CocoOptions())
    write_results(images, FACTS, tmp_path / "r.json", Frozen())
    assert len(json.loads((tmp_path / "a.json").read_text())["annotations"]) == len(boxes)
    assert len(json.loads((tmp_path / "r.json").read_text())) == len(boxes)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.json", "r.json"]
