"""Actors that access the tables for the detectors: a recorder and a finder, detached and restarted by Ray.

Each is created on first use. If the recorder dies, Ray repeats its open calls, and rows that it had committed before
are not written twice. A search that ends the finder's process is not repeated and affects no rows.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from archive.delta.arrow_alone import POOL
from archive.views.search import P, Search
from model_store.errors import ResightError, StorageUnreachable
from serve.inference.os_priority import lower_process_priority
from serve.log_config import configure_logs
from serve.settings import Settings
from serve.uploads.recorder import OwnTables
from serve.uploads.uploads import MAX_WAITING, Upload

NAMESPACE = "resight"
ANSWER_S = 40.0


class TablesActor:
    """Actor around `OwnTables`. Ray names the process of an actor after its class."""

    def __init__(self, tables_url: str) -> None:
        configure_logs()
        lower_process_priority()
        self._tables = OwnTables(tables_url, Settings().models_url)

    async def record(self, packed: tuple[bytes, bytes]) -> None:
        """Wait until the rows of `Upload.packed()` are in the tables. Raises as `Recorder.record`."""
        await self._tables.record(Upload.unpacked(packed))

    async def find(self, wanted: Search[P]) -> P:
        return await self._tables.find(wanted)


class RecorderActor(TablesActor):
    """Records uploads."""


class FinderActor(TablesActor):
    """Runs searches."""


class RayTables:
    """Implements `serve.uploads.uploads.ArchiveTables` on a cluster."""

    def __init__(self) -> None:
        self._actors: dict[str, Any] = {}

    async def record(self, upload: Upload) -> None:
        """Wait until the rows are in the tables. Raises Overloaded, RayError."""
        recorder = await self._actor("recorder")
        try:
            await recorder.record.remote(await asyncio.to_thread(upload.packed))
        except ActorDiedError:
            self._actors.clear()  # it is not restarted: the next upload creates another one
            raise

    async def find(self, wanted: Search[P]) -> P:
        try:
            finder = await self._actor("finder")
            pending: Any = finder.find.options(max_task_retries=0).remote(wanted)
            return await asyncio.wait_for(pending, ANSWER_S)
        except RayTaskError as error:  # raised by the search, so the process is alive
            raise (error.cause if isinstance(error.cause, ResightError) else error) from None
        except (RayError, TimeoutError) as error:
            self._actors.clear()
            message = f"the process that reads the tables does not answer: {error!r}"
            raise StorageUnreachable(message[:500]) from error

    async def _actor(self, kind: str) -> Any:
        if kind not in self._actors:
            self._actors[kind] = await asyncio.to_thread(_get_or_create, kind)
        return self._actors[kind]


def _get_or_create(kind: str) -> Any:
    """Return the cluster's actor of this kind, created if there is none."""
    actor_class = RecorderActor if kind == "recorder" else FinderActor
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(actor_class)
    options: dict[str, Any] = {"name": f"resight-{kind}", "namespace": NAMESPACE, "lifetime": "detached"}
    options |= {"get_if_exists": True, "max_concurrency": 2 * MAX_WAITING}
    options["runtime_env"] = {"env_vars": {POOL: os.environ.get(POOL, "system")}}  # see import_arrow_alone
    return actor.options(**options).remote(Settings().tables_url)
