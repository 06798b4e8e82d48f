"""Work of people in files of other tools."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from archive.annotations.foreign_work import Work
from archive.annotations.work_files import READERS, read, work_file
from model_store.errors import BadRequest
from tests.fixtures_local import write_json

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
  <image id="0" name="north/a.JPG" width="200" height="100">
    <box label="fox" source="manual" occluded="0" xtl="20.00" ytl="10.00" xbr="60.00" ybr="50.00" z_order="0"/>
  </image>
  <image id="1" name="north/b.JPG" width="200" height="100"><tag label="Empty" source="manual"/></image>
  <image id="2" name="north/c.JPG" width="200" height="100"></image>
</annotations>"""


def dataset(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [{"id": 5, "file_name": "a.JPG", "width": 200, "height": 100}],
        "categories": [{"id": 0, "name": "empty"}, {"id": 3, "name": "fox"}],
        "annotations": [{"image_id": 5, **each} for each in annotations],
    }


def named(path: Any, label: str = "fox", **image: Any) -> dict[str, Any]:
    """Return a data set with a box, with another path, label or size of its image."""
    data = dataset({"category_id": 3, "bbox": [20, 10, 40, 40]})
    data["images"][0] |= {"file_name": path, **image}
    data["categories"][1]["name"] = label
    return data


def task(*regions: dict[str, Any], **more: Any) -> dict[str, Any]:
    annotation = {"result": list(regions), "updated_at": "2026-05-01T10:00:00Z"}
    return {"data": {"image": "/data/local-files/?d=north/a%20b.JPG"}, "annotations": [annotation | more]}


def region(**value: Any) -> dict[str, Any]:
    corners = {"x": 10, "y": 10, "width": 20, "height": 40, "rectanglelabels": ["fox"]}
    size = {"original_width": 200, "original_height": 100}
    return {"type": "rectanglelabels", "value": corners | value, **size}


def of_one_box(works: list[Work]) -> tuple[str, str | None]:
    (work,) = works
    assert work.box == pytest.approx((0.1, 0.1, 0.3, 0.5))
    return work.path, work.label


@pytest.mark.parametrize("missing", ["", "NA"])
def test_camtrap_dp_of_another_tool_gives_species_blanks_and_authors(tmp_path: Path, missing: str) -> None:
    common = {"observationLevel": "media", "classificationMethod": "human", "classifiedBy": "Ana"}
    rows = [
        {"observationType": "animal", "scientificName": "Vulpes vulpes"},
        {"observationType": "blank"},
        {"observationType": "vehicle", "classificationTimestamp": "2026-05-01T00:00:00Z"},
        {"observationType": "unclassified"},
        {"observationType": "animal", "observationLevel": "event"},
        {"observationType": "animal", "classificationMethod": "machine"},
    ]
    columns = "observationLevel classificationMethod classifiedBy observationType scientificName mediaID bboxWidth"
    columns += " classificationTimestamp observationTags"
    with (tmp_path / "observations.csv").open("w", newline="") as file:
        table: csv.DictWriter[str] = csv.DictWriter(file, columns.split(), restval=missing)
        table.writeheader()
        table.writerows({"mediaID": "m", **common, **row} for row in rows)
    (tmp_path / "media.csv").write_text("mediaID,filePath\nm,media/a.JPG\n")
    works = list(read("camtrap-dp", work_file("camtrap-dp", tmp_path)))
    assert [work.label for work in works] == ["Vulpes vulpes", None, "vehicle"]
    assert [work.asserted_at for work in works] == [None, None, "2026-05-01T00:00:00Z"]
    assert {(work.path, work.actor, work.box) for work in works} == {("media/a.JPG", "Ana", None)}


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        ("https://multimedia.agouti.eu/assets/07840dcc/file", "1-RCNX0001.JPG", "1-RCNX0001.JPG"),
        ("https://example.org/north/a.JPG", "a.JPG", "https://example.org/north/a.JPG"),
        ("https://example.org/north/a.JPG", "", "https://example.org/north/a.JPG"),
        ("media/1.JPG", "RCNX0001.JPG", "media/1.JPG"),
    ],
)
def test_a_medium_with_an_address_has_its_file_name(tmp_path: Path, path: str, name: str, expected: str) -> None:
    columns = "mediaID,observationLevel,classificationMethod,classifiedBy,observationType,scientificName"
    columns += ",bboxWidth,classificationTimestamp,observationTags"
    (tmp_path / "observations.csv").write_text(f"{columns}\nm,media,human,Ana,animal,Vulpes vulpes,,,\n")
    (tmp_path / "media.csv").write_text(f"mediaID,filePath,fileName\nm,{path},{name}\n")
    assert [work.path for work in read("camtrap-dp", tmp_path / "observations.csv")] == [expected]


def test_coco_gives_annotations_without_a_score(tmp_path: Path) -> None:
    box = {"category_id": 3, "bbox": [20, 10, 40, 40]}
    data = dataset(box, {**box, "score": 0.5})
    assert of_one_box(list(read("coco", write_json(tmp_path / "a.json", data)))) == ("a.JPG", "fox")
    empty = dataset({"category_id": 0})
    del empty["images"][0]["width"], empty["images"][0]["height"]
    (work,) = read("coco", write_json(tmp_path / "b.json", empty))
    assert (work.label, work.box) == (None, None)


def test_label_studio_gives_the_newest_annotation_of_each_task(tmp_path: Path) -> None:
    old = {"result": [], "updated_at": "2026-04-01T10:00:00Z"}
    new = task(region(), completed_by={"email": "ana@x.org"})
    new["annotations"].append(old)
    works = list(read("label-studio", write_json(tmp_path / "a.json", [new])))
    assert of_one_box(works) == ("north/a b.JPG", "fox")
    assert (works[0].actor, works[0].asserted_at) == ("ana@x.org", "2026-05-01T10:00:00Z")
    others = [task(), task(region(), was_cancelled=True)]
    (empty,) = read("label-studio", write_json(tmp_path / "b.json", others))
    assert (empty.label, empty.box) == (None, None)


def test_cvat_gives_boxes_and_images_with_the_tag_empty(tmp_path: Path) -> None:
    file = tmp_path / "annotations.xml"
    file.write_text(CVAT)
    *boxes, empty = read("cvat", file)
    assert of_one_box(boxes) == ("north/a.JPG", "fox")
    assert (empty.path, empty.label) == ("north/b.JPG", None)


def test_timelapse_gives_the_labels_of_a_column(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("File,RelativePath,Species,Kind\na.JPG,north\\x,Fox,1\nb.JPG,,Empty,2\nc.JPG,,,3\n")
    assert [(work.path, work.label) for work in read("timelapse", file)] == [
        *(("north/x/a.JPG", "Fox"), ("b.JPG", None))
    ]
    assert [work.label for work in read("timelapse", file, "Kind")] == ["1", "2", "3"]
    file.write_text("File,RelativePath,Label\na.JPG,,fox\n")
    with pytest.raises(BadRequest, match="name the column with the labels: File"):
        list(read("timelapse", file))
    file.write_text("File,RelativePath,Species\na.JPG,,fox\n")
    with pytest.raises(BadRequest, match="name the column with the labels: File, RelativePath"):
        list(read("timelapse", file, "Nothing"))


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"<a><image/></a>", b"\xff\xfe", b"{}", b'{"a": {}}'])
def test_a_damaged_or_foreign_file_gives_no_work(tmp_path: Path, name: str, content: bytes) -> None:
    for file in ("media.csv", "observations.csv", "t.csv", "a.json"):
        (tmp_path / file).write_bytes(content)
    try:
        file = tmp_path / ("t.csv" if name == "timelapse" else "a.json")
        works = list(read(name, work_file(name, file)))
    except BadRequest:
        works = []  # a file without work is refused by read_work
    assert works == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("coco", json.dumps([{"image_id": 1}]), "results of a machine"),
        ("coco", json.dumps(dataset({"category_id": 9, "bbox": [1, 1, 1, 1]})), "missing 9"),
        ("label-studio", json.dumps([task(region(rotation=5))]), "task 1 has a rotated rectangle"),
        ("coco", json.dumps(named(5)), "path: .*valid string"),
        ("coco", json.dumps(named("\ud800")), "hex escape"),
        ("coco", json.dumps(named("a", "\ud800")), "hex escape"),
        ("coco", json.dumps(named("a", width=0)), "an image with a box is 0 x 100 px"),
        ("coco", json.dumps(named("a", width=10**400)), "too large"),
        ("coco", json.dumps(named("a")).replace("200", "1e400"), "size_px: .*finite"),
        ("label-studio", json.dumps([task(region(x=10**400))]), "too large"),
        ("label-studio", json.dumps([task(completed_by={"email": 5})]), "actor: .*valid string"),
        ("cvat", CVAT.replace('height="100"', 'height="0"'), "an image with a box is 200 x 0 px"),
        ("cvat", CVAT.replace("<box ", "<polygon ", 1), "it has a polygon"),
        ("cvat", CVAT.replace("<tag ", "<points "), "it has a points"),
        ("cvat", CVAT.replace("<box ", "<box rotation='90.00' "), "it has a rotated box"),
        ("cvat", "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&y;</a>", "undefined entity"),
        ("yolo", "", "unknown tool 'yolo': use one of camtrap-dp, coco"),
    ],
)
def test_a_refusal_tells_what_is_wrong(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(BadRequest, match=words):
        list(read(name, tmp_path / "file"))
