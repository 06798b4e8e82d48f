"""resight deployments: from a spreadsheet to relations, and a clock that is corrected."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from tests.cli.conftest import Resight


def table(place: Path) -> Path:
    file = place / "deployments.csv"
    file.write_text("camera;location;latitude;longitude;from;until\n[b]north[/b];Oak hill;52,5;13,4;2026-05-01;\n")
    return file


def test_a_file_is_added_listed_and_removed(resight: Resight, home: Path, tmp_path: Path) -> None:
    words = ("deployments", "add", table(tmp_path), "--by", "ana", "--format", "json")
    done = resight(*words, "--dry-run")
    assert json.loads(done.ok())["changed"] == 0
    assert done.err == "nothing was added: leave out --dry-run\n"
    assert json.loads(resight(*words).ok()) == {
        "file": str(tmp_path / "deployments.csv"),
        "deployments": 1,
        "changed": 1,
    }
    assert json.loads(resight(*words).ok())["changed"] == 0
    (row,) = csv.DictReader(io.StringIO(resight("deployments", "list", "--format", "csv").ok()))
    assert (row["camera_id"], row["latitude"], row["actor"]) == ("[b]north[/b]", "52.5", "ana")
    assert "[b]north[/b]" in resight("deployments", "list").ok()
    assert json.loads(resight("deployments", "list", "--camera", "x", "--format", "json").ok()) == []
    name = row["deployment_id"]
    assert "removed  1" in resight("deployments", "remove", name, "--by", "ben").ok()
    assert "unknown deployment" in resight("deployments", "remove", name, "--by", "ben").refused(6)
    assert json.loads(resight("deployments", "list", "--format", "json").ok()) == []


def test_wrong_rows_are_named(resight: Resight, home: Path, tmp_path: Path) -> None:
    file = table(tmp_path)
    file.write_text(file.read_text() + "south;;95;13,4;noon;\n")
    error = resight("deployments", "add", file, "--by", "ana").refused(2)
    assert "row 2: location" in error
    assert "latitude" in error
    assert "row 1" not in error


def test_a_file_without_an_author_is_refused(resight: Resight, home: Path, tmp_path: Path) -> None:
    assert resight("deployments", "add", table(tmp_path)).code == 2


def test_a_clock_is_corrected_and_the_correction_taken_back(resight: Resight, home: Path, tmp_path: Path) -> None:
    resight("deployments", "add", table(tmp_path), "--by", "ana").ok()
    (row,) = json.loads(resight("deployments", "list", "--format", "json").ok())
    words = ("deployments", "clock", row["deployment_id"], "--by", "ben", "--format", "json")
    times = ("--showed", "2026-05-01T11:00", "--right", "2026-05-01T12:00:05")
    done = json.loads(resight(*words, *times, "--reason", "summer time").ok())
    assert (done["clock_offset_s"], done["changed"]) == (3605, 1)
    assert json.loads(resight(*words, "--offset-s", 3605, "--reason", "summer time").ok()) == (done | {"changed": 0})
    package = tmp_path / "package.csv"
    package.write_text(
        "deploymentID,deploymentStart,cameraID,locationName,latitude,longitude\n"
        f"{row['deployment_id']},2026-05-01T00:10:00+02:00,[b]north[/b],Oak hill,52.5,13.4\n"
    )
    assert "clock offset 3605 s" in resight("deployments", "add", package, "--by", "ana", "--dry-run").refused(2)
    changes = json.loads(resight("deployments", "history", "--format", "json").ok())
    stated = ("change", "clock_offset_s", "clock_reason", "clock_stated_by", "actor")
    assert [tuple(change[name] for name in stated) for change in changes] == [
        (1, None, None, None, "ana"),
        (2, 3605, "summer time", "ben", "ben"),
    ]
    assert "restored" in resight("deployments", "revert", "1", "--by", "ana").ok()
    (again,) = json.loads(resight("deployments", "list", "--format", "json").ok())
    assert (again["clock_offset_s"], again["clock_reason"]) == (None, None)
    empty = resight("deployments", "history", "--camera", "x", "--format", "json").ok()
    assert json.loads(empty) == []


def test_an_unclear_correction_is_refused(resight: Resight, home: Path, tmp_path: Path) -> None:
    resight("deployments", "add", table(tmp_path), "--by", "ana").ok()
    (row,) = json.loads(resight("deployments", "list", "--format", "json").ok())
    clock = ("deployments", "clock", row["deployment_id"], "--by", "ben")
    for wrong in ((), ("--showed", "2026-05-01"), ("--offset-s", 1, "--right", "2026-05-01")):
        assert "give either --offset-s" in resight(*clock, *wrong).refused(2)
    assert "invalid time 'noon'" in resight(*clock, "--showed", "noon", "--right", "2026-05-01").refused(2)
    assert "clock_offset_s: " in resight(*clock, "--offset-s", 10**12).refused(2)
    unknown = ("deployments", "clock", "x", "--offset-s", 1, "--by", "ben")
    assert "unknown deployment 'x'" in resight(*unknown).refused(6)
