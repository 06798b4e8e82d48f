"""The processes of a cluster that work on the tables for its detectors: two detached actors, each made when it is first
needed and restarted by Ray.

The recorder returns when rows are committed, and Ray repeats calls that its death has left open: what it held is
sent again, and rows that it had committed already are not written twice. The finder answers questions; one that ends
its process is not repeated, and takes no rows with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from archive.find import Found, Wanted, find
from archive.stores import remember_store
from archive.tables import Tables
from model_store.errors import Overloaded, ResightError, StorageError, StorageUnreachable
from serve.logs import configure_logs
from serve.priority import give_way_all
from serve.recorder import Recorder
from serve.settings import Settings
from serve.upload import MOST_WAITING, Upload

NAMESPACE = "resight"
MOST_LOOKING, FIND_S, ANSWER_S, RETRY_S = 4, 20.0, 40.0, 1.0


class RecorderActor:
    """All logic is in `serve/recorder.py`."""

    def __init__(self, tables_url: str) -> None:
        configure_logs()
        give_way_all()
        with contextlib.suppress(
            StorageError
        ):  # what is wrong with the tables, the first record says
            remember_store(tables_url, Settings().models_url)
        self._recorder = Recorder(Tables(tables_url))

    async def record(self, upload: Upload) -> None:
        """Raises Overloaded, and what is wrong with the rows."""
        await self._recorder.record(upload)


class FinderActor:
    """All logic is in `archive/find.py`."""

    def __init__(self, tables_url: str) -> None:
        configure_logs()
        give_way_all()
        self._tables, self._looking = Tables(tables_url), 0

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


class RayTables:
    """`serve.uploads.ArchiveTables` on a real cluster."""

    def __init__(self) -> None:
        self._actors: dict[str, Any] = {}

    async def record(self, upload: Upload) -> None:
        """Returns once its rows are in the tables. Raises Overloaded, RayError."""
        recorder = await self._actor("recorder")
        try:
            await recorder.record.remote(upload)
        except ActorDiedError:
            self._actors.clear()  # for good: the next upload has another made
            raise

    async def find(self, wanted: Wanted) -> Found:
        """Raises BadRequest, DeadlinePassed, Overloaded, StorageUnreachable."""
        try:
            finder = await self._actor("finder")
            asked: Any = finder.find.options(max_task_retries=0).remote(wanted)
            found: Found | ResightError = await asyncio.wait_for(asked, ANSWER_S)
        except RayTaskError:  # an error of its own, not of the process
            raise
        except (RayError, TimeoutError) as error:
            self._actors.clear()
            words = f"the process that reads the tables does not answer: {error!r}"
            raise StorageUnreachable(words[:500]) from error
        if isinstance(found, ResightError):
            raise found
        return found

    async def _actor(self, kind: str) -> Any:
        if kind not in self._actors:
            self._actors[kind] = await asyncio.to_thread(_made, kind)
        return self._actors[kind]


def _made(kind: str) -> Any:
    """The cluster's one of this kind; made if there is none."""
    of_kind = {"recorder": RecorderActor, "finder": FinderActor}[kind]
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(of_kind)
    options = {"name": f"resight-{kind}", "namespace": NAMESPACE, "lifetime": "detached"}
    options |= {"get_if_exists": True, "max_concurrency": 2 * MOST_WAITING}
    return actor.options(**options).remote(Settings().tables_url)
