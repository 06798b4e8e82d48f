"""Access to the tables for the detectors, from this process: in the actors of a cluster, and in `resight serve`."""

from __future__ import annotations

import asyncio
import contextlib

from archive.delta.tables import Tables
from archive.retention import remember_store
from archive.views.search import Found, Wanted, find
from model_store.errors import StorageError
from serve.inference.admission import Room
from serve.uploads.recorder import Recorder
from serve.uploads.uploads import Upload

MAX_SEARCHES, FIND_S = 4, 20.0


class OwnTables:
    """Implements `serve.uploads.uploads.ArchiveTables`. Use it on one event loop."""

    def __init__(self, tables_url: str, models_url: str) -> None:
        self._places = tables_url, models_url
        self._tables = Tables(tables_url)
        self._room = Room(MAX_SEARCHES, "searches are running")
        self._recorder: Recorder | None = None

    async def record(self, upload: Upload) -> None:
        """Wait until the rows are in the tables. Raises as `Recorder.record`."""
        if self._recorder is None:
            self._recorder = Recorder(self._tables)
            with contextlib.suppress(StorageError):  # `record` raises it
                await asyncio.to_thread(remember_store, *self._places)
        await self._recorder.record(upload)

    async def find(self, wanted: Wanted) -> Found:
        """Search images. Raises BadRequest, DeadlinePassed, Overloaded, StorageUnreachable."""
        with self._room.place():
            return await asyncio.to_thread(find, self._tables, wanted, FIND_S)

    async def close(self) -> None:
        """Commit the rows that wait, once."""
        if self._recorder is not None:
            await self._recorder.close()
