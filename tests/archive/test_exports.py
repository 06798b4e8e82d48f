"""Exports, read back by other programs than the one that wrote them."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from archive.exports import VIEWS, export
from archive.query import query
from archive.tables import Tables
from model_store.errors import BadRequest
from tests.fixtures_local import put_results, result_rows


@pytest.fixture
def filled(tables: Tables) -> Tables:
    put_results(tables, result_rows(["a", "b", "c"], error_detail='it said "no", twice\nand left'))
    return tables


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_view_without_rows_is_a_file_with_its_columns(
    tables: Tables, tmp_path: Path, view: str, suffix: str
) -> None:
    out = tmp_path / f"{view}{suffix}"
    assert export(tables, view, out) == 0
    columns = query(tables, f"select * from {view}").column_names
    if suffix == ".parquet":
        assert pq.read_table(out).column_names == columns
    else:
        assert list(csv.reader(out.open(newline=""))) == [columns]


def test_parquet_reads_back_with_types(filled: Tables, tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    assert export(filled, "results", out) == 3
    rows = pq.read_table(out).to_pylist()
    assert sorted(row["media_sha256"] for row in rows) == ["a", "b", "c"]
    assert rows[0]["detections"] == []
    assert rows == query(filled, "select * from results").to_pylist()


def test_csv_reads_back_with_quotes_and_newlines(filled: Tables, tmp_path: Path) -> None:
    out = tmp_path / "results.CSV"
    assert export(filled, "results", out) == 3
    rows = list(csv.DictReader(out.open(newline="")))
    assert sorted(row["media_sha256"] for row in rows) == ["a", "b", "c"]
    assert {row["error_detail"] for row in rows} == {'it said "no", twice\nand left'}


def test_the_folder_is_made_and_nothing_else_is_left_in_it(filled: Tables, tmp_path: Path) -> None:
    out = tmp_path / "new" / "it's here" / "results.csv"
    export(filled, "results", out)
    export(filled, "results", out)
    assert [file.name for file in out.parent.iterdir()] == ["results.csv"]


@pytest.mark.parametrize(
    ("view", "name", "words"),
    [
        ("", "x.csv", "no view ''; there is: detections, results, media, runs"),
        ("results; drop", "x.csv", "no view"),
        ("results", "x", "ends in .parquet or .csv"),
        ("results", "x.xlsx", "ends in .parquet or .csv"),
        ("results", "file/x.csv", "cannot write"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is_left(
    filled: Tables, tmp_path: Path, view: str, name: str, words: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BadRequest, match=words):
        export(filled, view, tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before
