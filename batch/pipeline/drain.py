"""Write the rows of a pass to their table as they arrive: commit, count, and give up at the limits.

tables of rows --into_table--> commits of `committer`; `arrived` counts each table

A thread reads a few items ahead, so that the driver can commit, or give up, while it waits. It gives up if too large a
share of the images fails, or if no result arrives for too long. Otherwise an unmounted archive, or a model that fails
on every image, would fill the table with failed rows.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

import pyarrow as pa
import structlog

from archive.delta.compact import compact
from archive.delta.tables import Tables
from batch.pipeline.commit import Committer
from batch.runs.accounting import Counts
from batch.schedule.policy import Stop
from model_store.errors import RunStalled, StorageError, TooManyFailed
from model_store.process_exit import require_no_stop

AHEAD = 4
T = TypeVar("T")
log = structlog.get_logger("resight.run")


def arrivals(items: Iterable[T], tick_s: float) -> Generator[T | None]:
    """Yield the items in order, and None after every `tick_s` without one. Raises what the iterator raises.

    The thread ends with the iterator or, once this generator is closed, after the next item. It then closes `items` if
    they come from a generator, so that this ends its processes, also if a traceback still refers to it.
    """
    received: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(AHEAD)
    closed = threading.Event()

    def drain() -> None:
        try:
            for item in items:
                _put(received, ("item", item), closed)
                if closed.is_set():
                    return
            _put(received, ("end", None), closed)
        except BaseException as error:
            _put(received, ("error", error), closed)
        finally:
            if isinstance(items, Generator):
                items.close()

    threading.Thread(target=drain, name="arrivals", daemon=True).start()
    try:
        while True:
            try:
                kind, value = received.get(timeout=tick_s)
            except queue.Empty:
                yield None
                continue
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]  # an item
    finally:
        closed.set()


def _put(received: queue.Queue[T], item: T, closed: threading.Event) -> None:
    while not closed.is_set():
        try:
            received.put(item, timeout=0.2)
            return
        except queue.Full:
            continue


class RunWatchdog:
    """Watch one run. `now_s` is a monotonic clock; `table` is the one with the failed rows, for the error."""

    def __init__(self, stop: Stop, now_s: Callable[[], float] = time.monotonic, table: str = "results") -> None:
        self._stop, self._now_s, self._table = stop, now_s, table
        self._arrived_s = now_s()

    def require(self, counts: Counts, arrived: bool) -> None:
        """Raise TooManyFailed or RunStalled at a limit. `arrived`: results have arrived since the last call."""
        now_s = self._now_s()
        if arrived:
            self._arrived_s = now_s
        tried, limit = counts.inferred, self._stop.failed_frac
        if tried >= self._stop.failed_after and counts.failed > limit * tried:
            raise TooManyFailed(
                f"{counts.failed} of the first {tried} images failed, over the limit of {limit:.0%}; finished "
                f"results are kept. See error_code in {self._table}, fix the cause and run again, or raise "
                "--stop-failed-frac"
            )
        if now_s - self._arrived_s > self._stop.stall_s:
            raise RunStalled(
                f"no result for {now_s - self._arrived_s:.0f} s, after {tried} images; finished results are kept. "
                "See 'resight status' and the replicas' logs, then run again, or raise --stall-s"
            )


TICK_S = 1.0
"""Time that the driver waits for rows before it checks commits and limits."""
COMPACT_EVERY = 500
"""Commits of a long run after which their files are compacted: the log and its readers stay fast."""


def into_table(
    rows: Iterable[pa.Table | None],
    tables: Tables,
    committer: Committer,
    stop: Stop,
    counts: Counts,
    arrived: Callable[[pa.Table], Counts],
) -> None:
    """Write all of `rows`; None among them is a time without any.

    `counts` are those before the first; `arrived` gets each table and returns the new counts.
    Raises TooManyFailed, RunStalled, TableConflict, StorageError, and what `rows` raises; rows that have arrived are
    committed then.
    """
    watchdog = RunWatchdog(stop, table=committer.table)
    compacted = 0
    incoming = arrivals(rows, TICK_S)
    try:
        for table in incoming:
            if table is not None:
                committer.add(table)
                counts = arrived(table)
            require_no_stop()  # native code may have ignored it
            watchdog.require(counts, arrived=table is not None)
            if table is None:  # later: a commit may take longer than a stall
                committer.tick()
            if committer.commits > compacted + COMPACT_EVERY:
                compacted = committer.commits
                _compact(tables, committer)
    except BaseException:  # finished results are kept, also if the run is stopped
        incoming.close()
        try:
            committer.flush()
        except Exception as error:  # the first error is the one to raise
            log.warning("rows_not_kept", table=committer.table, error=str(error))
        raise
    committer.flush()


def _compact(tables: Tables, committer: Committer) -> None:
    """Compact the files of a run. The run does not depend on it, so errors are only logged."""
    try:
        compact(tables, committer.table, committer.inference_key, COMPACT_EVERY)
    except StorageError as error:
        log.warning("not_compacted", table=committer.table, error=str(error))
