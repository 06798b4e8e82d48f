"""Exports, read back by other programs."""

from __future__ import annotations

import csv
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError

import archive.delta.tables
import archive.retention
import archive.views.exports
from archive.annotations.corrections import EXPORTED_LABEL
from archive.delta.compact import compact
from archive.delta.tables import Tables
from archive.formats.export_file import export_file
from archive.formats.file_formats import FORMATS
from archive.views.exports import export
from archive.views.query import query
from archive.views.views import View, Views
from model_store.errors import BadRequest, Conflict, StorageUnreachable
from tests.fixtures_local import put_results, put_rows, result_rows, rows_of


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Return tables with an archive without files."""
    tables = Tables(str(tmp_path / "tables"))
    tables.snapshot("media")
    return tables


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    tables = Tables(str(tmp_path_factory.mktemp("filled") / "tables"))
    tables.snapshot("media")
    put_results(tables, result_rows(["a", "b", "c"], error_detail='it said "no", twice\nand left'))
    put_results(tables, result_rows(["a"], key="other"))
    Views(tables.url).publish(of_key("k"), after=0)
    return tables


@pytest.fixture
def filled(filled_once: Tables, tmp_path: Path) -> Tables:
    return Tables(str(shutil.copytree(filled_once.url, tmp_path / "tables")))


def add_snips(tables: Tables) -> None:
    snips = [{"inference_key": key, "media_sha256": "a"} for key in ("s", "t")]
    put_rows(tables, "snips", *snips)


def of_key(key: str, **more: Any) -> View:
    fields = {"inference_key": key, "model_name": "m", "model_version": "1", "weights_sha256": "w"}
    return View.model_validate({**fields, **more})


@pytest.mark.parametrize(
    ("view", "suffix"),
    [("views", ".csv"), ("detections", ".parquet"), ("all_detections", ".csv"), ("events", ".parquet")],
)
def test_a_relation_without_rows_is_a_file_with_its_columns(
    tables: Tables, tmp_path: Path, view: str, suffix: str
) -> None:
    out = tmp_path / f"{view}{suffix}"
    columns = query(tables, f"select * from {view}").column_names
    if view in ("detections", "hidden", "all_detections"):
        columns.append(EXPORTED_LABEL)
    assert export(tables, view, out) == 0
    if suffix == ".parquet":
        assert pq.read_table(out).column_names == columns
    else:
        assert list(csv.reader(out.open(newline=""))) == [columns]


def test_csv_reads_back_with_quotes_and_newlines(filled: Tables, tmp_path: Path) -> None:
    out = tmp_path / "results.CSV"
    assert export(filled, "results", out) == 3
    rows = list(csv.DictReader(out.open(newline="")))
    assert sorted(row["media_sha256"] for row in rows) == ["a", "b", "c"]
    assert {row["error_detail"] for row in rows} == {'it said "no", twice\nand left'}


def test_of_two_exports_to_one_file_each_is_whole(
    filled: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins and ends while the first is about to rename its file."""
    out, keep, rows = (tmp_path / "out" / "results.csv", archive.views.exports._require_kept, list[int]())
    out.parent.mkdir()

    def later(*of: Any) -> None:
        if not rows:
            rows.append(0)
            rows[0] = export(filled, "media", out)
            assert len(list(csv.reader(out.open(newline="")))) == rows[0] + 1
        keep(*of)

    monkeypatch.setattr(archive.views.exports, "_require_kept", later)
    assert export(filled, "results", out) == 3
    assert len(list(csv.DictReader(out.open(newline="")))) == 3
    assert [file.name for file in out.parent.iterdir()] == ["results.csv"]


@pytest.mark.parametrize(
    ("view", "name", "words"),
    [
        ("", "x.csv", "unknown relation '': use one of media, images, results"),
        ("results", "x.xlsx", "ends in .parquet or .csv"),
        ("results", "file/x.csv", "cannot write"),
        ("results", "folder.csv", "it is a folder"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is_left(
    filled: Tables, tmp_path: Path, view: str, name: str, words: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder.csv" / "of another program").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadRequest, match=words):
        export(filled, view, tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before
    assert filled.existing("exports") is None


def test_records_beside_one_that_is_taken_back_stay_readable(
    filled: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compaction merges the record with others before the export fails."""
    out = tmp_path / "kept.csv"
    export(filled, "results", out)

    def full(*_: object) -> None:
        compact(filled, "exports", min_files=2)
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(BadRequest, match="disk full"):
        export(filled, "results", tmp_path / "failed.csv")
    found = query(filled, f"select rows from exports where file = '{out}'")
    assert found.to_pylist() == [{"rows": 3}]
    assert [row["file"] for row in rows_of(filled, "exports")] == [str(out)]


def test_a_record_is_taken_back_although_another_commit_comes_between(
    filled: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        monkeypatch.setattr(archive.delta.tables, "properties_of", overtaken)
        raise OSError("disk full")

    properties = archive.delta.tables.properties_of
    raced: list[str] = []

    def overtaken(table: DeltaTable, *writers: str) -> CommitProperties:
        mine = properties(table, *writers)
        if not raced:
            raced.append(table.table_uri)
            archive.retention.block_concurrent_prune(filled, "exports")
        return mine

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(BadRequest, match="disk full"):
        export(filled, "results", tmp_path / "failed.csv")
    assert len(raced) == 1
    assert rows_of(filled, "exports") == []


def test_results_that_cannot_be_read_leave_the_old_file_and_are_told_of(filled: Tables, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("old")
    for file in Path(filled.url, "results").glob("*/*.parquet"):
        file.write_bytes(b"x" * 100)
    with pytest.raises(StorageUnreachable, match="cannot read .*tables"):
        export(filled, "results", out)
    assert out.read_text() == "old"
    assert filled.existing("exports") is None


def test_a_lost_file_of_the_layers_is_no_place_that_cannot_be_written_to(filled: Tables, tmp_path: Path) -> None:
    """The layers are read before anything is written, even if the tables lie beside the export."""
    layer = {"layer_id": "l" * 64, "kind": "small-size", "filter_version": 1, "config": "{}", "input_layers": []}
    put_rows(filled, "layers", layer)
    for file in Path(filled.url, "layers").glob("*.parquet"):
        file.unlink()
    shown = of_key("k", layers=(layer["layer_id"],))
    with pytest.raises(StorageUnreachable, match="cannot read from .*tables"):
        export(filled, "detections", tmp_path / "out.csv", shown)
    with pytest.raises(StorageUnreachable, match="cannot read from .*tables"):
        export_file(filled, FORMATS["csv"], tmp_path / "out", shown)


@pytest.mark.parametrize(("relation", "table", "keys"), [("all_results", "results", "k"), ("snips", "snips", "s")])
def test_a_prune_that_was_planned_before_an_export_is_refused_by_it(
    filled: Tables, tmp_path: Path, relation: str, table: str, keys: str
) -> None:
    add_snips(filled)
    planned = filled.snapshot(table)
    export(filled, relation, tmp_path / "out.parquet")
    with pytest.raises(CommitFailedError):
        archive.retention._delete(planned, keys)


@pytest.mark.parametrize("relation", ["detections", "snips"])
def test_an_export_that_loses_to_a_prune_is_told_so_and_leaves_nothing(
    filled: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relation: str
) -> None:
    add_snips(filled)
    media = [{"media_sha256": "a", "source_root": "/r", "path": "a.jpg"}]
    put_rows(filled, "media", *media)
    box = {"rank": 0, "label": "deer", "score": 0.9}
    put_results(filled, result_rows(["a"], detections=[box]))
    (tmp_path / "out.csv").write_text("old")
    hold = archive.retention.block_concurrent_prune

    def pruned_before(tables: Tables, name: str = "results") -> None:
        tables.snapshot(name).delete("inference_key in ('k', 's')")
        hold(tables, name)

    monkeypatch.setattr(archive.retention, "block_concurrent_prune", pruned_before)
    with pytest.raises(Conflict, match="pruned concurrently"):
        export(filled, relation, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["out.csv"]
    assert rows_of(filled, "exports") == []


@pytest.mark.parametrize(
    ("relation", "view", "rows", "keys", "words"),
    [
        ("results", None, 3, ["k"], "production 1"),
        ("results", of_key("other", run_id="r-1"), 1, ["other"], "run r-1"),
        ("results", of_key("nobody", run_id="r-2"), 0, [], "run r-2"),
        ("sightings", None, 0, [], "production 1"),
        ("all_results", None, 4, ["k", "other"], None),
        ("media", None, 0, [], None),
        ("snips", None, 2, ["s", "t"], None),
    ],
)
def test_what_is_exported_is_recorded(
    filled: Tables,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    relation: str,
    view: View | None,
    rows: int,
    keys: list[str],
    words: str | None,
) -> None:
    add_snips(filled)
    monkeypatch.chdir(tmp_path)
    asked = datetime.now(UTC)
    assert export(filled, relation, Path("out.parquet"), view) == rows
    (record,) = rows_of(filled, "exports")
    assert asked <= record.pop("exported_at") <= datetime.now(UTC)
    shown_by = ([], "m@1", '{"default": 0.0, "per_label": {}}') if words else (None,) * 3
    assert tuple(record.pop(name) for name in ("layers", "model", "thresholds")) == shown_by
    assert record == {
        "relation": relation,
        "inference_keys": keys,
        "view": words,
        "rows": rows,
        "file": str(tmp_path / "out.parquet"),
        "filter": "{}",
    }


def test_a_record_whose_acknowledgement_was_lost_is_there_once(
    filled: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = archive.delta.tables._commit
    lost = [CommitFailedError("no answer")]

    def deaf(*arguments: Any) -> None:
        commit(*arguments)
        if lost:
            raise lost.pop()

    monkeypatch.setattr(archive.delta.tables, "_commit", deaf)
    export(filled, "results", tmp_path / "out.csv")
    assert lost == []
    assert len(rows_of(filled, "exports")) == 1
