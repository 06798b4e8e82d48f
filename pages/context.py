"""Places, tables, the index of images and jobs: shared by the routes of the page in one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from archive.delta.tables import Tables
from archive.views.image_index import ImageIndex
from batch.jobs.control import Jobs
from model_store.machine import usable_cores
from model_store.store import ModelStore
from pages.index_follower import IndexFollower
from pages.thumbnails import ThumbnailCache
from serve.settings import Settings

THUMBNAILS_BYTES = 5 * 2**30
"""Budget of HOME/thumbnails: about 300,000 pictures of a grid."""


@dataclass(frozen=True)
class Context:
    """Make it once per process. `jobs` returns the jobs of this host; it may raise ClusterError."""

    settings: Settings
    tables: Tables
    index: ImageIndex
    follower: IndexFollower
    store: ModelStore
    thumbnails: ThumbnailCache
    jobs: Callable[[], Jobs]

    @classmethod
    def of(cls, settings: Settings, jobs: Callable[[], Jobs]) -> Context:
        tables, store = Tables(settings.tables_url), ModelStore(settings.models_url)
        index = ImageIndex(tables, settings.home_path / "index")
        thumbnails = ThumbnailCache(
            settings.home_path / "thumbnails", THUMBNAILS_BYTES, usable_cores()
        )
        return cls(settings, tables, index, IndexFollower(index), store, thumbnails, jobs)
