"""A picture that was detected in is kept, and what was seen in it recorded: the archive gets it at once.

(body, camera, Answer) --keep--> the file in the uploads folder, now; its rows in the tables, seconds later
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog

from archive.find import Found, Wanted
from archive.uploads import Kept, keep, require_free
from model_store.errors import Overloaded
from model_store.storage import Folder
from serve.answers import Answer
from serve.upload import MOST_BYTES, MOST_WAITING, Upload

WRITERS = 8
T = TypeVar("T")
log = structlog.get_logger("resight.uploads")


class ArchiveTables(Protocol):
    """What reads and writes the tables for the detectors."""

    async def record(self, upload: Upload) -> None:
        """Returns once its rows are there; whatever it raises, they may not be."""
        ...

    async def find(self, wanted: Wanted) -> Found:
        """Raises BadRequest, DeadlinePassed, Overloaded, StorageUnreachable."""
        ...


class Recording(NamedTuple):
    """A picture that is in its place, and its rows on their way: the task's result is whether they are there."""

    kept: Kept
    rows: asyncio.Task[bool]


class Uploads:
    """Uploads of one replica. `counted(outcome)` is called for each: kept, then recorded or unrecorded.

    `free_mib` are left free on a local disk.
    """

    def __init__(
        self, url: str, tables: ArchiveTables, counted: Callable[[str], None], free_mib: int = 0
    ) -> None:
        self.tables, self._free_mib = tables, free_mib
        self._root, self._counted = Folder(url), counted
        self._writers = ThreadPoolExecutor(
            WRITERS, "uploads"
        )  # a disk that hangs holds up no other
        self._under_way: set[asyncio.Task[Any]] = set()
        self._waiting = self._waiting_bytes = self._keeping_bytes = 0

    async def keep(self, body: bytes, camera: str, answer: Answer) -> Recording:
        """Write the file, also if the sender hangs up; its rows follow.

        Raises BadRequest, StorageFull, StorageUnreachable, StorageUnsafe, and Overloaded where too much waits
        to be written.
        """
        if self._keeping_bytes + len(body) > MOST_BYTES:
            raise Overloaded(f"{self._keeping_bytes >> 20} MiB of pictures wait to be written")
        self._keeping_bytes += len(body)
        return await asyncio.shield(self._go(self._keep(body, camera, answer)))

    async def _keep(self, body: bytes, camera: str, answer: Answer) -> Recording:
        def kept_and_told() -> tuple[Kept, Upload]:
            require_free(self._root, self._free_mib)
            kept = keep(self._root, camera, body)
            return kept, Upload.of(kept.row, answer)

        loop = asyncio.get_running_loop()
        try:
            kept, upload = await loop.run_in_executor(self._writers, kept_and_told)
        finally:
            self._keeping_bytes -= len(body)
        self._counted("kept")
        return Recording(kept, self._go(self._record(kept.row["path"], upload)))

    async def _record(self, path: str, upload: Upload) -> bool:
        try:
            self._require_room(upload)
            self._waiting, self._waiting_bytes = (
                self._waiting + 1,
                self._waiting_bytes + upload.nbytes,
            )
            try:
                await self.tables.record(upload)
            finally:
                self._waiting, self._waiting_bytes = (
                    self._waiting - 1,
                    self._waiting_bytes - upload.nbytes,
                )
        except (
            Exception
        ) as error:  # the file is there: an ingest and the next run bring what is missing
            self._counted("unrecorded")
            log.warning("not_recorded", path=path, why=repr(error)[:500])
            return False
        self._counted("recorded")
        return True

    def _require_room(self, upload: Upload) -> None:
        """Raises Overloaded."""
        if self._waiting >= MOST_WAITING or self._waiting_bytes + upload.nbytes > MOST_BYTES:
            raise Overloaded(f"the rows of {self._waiting} uploads wait to be recorded")

    def _go(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """It is not waited for by anybody who could be cancelled; what it raises is heard by those who wait."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task


async def wait_for_rows(recordings: Collection[Recording], wait_s: float) -> None:
    """Until the rows of all of them are there or lost, but no longer."""
    if recordings and wait_s:
        await asyncio.wait({one.rows for one in recordings}, timeout=wait_s)


def recorded(recording: Recording) -> bool:
    """Whether its rows are in the tables, as far as is known now."""
    return recording.rows.done() and recording.rows.result()
