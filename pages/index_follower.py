"""Keep the index of images close to the tables: each use starts a refresh in the background if the last one is old."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import structlog

from archive.views.image_index import ImageIndex
from archive.views.views import PRODUCTION
from model_store.errors import ResightError

REFRESH_S = 3.0
log = structlog.get_logger("resight.page")


class IndexFollower:
    """Refreshes an index, one view at a time; readers get the old rows until it is done."""

    def __init__(self, index: ImageIndex) -> None:
        self._index = index
        self._refreshed_s: dict[str, float] = {}
        self._waiting: set[str] = set()
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "index")

    def used(self, view: str = PRODUCTION, changed: bool = False) -> None:
        """Refresh the view soon; with `changed`, also if it was refreshed just now."""
        with self._lock:
            age_s = monotonic() - self._refreshed_s.get(view, -REFRESH_S)
            if view in self._waiting or (age_s < REFRESH_S and not changed):
                return
            self._waiting.add(view)
        self._worker.submit(self._refresh, view)

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
