"""Files that spreadsheets open."""

from __future__ import annotations

from pathlib import Path

import pytest

from archive.formats.spreadsheet import SheetFiles, as_text
from tests.archive.formats.table_schema import rows_of


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


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@sum(a1)", "\t=1", "\r=1"])
def test_a_formula_becomes_text(text: str) -> None:
    assert as_text(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1.5, None, "fox", "a=b", ""])
def test_other_values_stay(value: object) -> None:
    assert as_text(value) == value
