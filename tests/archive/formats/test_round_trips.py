"""Exports that are read again: the statements of people come back, and those of the model do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archive.annotations.work_files import read, work_file
from archive.formats.camtrap_dp import CamtrapOptions
from archive.formats.camtrap_dp import write as write_camtrap
from archive.formats.coco import CocoOptions
from archive.formats.coco import write as write_coco
from archive.formats.label_studio import LabelStudioOptions
from archive.formats.label_studio import write as write_tasks
from tests.archive.formats.some_images import ADDED, DEER, FACTS, burst
from tests.archive.formats.test_camtrap_dp import STATED
from tests.fixtures_local import write_json


def test_camtrap_dp_gives_the_statements_of_people_and_not_those_of_the_model(tmp_path: Path) -> None:
    stated = write_json(tmp_path / "stated.json", STATED)
    write_camtrap(burst(), FACTS, tmp_path / "out", CamtrapOptions(package=stated))
    (work,) = read("camtrap-dp", work_file("camtrap-dp", tmp_path / "out"))
    assert (work.path, work.label, work.actor) == (burst()[0].path, ADDED.label, "human")
    assert work.box == pytest.approx((ADDED.x1 / 200, ADDED.y1 / 100, ADDED.x2 / 200, ADDED.y2 / 100))


def test_a_confirmed_prediction_of_label_studio_has_the_corners_of_its_detection(tmp_path: Path) -> None:
    write_tasks(burst(), FACTS, tmp_path, LabelStudioOptions())
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    for each in tasks:
        each["annotations"] = each.get("predictions", [])
    works = list(read("label-studio", write_json(tmp_path / "done.json", tasks)))
    second = [work for work in works if work.path == f"/archive/{burst()[1].path}"]
    corners = (DEER.x1 / 200, DEER.y1 / 100, DEER.x2 / 200, DEER.y2 / 100)
    assert [work.box for work in second] == [pytest.approx(corners, abs=1e-6)]


def test_coco_gives_the_boxes_that_people_added(tmp_path: Path) -> None:
    write_coco(burst(), FACTS, tmp_path / "own.json", CocoOptions())
    assert [work.label for work in read("coco", tmp_path / "own.json")] == [ADDED.label]
