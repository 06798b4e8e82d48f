"""DuckDB's own reader gives the same rows as pyarrow."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from archive.catalogue.diff import mismatches
from archive.delta.snapshot import scan
from archive.delta.tables import Tables, storage_options
from archive.schemas import MEDIA, RESULTS
from model_store.errors import StorageUnreachable
from tests.fixtures_local import put_results, put_rows, result_rows

KEYS = ("1" * 64, "12e4", "it's")


@pytest.fixture(scope="module", params=["local", "s3"])
def tables(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Return tables with a row of each key, one of them twice in two files."""
    url = str(tmp_path_factory.mktemp("scan") / "it's")
    if request.param == "s3":
        boto3 = pytest.importorskip("boto3")
        endpoint = request.getfixturevalue("s3_endpoint")
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="scan")
        url = "s3://scan/tables"
    tables = Tables(url)
    for i, key in enumerate((*KEYS, KEYS[0])):
        put_results(tables, result_rows([f"m{i}"], key=key))
    return tables


def rows(tables: Tables, key: str | None) -> list[tuple[str, ...]]:
    sql = duckdb.connect()
    scan(sql, "results", tables.existing("results"), RESULTS, key)
    columns = "media_sha256" if key is not None else "media_sha256, inference_key"
    return sql.sql(f"select {columns} from results order by 1").fetchall()


def test_one_key_is_its_partition(tables: Tables) -> None:
    assert rows(tables, KEYS[0]) == [("m0",), ("m3",)]
    assert rows(tables, KEYS[1]) == [("m1",)]
    assert rows(tables, "") == rows(tables, "other") == []


def test_files_are_read_by_their_own_names(tmp_path: Path) -> None:
    """Paths are neither patterns nor quoted as in the log; other files would match the patterns."""
    names, key = ("a_b", "axb", "x", "0", "jörg #1", "a*b", "a?b", "{x,y}", "100%", "**"), "100% ü/ö"
    for name in names:
        put_results(Tables(str(tmp_path / name)), result_rows([name], key=key))
    for name in names[4:]:
        assert rows(Tables(str(tmp_path / name)), key) == [(name,)]
        assert rows(Tables(str(tmp_path / name)), None) == [(name, key)]


@pytest.mark.parametrize("folder", ["media_sha256=x", "inference_key=x"])
def test_a_folder_named_like_a_partition_changes_no_row(tmp_path: Path, folder: str) -> None:
    tables = Tables(str(tmp_path / folder / "tables"))
    put_results(tables, result_rows(["m"], key=KEYS[1]))
    assert (rows(tables, None), rows(tables, KEYS[1])) == ([("m", KEYS[1])], [("m",)])


def test_a_damaged_or_lost_file_is_an_error_with_its_place_and_the_way_out(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path))
    put_results(tables, result_rows(["m"], status="failed", error_code="changed"))
    (file,) = tmp_path.glob("results/*/*.parquet")
    footer = slice(-60, -8)  # of Parquet, before its length
    data = bytearray(file.read_bytes())
    data[footer] = b"\xff" * 52
    for damage in (lambda: file.write_bytes(data), file.unlink):
        damage()
        for read in (lambda: rows(tables, None), lambda: mismatches(tables)):
            with pytest.raises(StorageUnreachable, match=f"cannot read .*{tmp_path}.*; 'resight doctor") as raised:
                read()
            assert "LINE 1" not in str(raised.value)


def test_without_a_key_all_rows_have_theirs_as_text(tables: Tables) -> None:
    found = [("m0", KEYS[0]), ("m1", KEYS[1]), ("m2", KEYS[2]), ("m3", KEYS[0])]
    assert rows(tables, None) == found
    assert rows(Tables(tables.url + "-none"), None) == []


def test_a_column_that_files_are_older_than_is_null_there(tables: Tables) -> None:
    old = pa.schema([field for field in MEDIA if field.name != "quick_digest"])
    row = {"source_root": "/a", "path": "1.jpg", "media_sha256": "m1", "size_bytes": 1}
    where, options = f"{tables.url}/media", storage_options(tables.url)
    write_deltalake(where, pa.Table.from_pylist([row], schema=old), storage_options=options)
    asked = "select media_sha256, size_bytes, quick_digest from media order by 1"
    sql = duckdb.connect()
    scan(sql, "media", tables.existing("media"), MEDIA)
    assert sql.sql(asked).fetchall() == [("m1", 1, None)]
    new = row | {"path": "2.jpg", "media_sha256": "m2", "quick_digest": -5}
    put_rows(tables, "media", new)
    scan(sql, "media", tables.existing("media"), MEDIA)
    assert sql.sql(asked).fetchall() == [("m1", 1, None), ("m2", 1, -5)]
    assert set(sql.sql("from media").columns) == set(MEDIA.names)
