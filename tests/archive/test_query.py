"""The views, against counts made without SQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.ingest import IngestReport
from archive.query import query
from archive.schemas import RUNS
from archive.tables import Tables
from examples.sample_archive import Summary
from model_store.errors import BadRequest
from tests.fixtures_local import put_results, result_rows, rows_of


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


@pytest.fixture
def detected(sample: tuple[Path, Summary], ingested: IngestReport, tables: Tables) -> Tables:
    """Images have 0 to 3 detections, those of which there is a copy 3; all are 200 x 100 px."""
    shas = list(dict.fromkeys(row["media_sha256"] for row in rows_of(tables, "media")))
    copied = {row["media_sha256"] for row in rows_of(tables, "media") if "_copy" in row["path"]}
    parts: list[pa.Table] = []
    for i, sha in enumerate(shas):
        found = [detection(rank) for rank in range(3 if sha in copied else i % 4)]
        size = {"width_px": 200, "height_px": 100}
        parts.append(result_rows([sha], **size, n_detections=len(found), detections=found))
    put_results(tables, pa.concat_tables(parts))
    return tables


@pytest.mark.parametrize("view", ["media", "results", "detections", "runs"])
def test_views_of_tables_that_do_not_exist_are_empty_and_make_none(
    tables: Tables, view: str
) -> None:
    assert query(tables, f"select count(*) as n from {view}").to_pylist() == [{"n": 0}]
    assert tables.existing("media") is None


def test_detections_are_one_row_a_file_and_detection(detected: Tables) -> None:
    found_by_sha = {r["media_sha256"]: r["n_detections"] for r in rows_of(detected, "results")}
    want = {
        row["path"]: found_by_sha[row["media_sha256"]]
        for row in rows_of(detected, "media")
        if found_by_sha[row["media_sha256"]]
    }
    rows = query(detected, "select path, count(*) as n from detections group by path").to_pylist()
    assert {row["path"]: row["n"] for row in rows} == want
    assert sum(want.values()) > 0


def test_the_same_bytes_appear_under_both_names(
    detected: Tables, sample: tuple[Path, Summary]
) -> None:
    def seen(path: str) -> list[dict[str, Any]]:
        sql = f"select * exclude (path, camera_id) from detections where path = '{path}' order by rank"
        return query(detected, sql).to_pylist()

    compared = 0
    for original, copy in sample[1].duplicates:
        assert seen(original) == seen(copy)
        compared += len(seen(original))
    assert compared > 0


def test_boxes_are_also_fractions_of_the_image(detected: Tables) -> None:
    sql = "select distinct x_frac, y_frac, w_frac, h_frac from detections"
    (row,) = query(detected, sql).to_pylist()
    assert row == pytest.approx({"x_frac": 0.05, "y_frac": 0.2, "w_frac": 0.25, "h_frac": 0.2})


def test_a_file_that_is_gone_keeps_its_detections(detected: Tables) -> None:
    (before,) = query(detected, "select count(*) as n from detections").to_pylist()
    gone = rows_of(detected, "media")[0] | {"missing_since": datetime.now(UTC)}
    rows = pa.Table.from_pylist(
        [gone], schema=detected.snapshot("media").to_pyarrow_dataset().schema
    )
    detected.append(
        "media", rows, "test", lambda _, wanted: wanted, replace=["source_root", "path"]
    )
    assert query(detected, "select count(*) as n from detections").to_pylist() == [before]


def test_local_times_can_be_reckoned_with(detected: Tables) -> None:
    sql = "select typeof(captured_at_local) as t from media where captured_at_local is not null"
    assert {row["t"] for row in query(detected, sql).to_pylist()} == {"TIMESTAMP"}


@pytest.mark.parametrize(
    ("events", "want"),
    [
        ([], []),
        ([("a", 0, "running", 0)], [("a", "running", "running")]),
        ([("a", 0, "running", 9)], [("a", "running", "interrupted")]),
        ([("a", 0, "running", 9), ("a", 1, "sealed", 9)], [("a", "sealed", "sealed")]),
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
        rows = pa.Table.from_pylist([row], schema=RUNS)
        tables.append("runs", rows, "test", lambda _, wanted: wanted)
    found = query(tables, "select run_id, state, state_now from runs order by run_id").to_pylist()
    assert [tuple(row.values()) for row in found] == want


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("", "gives no rows"),
        ("-- nothing", "gives no rows"),
        ("selec 1", "syntax error"),
        ("select * from deer", "deer does not exist"),
        ("select no_column from media", "no_column"),
        ("select cast(path as integer) from (select 'x' as path)", "Could not convert"),
    ],
)
def test_a_wrong_statement_is_a_bad_request_in_duckdbs_words(
    tables: Tables, sql: str, words: str
) -> None:
    with pytest.raises(BadRequest, match=words):
        query(tables, sql)


def test_a_name_that_a_join_repeats_gets_a_number_and_its_column_is_kept(tables: Tables) -> None:
    sql = "select 1 as a, 2 as b, 3 as a, 4 as a, 5 as a_1"
    assert query(tables, sql).to_pylist() == [{"a": 1, "b": 2, "a_1": 3, "a_2": 4, "a_1_1": 5}]


def test_statements_cannot_change_the_tables(detected: Tables) -> None:
    before = rows_of(detected, "results")
    for sql in ("delete from results", "drop table results_table", "update media set path = ''"):
        with pytest.raises(BadRequest):
            query(detected, sql)
    assert rows_of(detected, "results") == before
