"""Write the human statements of all visitors: batches that arrive together share one commit. No HTTP.

StatementWriter(tables).add(Batch) -> Recorded (archive/annotations/batches.py), after the commit
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from archive.annotations.batches import Recorded, StatementBatch, record_all
from archive.delta.compact import compact
from archive.delta.snapshot import is_of_storage
from archive.delta.tables import Tables
from model_store.errors import Overloaded, ResightError, StorageUnreachable

WAIT_S, MAX_IN_COMMIT = 0.25, 500
"""A commit begins after this time with a waiting statement, or with this number of them."""
MAX_WAITING = 5_000
"""Maximum number of waiting batches."""
COMPACT_EVERY = 200
"""Commits, each of which adds a small file, between compactions."""
Waiting = tuple[StatementBatch, asyncio.Future[Recorded]]
log = structlog.get_logger("resight.statements")


class StatementWriter:
    """Writer of one process; other processes may write too. Use it on one event loop.

    `add` raises Overloaded if too many batches wait, StorageError if the commit fails, and the
    BadRequest or Conflict of the batch. A batch that waits already is not added again.
    """

    def __init__(self, tables: Tables, wait_s: float = WAIT_S) -> None:
        self._tables, self._wait_s = tables, wait_s
        self._waiting: dict[str, Waiting] = {}
        self._protected = set[str]()
        self._commits = 0
        # reads of other requests, which may take long, use other threads
        self._thread = ThreadPoolExecutor(1, "statements")
        self._changed = asyncio.Event()
        self._compaction: asyncio.Task[None] | None = None
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def add(self, batch: StatementBatch) -> Recorded:
        """Return the answer to a batch after its commit, or raise its error."""
        if batch.batch_id not in self._waiting:
            if len(self._waiting) >= MAX_WAITING:
                raise Overloaded(f"{len(self._waiting)} batches of statements wait to be recorded")
            done: asyncio.Future[Recorded] = asyncio.get_running_loop().create_future()
            self._waiting[batch.batch_id] = batch, done
            self._changed.set()
        return await asyncio.shield(self._waiting[batch.batch_id][1])

    async def _work(self) -> None:
        while True:
            if not self._waiting:
                self._changed.clear()
                await self._changed.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s):
                    while self._size() < MAX_IN_COMMIT:
                        self._changed.clear()
                        await self._changed.wait()
            await self._flush(self._take())
            self._compact()

    def _size(self) -> int:
        return sum(batch.size for batch, _ in self._waiting.values())

    def _take(self) -> list[Waiting]:
        """Return the next batches. One that depends on another of them waits for the next commit.

        These are an undo of one, and a selection of images that others of them may decide.
        """
        taken: dict[str, Waiting] = {}
        images, size, has_undo = set[str](), 0, False
        for batch_id, waiting in self._waiting.items():
            batch = waiting[0]
            size += batch.size
            full = size > MAX_IN_COMMIT
            if taken and (full or batch.of_batch in taken or (batch.leaves and (has_undo or images & batch.images))):
                break
            taken[batch_id] = waiting
            has_undo |= batch.of_batch is not None
            images |= set() if full else batch.images
        return list(taken.values())

    async def _flush(self, taken: Sequence[Waiting]) -> None:
        """Commit batches and end their futures. After an error of a batch, commit halves until it is isolated."""
        batches = [batch for batch, _ in taken]
        answers: Sequence[Recorded | Exception]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(
                self._thread, record_all, self._tables, batches, self._protected
            )
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a panic of delta-rs is not an Exception
            of_storage = isinstance(error, ResightError | OSError | MemoryError)
            of_storage = of_storage or (isinstance(error, Exception) and is_of_storage(error))
            half = len(taken) // 2
            if half and not of_storage:
                await self._flush(taken[:half])
                await self._flush(taken[half:])
                return
            log.warning("statements_not_recorded", batches=len(taken), error=repr(error)[:500])
            answers = [_failure(error, of_storage)] * len(taken)
        for (batch, done), answer in zip(taken, answers, strict=True):
            del self._waiting[batch.batch_id]
            if isinstance(answer, Recorded):
                done.set_result(answer)
            else:
                done.set_exception(answer)

    def _compact(self) -> None:
        """Start a compaction after COMPACT_EVERY commits, unless one is running."""
        self._commits += 1
        running = self._compaction is not None and not self._compaction.done()
        if self._commits >= COMPACT_EVERY and not running:
            self._commits = 0
            self._compaction = asyncio.get_running_loop().create_task(self._compacted())

    async def _compacted(self) -> None:
        try:
            await asyncio.to_thread(compact, self._tables, "assertions", None, COMPACT_EVERY)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # as above; statements must continue
            log.warning("not_compacted", error=repr(error)[:500])


def _failure(error: BaseException, of_storage: bool) -> Exception:
    if isinstance(error, ResightError):
        return error
    message = f"the statements were not recorded: {error!r}"[:500]
    return StorageUnreachable(message) if of_storage else RuntimeError(message)
