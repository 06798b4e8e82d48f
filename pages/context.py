"""Places, tables, the index of images and jobs: shared by the routes of the page in one process; choices for forms."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from archive.delta.tables import Tables
from archive.views.image_filter import ImageFilter
from archive.views.image_index import ImageIndex
from archive.views.views import NAME, PRODUCTION, Views
from batch.jobs.control import Jobs
from model_store.errors import BadRequest, ClusterError
from model_store.machine import usable_cores
from model_store.store import ModelStore
from pages.index_follower import IndexFollower
from pages.thumbnails import ThumbnailCache
from serve.settings import Settings

THUMBNAILS_BYTES = 5 * 2**30
"""Budget of HOME/thumbnails: about 300,000 pictures of a grid."""
MAX_CHOICES = 200
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

    def names(self, column: Literal["camera", "label"], view: str = PRODUCTION) -> list[str]:
        """Return the cameras or labels that the view shows, the most frequent first."""
        return [name for name, _ in self._counted(column, view)][:MAX_CHOICES]

    def filter_choices(self, view: str) -> dict[str, Any]:
        """Return the choices of `templates/filters.html`: cameras and labels with their images, and views."""
        cameras, labels = (
            [(name, f"{name} ({images})") for name, images in self._counted(column, view)]
            for column in ("camera", "label")
        )
        views = Views(self.tables.url).names()
        view_choices = [(name, name) for name in views]
        return {"cameras": cameras, "labels": labels, "views": views, "view_choices": view_choices}

    def _counted(self, column: Literal["camera", "label"], view: str) -> list[tuple[str, int]]:
        if self.tables.existing("media") is None:
            return []
        if not NAME.fullmatch(view):
            raise BadRequest(f"invalid name of a view '{view[:80]}'")
        return [bar for bar in self.index.histogram(ImageFilter(view=view), column) if bar[0]]
