"""resight compact: what people and cron run."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.cli.conftest import Resight
from tests.fixtures_local import jpeg, write_files


def files_of(resight: Resight, *words: str) -> dict[str, tuple[int, int]]:
    rows = json.loads(resight("compact", *words, "--format", "json").ok())
    return {row["table"]: (row["files_before"], row["files_after"]) for row in rows}


def test_small_files_are_put_together_where_there_are_enough(resight: Resight, tmp_path: Path) -> None:
    for i in range(3):
        root = write_files(tmp_path / f"archive-{i}", {"north/1.jpg": jpeg(shade=i)})
        resight("ingest", root).ok()
    assert files_of(resight)["media"] == (3, 3)
    assert files_of(resight, "results", "--min-files", "2") == {"results": (0, 0)}
    found = files_of(resight, "--min-files", "2", "--vacuum")
    assert found["media"] == (3, 1)
    assert {"results", "runs", "assertions"} < set(found)
    count = "select count(*) as n, count(distinct source_root) as roots from media"
    assert json.loads(resight("sql", count, "--format", "json").ok()) == [{"n": 3, "roots": 3}]
    assert "files_after" in resight("compact").ok()


def test_vacuum_and_exports_remove_old_files_of_killed_processes(resight: Resight, tmp_path: Path, home: Path) -> None:
    resight("ingest", write_files(tmp_path / "archive", {"north/1.jpg": jpeg()})).ok()
    half = write_files(home / "tables" / "views", {".writing-x": b"half"}) / ".writing-x"
    part = write_files(tmp_path / "out", {".resight-x.part": b"half"}) / ".resight-x.part"
    for path in (half, part):
        os.utime(path, (0, 0))
    resight("compact").ok()
    assert half.exists()
    resight("compact", "--vacuum").ok()
    assert not half.exists()
    resight("export", "media", tmp_path / "out" / "media.csv").ok()
    assert not part.exists()


def test_a_table_that_is_not_there_is_named(resight: Resight) -> None:
    assert "unknown table 'moose': use one of media" in resight("compact", "moose").refused(2)
