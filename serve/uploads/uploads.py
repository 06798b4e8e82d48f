"""Store uploaded images and record their results, so that they are part of the archive at once.

(body, camera, Answer) --keep--> the file in the uploads folder, immediately; its rows in the tables, seconds later
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeVar

import pyarrow as pa
import structlog

from archive.catalogue.uploads import Kept
from archive.delta.arrow_stream import as_stream, from_stream
from archive.delta.result_columns import detection_columns
from archive.schemas import MEDIA, RESULTS
from archive.views.search import P, Search
from model_store.errors import Overloaded
from model_store.free_space import require_free_space
from model_store.storage import Folder
from serve.auth.scopes import Identity
from serve.inference.results import Answer
from serve.uploads.quota import Quotas

RUN_ID = "upload"
"""Value of `results.run_id` for uploads, as no run has processed the image."""
MAX_WAITING, MAX_BYTES = 5_000, 256 * 2**20
"""Maximum number and bytes of uploads with pending rows, in the recorder and in a replica."""
MAX_KEEPING = 512
"""Maximum number of images that wait to be written, below the requests of a replica."""
WRITERS = 8
T = TypeVar("T")
log = structlog.get_logger("resight.uploads")


@dataclass(frozen=True, slots=True)
class Upload:
    """A row of `media` and one of `results`."""

    media: pa.Table
    result: pa.Table

    @property
    def nbytes(self) -> int:
        return self.media.nbytes + self.result.nbytes

    def packed(self) -> tuple[bytes, bytes]:
        return as_stream(self.media), as_stream(self.result)

    @staticmethod
    def unpacked(packed: tuple[bytes, bytes]) -> Upload:
        return Upload(*map(from_stream, packed))

    @staticmethod
    def of(media_row: dict[str, Any], answer: Answer) -> Upload:
        """Return the rows of an answer, with all its detections, as a run would write them."""
        model, image, times = answer.model, answer.image, answer.timings
        result = detection_columns(answer.detections, model.labels) | {
            "inference_key": model.inference_key,
            "media_sha256": media_row["media_sha256"],
            "decode_note": image.note,
            "width_px": image.width_px,
            "height_px": image.height_px,
            "read_ms": 0.0,
            "decode_ms": times.preprocess_ms,
            "queue_ms": times.queue_ms,
            "inference_ms": times.inference_ms,
            "postprocess_ms": times.postprocess_ms,
            "run_id": RUN_ID,
            "model_name": model.name,
            "model_version": model.version,
            "weights_sha256": model.weights_sha256,
            "finished_at": datetime.now(UTC),
        }
        return Upload(pa.Table.from_pylist([media_row], schema=MEDIA), pa.Table.from_pylist([result], schema=RESULTS))


class ArchiveTables(Protocol):
    """Access to the tables for the detectors."""

    async def record(self, upload: Upload) -> None:
        """Wait until the rows are in the tables. After any error they might be missing."""
        ...

    async def find(self, wanted: Search[P]) -> P:
        """Return the answer of a search. Raises BadRequest, DeadlinePassed, Overloaded, StorageUnreachable."""
        ...


class Recording(NamedTuple):
    """A stored image, and the task that records its rows; its result is whether they are in the tables."""

    kept: Kept
    rows: asyncio.Task[bool]

    def is_recorded(self) -> bool:
        return self.rows.done() and self.rows.result()


class Uploads:
    """Uploads of one replica, which leave `free_mib` free on a local disk; `counted(outcome)` is called for each."""

    def __init__(self, url: str, tables: ArchiveTables, counted: Callable[[str], None], free_mib: int = 0) -> None:
        self.tables, self._free_mib = tables, free_mib
        self._root, self._counted = Folder(url), counted
        self._quotas = Quotas(self._root)
        # separate threads, so that a disk that hangs delays nothing else
        self._writers = ThreadPoolExecutor(WRITERS, "uploads")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiting = self._waiting_bytes = self._keeping = self._keeping_bytes = 0

    async def keep(self, body: bytes, camera: str, answer: Answer, sender: Identity | None = None) -> Recording:
        """Write the file, also if the client disconnects, and start to record its rows; `sender` may have a quota.

        Raises BadRequest, QuotaSpent, ImageTooLarge, StorageFull, StorageUnreachable, StorageUnsafe, and Overloaded if
        too many images wait to be written.
        """
        if self._keeping >= MAX_KEEPING or self._keeping_bytes + len(body) > MAX_BYTES:
            raise Overloaded(f"{self._keeping} images ({self._keeping_bytes >> 20} MiB) wait to be written")
        self._keeping += 1
        self._keeping_bytes += len(body)
        return await asyncio.shield(self._start(self._keep(body, camera, answer, sender)))

    async def _keep(self, body: bytes, camera: str, answer: Answer, sender: Identity | None) -> Recording:
        def write() -> tuple[Kept, Upload]:
            require_free_space(self._root.url, self._free_mib, "uploads", "limits.free_mib")
            kept = self._quotas.keep(sender, camera, body)
            return kept, Upload.of(kept.row, answer)

        try:
            kept, upload = await asyncio.get_running_loop().run_in_executor(self._writers, write)
        finally:
            self._keeping -= 1
            self._keeping_bytes -= len(body)
        self._counted("kept")
        return Recording(kept, self._start(self._record(kept.row["path"], upload)))

    async def _record(self, path: str, upload: Upload) -> bool:
        try:
            if self._waiting >= MAX_WAITING or self._waiting_bytes + upload.nbytes > MAX_BYTES:
                raise Overloaded(f"the rows of {self._waiting} uploads wait to be recorded")
            self._waiting += 1
            self._waiting_bytes += upload.nbytes
            try:
                await self.tables.record(upload)
            finally:
                self._waiting -= 1
                self._waiting_bytes -= upload.nbytes
        except Exception as error:  # the file is stored: an ingest and the next run add its rows
            self._counted("unrecorded")
            log.warning("not_recorded", path=path, why=repr(error)[:500])
            return False
        self._counted("recorded")
        return True

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task that does not end if its request is cancelled. Its error is raised where it is awaited."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task
