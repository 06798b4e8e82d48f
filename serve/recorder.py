"""Rows of uploads on their way into the tables: held for a few seconds, then committed together. Knows no Ray.

record(Upload) -> returns once its rows are there, whoever has written them
While the tables are out of reach the rows wait, up to a bound. A row that is lost after all, with the process, is a
missing row: its picture is on disk, so an ingest of the folder and the next run bring it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import pyarrow as pa
import structlog

from archive.new_rows import add_files, add_results
from archive.tables import Tables
from model_store.errors import Overloaded
from serve.upload import MOST_WAITING, Upload

FLUSH_S, MOST_S = 5.0, 60.0
log = structlog.get_logger("resight.recorder")


class Recorder:
    """The one that writes them, on one event loop."""

    def __init__(self, tables: Tables, flush_s: float = FLUSH_S) -> None:
        self._tables, self._flush_s = tables, flush_s
        self._waiting: list[tuple[Upload, asyncio.Future[None]]] = []
        self._some = asyncio.Event()
        self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def record(self, upload: Upload) -> None:
        """Raises Overloaded when too many wait already."""
        if len(self._waiting) >= MOST_WAITING:
            raise Overloaded(
                f"{len(self._waiting)} rows of uploads wait to be recorded", self._flush_s
            )
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((upload, done))
        self._some.set()
        await done

    async def _flush(self) -> None:
        wait_s = self._flush_s
        while True:
            await self._some.wait()
            await asyncio.sleep(wait_s)
            taken = list(self._waiting)
            try:
                await asyncio.to_thread(commit, self._tables, [upload for upload, _ in taken])
            except Exception as error:  # whatever it is: they wait, and the bound says how many
                wait_s = min(MOST_S, 2 * wait_s)
                log.warning("uploads_wait", rows=len(taken), error=repr(error)[:500])
                continue
            wait_s = self._flush_s
            del self._waiting[: len(taken)]
            if not self._waiting:
                self._some.clear()
            for _, done in taken:
                if not done.done():  # whoever asked may be gone
                    done.set_result(None)


def commit(tables: Tables, uploads: Sequence[Upload]) -> None:
    """Files first: a result of a file that is not known is seen by nobody, a file without a result is due.

    Raises TableConflict, StorageUnreachable, StorageUnsafe.
    """
    for root_url, rows in _parts(pa.concat_tables([one.media for one in uploads]), "source_root"):
        add_files(tables, root_url, _once(rows, "path"))
    for key, rows in _parts(pa.concat_tables([one.result for one in uploads]), "inference_key"):
        add_results(tables, key, _once(rows, "media_sha256"))


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
