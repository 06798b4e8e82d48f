"""Scratch databases: rows in order, a few at a time, and no files left over."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from archive.delta.scratch_db import Scratch, create_lists, scratch, windows
from tests.fixtures_local import ROOT


@pytest.mark.parametrize(("rows", "start", "stop"), [(0, 0, None), (9, 0, None), (10, 3, 10), (11, 10, 10)])
def test_windows_are_the_table_in_the_order_it_was_made_in(rows: int, start: int, stop: int | None) -> None:
    with scratch("test") as sql:
        sql.execute(f"create table made as select i from range({rows}) r(i) order by -i")
        stop = None if stop is None else min(stop, rows)
        parts = [part["i"].to_pylist() for part in windows(sql, "made", 4, start, stop)]
    wanted = list(range(rows))[::-1][start:stop]
    assert [i for part in parts for i in part] == wanted
    assert all(len(part) == 4 for part in parts[:-1])


def test_lists_need_no_more_memory_for_more_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    query = "select i // 2 as of, list({'i': i, 'x': i / 2, 'y': i / 3} order by i) as pair from made "
    query += "where hash(of) % getvariable('parts') = getvariable('part') group by of"
    wrong = "count(*) filter (pair[1].i <> 2 * of or pair[2].i <> 2 * of + 1)"
    with scratch("test", memory_mib=24) as sql:
        sql.execute("set threads = 1; create table made as select i from range(200000) r(i)")
        with pytest.raises(duckdb.OutOfMemoryException):
            create_lists(sql, "lists", "made", query)
        monkeypatch.setattr("archive.delta.scratch_db.MOST_LISTED", 25_000)
        create_lists(sql, "lists", "made", query)
        assert sql.sql(f"select count(*), count(distinct of), {wrong} from lists").fetchall() == [(100_000, 100_000, 0)]


def test_the_folder_goes_with_the_last_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch("test") as sql:
        sql.execute("create table made as select * from range(100000)")
        assert [path.name[:13] for path in tmp_path.iterdir()] == ["resight-test-"]
    assert list(tmp_path.iterdir()) == []
    with contextlib.suppress(KeyboardInterrupt), scratch("test"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_one_without_an_end_lasts_as_long_as_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    room = Scratch("plan")
    room.sql.execute("create table made as select * from range(10)")
    assert [path.name[:13] for path in tmp_path.iterdir()] == ["resight-plan-"]
    del room
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    closed = Scratch("plan")
    closed.close()
    closed.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(duckdb.ConnectionException):
        closed.sql.execute("select 1")


@pytest.mark.parametrize("in_order", [True, False])
def test_an_order_that_was_asked_for_is_kept(in_order: bool) -> None:
    room = Scratch("test", in_order=in_order)
    room.sql.execute("create table made as select i from range(300000) r(i) order by hash(i), i")
    wanted = [i for (i,) in room.sql.sql("select i from made order by hash(i), i").fetchall()]
    found = [i for part in windows(room.sql, "made", 70_000) for i in part["i"].to_pylist()]
    assert found == wanted


def test_memory_is_limited_and_times_are_utc() -> None:
    room = Scratch("test", 2048)
    settings = "select current_setting('memory_limit'), current_setting('TimeZone')"
    limit, zone = room.sql.sql(settings).fetchall()[0]
    assert (limit, zone) == ("2.0 GiB", "UTC")


HOLDER = """
import os, signal, sys, tempfile
from archive.delta.scratch_db import Scratch
tempfile.tempdir = sys.argv[1]
room = Scratch("held")
room.sql.execute("create table made as select * from range(10)")
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has a scratch database in the folder; killed at the end."""
    words = [sys.executable, "-c", HOLDER, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=ROOT, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_next_process_removes_what_a_killed_one_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of processes that are alive stay, also those of this one."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with holder(tmp_path), scratch("own") as sql:
        sql.execute("create table made as select * from range(10)")
        with holder(tmp_path) as killed:
            killed.kill()
            killed.wait(60)
        folders = list(tmp_path.iterdir())
        assert len(folders) == 3
        for path in folders:
            os.utime(path, (0, 0))
        with scratch("next"):
            left = sorted(path.name.split("-")[1] for path in tmp_path.iterdir())
        assert left == ["held", "next", "own"]
        assert sql.sql("select count(*) from made").fetchall() == [(10,)]


def test_a_young_folder_may_be_about_to_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    young = tmp_path / "resight-young-x"
    young.mkdir()
    (young / "scratch.db").touch()
    with scratch("next"):
        assert young.exists()
