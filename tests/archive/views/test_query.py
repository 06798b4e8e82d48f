"""The relations, compared with counts made without SQL."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from s3fs import S3FileSystem

from archive.catalogue.ingest import ingest
from archive.defaults import RELATIONS
from archive.delta.tables import Tables
from archive.views.query import archives, connect, query
from archive.views.views import View, Views
from examples.sample_archive import Summary
from model_store.errors import StorageUnreachable
from model_store.storage import Folder
from tests.fixtures_local import put_results, put_rows, result_rows, rows_of
from tests.support.s3_server import new_bucket


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Return tables with an archive without files."""
    tables = Tables(str(tmp_path / "tables"))
    tables.snapshot("media")
    return tables


def published(key: str = "k", **more: Any) -> View:
    fields = {"inference_key": key, "model_name": "m", "model_version": "1", "weights_sha256": "w"}
    return View.model_validate({**fields, **more})


def detection(rank: int) -> dict[str, Any]:
    return {
        "rank": rank,
        "label": ("cat", "dog")[rank % 2],
        "class_id": rank % 2,
        "score": 0.9 - rank / 10,
        "x1_px": 10.0,
        "y1_px": 20.0,
        "x2_px": 60.0,
        "y2_px": 40.0,
    }


@pytest.fixture(scope="module")
def detected(sample_folder: tuple[Path, Summary], tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Return images with 0 to 3 detections (copied images have 3); all are 200 x 100 px. Tests must not change it."""
    tables = Tables(str(tmp_path_factory.mktemp("detected") / "tables"))
    ingest(tables, str(sample_folder[0]))
    rows = rows_of(tables, "media")
    copied = {row["media_sha256"] for row in rows if "_copy" in row["path"]}
    parts: list[pa.Table] = []
    for i, sha in enumerate(dict.fromkeys(row["media_sha256"] for row in rows)):
        found = [detection(rank) for rank in range(3 if sha in copied else i % 4)]
        size: dict[str, Any] = {"width_px": 200, "height_px": 100}
        parts.append(result_rows([sha], **size, n_detections=len(found), detections=found))
    put_results(tables, pa.concat_tables(parts))
    Views(tables.url).publish(published(), after=0)
    return tables


def count(tables: Tables, relation: str, view: View | None = None) -> int:
    return query(tables, f"select count(*) as n from {relation}", view).to_pylist()[0]["n"]


def test_relations_of_tables_that_do_not_exist_are_empty_and_make_none(tables: Tables) -> None:
    for view in (None, published()):
        with connect(tables, view) as sql:
            assert [sql.sql(f"from {name}").fetchall() for name in RELATIONS] == [[]] * len(RELATIONS)
    assert [folder.name for folder in Path(tables.url).iterdir()] == ["media"]


def test_a_place_without_a_table_is_not_an_empty_archive(tmp_path: Path) -> None:
    away = Tables(str(tmp_path / "away"))
    with pytest.raises(
        StorageUnreachable, match="no tables in .*away: begin with 'resight ingest FOLDER', .*, is it mounted"
    ):
        query(away, "select count(*) from media")
    assert archives(away) == {}
    assert not (tmp_path / "away").exists()


def test_a_table_that_commands_make_which_only_look_is_no_archive(tmp_path: Path) -> None:
    away = Tables(str(tmp_path / "away"))
    away.snapshot("exports")
    with pytest.raises(StorageUnreachable, match="is it mounted"):
        query(away, "select count(*) from exports")


def test_only_what_a_statement_names_is_created_and_opened(detected: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    existing, opened = Tables.existing, list[str]()
    monkeypatch.setattr(Tables, "existing", lambda self, name: opened.append(name) or existing(self, name))
    created = "select view_name from duckdb_views() where not internal order by 1"
    with connect(detected, statement='select count(*) from "MEDIA"') as sql:
        assert sql.sql(created).fetchall() == [("label_thresholds",), ("media",), ("media_table",)]
    assert opened == ["media"]
    reviewed = "select count(*) filter (is_shown(false, false, 0.5, 0.1)) as reviewed from media"
    with connect(detected, statement=reviewed) as sql:  # words with `show` and `view` in them
        assert sql.sql(created).fetchall() == [("label_thresholds",), ("media",), ("media_table",)]
    with connect(detected) as sql:
        assert {(name,) for name in RELATIONS} <= set(sql.sql(created).fetchall())


@pytest.mark.parametrize(
    "statement",
    [
        "show tables",
        "SHOW ALL TABLES",
        "from (show tables)",
        "describe",
        "from (describe);",
        "select table_name from information_schema.tables",
        "from duckdb_views()",
        "select count(*) from query_table('detections')",
        "select relname from pg_catalog.pg_class",
    ],
)
def test_a_statement_that_lists_relations_has_all(detected: Tables, statement: str) -> None:
    with connect(detected, statement=statement) as sql:
        sql.sql(statement).fetchall()
        assert {name for (name,) in sql.sql("select view_name from duckdb_views()").fetchall()} >= set(RELATIONS)


def test_relations_have_the_same_columns_without_assertions(two_keys: Tables) -> None:
    def columns() -> list[Any]:
        with connect(two_keys, published("old")) as sql:
            return [sql.sql(f"describe {name}").fetchall() for name in RELATIONS]

    without = columns()
    two_keys.snapshot("assertions")
    assert columns() == without


@pytest.fixture
def two_keys(tables: Tables) -> Tables:
    """Return three images; key `old` has results of all, `new` of two, one of which failed."""
    put_results(tables, result_rows(["a", "b", "c"], key="old"))
    put_results(tables, result_rows(["a"], key="new"))
    put_results(tables, result_rows(["b"], key="new", status="failed"))
    return tables


def shown(tables: Tables, view: View | None = None) -> list[str]:
    rows = query(tables, "select media_sha256 from results order by 1", view).to_pylist()
    return [row["media_sha256"] for row in rows]


def test_what_is_not_published_is_in_all_results_only(two_keys: Tables) -> None:
    assert shown(two_keys) == []
    assert count(two_keys, "all_results") == 5
    types = "select column_name, column_type from (describe {})"
    described = [query(two_keys, types.format(name)).to_pylist() for name in ("results", "all_results")]
    assert described[0] == described[1]


def test_what_is_published_is_in_results_until_another_is(two_keys: Tables) -> None:
    views = Views(two_keys.url)
    views.publish(published("old"), after=0)
    assert shown(two_keys) == ["a", "b", "c"]
    views.publish(published("new"), after=1)
    assert shown(two_keys) == ["a", "b"]
    views.rollback(views.history())
    assert shown(two_keys) == ["a", "b", "c"]
    views.publish(published("pruned"), after=3)
    assert shown(two_keys) == []
    assert count(two_keys, "all_results") == 5


def test_files_of_other_keys_are_not_opened(two_keys: Tables) -> None:
    for folder in Path(two_keys.url, "results").glob("inference_key=*"):
        if folder.name != "inference_key=new":
            shutil.rmtree(folder)
    for relation in ("results", "detections"):
        query(two_keys, f"select * from {relation}", published("new"))
    assert shown(two_keys, published("new")) == ["a", "b"]
    assert count(two_keys, "all_results where inference_key = 'new'") == 2
    for allow_files in (False, True):
        with pytest.raises(StorageUnreachable, match="cannot read from"):
            query(two_keys, "select * from all_results", allow_files=allow_files)


SCORES = {"cat": 0.9, "dog": 0.8, "it's": 0.7}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    tables = Tables(str(tmp_path_factory.mktemp("scored") / "tables"))
    media = [{"media_sha256": "a", "source_root": "/r", "path": "a.jpg"}]
    put_rows(tables, "media", *media)
    found = [detection(i) | {"label": k, "score": v} for i, (k, v) in enumerate(SCORES.items())]
    put_results(tables, result_rows(["a"], detections=found, n_detections=3))
    return tables


@pytest.mark.parametrize(
    ("threshold", "labels", "want"),
    [
        (0.0, {}, {"cat", "dog", "it's"}),
        (0.75, {}, {"cat", "dog"}),
        (0.95, {"it's": 0.5}, {"it's"}),
        (0.1, {"dog": 0.95, "moose": 0.0}, {"cat", "it's"}),
        (0.7, {}, {"cat", "dog", "it's"}),  # as 32-bit numbers: the column has 0.699999988
        (0.700001, {"cat": 0.9, "dog": 0.800001}, {"cat"}),
    ],
)
def test_detections_are_shown_from_the_threshold_of_their_label(
    scored: Tables, threshold: float, labels: dict[str, float], want: set[str]
) -> None:
    view = published(threshold=threshold, label_thresholds=labels)
    with connect(scored, view, statement="detections all_detections results") as sql:
        assert sorted(label for (label,) in sql.sql("select label from detections").fetchall()) == sorted(want)
        assert sql.sql("select count(*) from all_detections").fetchall() == [(3,)]
        assert sql.sql("select n_detections from results").fetchall() == [(3,)]


@pytest.fixture(params=["local", "s3"])
def many_publications(request: pytest.FixtureRequest, tmp_path: Path) -> Tables:
    url = str(tmp_path)
    if request.param == "s3":
        url = new_bucket(request.getfixturevalue("s3_endpoint"), "tables")
    tables = Tables(url)
    tables.snapshot("media")
    for serial in range(8):
        Views(url).publish(published(f"k{serial}"), after=serial)
    return tables


def test_earlier_publications_are_read_only_by_queries_of_views(
    many_publications: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = Folder.read

    def counted(folder: Folder, relative: str, *more: Any) -> bytes:
        read.append(relative)
        return real(folder, relative, *more)

    asked: list[str] = []
    call = S3FileSystem._call_s3

    async def request(fs: S3FileSystem, method: str, *more: Any, **words: Any) -> Any:
        if "/views" in str((more, words)):
            asked.append(method)
        return await call(fs, method, *more, **words)

    monkeypatch.setattr(Folder, "read", counted)
    monkeypatch.setattr(S3FileSystem, "_call_s3", request)
    assert count(many_publications, "results") == 0
    assert read == ["production/00000008.json"]
    assert len(asked) <= 3, "a listing, and the newest"
    joined = "views a join views b using (serial)"
    assert count(many_publications, joined) == 8
    assert len(read) == 1 + 1 + 8, "one scan of the relation is enough for a query"


def test_a_damaged_publication_is_an_error_of_the_storage_where_it_is_read(tables: Tables) -> None:
    for serial in range(2):
        Views(tables.url).publish(published(f"k{serial}"), after=serial)
    Folder(f"{tables.url}/views").write("production/00000001.json", b"?")
    assert count(tables, "results") == 0
    with pytest.raises(StorageUnreachable, match=r"cannot read .*production/00000001\.json"):
        count(tables, "views")


def test_views_are_publications_one_row_each(tables: Tables) -> None:
    views = Views(tables.url)
    views.publish(published("a", label_thresholds={"cat": 0.5}), after=0)
    views.publish(published("b", name="trial", layers=("stones",)), after=0)
    views.publish(published("b", run_id="r", reason="better"), after=1)
    views.rollback(views.history())
    found = query(tables, "select * from views order by name, serial").to_pylist()
    seen = [(r["name"], r["serial"], r["inference_key"], r["current"]) for r in found]
    assert seen == [
        ("production", 1, "a", False),
        ("production", 2, "b", False),
        ("production", 3, "a", True),
        ("trial", 1, "b", True),
    ]
    assert [r["rolled_back_to"] for r in found] == [None, None, 1, None]
    assert (found[1]["reason"], found[1]["run_id"]) == ("better", "r")
    assert json.loads(found[0]["label_thresholds"]) == {"cat": 0.5}
    assert found[3]["layers"] == ["stones"]


def test_a_table_that_is_older_than_a_column_has_null_there(tables: Tables) -> None:
    old = result_rows(["a"]).drop_columns(["read_ms", "saturated"])
    write_deltalake(f"{tables.url}/results", old, partition_by=["inference_key"])
    put_results(tables, result_rows(["b"], read_ms=2.0))
    rows = query(tables, "select media_sha256, read_ms from all_results order by 1").to_pylist()
    assert rows == [{"media_sha256": "a", "read_ms": None}, {"media_sha256": "b", "read_ms": 2.0}]


def test_detections_are_one_row_an_image_and_detection(detected: Tables, sample_folder: tuple[Path, Summary]) -> None:
    found_by_sha = {r["media_sha256"]: r["n_detections"] for r in rows_of(detected, "results")}
    want = {sha: n for sha, n in found_by_sha.items() if n}
    sql = "select media_sha256 as sha, count(*) as n from detections group by all"
    assert {row["sha"]: row["n"] for row in query(detected, sql).to_pylist()} == want
    assert sample_folder[1].duplicates
    assert count(detected, "(select distinct path from detections)") == len(want)
    (row,) = query(detected, "select distinct x_frac, y_frac, w_frac, h_frac from detections").to_pylist()
    assert row == pytest.approx({"x_frac": 0.05, "y_frac": 0.2, "w_frac": 0.25, "h_frac": 0.2})


@pytest.mark.parametrize(
    ("events", "want"),
    [
        ([("a", 0, "running", 9)], [("a", "running", "interrupted")]),
        (
            [("a", 1, "failed", 9), ("a", 0, "running", 0), ("b", 0, "running", 4)],
            [("a", "failed", "failed"), ("b", "running", "running")],
        ),
    ],
)
def test_a_run_is_in_the_state_of_its_last_event(
    tables: Tables, events: list[tuple[str, int, str, int]], want: list[tuple[str, str, str]]
) -> None:
    for run_id, event, state, minutes_ago in events:
        at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        row = {"run_id": run_id, "event": event, "state": state, "event_at": at}
        put_rows(tables, "runs", row)
    found = query(tables, "select run_id, state, state_now from runs order by run_id").to_pylist()
    assert [tuple(row.values()) for row in found] == want
