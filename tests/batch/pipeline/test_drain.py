"""Test that rows of a pass are committed, counted, watched, and kept on errors; no Ray, no table."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

import batch.pipeline.drain
from batch.pipeline.drain import into_table
from batch.runs.accounting import Counts
from batch.schedule.policy import Stop
from model_store.errors import RunStalled, StorageUnreachable, TableConflict

STOP = Stop(failed_frac=0.5, failed_after=4, stall_s=3600)
WAIT_S = 30


class Bench:
    """A committer that commits every `each` tables, and on `flush`; `failed` of the tables count as failed images."""

    table, inference_key = "results", "k"

    def __init__(self, failed: int = 0, each: int = 10**9) -> None:
        self.buffer: list[int] = []
        self.committed: list[int] = []
        self.counted: list[int] = []
        self.commits = self.ticks = 0
        self._failed, self._each = failed, each

    def add(self, rows: pa.Table) -> None:
        self.buffer += rows["n"].to_pylist()
        if len(self.buffer) >= self._each:
            self.flush()

    def tick(self) -> None:
        self.ticks += 1

    def flush(self) -> None:
        self.commits += bool(self.buffer)
        self.committed, self.buffer = self.committed + self.buffer, []

    def arrived(self, rows: pa.Table) -> Counts:
        self.counted += rows["n"].to_pylist()
        failed = min(len(self.counted), self._failed)
        return Counts(100, ok=len(self.counted) - failed, failed=failed)

    def run(self, rows: Iterator[pa.Table], stop: Stop = STOP, counts: Counts | None = None) -> None:
        asked: Any = self
        into_table(rows, asked, asked, stop, counts or Counts(100), self.arrived)


def tables(n: int) -> Iterator[pa.Table]:
    return (pa.table({"n": [i]}) for i in range(n))


def and_nothing_more(n: int, left: threading.Event) -> Iterator[pa.Table]:
    yield from tables(n)
    left.wait(WAIT_S)


def test_all_that_comes_is_counted_and_committed_in_its_order() -> None:
    bench = Bench(each=3)
    bench.run(tables(7))
    assert bench.committed == bench.counted == list(range(7))
    assert bench.commits == 3


def test_a_commit_that_takes_long_is_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results that arrive while the driver commits wait for it, not it for them."""
    monkeypatch.setattr(batch.pipeline.drain, "TICK_S", 0.01)
    ticked = threading.Event()

    class Slow(Bench):
        def tick(self) -> None:
            if not ticked.is_set():
                ticked.set()
                time.sleep(1.5)

    def rows() -> Iterator[pa.Table]:
        yield from tables(1)
        ticked.wait(WAIT_S)
        yield from tables(2)

    bench = Slow()
    bench.run(rows(), stop=Stop(stall_s=1.2))
    assert bench.committed == [0, 0, 1]


def test_while_nothing_comes_it_ticks_and_in_the_end_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch.pipeline.drain, "TICK_S", 0.01)
    bench, left = Bench(), threading.Event()
    try:
        with pytest.raises(RunStalled, match="after 2 images"):
            bench.run(and_nothing_more(2, left), STOP.model_copy(update={"stall_s": 0.05}))
    finally:
        left.set()
    assert bench.ticks >= 1
    assert bench.committed == [0, 1]


def test_files_are_put_together_every_so_many_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    bench = Bench(each=1)

    def compact(_: object, *what: Any) -> None:
        asked.append((bench.commits, *what))

    monkeypatch.setattr(batch.pipeline.drain, "compact", compact)
    monkeypatch.setattr(batch.pipeline.drain, "COMPACT_EVERY", 3)
    bench.run(tables(9))
    assert asked == [(4, "results", "k", 3), (8, "results", "k", 3)]


def test_an_error_is_not_hidden_by_a_commit_that_fails_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[pa.Table]:
        yield from tables(2)
        raise ZeroDivisionError

    bench = Bench()

    def flush() -> None:
        raise TableConflict("20 commits rejected")

    monkeypatch.setattr(bench, "flush", flush)
    with pytest.raises(ZeroDivisionError), capture_logs() as logs:
        bench.run(broken())
    assert [entry["event"] for entry in logs] == ["rows_not_kept"]
    with pytest.raises(TableConflict):
        bench.run(tables(2))


def test_a_run_does_not_depend_on_its_compaction(monkeypatch: pytest.MonkeyPatch) -> None:
    def compact(*_: object) -> None:
        raise StorageUnreachable("no route to host")

    bench = Bench(each=1)
    monkeypatch.setattr(batch.pipeline.drain, "compact", compact)
    monkeypatch.setattr(batch.pipeline.drain, "COMPACT_EVERY", 3)
    bench.run(tables(9))
    assert bench.committed == list(range(9))
