"""Places, tables, the index of images and jobs: shared by the routes of the page in one process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from archive.delta.tables import Tables
from archive.views.image_index import ImageIndex
from batch.jobs.control import Jobs
from model_store.errors import ClusterError
from model_store.machine import usable_cores
from model_store.store import ModelStore
from pages.index_follower import IndexFollower
from pages.thumbnails import ThumbnailCache
from serve.settings import Settings

THUMBNAILS_BYTES = 5 * 2**30
"""Budget of HOME/thumbnails: about 300,000 pictures of a grid."""
T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """Make it once per process. `jobs` returns the jobs of this host; it may raise ClusterError.

    `others` are the jobs of other hosts, of which runs are shown too.
    """

    settings: Settings
    tables: Tables
    index: ImageIndex
    follower: IndexFollower
    store: ModelStore
    thumbnails: ThumbnailCache
    jobs: Callable[[], Jobs]
    others: Sequence[Jobs] = ()

    @classmethod
    def of(cls, settings: Settings, jobs: Callable[[], Jobs], others: Sequence[Jobs] = ()) -> Context:
        tables, store = Tables(settings.tables_url), ModelStore(settings.models_url)
        index = ImageIndex(tables, settings.home_path / "index")
        thumbnails = ThumbnailCache(settings.home_path / "thumbnails", THUMBNAILS_BYTES, usable_cores())
        return cls(settings, tables, index, IndexFollower(index), store, thumbnails, jobs, others)

    def from_jobs(self, read: Callable[[Jobs], T | None]) -> T | None:
        """Return `read(jobs)` of the first host that has an answer. A cluster that does not answer has none."""
        with contextlib.suppress(ClusterError):
            if (found := read(self.jobs())) is not None:
                return found
        answers = (read(other) for other in self.others)
        return next((found for found in answers if found is not None), None)
