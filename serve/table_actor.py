"""The process of a cluster that works on the tables for its detectors: one detached actor, restarted by Ray.

A recording returns when its rows are committed, and Ray repeats calls that an actor's death has left open: what the
actor held is sent again, and rows that it had committed already are not written twice.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import ray
from ray.exceptions import RayError

from archive.find import Found, Wanted, find
from archive.tables import Tables
from model_store.errors import Overloaded, ResightError, StorageUnreachable
from serve.logs import configure_logs
from serve.priority import give_way_all
from serve.recorder import Recorder
from serve.settings import Settings
from serve.upload import MOST_WAITING, Upload

NAME, NAMESPACE = "resight-tables", "resight"
MOST_LOOKING, FIND_S, RETRY_S = 4, 20.0, 1.0


class TableActor:
    """All logic is in `serve/recorder.py` and `archive/find.py`."""

    def __init__(self, tables_url: str) -> None:
        configure_logs()
        give_way_all()
        self._tables, self._looking = Tables(tables_url), 0

    async def record(self, upload: Upload) -> None:
        """Raises Overloaded."""
        await self._recorder.record(upload)

    async def find(self, wanted: Wanted) -> Found | ResightError:
        """An error of ours is an answer: Ray would wrap what is raised."""
        if self._looking >= MOST_LOOKING:
            return Overloaded(f"{self._looking} questions are being answered", RETRY_S)
        self._looking += 1
        try:
            return await asyncio.to_thread(find, self._tables, wanted, FIND_S)
        except ResightError as error:
            return error
        finally:
            self._looking -= 1

    @functools.cached_property
    def _recorder(self) -> Recorder:
        return Recorder(self._tables)


class RayTables:
    """`serve.uploads.ArchiveTables` on a real cluster."""

    async def record(self, upload: Upload) -> None:
        """Returns once its rows are in the tables. Raises Overloaded, RayError."""
        await self._actor.record.remote(upload)

    async def find(self, wanted: Wanted) -> Found:
        """Raises BadRequest, DeadlinePassed, Overloaded, StorageUnreachable."""
        try:
            found: Found | ResightError = await self._actor.find.remote(wanted)
        except RayError as error:
            words = f"the process that reads the tables does not answer: {error}"
            raise StorageUnreachable(words[:500]) from error
        if isinstance(found, ResightError):
            raise found
        return found

    @functools.cached_property
    def _actor(self) -> Any:
        actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(TableActor)
        options = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached"}
        options |= {"get_if_exists": True, "max_concurrency": 2 * MOST_WAITING}
        return actor.options(**options).remote(Settings().tables_url)
