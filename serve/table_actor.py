"""The process of a cluster that works on the tables for its detectors: one detached actor, restarted by Ray.

A recording returns when its rows are committed, and Ray repeats calls that an actor's death has left open: what the
actor held is sent again, and rows that it had committed already are not written twice.
"""

from __future__ import annotations

import functools
from typing import Any

import ray

from archive.tables import Tables
from serve.logs import configure_logs
from serve.priority import give_way_all
from serve.recorder import Recorder
from serve.settings import Settings
from serve.upload import MOST_WAITING, Upload

NAME, NAMESPACE = "resight-tables", "resight"


class TableActor:
    """All logic is in `serve/recorder.py`."""

    def __init__(self, tables_url: str) -> None:
        configure_logs()
        give_way_all()
        self._tables = Tables(tables_url)

    async def record(self, upload: Upload) -> None:
        """Raises Overloaded."""
        await self._recorder.record(upload)

    @functools.cached_property
    def _recorder(self) -> Recorder:
        return Recorder(self._tables)


class RayTables:
    """`serve.uploads.Records` on a real cluster."""

    async def record(self, upload: Upload) -> None:
        """Returns once its rows are in the tables. Raises Overloaded, RayError."""
        await self._actor.record.remote(upload)

    @functools.cached_property
    def _actor(self) -> Any:
        actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(TableActor)
        options = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached"}
        options |= {"get_if_exists": True, "max_concurrency": 2 * MOST_WAITING}
        return actor.options(**options).remote(Settings().tables_url)
