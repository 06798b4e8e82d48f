"""resight deployments add, list, remove: from a spreadsheet to relations."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from tests.cli.conftest import Resight


def table(place: Path) -> Path:
    file = place / "deployments.csv"
    file.write_text(
        "camera;location;latitude;longitude;from;until\n[b]north[/b];Oak hill;52,5;13,4;2026-05-01;\n"
    )
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
    assert (
        json.loads(resight("deployments", "list", "--camera", "x", "--format", "json").ok()) == []
    )
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
