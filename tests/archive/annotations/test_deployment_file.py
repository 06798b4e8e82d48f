"""Files of deployments: what spreadsheets write is read, and one wrong row keeps all out."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from archive.annotations.deployment_file import add_file, camtrap_fields, read_deployments, remarks
from archive.catalogue.deployments import Deployment, Location, correct_clock, current, record
from archive.delta.tables import Tables
from archive.views.exports import export
from archive.views.query import query
from model_store.errors import BadRequest, Conflict
from tests.archive.catalogue.test_deployments import put_images
from tests.fixtures_local import put_rows, rows_of

HEADER = "camera,location,latitude,longitude,from,until,time_zone,clock_offset_s,notes"
NORTH = "north,Oak hill,52.51,13.4,2026-05-01T09:30,2026-06-12,Europe/Berlin,3600,new batteries"


def file(place: Path, text: str | bytes, name: str = "deployments.csv") -> Path:
    path = place / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def fields(path: Path) -> list[dict[str, Any]]:
    found = read_deployments(path).values()
    return [deployment.model_dump(mode="json", exclude_none=True) for deployment in found]


EXPECTED = {
    "camera_id": "north",
    "location": "Oak hill",
    "latitude": 52.51,
    "longitude": 13.4,
    "from_local": "2026-05-01T09:30:00",
    "until_local": "2026-06-12T00:00:00",
    "time_zone": "Europe/Berlin",
    "clock_offset_s": 3600,
    "notes": "new batteries",
}


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\n{NORTH}\n",
        f"\ufeff{HEADER}\r\n{NORTH}\r\n{',' * 8}\r\n",
        f"{HEADER};;\n{NORTH}".replace(",", ";").replace("52.51;13.4", "52,51;13,4"),
        f"{HEADER}\n{NORTH}".replace(",", "\t").replace("52.51", " 52,51 "),
        f"{HEADER.upper()}\n{NORTH.replace('north', ' north ')}",
        f"{HEADER.replace('camera', 'camera_id').replace('from', 'from_local')},actor\n{NORTH},ben",
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, text: str) -> None:
    assert fields(file(tmp_path, text)) == [EXPECTED]


def test_a_camera_has_the_characters_of_its_images(tmp_path: Path) -> None:
    (found,) = fields(file(tmp_path, f"{HEADER}\n{NORTH}".replace("north", "Su\u0308d")))
    assert found["camera_id"] == "S\u00fcd"


def test_fields_that_are_left_empty_are_not_guessed(tmp_path: Path) -> None:
    path = file(tmp_path, f"{HEADER}\nnorth,Oak hill,,,2026-05-01,,,,\n")
    assert fields(path) == [{"camera_id": "north", "location": "Oak hill", "from_local": "2026-05-01T00:00:00"}]


def test_every_wrong_row_is_named_and_none_is_added(tables: Tables, tmp_path: Path) -> None:
    rows = ["north,Oak hill,91,0,2026-05-01,,,,", NORTH, "south,,52,13,noon,,Berlin,1h,"]
    path = file(tmp_path, "\n".join([HEADER, *rows]))
    with pytest.raises(BadRequest) as refused:
        add_file(tables, path, "ana")
    lines = str(refused.value).split("\n")
    assert lines[0] == f"{path}: nothing was added"
    assert lines[1].startswith("row 1: latitude: ")
    assert lines[2].startswith("row 3: location: ")
    assert all(word in lines[2] for word in ("from_local: invalid time 'noon'", "time_zone: ", "clock_offset_s: "))
    assert tables.existing("deployments") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "it has no rows"),
        ("", "it has no rows"),
        ("camera,place,from\nn,Oak,2026-05-01\ns,Elm,2026-05-01", "added\nrow 1: place: unknown field.*\ncolumns"),
        (f"{HEADER}\n{NORTH},more", "row 1: it has more fields than the header"),
        (f"{HEADER}\n{NORTH}\n{NORTH.replace('Oak', 'Elm')}", "row 2: row 1 is about the same deployment"),
        (f"{HEADER}\n{NORTH}\n{NORTH.replace('01T09', '02T09')}", "row 2: camera 'north' from .* overlaps row 1"),
        (f"{HEADER}\nn\xe4rd,x,,,2026-05-01,,,,".encode("latin-1"), "not UTF-8"),
    ],
)
def test_what_is_no_such_file_is_refused(tables: Tables, tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises((BadRequest, Conflict), match=message):
        add_file(tables, file(tmp_path, text), "ana")
    assert tables.existing("deployments") is None or rows_of(tables, "deployments") == []


def test_the_same_file_again_adds_nothing_and_a_correction_one_row(tables: Tables, tmp_path: Path) -> None:
    path = file(tmp_path, f"{HEADER}\n{NORTH}\n{NORTH.replace('north', 'south')}")
    ids, added = add_file(tables, path, "ana")
    assert (len(set(ids)), added) == (2, 2)
    assert add_file(tables, path, "ben") == (ids, 0)
    path.write_text(path.read_text().replace("2026-06-12", "2026-07-01", 1))
    assert add_file(tables, path, "ben") == (ids, 1)
    assert len(rows_of(tables, "deployments")) == 3


@pytest.mark.parametrize("name", ["deployments.csv", "deployments.parquet"])
def test_an_export_can_be_added_again(tables: Tables, tmp_path: Path, name: str) -> None:
    """Coordinates of a location do not become those of its deployments."""
    tables.snapshot("media")
    record(tables, {"": Location(location="Oak hill", latitude=52.51, longitude=13.4)}, "ana")
    south = NORTH.replace("north", "south").replace("52.51,13.4", ",")
    add_file(tables, file(tmp_path, f"{HEADER}\n{NORTH}\n{south}"), "ana")
    assert export(tables, "deployments", tmp_path / name) == 2
    assert add_file(tables, tmp_path / name, "ben")[1] == 0
    assert len(current(tables)) == 3


def test_cameras_without_images_are_named(tables: Tables, tmp_path: Path) -> None:
    read = {"row 1": Deployment.model_validate(EXPECTED | {"camera_id": "norht"})}
    assert remarks(tables, read) == []
    image = {"media_sha256": "a", "source_root": "/a", "path": "a.jpg", "camera_id": "north"}
    put_rows(tables, "media", image)
    assert remarks(tables, read) == ["no image is of the camera 'norht'; did you mean north?"]


CAMTRAP = (
    "deploymentID,locationID,locationName,latitude,longitude,coordinateUncertainty,deploymentStart,deploymentEnd,"
    "cameraID,timestampIssues,deploymentComments"
)
FIRST, LAST = "2020-05-30T04:57:37+02:00", "2020-07-01T11:41:41+02:00"


def row(start: str = FIRST, end: str = LAST, name: str = "00a2c20d", camera: str = "320") -> str:
    return f"{name},e254a13c,Beek,51.496,4.774,187,{start},{end},{camera},false,120 photos"


def camtrap_file(place: Path, *rows: str) -> Path:
    path = place / "deployments.csv"
    path.write_text("\n".join([CAMTRAP, *rows]))
    return path


def read_camtrap(place: Path, *rows: str, zone: str | None = None) -> list[dict[str, Any]]:
    found = read_deployments(camtrap_file(place, *rows), zone).values()
    return [one.model_dump(mode="json", exclude_none=True) for one in found]


def test_a_row_becomes_a_deployment_by_the_cameras_clock(tmp_path: Path) -> None:
    assert read_camtrap(tmp_path, row()) == [
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
    path = camtrap_file(tmp_path, row(), row(LAST, "2020-08-01T00:00:00+02:00", "second"))
    assert add_file(tables, path, "ana") == (["00a2c20d", "second"], 2)
    assert add_file(tables, path, "ana")[1] == 0
    found = query(tables, "select deployment_id from image_deployments order by media_sha256")
    assert found["deployment_id"].to_pylist() == ["00a2c20d", "second"], "the card was changed"
    assert [one["until_local"] for one in current(tables).values()] == ["2020-07-01T11:41:41", "2020-08-01T00:00:01"]


def test_a_stated_clock_offset_is_kept(tables: Tables, tmp_path: Path) -> None:
    path = camtrap_file(tmp_path, row())
    add_file(tables, path, "ana")
    correct_clock(tables, "00a2c20d", 3600, "a photo", "ana")
    assert add_file(tables, path, "ben")[1] == 0
    path = camtrap_file(tmp_path, row(end="2020-07-02T11:41:41+02:00"))
    assert add_file(tables, path, "ben")[1] == 1
    (found,) = current(tables).values()
    assert (found["until_local"], found["clock_offset_s"]) == ("2020-07-02T11:41:42", 3600)
    with pytest.raises(BadRequest, match="row 1: the start .* is not .* clock offset 3600 s .*: state the deployment"):
        add_file(tables, camtrap_file(tmp_path, row("2020-05-30T05:27:37+02:00")), "ben")


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
    (found,) = read_camtrap(tmp_path, row(start, end), zone=zone)
    assert (found["from_local"][11:], found["until_local"][11:], found["time_zone"]) == expected


@pytest.mark.parametrize(
    ("text", "zone", "message"),
    [
        (row("2021-03-27T20:38:18Z"), None, "row 1: deploymentStart 2021-.*Z is in UTC: .* --time-"),
        (row("2021-03-27T20:38:18"), None, "is not a time with an offset from UTC"),
        (row(end="noon"), None, "row 1: deploymentEnd 'noon' is not a time"),
        (row(), "Mars/Olympus", "row 1: unknown time zone 'Mars/Olympus'"),
        (row(camera=""), None, "row 1: camera_id: "),
        (row(start=LAST, end=FIRST), None, "row 1: until_local: .* is not after"),
        (row("0001-01-01T00:00:00+02:00"), None, "row 1: deploymentStart '0001.* is not a time"),
    ],
)
def test_what_cannot_be_known_is_refused(
    tables: Tables, tmp_path: Path, text: str, zone: str | None, message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        add_file(tables, camtrap_file(tmp_path, text), "ana", zone)
    assert tables.existing("deployments") is None


def test_a_zone_is_only_for_this_format(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("camera,location,from\nnorth,Oak hill,2026-05-01")
    with pytest.raises(BadRequest, match="use the column time_zone"):
        read_deployments(path, "Europe/Berlin")


def test_a_deployment_may_continue_and_have_only_the_id_of_its_place() -> None:
    fields = {"deploymentID": "a", "deploymentStart": FIRST, "locationID": "e254a13c", "locationName": "NA"}
    last_year = {"deploymentEnd": "9999-12-31T23:59:59+01:00"}
    assert camtrap_fields(fields | last_year) == camtrap_fields(fields)
    assert camtrap_fields(fields) == {
        "deployment_id": "a",
        "from_local": datetime(2020, 5, 30, 4, 57, 37),
        "time_zone": "+02:00",
        "location": "e254a13c",
    }
