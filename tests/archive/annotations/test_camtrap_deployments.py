"""deployments.csv of Camtrap DP: times by the camera's own clock, and no zone that is guessed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from archive.annotations.camtrap_deployments import camtrap_fields
from archive.annotations.deployment_file import add_file, read_deployments
from archive.catalogue.deployments import current
from archive.delta.tables import Tables
from archive.views.query import query
from model_store.errors import BadRequest
from tests.archive.catalogue.test_deployments import put_images

HEADER = (
    "deploymentID,locationID,locationName,latitude,longitude,coordinateUncertainty,deploymentStart,deploymentEnd,"
    "cameraID,timestampIssues,deploymentComments"
)
FIRST, LAST = "2020-05-30T04:57:37+02:00", "2020-07-01T11:41:41+02:00"


def row(start: str = FIRST, end: str = LAST, name: str = "00a2c20d", camera: str = "320") -> str:
    return f"{name},e254a13c,Beek,51.496,4.774,187,{start},{end},{camera},false,120 photos"


def file(place: Path, *rows: str) -> Path:
    path = place / "deployments.csv"
    path.write_text("\n".join([HEADER, *rows]))
    return path


def read(place: Path, *rows: str, zone: str | None = None) -> list[dict[str, Any]]:
    found = read_deployments(file(place, *rows), zone).values()
    return [one.model_dump(mode="json", exclude_none=True) for one in found]


def test_a_row_becomes_a_deployment_by_the_cameras_clock(tmp_path: Path) -> None:
    assert read(tmp_path, row()) == [
        {
            "deployment_id": "00a2c20d",
            "camera_id": "320",
            "location": "Beek",
            "latitude": 51.496,
            "longitude": 4.774,
            "from_local": "2020-05-30T04:57:37",
            "until_local": "2020-07-01T11:41:42",
            "time_zone": "+02:00",
            "notes": "120 photos",
        }
    ]


def test_the_last_image_is_in_its_deployment(tables: Tables, tmp_path: Path) -> None:
    put_images(tables, ("320", "2020-05-30T04:57:37"), ("320", "2020-07-01T11:41:41"))
    path = file(tmp_path, row(), row(LAST, "2020-08-01T00:00:00+02:00", "second"))
    assert add_file(tables, path, "ana") == (["00a2c20d", "second"], 2)
    assert add_file(tables, path, "ana")[1] == 0
    found = query(tables, "select deployment_id from image_deployments order by media_sha256")
    assert found["deployment_id"].to_pylist() == ["00a2c20d", "second"], "the card was changed"
    assert [one["until_local"] for one in current(tables).values()] == ["2020-07-01T11:41:41", "2020-08-01T00:00:01"]


@pytest.mark.parametrize(
    ("start", "end", "zone", "expected"),
    [
        ("2021-03-27T21:38:18+01:00", "2021-04-18T22:25:00+02:00", None, ("21:38:18", "21:25:01", "+01:00")),
        ("2021-03-27T20:38:18Z", "2021-04-18T20:25:00Z", "Europe/Berlin", ("21:38:18", "21:25:01", "+01:00")),
        ("2021-03-27T20:38:18Z", "2021-04-18T20:25:00Z", "-09:30", ("11:08:18", "10:55:01", "-09:30")),
        ("2021-03-27T20:38:18Z", "2021-04-18T20:25:00Z", "UTC", ("20:38:18", "20:25:01", "+00:00")),
    ],
)
def test_a_clock_keeps_its_offset_at_the_start(
    tmp_path: Path, start: str, end: str, zone: str | None, expected: tuple[str, str, str]
) -> None:
    (found,) = read(tmp_path, row(start, end), zone=zone)
    assert (found["from_local"][11:], found["until_local"][11:], found["time_zone"]) == expected


@pytest.mark.parametrize(
    ("text", "zone", "message"),
    [
        (row("2021-03-27T20:38:18Z"), None, "row 1: deploymentStart 2021-.*Z is in UTC: .* --time-"),
        (row("2021-03-27T20:38:18"), None, "is not a time with an offset from UTC"),
        (row(end="noon"), None, "row 1: deploymentEnd 'noon' is not a time"),
        (row(), "Mars/Olympus", "row 1: unknown time zone 'Mars/Olympus'"),
        (row(), "+2", "unknown time zone"),
        (row(camera=""), None, "row 1: camera_id: "),
        (row(start=LAST, end=FIRST), None, "row 1: until_local: .* is not after"),
        (row("0001-01-01T00:00:00+02:00"), None, "row 1: deploymentStart '0001.* is not a time"),
        (row(start=""), None, "row 1: deploymentStart '' is not a time"),
    ],
)
def test_what_cannot_be_known_is_refused(
    tables: Tables, tmp_path: Path, text: str, zone: str | None, message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        add_file(tables, file(tmp_path, text), "ana", zone)
    assert tables.existing("deployments") is None


def test_a_zone_is_only_for_this_format(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("camera,location,from\nnorth,Oak hill,2026-05-01")
    with pytest.raises(BadRequest, match="use the column time_zone"):
        read_deployments(path, "Europe/Berlin")


def test_the_last_year_is_no_end() -> None:
    fields = {"deploymentID": "a", "deploymentStart": FIRST}
    end = {"deploymentEnd": "9999-12-31T23:59:59+01:00"}
    assert camtrap_fields(fields | end) == camtrap_fields(fields)


def test_a_deployment_may_continue_and_have_only_the_id_of_its_place() -> None:
    fields = {"deploymentID": "a", "deploymentStart": FIRST, "locationID": "e254a13c"}
    assert camtrap_fields(fields) == {
        "deployment_id": "a",
        "from_local": datetime(2020, 5, 30, 4, 57, 37),
        "time_zone": "+02:00",
        "location": "e254a13c",
    }
