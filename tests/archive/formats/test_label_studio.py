"""Tasks of Label Studio."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from archive.formats.label_studio import LabelStudioOptions, write
from tests.archive.formats.some_images import ADDED, DEER, FACTS, burst, image

SCHEMA = json.loads((Path(__file__).parent / "label-studio-sdk-2.1.2" / "task-schema.json").read_text())


def test_each_box_is_a_region_in_percent(tmp_path: Path) -> None:
    write(burst(), FACTS, tmp_path, LabelStudioOptions())
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [f"/data/local-files/?d={each.path}" for each in burst()]
    for task, each in zip(tasks[:4], burst()[:4], strict=True):
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "deer@2"
        for region, box in zip(prediction["result"], each.detections, strict=True):
            value = region["value"]
            left, top = value["x"] * 2, value["y"]
            corners = (left, top, left + value["width"] * 2, top + value["height"])
            inside = (max(box.x1, 0), max(box.y1, 0), min(box.x2, 200), min(box.y2, 100))
            assert corners == pytest.approx(inside, abs=1e-3)
            assert value["rectanglelabels"] == [box.label]
            assert (region["original_width"], region["original_height"]) == (200, 100)
            assert region.get("score") == box.score
    assert "predictions" not in tasks[4]  # it failed


def test_the_tasks_have_the_form_that_label_studio_requires(tmp_path: Path) -> None:
    outside = [replace(DEER, x1=-0.4, y1=-3.0), replace(DEER, x2=200.6, y2=101.0, score=1.0)]
    write([*burst(), image(9, *outside)], FACTS, tmp_path, LabelStudioOptions())
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    jsonschema.validate(tasks, SCHEMA)
    for region in tasks[-1]["predictions"][0]["result"]:
        value = region["value"]
        assert value["x"] + value["width"] <= 100
        assert value["y"] + value["height"] <= 100
    labels = {label.get("value") for label in ET.parse(tmp_path / "labels.xml").getroot().iter("Label")}
    for task in tasks:
        for prediction in task.get("predictions", []):
            assert {label for each in prediction["result"] for label in each["value"]["rectanglelabels"]} <= labels


def test_a_path_in_an_address_is_escaped_and_read_back(tmp_path: Path) -> None:
    odd = image(1, DEER, path="north & south/50% #1+.JPG")
    for prefix in ("/data/local-files/?d=", "https://x/", "/mnt/"):
        write([odd], FACTS, tmp_path, LabelStudioOptions(media_prefix=prefix))
        (task,) = json.loads((tmp_path / "tasks.json").read_text())
        address = task["data"]["image"].removeprefix(prefix)
        assert (odd.path if prefix == "/mnt/" else "north%20%26%20south/50%25%20%231%2B.JPG") == address
        if prefix == "/data/local-files/?d=":
            assert parse_qs(urlsplit(task["data"]["image"]).query)["d"] == [odd.path]


def test_boxes_of_people_are_written_although_the_model_failed(tmp_path: Path) -> None:
    write([image(1, ADDED, status="failed")], FACTS, tmp_path, LabelStudioOptions())
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    assert len(task["predictions"][0]["result"]) == 1


def test_the_labelling_interface_has_all_labels_and_the_names_of_the_regions(tmp_path: Path) -> None:
    write(burst(), FACTS, tmp_path, LabelStudioOptions(media_prefix="https://x/"))
    view = ET.parse(tmp_path / "labels.xml").getroot()
    assert [label.get("value") for label in view.iter("Label")] == ["deer", "person", "fox"]
    task = json.loads((tmp_path / "tasks.json").read_text())[0]
    region = task["predictions"][0]["result"][0]
    tag, picture = view.find("RectangleLabels"), view.find("Image")
    assert tag is not None
    assert picture is not None
    assert (region["from_name"], region["to_name"]) == (tag.get("name"), picture.get("name"))
    assert task["data"][(picture.get("value") or "").removeprefix("$")].startswith("https://x/")
