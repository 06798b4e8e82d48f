"""Compaction with concurrent changes to the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

import archive.delta.compact
from archive.delta.compact import CompactReport, compact
from archive.delta.tables import MAINTENANCE, Tables, properties_of
from tests.archive.compacted import WRITER, images, outcome, put_each, replace
from tests.archive.racing_writer import append_rows, compact_until, replace_rows, write_commits
from tests.fixtures_local import result_rows, rows_of
from tests.support.processes import process


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.delta.compact.time.sleep", lambda _: None)


def meanwhile(monkeypatch: pytest.MonkeyPatch, *deeds: Callable[[], object]) -> None:
    """Run one of these actions between each reading of a compaction and its commit."""
    rewrite, left = archive.delta.compact.rewrite, list(deeds)

    def interrupted(*args: Any) -> Any:
        written = rewrite(*args)
        if left:
            left.pop(0)()
        return written

    monkeypatch.setattr(archive.delta.compact, "rewrite", interrupted)


def test_a_row_that_is_replaced_meanwhile_is_there_once_and_new(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_each(tables, *"abc")
    meanwhile(monkeypatch, lambda: replace(tables, "b"))
    report = compact(tables, "results", min_files=2)
    assert (report.files_after, report.commits, report.refused) == (1, 1, 1)
    found = {row["media_sha256"]: row["run_id"] for row in rows_of(tables, "results")}
    assert (found, len(images(tables))) == ({"a": "r", "b": "again", "c": "r"}, 3)


def test_a_replacement_elsewhere_does_not_cost_what_was_written(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_each(tables, *"abc")
    put_each(tables, *"ab", key="other")
    meanwhile(monkeypatch, lambda: replace(tables, "b", key="other"))
    assert outcome(compact(tables, "results", "k", min_files=2)) == (3, 1, 1, 0)
    assert (images(tables), images(tables, "other")) == (list("abc"), list("ab"))


def test_of_two_compactions_one_is_given_up(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    put_each(tables, *"abc")
    other: list[CompactReport] = []
    meanwhile(monkeypatch, lambda: other.append(compact(tables, "results", min_files=2)))
    assert outcome(compact(tables, "results", min_files=2)) == (3, 1, 0, 1)
    assert outcome(other[0]) == (3, 1, 1, 0)
    assert images(tables) == list("abc")


def test_rows_that_are_removed_meanwhile_do_not_come_back(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    put_each(tables, *"abc")
    put_each(tables, *"ab", key="other")

    def prune() -> None:
        table = tables.snapshot("results")
        properties = properties_of(table, MAINTENANCE)
        table.delete("inference_key = 'k'", commit_properties=properties)

    meanwhile(monkeypatch, prune)
    compact(tables, "results", "k", min_files=2)
    assert (images(tables), images(tables, "other")) == ([], list("ab"))


def test_a_writer_goes_on_from_the_snapshot_before_the_compaction(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_each(tables, *"abc")
    base = tables.snapshot("results")
    compact(tables, "results", min_files=2)

    def not_asked(*_: object) -> pa.Table:
        raise AssertionError("an append does not lose against a compaction")

    for sha in "de":
        base = tables.append("results", result_rows([sha]), WRITER, not_asked, base=base)
    assert images(tables) == list("abcde")


@pytest.mark.parametrize("error", [OSError("reset by peer"), CommitFailedError("lost")])
def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    put_each(tables, *"abc")
    commit = DeltaTable.create_write_transaction

    def commit_and_lose_the_answer(*args: Any, **more: Any) -> None:
        commit(*args, **more)
        raise error

    monkeypatch.setattr(DeltaTable, "create_write_transaction", commit_and_lose_the_answer)
    assert outcome(compact(tables, "results", min_files=2)) == (3, 1, 1, 0)
    assert images(tables) == list("abc")


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_racing_processes_lose_nothing_and_double_nothing(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if place == "s3":
        endpoint = request.getfixturevalue("s3_endpoint")
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="racing-compaction")
    url = "s3://racing-compaction/tables" if place == "s3" else str(tmp_path / "tables")
    tables = Tables(url)
    replaced = [f"replaced-{i}" for i in range(3)]
    put_each(tables, *replaced)
    stop = str(tmp_path / "stop")
    commits, rounds = (2, 1) if place == "s3" else (5, 2)
    writers = [
        process(write_commits, url, WRITER, "w0", commits),
        process(write_commits, url, WRITER, "w1", commits),
        process(append_rows, url, "recorder", "w2", commits),
        process(replace_rows, url, WRITER, replaced, rounds),
    ]
    compactors = [process(compact_until, url, stop) for _ in range(2)]
    for one in [*writers, *compactors]:
        one.start()
    for one in writers:
        one.join(120)
    Path(stop).touch()
    for one in compactors:
        one.join(60)
    assert [one.exitcode for one in [*writers, *compactors]] == [0] * 6
    rows = rows_of(tables, "results")
    assert Counter(row["media_sha256"] for row in rows) == Counter(
        [f"w{i}-{j}" for i in range(3) for j in range(commits)] + [f"shared-{j}" for j in range(commits)] + replaced
    )
    last = {row["run_id"] for row in rows if row["media_sha256"] in replaced}
    assert last == {f"round-{rounds - 1}"}
    compact(tables, "results", min_files=2)
    assert len(tables.snapshot("results").file_uris()) == 1
    assert len(rows_of(tables, "results")) == len(rows)
