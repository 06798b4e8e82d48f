"""Relations beside a process: in order, a few rows at a time, and nothing left over."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from archive.scratch import scratch, windows


@pytest.mark.parametrize("rows", [0, 1, 9, 10, 11])
@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 4), (3, 10), (10, 10)])
def test_windows_are_the_table_in_the_order_it_was_made_in(
    rows: int, start: int, stop: int | None
) -> None:
    with scratch("test") as sql:
        sql.execute(f"create table made as select i from range({rows}) r(i) order by -i")
        stop = None if stop is None else min(stop, rows)
        parts = [part["i"].to_pylist() for part in windows(sql, "made", 4, start, stop)]
    wanted = list(range(rows))[::-1][start:stop]
    assert [i for part in parts for i in part] == wanted
    assert all(len(part) == 4 for part in parts[:-1])


def test_the_folder_goes_with_the_last_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch("test") as sql:
        sql.execute("create table made as select * from range(100000)")
        assert [path.name[:13] for path in tmp_path.iterdir()] == ["resight-test-"]
    assert list(tmp_path.iterdir()) == []
    with contextlib.suppress(KeyboardInterrupt), scratch("test"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
