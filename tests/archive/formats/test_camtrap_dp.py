"""Data packages of camera traps, checked by the published schemas."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

from archive.annotations.deployment_file import camtrap_fields
from archive.formats.camtrap_dp import CamtrapOptions, media_id, write
from model_store.errors import BadRequest
from tests.archive.formats.some_images import FACTS, FOX, NORTH, burst, image
from tests.archive.formats.table_schema import SCHEMAS, errors, rows_of
from tests.fixtures_local import write_json

STATED = {
    "title": "Deer",
    "contributors": [{"title": "Kim Doe"}],
    "project": {
        "title": "Oak hill",
        "samplingDesign": "opportunistic",
        "captureMethod": ["activityDetection"],
        "individualAnimals": False,
    },
    "taxonomic": [
        {"scientificName": "Vulpes vulpes", "vernacularNames": {"eng": "Fox"}},
        {"scientificName": "Lynx lynx"},
    ],
}


@pytest.fixture
def options(tmp_path: Path) -> CamtrapOptions:
    return CamtrapOptions(package=write_json(tmp_path / "stated.json", STATED))


def test_the_tables_and_the_package_are_valid_by_the_published_schemas(tmp_path: Path, options: CamtrapOptions) -> None:
    stated = tmp_path / "stated.json"
    stated.write_text("\ufeff" + stated.read_text())  # as editors of Windows write it
    write(burst(), FACTS, tmp_path / "out", options)
    assert errors(tmp_path / "out") == []
    package = json.loads((tmp_path / "out" / "datapackage.json").read_text())
    profile = json.loads((SCHEMAS / "camtrap-dp-profile.json").read_text())
    profile["allOf"] = profile["allOf"][1:]  # the first names the schema of data packages by its address
    del profile["allOf"][0]["properties"]["spatial"]["$ref"]
    jsonschema.validate(package, profile)
    assert [taxon["scientificName"] for taxon in package["taxonomic"]] == ["Vulpes vulpes"]
    assert package["temporal"] == {"start": "2026-05-01", "end": "2026-06-12"}
    assert package["project"]["observationLevel"] == ["media", "event"]


def test_each_box_is_an_observation_with_its_corners_score_and_author(tmp_path: Path, options: CamtrapOptions) -> None:
    write(burst(), FACTS, tmp_path / "out", options)
    rows = [row for row in rows_of(tmp_path / "out" / "observations.csv") if row["bboxWidth"]]
    boxes = [(each, box) for each in burst() for box in each.detections]
    assert len(rows) == len(boxes)
    for row, (each, box) in zip(rows, boxes, strict=True):
        assert row["mediaID"] == media_id(each)
        x, y, width, height = (float(row[f"bbox{name}"]) for name in ("X", "Y", "Width", "Height"))
        corners = (x * 200, y * 100, (x + width) * 200, (y + height) * 100)
        assert corners == pytest.approx((max(box.x1, 0), box.y1, box.x2, box.y2), abs=1e-3)
        assert row["classificationProbability"] == ("" if box.score is None else str(box.score))
        assert f"label:{box.label} |" in row["observationTags"]
        by = "human" if box.is_human else "deer@2 (sha256:ffffffffffff)"
        assert row["classifiedBy"] == by
    assert [row["scientificName"] for row in rows] == ["Vulpes vulpes", "", "", "", ""]
    assert [row["observationType"] for row in rows] == [*["animal"] * 4, "human"]


def test_copies_of_one_content_are_two_media(tmp_path: Path, options: CamtrapOptions) -> None:
    copies = [image(1, FOX), image(1, FOX, path="copy.JPG")]
    write(copies, FACTS, tmp_path / "out", options)
    assert errors(tmp_path / "out") == []
    assert len(rows_of(tmp_path / "out" / "media.csv")) == 2


def test_an_event_has_the_largest_count_of_each_label_in_one_image(tmp_path: Path, options: CamtrapOptions) -> None:
    write(burst(), FACTS, tmp_path / "out", options)
    rows = rows_of(tmp_path / "out" / "observations.csv")
    events = [row for row in rows if row["observationLevel"] == "event"]
    found = [(row["eventID"], row["observationType"], row["count"]) for row in events]
    assert found == [
        *(("e1", "animal", "2"), ("e1", "animal", "1"), ("e1", "human", "1")),
        *(("e2", "blank", ""), ("e3", "unclassified", "")),
    ]
    assert events[0]["eventStart"] == "2026-05-01T10:30:01+02:00"  # an hour later by the clock offset
    assert events[0]["eventEnd"] == "2026-05-01T10:30:03+02:00"


def test_a_failed_image_is_never_blank_and_images_of_people_are_not_public(
    tmp_path: Path, options: CamtrapOptions
) -> None:
    write(burst(), FACTS, tmp_path / "out", options)
    rows = rows_of(tmp_path / "out" / "observations.csv")
    blank, failed = (row for row in rows if row["observationID"].endswith("_image"))
    assert (blank["mediaID"], blank["observationType"]) == (media_id(burst()[3]), "blank")
    assert (failed["mediaID"], failed["observationType"]) == (media_id(burst()[4]), "unclassified")
    assert (failed["classifiedBy"], failed["observationComments"]) == ("", "truncated")
    public = [row["filePublic"] for row in rows_of(tmp_path / "out" / "media.csv")]
    assert public == ["true", "true", "false", "true", "false"]


def test_who_found_nothing_is_stated_of_images_and_of_events(tmp_path: Path, options: CamtrapOptions) -> None:
    images = [
        image(1, blank_by="human"),
        image(2),
        image(3, blank_by="human", event_id="e2"),
        image(4, event_id="e3"),
        image(5, blank_by=None, event_id="e3"),
    ]
    write(images, FACTS, tmp_path / "out", options)
    assert errors(tmp_path / "out") == []
    rows = rows_of(tmp_path / "out" / "observations.csv")
    assert [(row["observationType"], row["classificationMethod"]) for row in rows] == [
        *(("blank", "human"), ("blank", "machine"), ("blank", "human")),
        *(("blank", "machine"), ("unclassified", "")),
        *(("blank", "machine"), ("blank", "human"), ("unclassified", "")),
    ]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"deployment": None}, "1 image of north without a deployment: state them with"),
        (
            {"deployment": None, "is_outside_deployments": True},
            "1 image of north outside the dates .*0002.JPG, taken 2026-05-01 09:30:02",
        ),
        ({"deployment": replace(NORTH, time_zone=None)}, "without a time zone: .* --set time_zone="),
        ({"deployment": replace(NORTH, latitude=None)}, "without coordinates: state them"),
        ({"captured_at_local": None}, "1 image of north without a time: write it as EXIF"),
        ({"captured_at_local": None, "frame_index": 0}, "without a time: write it as .* creation_time"),
        ({"path": "../a.jpg"}, "a path that Camtrap DP forbids.*--set media_prefix="),
        ({"path": "a..b.jpg"}, "a path that Camtrap DP forbids"),
        ({"path": "a\nb.jpg"}, "a path that Camtrap DP forbids"),
    ],
)
def test_a_missing_fact_is_refused_with_what_to_state_and_never_guessed(
    tmp_path: Path, options: CamtrapOptions, more: dict[str, object], words: str
) -> None:
    images = [image(1), image(2, **more)]
    with pytest.raises(BadRequest, match=words):
        write(images, FACTS, tmp_path / "out", options)
    left = options.model_copy(update={"leave_out": True})
    counts = write(images, FACTS, tmp_path / "less", left)
    assert (counts["images"], counts["left_out"], len(counts["reasons"])) == (1, 1, 1)
    assert [row["fileName"] for row in rows_of(tmp_path / "less" / "media.csv")] == ["IMG_0001.JPG"]
    package = json.loads((tmp_path / "less" / "datapackage.json").read_text())
    assert len(package["resight"]["left_out"]) == 1


def test_the_stated_time_zone_applies_to_deployments_without_one(tmp_path: Path, options: CamtrapOptions) -> None:
    south = replace(NORTH, deployment_id="d2", time_zone=None, end=None)
    chosen = options.model_copy(update={"time_zone": "-03:30"})
    write([image(1), image(2, deployment=south)], FACTS, tmp_path / "out", chosen)
    times = [row["timestamp"] for row in rows_of(tmp_path / "out" / "media.csv")]
    assert times == ["2026-05-01T10:30:01+02:00", "2026-05-01T10:30:02-03:30"]
    rows = rows_of(tmp_path / "out" / "deployments.csv")
    assert [row["deploymentEnd"] for row in rows] == ["2026-06-12T17:00:00+02:00", "2026-05-01T10:30:02-03:30"]
    assert "continues" in rows[1]["deploymentComments"]


def test_deployments_without_images_are_effort(tmp_path: Path, options: CamtrapOptions) -> None:
    ended = replace(NORTH, deployment_id="empty", camera_id="C9", end=datetime(2026, 7, 1))
    whole = (
        NORTH,
        ended,
        replace(ended, deployment_id="continues", end=None),
        replace(ended, deployment_id="nowhere", latitude=None),
    )
    counts = write(burst(), replace(FACTS, deployments=whole), tmp_path / "out", options)
    assert errors(tmp_path / "out") == []
    rows = {row["deploymentID"]: row for row in rows_of(tmp_path / "out" / "deployments.csv")}
    assert rows.keys() == {each["deploymentID"] for each in rows_of(tmp_path / "out" / "media.csv")} | {"empty"}
    assert (rows["empty"]["cameraID"], rows["empty"]["deploymentEnd"]) == ("C9", "2026-07-01T00:00:00+02:00")
    assert counts["left_out"] == 0
    (reason,) = counts["reasons"]
    assert reason.startswith("deployment nowhere (C9) without images and coordinates: state them with")
    package = json.loads((tmp_path / "out" / "datapackage.json").read_text())
    assert package["temporal"]["end"] == "2026-07-01"
    assert package["resight"]["left_out"] == [reason]
    assert "deployments" not in package["resight"]


def test_a_clock_keeps_the_offset_of_its_start_in_winter(tmp_path: Path, options: CamtrapOptions) -> None:
    winter = datetime(2026, 12, 24, 18)
    later = image(2, captured_at_corrected=winter, deployment=replace(NORTH, end=None))
    write([later], FACTS, tmp_path / "out", options)
    (media,) = rows_of(tmp_path / "out" / "media.csv")
    (row,) = rows_of(tmp_path / "out" / "deployments.csv")
    assert media["timestamp"] == row["deploymentEnd"] == "2026-12-24T18:00:00+02:00"
    fields = camtrap_fields(row)
    assert (fields["from_local"], fields["time_zone"]) == (NORTH.start, "+02:00")
    assert "until_local" not in fields


def test_a_package_without_contributors_or_with_an_invalid_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="requires contributors and a project: write its facts"):
        write(burst(), FACTS, tmp_path / "out", CamtrapOptions())
    wrong = STATED | {"project": {"title": "x", "samplingDesign": "any"}}
    file = write_json(tmp_path / "wrong.json", wrong)
    with pytest.raises(ValidationError, match="unknown time zone"):
        CamtrapOptions(time_zone="Berlin")
    huge = tmp_path / "huge.json"
    for number in ("NaN", "1e400"):
        huge.write_text(json.dumps(STATED | {"extent": [0.5]}).replace("0.5", number))
        with pytest.raises(BadRequest, match="a number is not finite"):
            write(burst(), FACTS, tmp_path / "out", CamtrapOptions(package=huge))
    with pytest.raises(BadRequest, match="project.samplingDesign"):
        write(burst(), FACTS, tmp_path / "out", CamtrapOptions(package=file))
