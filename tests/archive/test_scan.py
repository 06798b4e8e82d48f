"""The same rows through DuckDB's own reader as through pyarrow's."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from archive.scan import scan
from archive.schemas import RESULTS
from archive.tables import Tables
from tests.fixtures_local import put_results, result_rows

KEYS = ("1" * 64, "12e4", "it's")


@pytest.fixture(params=["local", "s3"])
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> Tables:
    """With a row of each key, one of them put twice over two files."""
    url = str(tmp_path / "it's")
    if request.param == "s3":
        boto3 = pytest.importorskip("boto3")
        endpoint = request.getfixturevalue("s3_endpoint")
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="scan")
        url = f"s3://scan/{tmp_path.name}"
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


def test_without_a_key_all_rows_have_theirs_as_text(tables: Tables) -> None:
    found = [("m0", KEYS[0]), ("m1", KEYS[1]), ("m2", KEYS[2]), ("m3", KEYS[0])]
    assert rows(tables, None) == found
    assert rows(Tables(tables.url + "-none"), None) == []
