"""Rows of uploads on their way into the tables: held for a few seconds, then committed together. Knows no Ray.

record(Upload) -> returns once its rows are there, whoever has written them
While the tables are out of reach the rows wait, up to a bound. A row that is lost after all, with the process, is a
missing row: its picture is on disk, so an ingest of the folder and the next run bring it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

import pyarrow as pa
import structlog

from archive.compact import compact
from archive.new_rows import add_files, add_results
from archive.tables import Tables
from model_store.errors import Overloaded, StorageError
from serve.upload import MOST_BYTES, MOST_WAITING, Upload

FLUSH_S, MOST_S, PATIENCE = 5.0, 60.0, 2
"""Commits are so far apart; more while they fail, and so many times as long as the last one took."""
MOST_IN_COMMIT, COMPACT_EVERY = 1_000, 500
OF_THE_PLACE = (StorageError, OSError, MemoryError, pa.ArrowException)
"""Errors that a row has no part in."""
log = structlog.get_logger("resight.recorder")


class Recorder:
    """The one that writes them, on one event loop."""

    def __init__(self, tables: Tables, flush_s: float = FLUSH_S) -> None:
        self._tables, self._flush_s = tables, flush_s
        self._waiting: list[tuple[Upload, asyncio.Future[None]]] = []
        self._bytes = self._flushes = 0
        self._some = asyncio.Event()
        self._working = asyncio.get_running_loop().create_task(self._work())

    async def record(self, upload: Upload) -> None:
        """Raises Overloaded when too many wait already, and what is wrong with the rows."""
        if len(self._waiting) >= MOST_WAITING or self._bytes + upload.nbytes > MOST_BYTES:
            raise Overloaded(
                f"{len(self._waiting)} rows of uploads wait to be recorded", self._flush_s
            )
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((upload, done))
        self._bytes += upload.nbytes
        self._some.set()
        await done

    async def _work(self) -> None:
        wait_s = self._flush_s
        while True:
            await self._some.wait()
            await asyncio.sleep(wait_s)
            began_s = time.monotonic()
            try:
                await self._flush(self._waiting[:MOST_IN_COMMIT])
            except OF_THE_PLACE as error:
                wait_s = min(MOST_S, 2 * wait_s)
                log.warning("uploads_wait", rows=len(self._waiting), error=repr(error)[:500])
                continue
            wait_s = max(self._flush_s, PATIENCE * (time.monotonic() - began_s))
            await self._compact()

    async def _flush(self, taken: list[tuple[Upload, asyncio.Future[None]]]) -> None:
        """Raises OF_THE_PLACE: then they wait. Whatever else is wrong is the fault of one of them, which is found."""
        uploads = [upload for upload, _ in taken]
        try:
            await asyncio.to_thread(commit, self._tables, uploads)
        except (*OF_THE_PLACE, asyncio.CancelledError):
            raise
        except BaseException as error:  # delta-rs panics with one that is no Exception
            if half := len(taken) // 2:
                await self._flush(taken[:half])
                await self._flush(taken[half:])
                return
            self._end(taken, RuntimeError(f"the rows cannot be written: {error!r}"[:500]))
            return
        self._end(taken, None)

    def _end(
        self, taken: list[tuple[Upload, asyncio.Future[None]]], error: Exception | None
    ) -> None:
        del self._waiting[: len(taken)]
        self._bytes -= sum(upload.nbytes for upload, _ in taken)
        if not self._waiting:
            self._some.clear()
        for _, done in taken:
            if done.done():  # whoever asked is gone
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    async def _compact(self) -> None:
        """Each flush leaves a small file in both tables."""
        self._flushes += 1
        if self._flushes % COMPACT_EVERY:
            return
        try:
            for table in ("media", "results"):
                await asyncio.to_thread(compact, self._tables, table, None, COMPACT_EVERY)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # as above: uploads go on
            log.warning("not_compacted", error=repr(error)[:500])


def commit(tables: Tables, uploads: Sequence[Upload]) -> None:
    """Files first: a result of a file that is not known is seen by nobody, a file without a result is due.

    Raises TableConflict, StorageUnreachable, StorageUnsafe.
    """
    for root_url, rows in _parts(_all([one.media for one in uploads]), "source_root"):
        add_files(tables, root_url, _once(rows, "path"))
    for key, rows in _parts(_all([one.result for one in uploads]), "inference_key"):
        add_results(tables, key, _once(rows, "media_sha256"))


def _all(rows: Sequence[pa.Table]) -> pa.Table:
    """Replicas of two versions may know different columns."""
    try:
        return pa.concat_tables(rows, promote_options="default")
    except pa.ArrowException as error:  # not of the place: of one of them
        raise ValueError(str(error)) from error


def _parts(rows: pa.Table, column: str) -> Iterable[tuple[str, pa.Table]]:
    values = rows[column].to_pylist()
    for value in dict.fromkeys(values):
        yield value, rows.take([i for i, one in enumerate(values) if one == value])


def _once(rows: pa.Table, column: str) -> pa.Table:
    """The first row of each value."""
    first: dict[str, int] = {}
    for number, value in enumerate(rows[column].to_pylist()):
        first.setdefault(value, number)
    return rows.take(list(first.values()))
