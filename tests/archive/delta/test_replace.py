"""Replacement of many rows: each once, in one commit, with concurrent writers and lost acknowledgements."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pytest
from deltalake import DeltaTable

import archive.delta.replace
from archive.delta.compact import compact
from archive.delta.tables import MAINTENANCE, Tables
from model_store.errors import StorageUnreachable
from tests.archive.media_rows import WRITER, media_rows, put_media, replace_and_die, replace_each_round, replace_with
from tests.archive.racing_writer import compact_until
from tests.fixtures_local import rows_of
from tests.support.processes import process


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.delta.tables.time.sleep", lambda _: None)


def tags(tables: Tables) -> dict[tuple[str, str], str]:
    rows = rows_of(tables, "media")
    found = {(row["source_root"], row["path"]): row["content_tag"] for row in rows}
    assert len(found) == len(rows), "a file has two rows"
    assert all(row["media_sha256"] == f"{row['path']}:{row['content_tag']}" for row in rows)
    return found


def short(tables: Tables) -> dict[str, str]:
    return {path: tag for (_, path), tag in tags(tables).items()}


def files(tables: Tables) -> set[str]:
    return set(tables.snapshot("media").file_uris())


def meanwhile(monkeypatch: pytest.MonkeyPatch, *deeds: Callable[[], object]) -> list[int]:
    """Run one of these actions between each writing and its commit; return the number of writings."""
    write, left, writings = archive.delta.replace.write_files, list(deeds), list[int]()

    def interrupted(*args: Any, **more: Any) -> Any:
        adds = write(*args, **more)
        writings.append(len(adds))
        if left:
            left.pop(0)()
        return adds

    monkeypatch.setattr(archive.delta.replace, "write_files", interrupted)
    return writings


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_row_is_there_once_and_as_it_shall_be(tables: Tables, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Compare with a dict: rows of two archives in files of any size, in one or several groups; some keys are new."""
    lots = random.Random(seed)
    monkeypatch.setattr("archive.delta.compact.TARGET_ROWS", 7 if seed % 4 > 1 else 1000)
    names = [f"{lots.choice('abc')}/it's {i} ü.jpg" for i in range(60)]
    wanted: dict[tuple[str, str], str] = {}
    for root in ("/archive", "/archive/other"):
        there = lots.sample(names, 40)
        while there:
            part = {there.pop(): "old" for _ in range(min(len(there), lots.randint(1, 15)))}
            put_media(tables, media_rows(part, root))
            wanted |= {(root, path): tag for path, tag in part.items()}
    if seed % 2:
        compact(tables, "media", min_files=2)  # both archives in one file
    assert tags(tables) == wanted
    for turn in range(2):
        new = dict.fromkeys(lots.sample(names, lots.choice([0, 1, 30, 60])), f"new {turn}")
        before = tables.snapshot("media")
        after = replace_with(tables, media_rows(new))
        wanted |= {("/archive", path): tag for path, tag in new.items()}
        assert tags(tables) == wanted
        assert after.version() == before.version() + bool(new)


def test_large_files_are_parted(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.delta.compact.TARGET_ROWS", 10)
    paths = [f"{i:02d}" for i in range(35)]
    put_media(tables, media_rows(dict.fromkeys(paths, "old")))
    replace_with(tables, media_rows(dict.fromkeys(paths, "new")))
    assert len(files(tables)) == 4
    assert short(tables) == dict.fromkeys(paths, "new")
    adds = pa.table(tables.snapshot("media").get_add_actions(flatten=True)).to_pylist()
    ends = sorted((add["min.path"], add["max.path"]) for add in adds)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ends))  # in order


def test_the_commit_is_the_writers_and_maintenance(tables: Tables) -> None:
    put_media(tables, media_rows({"a": "old"}))
    for turn in (1, 2):
        after = replace_with(tables, media_rows({"a": f"{turn}"}))
        assert after.transaction_version(WRITER) == after.transaction_version(MAINTENANCE) == turn
    (log,) = Path(tables.url, "media", "_delta_log").glob("*3.json")
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    files = [action.get("add") or action.get("remove") for action in actions]
    assert [file["dataChange"] for file in files if file] == [True, True]


def test_rows_that_are_appended_meanwhile_stay_and_nothing_is_written_again(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_media(tables, media_rows(dict.fromkeys("abc", "old")))

    def another_of_this_archive() -> None:
        rows = media_rows({"d": "another's"})
        tables.append("media", rows, WRITER, lambda _, wanted: wanted)

    def another_archive() -> None:
        put_media(tables, media_rows({"a": "another's"}, "/other"))

    writings = meanwhile(monkeypatch, lambda: (another_of_this_archive(), another_archive()))
    replace_with(tables, media_rows(dict.fromkeys("ab", "new")))
    assert tags(tables) == {
        ("/archive", "a"): "new",
        ("/archive", "b"): "new",
        ("/archive", "c"): "old",
        ("/archive", "d"): "another's",
        ("/other", "a"): "another's",
    }
    assert len(writings) == 1


@pytest.mark.parametrize("theirs", ["bc", "c"])
def test_rows_that_another_replaces_meanwhile_are_there_once(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    put_media(tables, media_rows(dict.fromkeys("abc", "old")))
    rows = media_rows(dict.fromkeys(theirs, "theirs"))
    one_another = lambda: tables.append(  # noqa: E731
        "media", rows, "other", lambda _, wanted: wanted, replace=("source_root", "path")
    )
    many = lambda: replace_with(tables, rows, "another")  # noqa: E731
    writings = meanwhile(monkeypatch, one_another, many)
    replace_with(tables, media_rows(dict.fromkeys("ab", "ours")))
    left = "theirs" if "c" in theirs else "old"
    assert short(tables) == {"a": "ours", "b": "ours", "c": left}
    assert len(writings) > 2


def test_a_row_that_comes_meanwhile_under_one_of_the_keys_is_replaced_too(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_media(tables, media_rows({"a": "old"}))

    def appear() -> None:
        rows = media_rows({"b": "another's"})
        tables.append("media", rows, WRITER, lambda _, wanted: wanted)

    writings = meanwhile(monkeypatch, appear)
    replace_with(tables, media_rows(dict.fromkeys("ab", "new")))
    assert short(tables) == {"a": "new", "b": "new"}
    assert len(writings) == 2


def test_a_commit_whose_answer_was_lost_is_not_made_twice(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    put_media(tables, media_rows(dict.fromkeys("abc", "old")))
    commit = DeltaTable.create_write_transaction

    def commit_and_lose_the_answer(*args: Any, **more: Any) -> None:
        commit(*args, **more)
        raise OSError("reset by peer")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", commit_and_lose_the_answer)
    after = replace_with(tables, media_rows(dict.fromkeys("ab", "new")))
    assert short(tables) == {"a": "new", "b": "new", "c": "old"}
    assert after.version() == tables.snapshot("media").version() == 2


def test_a_file_with_other_rows_than_the_log_says_is_an_error(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in "ab":
        put_media(tables, media_rows({path: "old"}))
    rows_of_files, reads = archive.delta.replace.rows_of_files, list[int]()

    def all_but_one(table: DeltaTable, paths: set[str]) -> Any:
        reads.append(1)  # fail at the second reading, which rewrites them
        return rows_of_files(table, set(list(paths)[: 2 if len(reads) == 1 else 1]))

    monkeypatch.setattr(archive.delta.replace, "rows_of_files", all_but_one)
    with pytest.raises(StorageUnreachable, match="2 files hold 1 rows, but the log lists 2"):
        replace_with(tables, media_rows(dict.fromkeys("ab", "new")))
    assert short(tables) == {"a": "old", "b": "old"}


@pytest.mark.parametrize("after_commit", [False, True])
def test_killed_it_leaves_the_old_rows_or_the_new_and_can_be_done_again(tables: Tables, after_commit: bool) -> None:
    for path in "abc":
        put_media(tables, media_rows({path: "old"}))
    killed = process(replace_and_die, tables.url, "ab", after_commit)
    killed.start()
    killed.join(90)
    assert killed.exitcode == -signal.SIGKILL
    here = Path(tables.url, "media").glob("*.parquet")
    assert len(list(here)) == 4, "the new file was written"
    tag = "new" if after_commit else "old"
    assert short(tables) == {"a": tag, "b": tag, "c": "old"}
    replace_with(tables, media_rows(dict.fromkeys("ab", "again")))
    assert short(tables) == {"a": "again", "b": "again", "c": "old"}


def test_racing_processes_lose_nothing_and_double_nothing(tables: Tables, tmp_path: Path) -> None:
    paths = [f"{i}" for i in range(20)]
    for path in paths:
        put_media(tables, media_rows({path: "old"}))
    stop = str(tmp_path / "stop")
    racing = [
        process(replace_each_round, tables.url, mine, name, 4)
        for name, mine in (("first", paths[:15]), ("second", paths[5:]))
    ]
    compacting = process(compact_until, tables.url, stop, "media")
    for one in (*racing, compacting):
        one.start()
    for one in racing:
        one.join(120)
    Path(stop).touch()
    compacting.join(60)
    assert [one.exitcode for one in (*racing, compacting)] == [0, 0, 0]
    found = short(tables)
    assert sorted(found) == sorted(paths)
    assert {found[path] for path in paths[:5]} == {"first-3"}
    assert {found[path] for path in paths[15:]} == {"second-3"}
    assert len({found[path] for path in paths[5:15]} & {"first-3", "second-3"}) == 1


def test_a_table_on_s3_is_no_other(s3_endpoint: str) -> None:
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="replaced")
    there = Tables("s3://replaced/tables")
    for part in ("ab", "cd"):
        put_media(there, media_rows(dict.fromkeys(part, "old")))
    replace_with(there, media_rows(dict.fromkeys("bcx", "new")))
    assert short(there) == {"a": "old", "b": "new", "c": "new", "d": "old", "x": "new"}
    assert os.environ["AWS_ENDPOINT_URL"] == s3_endpoint
