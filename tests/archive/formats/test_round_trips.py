"""Exports that are read again: the statements of people come back, and those of the model do not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from archive.annotations.deployment_file import add_file
from archive.annotations.work_files import read, work_file
from archive.catalogue.deployments import Deployment, record
from archive.delta.tables import Tables
from archive.formats.camtrap_dp import CamtrapOptions
from archive.formats.camtrap_dp import write as write_camtrap
from archive.formats.coco import CocoOptions
from archive.formats.coco import write as write_coco
from archive.formats.label_studio import LabelStudioOptions
from archive.formats.label_studio import write as write_tasks
from tests.archive.formats.some_images import ADDED, DEER, FACTS, NORTH, burst, image
from tests.archive.formats.test_camtrap_dp import STATED
from tests.fixtures_local import write_json


def test_camtrap_dp_gives_the_statements_of_people_and_not_those_of_the_model(tmp_path: Path) -> None:
    stated = write_json(tmp_path / "stated.json", STATED)
    write_camtrap(burst(), FACTS, tmp_path / "out", CamtrapOptions(package=stated))
    (work,) = read("camtrap-dp", work_file("camtrap-dp", tmp_path / "out"))
    assert (work.path, work.label, work.actor) == (burst()[0].path, ADDED.label, "human")
    assert (work.asserted_at, work.media_sha256) == ("2026-07-02T12:00:00Z", burst()[0].media_sha256)
    assert work.box == pytest.approx((ADDED.x1 / 200, ADDED.y1 / 100, ADDED.x2 / 200, ADDED.y2 / 100))


@pytest.mark.parametrize("until", [NORTH.end, None])
def test_deployments_of_camtrap_dp_keep_their_clocks_zones_and_ends(
    tables: Tables, tmp_path: Path, until: datetime | None
) -> None:
    values = {"camera_id": "north", "location": "Oak hill", "latitude": 52.51, "longitude": 13.4}
    hour, start = timedelta(hours=1), NORTH.start
    values |= {"from_local": start - hour, "until_local": until and until - hour, "time_zone": NORTH.time_zone}
    values |= {"deployment_id": "d1", "clock_offset_s": 3600, "clock_reason": "a photo", "notes": NORTH.notes}
    record(tables, {"": Deployment.model_validate(values)}, "ana")
    stated = write_json(tmp_path / "stated.json", STATED)
    images = [image(1, DEER, deployment=replace(NORTH, end=until))]
    write_camtrap(images, FACTS, tmp_path / "out", CamtrapOptions(package=stated))
    assert add_file(tables, tmp_path / "out" / "deployments.csv", "ben") == (["d1"], 0)


def test_a_confirmed_prediction_of_label_studio_has_the_corners_of_its_detection(tmp_path: Path) -> None:
    write_tasks(burst(), FACTS, tmp_path, LabelStudioOptions())
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    for each in tasks:
        each["annotations"] = each.get("predictions", [])
    works = list(read("label-studio", write_json(tmp_path / "done.json", tasks)))
    second = [work for work in works if work.path == f"/archive/{burst()[1].path}"]
    corners = (DEER.x1 / 200, DEER.y1 / 100, DEER.x2 / 200, DEER.y2 / 100)
    assert [work.box for work in second] == [pytest.approx(corners, abs=1e-6)]
    assert second[0].media_sha256 == burst()[1].media_sha256


def test_coco_gives_the_boxes_that_people_added(tmp_path: Path) -> None:
    write_coco(burst(), FACTS, tmp_path / "own.json", CocoOptions())
    assert [work.label for work in read("coco", tmp_path / "own.json")] == [ADDED.label]
