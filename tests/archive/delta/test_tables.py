"""Appends to a table: exactly once, with concurrent writers and lost acknowledgements."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

import archive.delta.tables
from archive.delta.tables import COMMIT_ATTEMPTS, LOST_RACES, MAINTENANCE, Tables, storage_options
from archive.schemas import TABLES
from archive.views.query import query
from model_store.errors import StorageFull, StorageUnreachable, TableConflict
from tests.archive.racing_writer import absent
from tests.fixtures_local import result_rows, rows_of

WRITER = "results:k"


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.delta.tables.time.sleep", lambda _: None)


def images(tables: Tables) -> list[str]:
    return sorted(row["media_sha256"] for row in rows_of(tables, "results"))


def detection(label: str) -> dict[str, Any]:
    corners_px = dict.fromkeys(("x1_px", "y1_px", "x2_px", "y2_px"), 1.0)
    return {"rank": 0, "label": label, "class_id": 0, "score": 0.5, **corners_px}


def append(tables: Tables, *shas: str, **more: Any) -> DeltaTable:
    return tables.append("results", result_rows(shas), WRITER, absent, **more)


@pytest.mark.parametrize("name", ["media", "runs"])
def test_a_table_is_made_when_it_is_first_needed(tables: Tables, name: str) -> None:
    assert tables.existing(name) is None
    snapshot = tables.snapshot(name)
    assert snapshot.to_pyarrow_dataset().schema.names == TABLES[name].names
    assert tables.snapshot(name).version() == snapshot.version() == 0


def test_a_table_that_cannot_be_opened_is_unreachable_and_not_empty(tables: Tables, tmp_path: Path) -> None:
    tables.snapshot("media")
    (log,) = (tmp_path / "tables" / "media" / "_delta_log").glob("*.json")
    log.write_text("not a log")
    with pytest.raises(StorageUnreachable, match="cannot open table"):
        tables.existing("media")


def test_rows_that_are_there_are_not_written_again(tables: Tables) -> None:
    append(tables, "a", "b")
    append(tables, "b", "c")
    append(tables, "a", "c")
    assert images(tables) == ["a", "b", "c"]
    assert tables.snapshot("results").version() == 2


def test_of_two_writers_with_stale_snapshots_the_second_looks_again(tables: Tables, no_waiting: None) -> None:
    first, second = tables.snapshot("results"), tables.snapshot("results")
    append(tables, "a", "b", base=first)
    append(tables, "b", "c", base=second)
    assert images(tables) == ["a", "b", "c"]


def test_rows_another_has_written_before_a_lost_race_are_not_written_after_it(tables: Tables, no_waiting: None) -> None:
    base = tables.snapshot("results")
    append(Tables(tables.url), "a", "b", "c")  # all before the first commit of this test
    for sha in "abcd":
        base = append(tables, sha, base=base)
    assert images(tables) == ["a", "b", "c", "d"]


def test_the_snapshot_that_comes_back_is_a_base_for_the_next_rows(tables: Tables) -> None:
    base = append(tables, "a", base=tables.snapshot("results"))

    def not_asked(*_: object) -> pa.Table:
        raise AssertionError("a base is vouched for")

    tables.append("results", result_rows(["b"]), WRITER, not_asked, base=base)
    assert images(tables) == ["a", "b"]


@pytest.mark.parametrize("error", [CommitFailedError("lost"), OSError("reset by peer")])
def test_a_commit_that_succeeded_but_raised_is_not_written_twice(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, no_waiting: None, error: Exception
) -> None:
    commit = archive.delta.tables._commit
    tries: list[int] = []

    def commit_and_lose_the_answer(*args: Any) -> None:
        commit(*args)
        tries.append(1)
        raise error

    monkeypatch.setattr("archive.delta.tables._commit", commit_and_lose_the_answer)
    append(tables, "a", "b", base=tables.snapshot("results"))
    assert images(tables) == ["a", "b"]
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("error", "times"),
    [(CommitFailedError("another was faster"), LOST_RACES - 1), (OSError("reset by peer"), COMMIT_ATTEMPTS - 1)],
)
def test_a_writer_loses_more_often_than_it_fails_before_it_gives_up(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, no_waiting: None, error: Exception, times: int
) -> None:
    """Slow commits may lose many times in a row to uploads and other ingests."""
    commit, failures = archive.delta.tables._commit, [error] * times

    def fail_at_first(*args: Any) -> None:
        if failures:
            raise failures.pop()
        commit(*args)

    monkeypatch.setattr("archive.delta.tables._commit", fail_at_first)
    append(tables, "a")
    failures += [error] * (times + 1)
    with pytest.raises(TableConflict, match=f"{times + 1} commits rejected"):
        append(tables, "b")
    assert images(tables) == ["a"]


@pytest.mark.parametrize(
    ("reason", "error", "way_out"),
    [
        ("No space left on device (os error 28)", StorageFull, "free some space there"),
        ("Permission denied (os error 13)", StorageUnreachable, "check owner and mode"),
        ("Read-only file system (os error 30)", StorageUnreachable, "use a place that can be written to"),
    ],
)
def test_a_disk_without_room_or_right_is_an_error_at_the_first_attempt(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, reason: str, error: type[Exception], way_out: str
) -> None:
    attempts: list[Any] = []

    def refuse(*args: Any) -> None:
        attempts.append(args)
        raise DeltaError(f"Generic LocalFileSystem error\n\x1b[31m↳\x1b[0m {reason}\n")

    append(tables, "a")
    monkeypatch.setattr("archive.delta.tables._commit", refuse)
    words = re.escape(f"results: Generic LocalFileSystem error {reason}; {way_out}")
    with pytest.raises(error, match=f"cannot write to .*{words}"):
        append(tables, "b")
    assert len(attempts) == 1


def test_replaced_rows_can_be_filtered_like_any_other(tables: Tables) -> None:
    """delta-rs's own merge writes string_view columns, on which pyarrow and DuckDB cannot filter."""
    long = "/a/place/whose/name/is/longer/than/the/32/characters/of/delta/statistics"
    rows = result_rows(["a", "it's b"], run_id=long, detections=[detection("cat")])
    tables.append("results", rows, WRITER, absent)
    tables.append(
        "results",
        result_rows(["it's b", "c"], run_id=long, detections=[detection("dog")]),
        WRITER,
        lambda _, wanted: wanted,
        replace=["inference_key", "media_sha256"],
    )
    snapshot = tables.snapshot("results")
    found = snapshot.to_pyarrow_dataset().to_table(filter=pc.field("run_id") == long)
    assert sorted(found["media_sha256"].to_pylist()) == ["a", "c", "it's b"]
    sql = f"select count(*) as n from all_results where run_id = '{long}' and status like 'o%'"
    assert query(tables, sql).to_pylist() == [{"n": 3}]
    for file in snapshot.file_uris():
        assert "string_view" not in str(pq.read_schema(file))


def test_a_replacement_that_lost_its_race_is_made_again_on_the_new_snapshot(tables: Tables, no_waiting: None) -> None:
    append(tables, "a", "b")
    stale = tables.snapshot("results")
    append(tables, "c")
    key = ["inference_key", "media_sha256"]
    rows = result_rows(["a"], status="failed")
    tables.append("results", rows, WRITER, lambda _, wanted: wanted, base=stale, replace=key)
    assert sorted((r["media_sha256"], r["status"]) for r in rows_of(tables, "results")) == [
        ("a", "failed"),
        ("b", "ok"),
        ("c", "ok"),
    ]


SAME_RESULT = ("inference_key", "media_sha256")


def test_what_takes_files_out_of_a_table_is_maintenance(tables: Tables) -> None:
    assert append(tables, "a", "b").transaction_version(MAINTENANCE) is None
    for turn in (1, 2):
        rows = result_rows(["a"], status="failed")
        snapshot = tables.append("results", rows, WRITER, lambda _, wanted: wanted, replace=SAME_RESULT)
        assert snapshot.transaction_version(MAINTENANCE) == turn


def test_many_rows_are_replaced_a_few_thousand_keys_at_a_time(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.delta.tables.KEYS_PER_COMMIT", 2)
    shas = [f"{i}" for i in range(7)]
    base = append(tables, *shas)
    rows = result_rows(shas[:5], status="failed")
    after = tables.append("results", rows, WRITER, lambda _, wanted: wanted, base=base, replace=SAME_RESULT)
    assert (after.version(), images(tables)) == (1 + 3, shas)
    found = {row["media_sha256"]: row["status"] for row in rows_of(tables, "results")}
    assert found == {sha: "failed" if int(sha) < 5 else "ok" for sha in shas}


def test_a_snapshot_that_is_opened_anew_is_still_the_one_that_was_vouched_for(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, no_waiting: None
) -> None:
    monkeypatch.setattr("archive.delta.tables.FRESH_EVERY", 1)
    commit = archive.delta.tables._commit
    others = ["b"]

    def commit_and_another_writes(*args: Any) -> None:
        commit(*args)
        if others:
            append(tables, others.pop())

    monkeypatch.setattr("archive.delta.tables._commit", commit_and_another_writes)
    base = append(tables, "a", base=tables.snapshot("results"))
    assert base.version() == 1
    append(tables, "b", "c", base=base)
    assert images(tables) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("url", "endpoint", "options"),
    [
        ("", "", {}),
        ("/data/tables", "http://127.0.0.1:5000", {}),
        ("s3://bucket/tables", "", {}),
        ("s3://bucket/tables", "https://s3.example.org", {"AWS_ENDPOINT_URL": "https://s3.example.org"}),
        (
            "s3://bucket/tables",
            "http://127.0.0.1:5000",
            {"AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": "http://127.0.0.1:5000"},
        ),
    ],
)
def test_plain_http_is_allowed_only_where_the_endpoint_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, url: str, endpoint: str, options: dict[str, str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert storage_options(url) == options
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://of-other-services")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    assert storage_options(url) == options or not endpoint


def without_masks() -> pa.Schema:
    """Schema of `results` before detections had masks."""
    struct = TABLES["results"].field("detections").type.value_type
    older = pa.struct([field for field in struct if not field.name.startswith("mask_")])
    place = TABLES["results"].get_field_index("detections")
    return TABLES["results"].set(place, pa.field("detections", pa.list_(older)))


def test_an_older_table_gains_the_columns_that_came_later(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    one = result_rows(["a"]).to_pylist()[0] | {"detections": [detection("deer")]}
    with monkeypatch.context() as older:
        older.setitem(TABLES, "results", without_masks())
        rows = pa.Table.from_pylist([one], schema=without_masks())
        tables.append("results", rows, WRITER, absent)
    flat = "select d.label, d.mask_rle from (select unnest(detections) d from all_results) order by 1, 2"
    assert query(tables, flat).to_pylist() == [{"label": "deer", "mask_rle": None}]
    masked = one | {"media_sha256": "b", "detections": [{**detection("fox"), "mask_rle": "04"}]}
    tables.append("results", pa.Table.from_pylist([masked], schema=TABLES["results"]), WRITER, absent)
    again = one | {"detections": [{**detection("elk"), "mask_rle": "13"}]}
    rows = pa.Table.from_pylist([again], schema=TABLES["results"])
    keys = ("inference_key", "media_sha256")
    tables.append("results", rows, WRITER, lambda _, rows: rows, replace=keys)
    assert query(tables, flat).to_pylist() == [{"label": "elk", "mask_rle": "13"}, {"label": "fox", "mask_rle": "04"}]
