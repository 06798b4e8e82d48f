"""CSV for people and for Timelapse."""

from __future__ import annotations

from pathlib import Path

import pytest

from archive.formats.csv_tables import SheetFiles, as_text, write, write_timelapse
from model_store.frozen import Frozen
from tests.archive.formats.some_images import DEER, FACTS, FOX, burst, image
from tests.archive.formats.table_schema import rows_of


def test_each_image_and_each_box_is_a_row(tmp_path: Path) -> None:
    write(burst(), FACTS, tmp_path / "out", Frozen())
    rows = rows_of(tmp_path / "out" / "images.csv")
    assert [(row["path"], row["status"]) for row in rows] == [(i.path, i.status) for i in burst()]
    assert rows[0]["label"] == "deer"  # a person's statement comes before the better score
    assert rows[0]["counts"] == "deer: 2; fox: 1"
    assert (rows[0]["location"], rows[0]["captured_at_local"]) == ("Oak hill", "2026-05-01 09:30:01")
    assert rows[0]["captured_at_corrected"] == "2026-05-01 10:30:01"
    boxes = rows_of(tmp_path / "out" / "detections.csv")
    found = [
        (row["path"], row["label"], row["score"], *(float(row[f"{n}_px"]) for n in ("x1", "y1", "x2", "y2")))
        for row in boxes
    ]
    assert found == [
        (i.path, b.label, "" if b.score is None else str(b.score), b.x1, b.y1, b.x2, b.y2)
        for i in burst()
        for b in i.detections
    ]


def test_a_text_that_begins_like_a_formula_is_no_formula(tmp_path: Path) -> None:
    odd = image(1, FOX, path='=HYPERLINK("http://x")/a.JPG', camera_id="-north", event_id="@e")
    write([odd], FACTS, tmp_path / "out", Frozen())
    (row,) = rows_of(tmp_path / "out" / "images.csv")
    assert (row["path"], row["camera_id"], row["event_id"]) == (f"'{odd.path}", "'-north", "'@e")
    (box,) = rows_of(tmp_path / "out" / "detections.csv")
    assert box["x1_px"] == "-0.25"  # a number stays one


def test_timelapse_finds_each_file_by_its_folder(tmp_path: Path) -> None:
    images = [image(1, FOX, DEER, DEER), image(2, path="top.JPG"), image(3, path="-a/b/=c.JPG")]
    images += [
        image(4 + n, *boxes, path=f"c/V.MP4#0000{n}000") for n, boxes in enumerate([(), (DEER, DEER), (FOX, DEER)])
    ]
    write_timelapse(images, FACTS, tmp_path / "t.csv", Frozen())
    rows = rows_of(tmp_path / "t.csv")
    assert [(row["File"], row["RelativePath"]) for row in rows] == [
        *(("IMG_0001.JPG", "north"), ("top.JPG", ""), ("=c.JPG", "-a\\b"), ("V.MP4", "c"))
    ]
    assert [(row["Label"], row["Count"], row["Status"]) for row in rows] == [
        *(("fox", "1", "ok"), ("", "0", "empty"), ("", "0", "empty"), ("fox", "1", "ok"))
    ]
    assert rows[3]["Labels"] == "deer: 2; fox: 1"


def test_no_file_has_more_rows_than_a_sheet(tmp_path: Path) -> None:
    with SheetFiles(tmp_path, "a", ["n"], max_rows=3) as sheet:
        for number in range(5):
            sheet.write([number])
    files = ("a.csv", "a-2.csv", "a-3.csv")
    assert [[row["n"] for row in rows_of(tmp_path / name)] for name in files] == [*(["0", "1"], ["2", "3"], ["4"])]


def test_a_full_file_is_not_followed_by_an_empty_one(tmp_path: Path) -> None:
    with SheetFiles(tmp_path, "a", ["n"], max_rows=2) as sheet:
        sheet.write([1])
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@sum(a1)", "\t=1", "\r=1", "\uff1d1"])
def test_a_formula_becomes_text(text: str) -> None:
    assert as_text(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1.5, None, "fox", "a=b", ""])
def test_other_values_stay(value: object) -> None:
    assert as_text(value) == value
