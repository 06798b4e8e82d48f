"""Files of other tools: what they say is read, and damage is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from archive.formats.results_file import FileFacts, Row, path_below, read_results
from model_store.errors import BadRequest

GOOD: dict[str, Any] = {
    "info": {"format_version": "1.6", "detector": "md_v5a"},
    "detection_categories": {"2": "person", "1": "animal"},
    "classification_categories": {"0": "fox"},
    "images": [
        {
            "file": "a.jpg",
            "width": 640,
            "height": 480,
            "detections": [
                {"category": "1", "conf": 0.5, "bbox": [0, 0, 1.001, 0.5], "classifications": [["0", 0.75]]},
                {"category": "2", "conf": -0.9, "bbox": [0, 0, 1, 1]},
            ],
        },
        {"file": "b.jpg", "detections": None, "failure": "image access failure"},
    ],
}


def read(place: Path, value: Any, tool: str = "megadetector") -> tuple[FileFacts, list[Row]]:
    file, facts = place / "file.json", FileFacts()
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    file.write_bytes(data)
    return facts, list(read_results(tool, file, facts))  # type: ignore[arg-type]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_file_of_megadetector_is_read(tmp_path: Path, mark: bytes) -> None:
    facts, (first, failed) = read(tmp_path, mark + json.dumps(GOOD).encode())
    box = {"category": "1", "score": 0.5, "x": 0, "y": 0, "w": 1.001, "h": 0.5, "class": "0", "class_score": 0.75}
    assert first["boxes"] == [box]
    assert (first["width"], failed["failure"], failed["boxes"]) == (640, "image access failure", [])
    assert (facts.detector, facts.hidden) == ("md_v5a", 1)
    assert list(facts.categories.items()) == [("1", "animal"), ("2", "person")]


def with_detection(**changed: Any) -> dict[str, Any]:
    found = {"category": "1", "conf": 0.5, "bbox": [0, 0, 1, 1]} | changed
    return GOOD | {"images": [{"file": "a.jpg", "detections": [found]}]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"\xff\xfe{", "is not UTF-8"),
        (b"PK\x03\x04", "an object is required"),
        ({"predictions": []}, '"images" is missing'),
        ({k: v for k, v in GOOD.items() if k != "info"}, '"info" is missing'),
        (GOOD | {"detection_categories": {"1": "animal"}}, "category '2' of a detection is not in"),
        (GOOD | {"detection_categories": {"x": "a"}}, "must map numbers to names"),
        (GOOD | {"detection_categories": []}, "must map numbers to names"),
        (GOOD | {"images": [{"file": "a.jpg"}]}, "neither detections nor a failure"),
        (with_detection(conf=1.5), "image 'a.jpg': detections.0.conf"),
        (with_detection(bbox=[0, 0, 2, 1]), "must be fractions of the image"),
        (with_detection(bbox=[0.5, 0, -0.005, 1]), "must be fractions of the image"),
        (GOOD | {"images": [{"file": "a.jpg", "width": 10**30}]}, "image 'a.jpg': width"),
        (GOOD | {"images": [{"file": "a.jpg", "height": 5_000_000_000}]}, "image 'a.jpg': height"),
        (GOOD | {"images": [{"file": "\ud800"}]}, "is not Unicode"),
        (GOOD | {"info": {"detector_metadata": {"a": "\ud800"}}}, "is not Unicode"),
        (with_detection(bbox=[0, 0, 1]), "image 'a.jpg': detections.0.bbox"),
        (with_detection(bbox=[0, 0, 1, "x"]), "image 'a.jpg': detections.0.bbox.3"),
    ],
)
def test_damage_is_refused(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        read(tmp_path, value)


def test_predictions_of_several_models_are_refused(tmp_path: Path) -> None:
    rows = [{"filepath": n, "detections": [], "model_version": n} for n in ("a", "b")]
    with pytest.raises(BadRequest, match="predictions of several models: a, b"):
        read(tmp_path, {"predictions": rows}, "speciesnet")
    with pytest.raises(BadRequest, match='"predictions" is missing'):
        read(tmp_path, GOOD, "speciesnet")


def classes(image: Row) -> list[tuple[str | None, float | None]]:
    return [(box["class"], box["class_score"]) for box in image["boxes"]]


def test_predictions_for_each_detection_are_read(tmp_path: Path) -> None:
    """The format since 20261015, also of a classifier of whole images."""
    box = {"category": "1", "label": "animal", "conf": 0.5, "bbox": [0, 0, 1, 1]}
    whole = {"category": "0", "label": "whole_image_classification", "conf": 1, "bbox": [0, 0, 1, 1]}
    fox = {"class": "u;mammalia;carnivora;canidae;vulpes;;", "score": 0.9, "source": "classifier"}
    rows = [
        {"filepath": "a.jpg", "detections": [{**box, "processed_classification": fox}, box]},
        {"filepath": "b.jpg", "detections": [{**whole, "processed_classification": fox}, box]},
    ]
    facts, (own, of_image) = read(tmp_path, {"info": {}, "predictions": rows}, "speciesnet")
    assert classes(own) == [("vulpes", 0.9), (None, None)]
    assert classes(of_image) == [("vulpes", 0.9)]
    assert (list(facts.categories), list(facts.classes)) == (["animal", "human", "vehicle"], ["vulpes"])


@pytest.mark.parametrize(("others", "expected"), [((), "human"), (("human",), None), (("vehicle",), "human")])
def test_a_detected_person_gives_no_class_to_an_animal(
    tmp_path: Path, others: tuple[str, ...], expected: str | None
) -> None:
    """The class of an image before format 20261015 may be that of its detector."""
    found = [{"label": label, "conf": 0.9, "bbox": [0, 0, 1, 1]} for label in ("animal", *others)]
    of_image = {"prediction": "u;mammalia;primates;hominidae;homo;sapiens;human", "prediction_score": 0.9}
    rows = [{"filepath": "a.jpg", "detections": found, **of_image}]
    _, (image,) = read(tmp_path, {"predictions": rows}, "speciesnet")
    assert [name for name, _ in classes(image)] == [expected, *(None for _ in others)]


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"cannot read .*none\.json"):
        list(read_results("megadetector", tmp_path / "none.json", FileFacts()))


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a/b.jpg", "a/b.jpg"), ("./a//b.jpg", "a/b.jpg"), ("a\\b.jpg", "a/b.jpg"), ("/data/deer/a.jpg", "a.jpg")],
)
def test_paths_are_relative_with_slashes(path: str, expected: str) -> None:
    assert path_below(path, "/data/deer") == expected


@pytest.mark.parametrize("path", ["", "..", "a/../../b.jpg", "/data/deers/a.jpg", "C:\\a.jpg", "a\0"])
def test_paths_that_leave_the_root_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="below /data/deer"):
        path_below(path, "/data/deer")
