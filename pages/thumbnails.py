"""Keep small pictures on the disk, within a budget of bytes, and make the missing ones in a few threads.

get(sha256, recipe, make) --HOME/thumbnails/ab/cd/<sha256>-<recipe>.jpg--> its bytes, else those of `make`, then kept

A file is the picture and its XXH3 digest, so a damaged, cut or empty file is made again. Everything here can be
removed at any time. If a file cannot be written, for example on a full disk, its picture is answered without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import structlog
import xxhash

from model_store.errors import Overloaded

READERS = 4
"""Threads that read kept pictures, separate from those that decode."""
MAX_PICTURES = 128
"""Pictures that are read or made concurrently; further requests are answered 429."""
SLACK = 0.1
"""Share of the budget that is written between two sweeps, and that a sweep leaves free."""
TOUCH_S = 60.0
"""Minimum age of a file's time of use before it is set again."""
DIGEST_BYTES = 8
T = TypeVar("T")
log = structlog.get_logger("resight.pages")


class ThumbnailCache:
    """Pictures below `folder`, made in `threads`. Use it on one event loop; processes may share the folder.

    Each process counts its own files only until the next sweep, so several may exceed the budget by SLACK each.
    """

    def __init__(self, folder: Path, budget_bytes: int, threads: int, max_pictures: int = MAX_PICTURES) -> None:
        self._folder, self._budget, self._max_pictures = folder, budget_bytes, max_pictures
        self._readers = ThreadPoolExecutor(READERS, "thumbnail-reads")
        self._makers = ThreadPoolExecutor(threads, "thumbnails")
        self._sweeper = ThreadPoolExecutor(1, "thumbnail-sweeps")
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._unswept_bytes = budget_bytes  # so that the first file starts a sweep
        self._is_writable = True

    async def get(self, media_sha256: str, recipe: str, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the kept picture, or that of `make`. Raises as `make`."""
        name = f"{media_sha256}-{recipe}.jpg"
        path = self._folder / name[:2] / name[2:4] / name
        return await self.make(name, lambda: self._get(path, make))

    async def make(self, name: str, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of `make`, which concurrent requests of one name share.

        Raises Overloaded if too many pictures are being made, and any error of `make`.
        """
        task = self._running.get(name)
        if task is None:
            if len(self._running) >= self._max_pictures:
                raise Overloaded(f"{len(self._running)} pictures are being made: try again soon")
            task = self._running[name] = asyncio.create_task(make())
            task.add_done_callback(lambda ended: self._end(name, ended))
        return await asyncio.shield(task)  # the others still wait for it if one request ends

    async def run(self, work: Callable[[], T]) -> T:
        """Return the result of `work`, run in one of the threads that make pictures."""
        return await self._in(self._makers, work)

    def close(self) -> None:
        """Wait for the threads."""
        for pool in (self._readers, self._makers, self._sweeper):
            pool.shutdown()

    def _end(self, key: str, task: asyncio.Task[Any]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # read here, as all requests for it may have ended

    async def _get(self, path: Path, make: Callable[[], Awaitable[bytes]]) -> bytes:
        kept = await self._in(self._readers, lambda: _read(path))
        if kept is not None:
            return kept
        data = await make()
        written_bytes = await self._in(self._makers, lambda: self._keep(path, data))
        self._unswept_bytes += written_bytes
        if written_bytes and self._unswept_bytes >= self._budget * SLACK:
            self._unswept_bytes = 0
            self._sweeper.submit(self._sweep)
        return data

    def _keep(self, path: Path, data: bytes) -> int:
        """Write a picture and return its number of bytes, 0 if it could not be written."""
        try:
            written_bytes = _write(path, data)
        except OSError as error:
            if self._is_writable:  # else it is logged for every picture
                log.warning("thumbnails_not_kept", folder=str(self._folder), why=str(error))
            self._is_writable = False
            return 0
        self._is_writable = True
        return written_bytes

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def _sweep(self) -> None:
        """Remove the least recently used files until SLACK of the budget is free."""
        files = sorted(_files(self._folder))
        excess = sum(size for _, size, _ in files) - self._budget * (1 - SLACK)
        for _, size, path in files:
            if excess <= 0:
                return
            with contextlib.suppress(OSError):  # removed by another process
                os.unlink(path)
            excess -= size


def _read(path: Path) -> bytes | None:
    """Return a kept picture and record its use; None if there is none, or it is damaged."""
    try:
        with path.open("rb") as file:
            kept, used_at = file.read(), os.fstat(file.fileno()).st_mtime
        data, digest = kept[:-DIGEST_BYTES], kept[-DIGEST_BYTES:]
        if not data or xxhash.xxh3_64_digest(data) != digest:
            return None
        if time.time() - used_at > TOUCH_S:
            with contextlib.suppress(OSError):  # swept at this moment, or a disk that is read-only
                os.utime(path)
        return data
    except OSError:
        return None


def _write(path: Path, data: bytes) -> int:
    """Write a file under a temporary name, rename it, and return its size in bytes. Raises OSError."""
    kept = data + xxhash.xxh3_64_digest(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".making-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(kept)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return len(kept)


def _files(folder: Path) -> list[tuple[float, int, str]]:
    """Return time of use, size in bytes and path of each file; also those that a killed process left."""
    found: list[tuple[float, int, str]] = []
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.stat(f"{place}/{name}")
                found.append((status.st_mtime, status.st_size, f"{place}/{name}"))
    return found
