"""Places, tables, the index of images and jobs: shared by the routes of the page in one process; choices for forms.

The index is kept close to the tables: each use starts a refresh in the background if the last one is old. A view
without a file is built in the background too; requests wait for it a moment, then they get IndexNotReady.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal, TypeVar

import structlog

from archive.catalogue.deployments import current
from archive.catalogue.known_names import suggested
from archive.delta.tables import Tables
from archive.views.image_filter import ImageFilter
from archive.views.image_index import ImageIndex
from archive.views.views import NAME, PRODUCTION, Views
from batch.jobs.control import Jobs
from model_store.errors import BadRequest, ClusterError, IndexNotReady, ResightError
from model_store.machine import usable_cores
from model_store.store import ModelStore
from pages.thumbnails import ThumbnailCache
from serve.settings import Settings

THUMBNAILS_BYTES = 5 * 2**30
"""Budget of HOME/thumbnails: about 300,000 pictures of a grid."""
MAX_CHOICES = 200
REFRESH_S, WAIT_S = 3.0, 3.0
"""Seconds after which an index is refreshed again, and how long a request waits for the first build."""
T = TypeVar("T")
log = structlog.get_logger("resight.page")


class IndexFollower:
    """Builds and refreshes an index, one view at a time; readers get the old rows until it is done."""

    def __init__(self, index: ImageIndex) -> None:
        self._index = index
        self._refreshed_s: dict[str, float] = {}
        self._waiting: set[str] = set()
        self._builds: dict[str, Future[bool]] = {}
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "index")
        index.on_missing, index.on_read = self.require, self.used

    def used(self, view: str = PRODUCTION, changed: bool = False) -> None:
        """Refresh the view soon; with `changed`, also if it was refreshed just now."""
        with self._lock:
            age_s = monotonic() - self._refreshed_s.get(view, -REFRESH_S)
            if view in self._waiting or (age_s < REFRESH_S and not changed):
                return
            self._waiting.add(view)
        self._worker.submit(self._refresh, view)

    def require(self, view: str) -> None:
        """Build the first file of a view. Raises IndexNotReady if it takes longer than WAIT_S, and as `refresh`."""
        with self._lock:
            build = self._builds.get(view)
            if build is None or build.done():
                build = self._builds[view] = self._worker.submit(self._index.refresh, view)
        try:
            build.result(WAIT_S)
        except TimeoutError:
            done, of_all = self.building(view) or (0, 0)
            raise IndexNotReady(
                f"the index of the images is being built: step {done} of {of_all}; try again in a moment"
            ) from None
        finally:
            if build.done():
                self._builds.pop(view, None)

    def building(self, view: str = PRODUCTION) -> tuple[int, int] | None:
        """Return the step of the first build that is running, and the number of steps; None if none is running."""
        build = self._builds.get(view)
        return None if build is None or build.done() else self._index.steps.get(view, (0, 1))

    def _refresh(self, view: str) -> None:
        with self._lock:
            self._waiting.discard(view)  # a change from now on starts another refresh
        try:
            self._index.refresh(view)
        except ResightError as error:
            log.warning("index_not_refreshed", view=view, why=str(error))
        except Exception:
            log.exception("index_not_refreshed", view=view)
        self._refreshed_s[view] = monotonic()


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
        index = ImageIndex(tables, settings.index_path)
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

    def filter_choices(self, wanted: ImageFilter) -> dict[str, Any]:
        """Return the choices of `templates/filters.html`: cameras and labels with their images, and views.

        The chosen ones are among them also without images; `unknown` is then the message about the camera.
        """
        cameras, labels = (dict(self._counted(column, wanted.view)) for column in ("camera", "label"))
        unknown = ""
        if wanted.camera and wanted.camera not in cameras:
            stated = {row["camera_id"] for row in current(self.tables).values()}  # of deployments without images
            if wanted.camera not in stated:
                unknown = f"unknown camera '{wanted.camera}'; {suggested(wanted.camera, list(cameras))}"
        choices: dict[str, Any] = {"views": Views(self.tables.url).names(), "unknown": unknown}
        for name, counts, chosen in (("cameras", cameras, wanted.camera), ("labels", labels, wanted.label)):
            counts |= {chosen: 0} if chosen and chosen not in counts else {}
            choices[name] = [(each, f"{each} ({images})") for each, images in counts.items()]
        return choices

    def _counted(self, column: Literal["camera", "label"], view: str) -> list[tuple[str, int]]:
        if self.tables.existing("media") is None:
            return []
        if not NAME.fullmatch(view):
            raise BadRequest(f"invalid name of a view '{view[:80]}'")
        return [bar for bar in self.index.histogram(ImageFilter(view=view), column) if bar[0]]
