"""Limits of a query: its statement reads the relations only, and needs bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from archive.delta.tables import Tables
from archive.views.query import _RELATIONS_ONLY, connect, query
from model_store.errors import BadRequest


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Return tables with an archive without files."""
    tables = Tables(str(tmp_path / "tables"))
    tables.snapshot("media")
    return tables


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("-- nothing", "returns no rows"),
        ("selec 1", "syntax error"),
        ("select * from deer", "deer does not exist"),
        ("select cast(path as integer) from (select 'x' as path)", "Could not convert"),
    ],
)
def test_a_wrong_statement_is_a_bad_request_in_duckdbs_words(tables: Tables, sql: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        query(tables, sql)


def test_a_name_that_a_join_repeats_gets_a_number_and_its_column_is_kept(tables: Tables) -> None:
    sql = "select 1 as a, 2 as b, 3 as a, 4 as a, 5 as a_1"
    assert query(tables, sql).to_pylist() == [{"a": 1, "b": 2, "a_1": 3, "a_2": 4, "a_1_1": 5}]


ESCAPES = (
    "copy (select 1) to '{0}/new.csv'",
    "copy all_results to '{0}/new.parquet'",
    "copy (select 1) to '{1}/media/_delta_log/00000000000000000000.json'",
    "select 1; copy (select 1) to '{0}/new.csv'",
    "from read_text('{0}/secret.csv')",
    "from read_blob('{0}/secret.csv')",
    "from read_csv('{0}/secret.csv')",
    "from '{0}/secret.csv'",
    "from glob('{0}/*')",
    "create view v as from '{0}/secret.csv'",
    "from sniff_csv('{0}/secret.csv')",
    "from parquet_metadata('{1}/media/*.parquet')",
    "from read_parquet('https://127.0.0.1:9/x')",
    "attach '{0}/new.db'",
    "export database '{0}/new'",
    "import database '{0}'",
    "install httpfs",
    "load httpfs",
    "load '{0}/x.duckdb_extension'",
    "create persistent secret s (type s3)",
    "set enable_external_access = true",
    "reset lock_configuration",
    "set temp_directory = '{0}'",
    "set memory_limit = '1TB'",
    "set python_enable_replacements = true",
    "set profiling_output = '{0}/new'",
    "call enable_logging(storage = 'file', storage_path = '{0}/new')",
    "select getenv('HOME')",
    "from statement",
    "from tables",
    "from rows",
    "delete from results",
    "drop table results_table",
    "update media set path = ''",
)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Yield the connection of a query, and a folder with its tables and another file."""
    place = tmp_path_factory.mktemp("locked")
    (place / "secret.csv").write_text("secret\n")
    tables = Tables(str(place / "tables"))
    tables.snapshot("media")
    with connect(tables) as sql:
        sql.execute(_RELATIONS_ONLY)
        yield sql, place


@pytest.mark.parametrize("statement", ESCAPES)
def test_a_statement_reaches_nothing_but_the_relations(
    locked: tuple[duckdb.DuckDBPyConnection, Path], statement: str
) -> None:
    sql, place = locked
    tables = rows = pa.table({"secret": [1]})  # not reached by their names
    before = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    with pytest.raises(duckdb.Error):
        sql.execute(statement.format(place, place / "tables")).fetchall()
    assert {file: file.read_bytes() for file in place.rglob("*") if file.is_file()} == before
    assert rows is tables


def test_files_are_reached_where_that_is_asked_for(tables: Tables, tmp_path: Path) -> None:
    out = tmp_path / "cameras.csv"
    out.write_text("camera\nnorth\n")
    with pytest.raises(BadRequest, match="--allow-files"):
        query(tables, f"from '{out}'")
    found = query(tables, f"from '{out}'", allow_files=True)
    assert found.to_pylist() == [{"camera": "north"}]
    (tmp_path / "other.parquet").write_text("x" * 100)
    for name, words in (("other.csv", "No files found"), ("other.parquet", "magic bytes")):
        with pytest.raises(BadRequest, match=words):
            query(tables, f"from '{tmp_path / name}'", allow_files=True)


BIG = """
    select max(s) as s from (
        select sha256(i::varchar) as s from range(1_000_000) r(i) order by hash(i) limit 999_999)
"""


def test_what_does_not_fit_into_memory_is_on_disk_below_tmpdir_until_the_end(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, elsewhere = tmp_path / "it's room", tmp_path / "elsewhere"
    room.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    with connect(tables, memory_mib=64) as sql:
        (folder,) = room.iterdir()
        assert folder.stat().st_mode & 0o077 == 0
        rows = sql.sql(BIG).fetchall()
        assert (folder / "spill").is_dir()
    assert len(rows) == 1
    assert query(tables, BIG, memory_mib=64).num_rows == 1  # also without access to files
    assert list(room.iterdir()) == list(elsewhere.iterdir()) == []


def test_a_query_that_fits_nowhere_names_the_way_out(tables: Tables) -> None:
    with pytest.raises(BadRequest, match=r"(?s)Out of Memory.*TMPDIR.*--memory-mib"):
        query(tables, BIG, memory_mib=1)
