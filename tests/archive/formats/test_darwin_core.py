"""Occurrences of Darwin Core."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from archive.formats.darwin_core import write
from archive.formats.placed import PlacedOptions
from model_store.errors import BadRequest
from tests.archive.formats.some_images import ADDED, DEER, FACTS, NORTH, burst, image
from tests.archive.formats.table_schema import rows_of
from tests.archive.formats.test_camtrap_dp import STATED
from tests.fixtures_local import write_json


def test_a_row_is_a_label_of_an_event_with_its_largest_count(tmp_path: Path) -> None:
    alone = image(6, ADDED, replace(ADDED, label="Blank"), replace(ADDED, label="no cv result"), event_id=None)
    stated = write_json(tmp_path / "stated.json", STATED)
    copy = replace(alone, path="copy.JPG")
    write([*burst(), alone, copy], FACTS, tmp_path / "o.csv", PlacedOptions(package=stated))
    rows = rows_of(tmp_path / "o.csv")
    found = [(r["vernacularName"], r["individualCount"], r["scientificName"]) for r in rows]
    assert found == [("deer", "1", ""), ("deer", "2", ""), ("fox", "1", "Vulpes vulpes")]  # only animals
    assert [row["identifiedBy"] for row in rows] == ["human", "deer@2", "deer@2"]
    assert rows[0]["eventDate"] == "2026-05-01T10:30:06+02:00"
    assert rows[1]["eventDate"] == "2026-05-01T10:30:01+02:00/2026-05-01T10:30:03+02:00"
    assert len({row["occurrenceID"] for row in rows}) == 3


def test_an_empty_image_needs_no_time_and_no_place(tmp_path: Path) -> None:
    empty = image(2, captured_at_local=None, deployment=None)
    write([image(1, DEER), empty], FACTS, tmp_path / "o.csv", PlacedOptions())
    assert len(rows_of(tmp_path / "o.csv")) == 1


def test_a_missing_time_zone_is_refused(tmp_path: Path) -> None:
    nowhere = image(1, DEER, deployment=replace(NORTH, time_zone=None))
    with pytest.raises(BadRequest, match="without a time zone"):
        write([nowhere], FACTS, tmp_path / "o.csv", PlacedOptions())
    write([nowhere], FACTS, tmp_path / "o.csv", PlacedOptions(time_zone="+05:45"))
    assert rows_of(tmp_path / "o.csv")[0]["eventDate"] == "2026-05-01T10:30:01+05:45"
