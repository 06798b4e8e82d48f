"""Access to the tables for the detectors, from this process: in the actors of a cluster, and in `resight serve`.

Rows of uploads are collected for a few seconds, then committed together. No Ray.

record(Upload) -> returns once its rows are in the tables, also if another writer has added them

Rows wait, up to a bound, while the tables are unavailable. Rows that are lost with the process are missing rows: the
image is on disk, so an ingest of the folder and the next run add them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence

import pyarrow as pa
import structlog

from archive.catalogue.row_updates import add_files
from archive.delta.compact import compact
from archive.delta.tables import Tables
from archive.delta.writer import Writer, add_results
from archive.retention import remember_store
from archive.views.search import P, Search
from model_store.errors import Overloaded, StorageError, StorageUnreachable
from serve.inference.admission import Room
from serve.uploads.uploads import MAX_BYTES, MAX_WAITING, Upload

FLUSH_S, MAX_WAIT_S, PATIENCE = 5.0, 60.0, 2
"""Seconds between commits; the maximum while they fail; the minimum as a multiple of the last commit's duration."""
COMPACT_EVERY = 500
_UNRELATED = (StorageError, OSError, MemoryError, pa.ArrowException)
"""Errors that a row does not cause: all rows wait for the next commit."""
log = structlog.get_logger("resight.recorder")


class Recorder:
    """Writer of the rows of all uploads. Use it on one event loop."""

    def __init__(self, tables: Tables, flush_s: float = FLUSH_S) -> None:
        self._tables, self._flush_s = tables, flush_s
        self._waiting: list[tuple[Upload, asyncio.Future[None]]] = []
        self._bytes = self._flushes = 0
        self._has_rows = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def record(self, upload: Upload) -> None:
        """Wait until the rows are in the tables. Raises Overloaded if too many wait, and the error of invalid rows."""
        if len(self._waiting) >= MAX_WAITING or self._bytes + upload.nbytes > MAX_BYTES:
            raise Overloaded(f"{len(self._waiting)} rows of uploads wait to be recorded", self._flush_s)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((upload, done))
        self._bytes += upload.nbytes
        self._has_rows.set()
        await done

    async def close(self) -> None:
        """Commit the rows that wait, without another attempt. Rows of a failed commit are missing rows."""
        self._task.cancel()
        await asyncio.wait([self._task])
        while self._waiting:
            taken = self._waiting[:]
            try:
                await self._flush(taken)
            except _UNRELATED as error:
                self._end(taken, StorageUnreachable(f"the rows were not written: {error!r}"[:500]))

    async def _work(self) -> None:
        wait_s = self._flush_s
        while True:
            await self._has_rows.wait()
            await asyncio.sleep(wait_s)
            began_s = time.monotonic()
            try:
                await self._flush(self._waiting[:])
            except _UNRELATED as error:
                wait_s = min(MAX_WAIT_S, 2 * wait_s)
                log.warning("uploads_wait", rows=len(self._waiting), error=repr(error)[:500])
                continue
            wait_s = max(self._flush_s, PATIENCE * (time.monotonic() - began_s))
            await self._compact()

    async def _flush(self, taken: list[tuple[Upload, asyncio.Future[None]]]) -> None:
        """Commit rows and end their futures. After an error of a row, commit halves until it is isolated.

        Raises the errors of _UNRELATED, with all rows left waiting.
        """
        uploads = [upload for upload, _ in taken]
        try:
            await asyncio.to_thread(commit, self._tables, uploads)
        except (*_UNRELATED, asyncio.CancelledError):
            raise
        except BaseException as error:  # a panic of delta-rs is not an Exception
            if half := len(taken) // 2:
                await self._flush(taken[:half])
                await self._flush(taken[half:])
            else:
                self._end(taken, RuntimeError(f"the rows cannot be written: {error!r}"[:500]))
        else:
            self._end(taken, None)

    def _end(self, taken: list[tuple[Upload, asyncio.Future[None]]], error: Exception | None) -> None:
        del self._waiting[: len(taken)]
        self._bytes -= sum(upload.nbytes for upload, _ in taken)
        if not self._waiting:
            self._has_rows.clear()
        for _, done in taken:
            if done.done():  # its caller was cancelled
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    async def _compact(self) -> None:
        """Compact both tables after COMPACT_EVERY flushes, each of which adds a small file to them."""
        self._flushes += 1
        if self._flushes % COMPACT_EVERY:
            return
        try:
            for table in ("media", "results"):
                await asyncio.to_thread(compact, self._tables, table, None, COMPACT_EVERY)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # as above; uploads must continue
            log.warning("not_compacted", error=repr(error)[:500])


def commit(tables: Tables, uploads: Sequence[Upload]) -> None:
    """Write the rows of uploads to `media`, then to `results`. Raises TableConflict, StorageUnreachable, StorageUnsafe.

    Files come first: the next run adds a missing result, but no query returns a result without a file.
    """
    for root_url, rows in _parts(_joined([upload.media for upload in uploads]), "source_root"):
        add_files(Writer(tables, "media", root_url), _unique(rows, "path"))
    for key, rows in _parts(_joined([upload.result for upload in uploads]), "inference_key"):
        add_results(tables, key, _unique(rows, "media_sha256"))


def _joined(rows: Sequence[pa.Table]) -> pa.Table:
    """Concatenate rows; replicas of two versions may send different columns."""
    try:
        return pa.concat_tables(rows, promote_options="default")
    except pa.ArrowException as error:  # caused by a row, so not one of _UNRELATED
        raise ValueError(str(error)) from error


def _parts(rows: pa.Table, column: str) -> Iterable[tuple[str, pa.Table]]:
    values = rows[column].to_pylist()
    for value in dict.fromkeys(values):
        yield value, rows.take([i for i, other in enumerate(values) if other == value])


def _unique(rows: pa.Table, column: str) -> pa.Table:
    """Return the first row of each value of a column."""
    first: dict[str, int] = {}
    for number, value in enumerate(rows[column].to_pylist()):
        first.setdefault(value, number)
    return rows.take(list(first.values()))


MAX_SEARCHES, FIND_S = 4, 20.0


class OwnTables:
    """Implements `serve.uploads.uploads.ArchiveTables`. Use it on one event loop."""

    def __init__(self, tables_url: str, models_url: str) -> None:
        self._places = tables_url, models_url
        self._tables = Tables(tables_url)
        self._room = Room(MAX_SEARCHES, "searches are running")
        self._recorder: Recorder | None = None

    async def record(self, upload: Upload) -> None:
        if self._recorder is None:
            self._recorder = Recorder(self._tables)
            with contextlib.suppress(StorageError):  # `record` raises it
                await asyncio.to_thread(remember_store, *self._places)
        await self._recorder.record(upload)

    async def find(self, wanted: Search[P]) -> P:
        with self._room.place():
            return await asyncio.to_thread(wanted.answer, self._tables, FIND_S)

    async def close(self) -> None:
        """Commit the rows that wait, once."""
        if self._recorder is not None:
            await self._recorder.close()
