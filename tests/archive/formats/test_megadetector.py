"""Files of MegaDetector, checked by the rules of its own validator (validate_batch_results, format 1.6)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from archive.formats.megadetector import write, write_folders
from archive.formats.records import BoxRecord, ExportLineage, ImageRecord
from model_store.frozen import Frozen
from tests.archive.formats.small_archive import LABELS, NOW

FACTS = ExportLineage(
    "production 3",
    "r",
    "md@5a",
    "w" * 64,
    NOW,
    LABELS,
    layers=("l",),
    threshold=0.2,
    label_thresholds={"person": 0.1},
    classifier="deer@1",
    descriptions={"fox": "mammalia;carnivora;canidae;vulpes;vulpes"},
)
BOX = BoxRecord("animal", 0.87654, 100, 50, 300, 250, 0, model_label="animal")


def image(path: str, *boxes: BoxRecord, status: Any = "ok", **more: Any) -> ImageRecord:
    fields: dict[str, Any] = {"width_px": 1000, "height_px": 500, "captured_at_local": None}
    fields |= {"camera_id": "north", "event_id": None, "status": status} | more
    fields.setdefault("captured_at_corrected", fields["captured_at_local"])
    return ImageRecord("/data", path, path, detections=boxes, **fields)


def written(place: Path, images: Sequence[ImageRecord], facts: ExportLineage = FACTS) -> dict[str, Any]:
    write(images, facts, place / "md.json", Frozen())
    found = json.loads((place / "md.json").read_text())
    require_valid(found)
    return found


def require_valid(found: dict[str, Any]) -> None:
    """Require what validate_batch_results of the package megadetector 10 requires."""
    assert {"info", "images", "detection_categories"} <= found.keys()
    usual = ("classification_categories", "classification_category_descriptions")
    assert found.keys() <= {"info", "images", "detection_categories", *usual}
    assert found["info"]["format_version"] == "1.6"
    for name in ("detection_categories", "classification_categories"):
        for number, label in found.get(name, {}).items():
            assert int(number) >= 0
            assert label.strip()
    for row in found["images"]:
        if row["file"].endswith(".mp4"):
            assert row["frame_rate"] > 0
            assert isinstance(row["frames_processed"], list)
        if "failure" in row:
            assert row["failure"] in ("image access failure", "inference failure")
            assert row["detections"] is None
            continue
        for each in row["detections"]:
            assert isinstance(each["conf"], float)
            assert each["category"] in found["detection_categories"]
            assert all(isinstance(side, float) and 0 <= side <= 1 for side in each["bbox"])
            for number, score in each.get("classifications", ()):
                assert number in found["classification_categories"]
                assert isinstance(score, float)


def test_each_field_is_that_of_the_format(tmp_path: Path) -> None:
    first = image("north/ä 1.jpg", BOX, captured_at_local=NOW.replace(tzinfo=None))
    failed = image("b.jpg", status="failed", width_px=None, error_code="decode")
    by_person = image("d.jpg", status="missing", blank_by="human")
    rows = [first, image("a.jpg", status="empty"), failed, image("c.jpg", status="missing"), by_person]
    found = written(tmp_path, rows)
    size = {"width": 1000, "height": 500}
    assert found["images"] == [
        {
            "file": "north/ä 1.jpg",
            "detections": [{"category": "1", "conf": 0.877, "bbox": [0.1, 0.1, 0.2, 0.4]}],
            "datetime": "2026:05:01 12:00:00",
            **size,
        },
        {"file": "a.jpg", "detections": [], **size},
        {"file": "b.jpg", "detections": None, "failure": "image access failure"},
        {"file": "d.jpg", "detections": [], **size},
    ]
    info = found["info"]
    assert (info["detector"], info["detection_completion_time"]) == ("md@5a", "2026-05-01 12:00:00")
    assert info["detector_metadata"] == {
        "weights_sha256": "w" * 64,
        "typical_detection_threshold": 0.2,
        "conservative_detection_threshold": 0.1,
    }
    assert info["resight"]["layers"] == ["l"]
    assert info["resight"]["images"] == {"ok": 1, "empty": 1, "failed": 1, "missing": 2}


@pytest.mark.parametrize(("code", "kind"), [("model", "inference"), ("decode", "image access"), (None, "image access")])
def test_a_failure_of_the_model_is_not_one_of_the_file(tmp_path: Path, code: str | None, kind: str) -> None:
    frames = [
        image(f"b.mp4#{n:08}", status="failed", error_code=code, frame_index=n, frame_rate=10.0) for n in range(2)
    ]
    rows = written(tmp_path, [image("a.jpg", status="failed", error_code=code), *frames])["images"]
    assert [(row["failure"], row["detections"]) for row in rows] == [(f"{kind} failure", None)] * 2


def test_labels_of_people_layers_and_classifiers_are_classes(tmp_path: Path) -> None:
    relabelled = BoxRecord("fox", 0.5, 0, 0, 10, 10, 0, True, "human", "animal")
    by_layer = BoxRecord("deer", 0.5, 0, 0, 10, 10, 0, False, "layer", "animal")
    classified = BoxRecord("animal", 0.5, 0, 0, 10, 10, 0, model_label="animal")
    classified.classification = ("fox", 0.0)
    added = BoxRecord("hare", None, 0, 0, 10, 10, is_human=True, said_by="human")
    hare = BoxRecord("hare", 0.5, 0, 0, 10, 10, 0, True, "human", "animal")  # the same whatever comes before it
    found = written(tmp_path, [image("a.jpg", relabelled, by_layer, classified, added, hare)])
    rows = found["images"][0]["detections"]
    assert [row["category"] for row in rows] == ["1", "1", "1", "4", "1"]
    classes = [row.get("classifications") for row in rows]
    assert classes == [[["1", 1.0]], [["2", 0.5]], [["1", 0.0]], None, [["3", 1.0]]]
    assert found["classification_categories"] == {"1": "fox", "2": "deer", "3": "hare"}
    assert found["classification_category_descriptions"] == {"1": FACTS.descriptions["fox"], "2": "", "3": ""}
    assert found["detection_categories"]["4"] == "hare"
    assert rows[3]["conf"] == 1.0


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(("moth", "animal"), ["animal", "person", "vehicle", "moth"]), (("deer", "fox"), ["deer", "fox"])],
)
def test_an_animal_detector_has_the_usual_categories(
    tmp_path: Path, labels: tuple[str, ...], expected: list[str]
) -> None:
    facts = ExportLineage("run r", "r", "m@1", "w", None, labels)
    found = written(tmp_path, [], facts)
    assert list(found["detection_categories"].items()) == [(str(n), label) for n, label in enumerate(expected, 1)]
    assert found["info"].keys() == {"format_version", "detector", "detector_metadata", "resight"}


def test_boxes_never_leave_the_image() -> None:
    box = BoxRecord("a", 1, -5, 333.35, 1004, 500.2)
    assert box.bbox(1000, 500, 4) == [0.0, 0.6667, 1.0, 0.3333]
    assert sum(BoxRecord("a", 1, 333.35, 0, 1000, 1).bbox(1000, 500, 4)[::2]) == pytest.approx(1)


def test_each_top_folder_has_a_file_with_paths_below_it(tmp_path: Path) -> None:
    paths = ["a b/1.jpg", "a/1.jpg", "a/m/2.jpg", "a/z.jpg", "b.jpg", "c/1.jpg", "d.jpg"]
    write_folders(map(image, paths), FACTS, tmp_path / "out", Frozen())
    found = {}
    for file in sorted((tmp_path / "out").rglob("*.json")):
        value = json.loads(file.read_text())
        require_valid(value)
        place = str(file.parent.relative_to(tmp_path / "out"))
        found[place] = [row["file"] for row in value["images"]]
    assert found == {"a b": ["1.jpg"], "a": ["1.jpg", "m/2.jpg", "z.jpg"], ".": ["b.jpg", "d.jpg"], "c": ["1.jpg"]}
