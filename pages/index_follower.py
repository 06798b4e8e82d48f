"""Keep the index of images close to the tables: each use starts a refresh in the background if the last one is old.

A view without a file is built in the background too; requests wait for it a moment, then they get IndexNotReady.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic

import structlog

from archive.views.image_index import ImageIndex
from archive.views.views import PRODUCTION
from model_store.errors import IndexNotReady, ResightError

REFRESH_S, WAIT_S = 3.0, 3.0
"""Seconds after which an index is refreshed again, and how long a request waits for the first build."""
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
        index.on_missing = self.require

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
