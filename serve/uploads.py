"""A picture that was detected in is kept, and what was seen in it recorded: the archive gets it at once.

(body, camera, Answer) --keep--> the file in the uploads folder, now; its rows in the tables, seconds later
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from archive.find import Found, Wanted
from archive.uploads import Kept, keep
from model_store.storage import Folder
from serve.answers import Answer
from serve.upload import MOST_WAITING, Upload

log = structlog.get_logger("resight.uploads")


class ArchiveTables(Protocol):
    """What reads and writes the tables for the detectors."""

    async def record(self, upload: Upload) -> None:
        """Returns once its rows are there; whatever it raises, they may not be."""
        ...

    async def find(self, wanted: Wanted) -> Found:
        """Raises BadRequest, DeadlinePassed, Overloaded, StorageUnreachable."""
        ...


class Uploads:
    """Of one replica. `counted(outcome)` hears of each: kept, then recorded or unrecorded."""

    def __init__(self, url: str, tables: ArchiveTables, counted: Callable[[str], None]) -> None:
        self.tables = tables
        self._root, self._counted = Folder(url), counted
        self._under_way: set[asyncio.Task[bool]] = set()

    async def keep(
        self, body: bytes, camera: str, answer: Answer, wait_s: float
    ) -> tuple[Kept, bool]:
        """The file, safe when this returns; and whether its rows are in the tables, for which it waits so long.

        Raises BadRequest, StorageUnreachable, StorageUnsafe.
        """
        kept = await asyncio.to_thread(keep, self._root, camera, body)
        self._counted("kept")
        if len(self._under_way) >= MOST_WAITING:
            self._not_recorded(kept, f"{MOST_WAITING} others wait")
            return kept, False
        task = asyncio.create_task(self._record(kept, answer))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.wait({task}, timeout=wait_s)
        return kept, task.done() and task.result()

    async def _record(self, kept: Kept, answer: Answer) -> bool:
        try:
            await self.tables.record(Upload.of(kept.row, answer))
        except Exception as error:
            self._not_recorded(kept, repr(error)[:500])
            return False
        self._counted("recorded")
        return True

    def _not_recorded(self, kept: Kept, why: str) -> None:
        """The file is there: an ingest of the folder and the next run bring what is missing."""
        self._counted("unrecorded")
        log.warning("not_recorded", path=kept.row["path"], why=why)
