"""List the images of a view fast: pages, counts, histograms and neighbours, from a local file per view.

ImageIndex(tables, HOME/index).page(ImageFilter(camera="north"), 100) -> ImagePage(columns, previous, next)
The rows equal those of `archive/views/search.py` at the versions that `state` returns, in the same order. Only
`refresh` follows the tables: the others read the file that is there, and build it if there is none
(`archive/views/image_index_file.py`), or call `on_missing` for it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any, Literal, TypeVar

import duckdb
import pyarrow as pa

from archive.delta.tables import Tables
from archive.views.image_detail import ImageDetail, details_in
from archive.views.image_filter import Conditions, ImageFilter, selected
from archive.views.image_index_file import (
    About,
    OpenIndex,
    behind_since,
    changed_images,
    locked,
    open_newest,
    source_of,
    updated,
)
from archive.views.query import bounded
from archive.views.search import MOST_IMAGES, cursor_of, place_in, place_of, view_shown
from archive.views.views import NAME, PRODUCTION
from model_store.errors import BadRequest, ModelNotFound
from model_store.frozen import Frozen

WITHIN_S = 10.0
"""Default time limit of a request."""
By = Literal["day", "hour", "camera", "label", "status"]
T = TypeVar("T")
Place = tuple[datetime | None, str, str]
"""Time, root and path of an image, or of a point between two in page order."""
_AFTER = """moment <= {moment} and (moment < {moment} or (source_root, path) > ($place_root, $place_path))"""
_BEFORE = """moment >= {moment} and (moment > {moment} or (source_root, path) < ($place_root, $place_path))"""
_MOMENT = "coalesce($place_moment::timestamp, '-infinity'::timestamp)"
_FORWARDS, _BACKWARDS = "moment desc, source_root, path", "moment, source_root desc, path desc"
_UNDATED: Place = (None, "", "")
"""Place before the images without a time."""
_PAGE = """
    with page as (
        select image_id, {label} as top_label, top_score from {rows} where {conditions} order by {order} limit {limit})
    select media_sha256, captured_at_local, nullif(moment, '-infinity') as captured_at_corrected, camera_id,
        location, source_root, path,
        width_px, height_px, status, reviewed, flagged, n_boxes, page.top_label, page.top_score, uncertain_score,
        event_id, boxes
    from cells join page using (image_id) order by moment desc, source_root, path
"""
_ANY = "select 1 from {rows} where {conditions} limit 1"
_COUNT = "select count(*) from {rows} where {conditions}"
_DIGESTS = """
    select media_sha256 from cells semi join (select image_id from {rows} where {conditions}) using (image_id)
    anti join excluded using (media_sha256) order by moment desc, cells.source_root, cells.path
"""
_UNCERTAIN = """
    select media_sha256 from cells semi join (select image_id from {rows} where {conditions}) using (image_id)
    where uncertain_score is not null order by abs(uncertain_score - 0.5), image_id limit $most
"""
_PLACE = "select nullif(moment, '-infinity'), source_root, path from cells where media_sha256 = $sha"
_HISTOGRAM = "select {by} as bar, count(*) as n from {rows} where {conditions} group by bar"
_BY_LABEL = """
    select label as bar, count(*) as n from found
    semi join (select image_id from {rows} where {conditions}) using (image_id) group by bar
"""
_BARS = {
    "day": "nullif(moment, '-infinity')::date",
    "hour": "extract(hour from nullif(moment, '-infinity'))",
    "camera": "camera_id",
    "status": "status",
}
_DAMAGED = (duckdb.IOException, duckdb.SerializationException, duckdb.InternalException, duckdb.FatalException)


class ImagePage(Frozen):
    """Images as columns, newest first, and the cursors of the pages before and after them, "" at the ends.

    `top_label` and `top_score` are of the best detection that the view shows, of the filter's label if it has one.
    `index_version` is that of `IndexState`.
    """

    columns: dict[str, list[Any]]
    previous: str
    next: str
    index_version: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        values = zip(*self.columns.values(), strict=True)
        return [dict(zip(self.columns, row, strict=True)) for row in values]


class IndexState(Frozen):
    """Rows of an index: equal versions have equal rows. `versions` are those of the tables.

    `behind_s` is the age of the oldest change of the tables that it lacks, 0 without one.
    """

    index_version: str
    versions: dict[str, int | None]
    behind_s: float
    images: int


class ImageIndex:
    """Index of the images of each view. Methods may be called from several threads.

    All raise BadRequest for an unknown view, StorageUnreachable, StorageFull, and DeadlinePassed after `within_s`;
    time to build a file does not count.
    """

    def __init__(self, tables: Tables, folder: Path, within_s: float = WITHIN_S) -> None:
        self._tables, self._folder, self._within_s = tables, folder, within_s
        self.on_missing: Callable[[str], None] | None = None
        """Called with a view that has no file: it lets `refresh` build one elsewhere, or raises."""
        self.on_read: Callable[[str], None] | None = None
        """Called with a view before its rows are read: it may let `refresh` follow the tables."""
        self.steps: dict[str, tuple[int, int]] = {}
        """Step of the newest build of each view, and the number of its steps."""
        self._open: dict[str, OpenIndex] = {}
        self._turns: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def state(self, view: str = PRODUCTION) -> IndexState:
        """Return the age of the index; build it if there is none."""
        about, source = self._opened(view).about, source_of(self._tables, view)
        since, now = behind_since(about, source), datetime.now(UTC)
        return IndexState(
            index_version=about.index_version,
            versions=about.numbers,
            behind_s=max(0.001, (now - since).total_seconds()) if since else 0.0,
            images=about.images,
        )

    def refresh(self, view: str = PRODUCTION) -> bool:
        """Follow the newest versions; return whether rows may have changed. Until then the old file is served."""
        before, after = self._open.get(view), self._update(view, follow=True)
        return before is None or before.file != after.file

    def page(
        self, wanted: ImageFilter, limit: int = 100, after: str = "", before: str = "", at: datetime | None = None
    ) -> ImagePage:
        """Return up to `limit` images: the first, those after or before a cursor, or those taken up to the time `at`.

        Midnight means the whole day. If no image is that old, these are the oldest with a time. Raises BadRequest for
        an invalid cursor.
        """
        if not 1 <= limit <= MOST_IMAGES:
            raise BadRequest(f"invalid limit {limit}: use 1 to {MOST_IMAGES}")
        if sum(map(bool, (after, before, at))) > 1:
            raise BadRequest("use only one of `after`, `before` and `at`")
        place = place_of(before or after) if before or after else _up_to(at) if at else None

        def read(sql: duckdb.DuckDBPyConnection, about: About) -> ImagePage:
            rows, back = _part(sql, wanted, place, bool(before), limit + 1), bool(before)
            if at and (not len(rows) or rows["captured_at_corrected"][0].as_py() is None):
                oldest = _part(sql, wanted, _UNDATED, True, limit + 1)
                rows, back = (oldest, True) if len(oldest) else (rows, False)
            more = len(rows) > limit
            rows = rows.slice(len(rows) - limit if back and more else 0, limit)
            previous = following = ""
            if len(rows):
                ends = rows.take([0, len(rows) - 1]).to_pylist()
                first, last = map(place_in, ends)
                if more if back else place and _any(sql, wanted, first, True):
                    previous = cursor_of(*first)
                if _any(sql, wanted, last, False) if back else more:
                    following = cursor_of(*last)
            version = about.index_version
            return ImagePage(columns=rows.to_pydict(), previous=previous, next=following, index_version=version)

        return self.read(wanted.view, read)

    def count(self, wanted: ImageFilter) -> int:
        rows, values = selected(wanted)
        table = self._table(wanted.view, _COUNT.format(**rows), values)
        return int(table.column(0)[0].as_py())

    def histogram(self, wanted: ImageFilter, by: By) -> list[tuple[str, int]]:
        """Return the number of images by bar: days and hours of the day in order, others by number.

        An image counts once for each label that is shown on it. The bar "" has the images without a time or camera.
        """
        rows, values = selected(wanted)
        if by != "label":
            statement = _HISTOGRAM.format(by=_BARS[by], **rows)
        elif wanted.label is None and wanted.min_score is None:
            statement = _HISTOGRAM.format(by="label", **(rows | {"rows": "found"}))
        else:
            statement = _BY_LABEL.format(**rows)
        bars = [(_text(row["bar"]), int(row["n"])) for row in self._table(wanted.view, statement, values).to_pylist()]
        in_order = by in ("day", "hour")
        return sorted(bars) if in_order else sorted(bars, key=lambda bar: (-bar[1], bar[0]))

    def neighbours(self, wanted: ImageFilter, media_sha256: str) -> tuple[str | None, str | None]:
        """Return the digests of the images before and after an image, which need not match the filter itself.

        Raises ModelNotFound if the index lacks the image.
        """

        def read(sql: duckdb.DuckDBPyConnection, _: About) -> tuple[str | None, str | None]:
            places = sql.execute(_PLACE, {"sha": media_sha256}).fetchall()
            if not places:
                raise ModelNotFound(f"no image {media_sha256} is present: see resight sql images")
            found = [_part(sql, wanted, places[0], back, 1)["media_sha256"] for back in (True, False)]
            previous, following = (one[0].as_py() if len(one) else None for one in found)
            return previous, following

        return self.read(wanted.view, read)

    def details(self, view: str, digests: Collection[str]) -> dict[str, ImageDetail]:
        """Return images as the tables have them, without unknown ones and those of which the file lacks rows."""
        changed = changed_images(self._opened(view).about, source_of(self._tables, view))
        if changed is None:
            return {}
        wanted = set(digests) - set(changed.to_pylist())
        return self.read(view, lambda sql, _: details_in(sql, wanted))

    def uncertain(self, wanted: ImageFilter, limit: int) -> list[str]:
        """Return the digests of the matching images with a shown score nearest to 0.5, these first."""
        rows, values = selected(wanted)
        table = self._table(wanted.view, _UNCERTAIN.format(**rows), values | {"most": limit})
        return list(table["media_sha256"].to_pylist())

    def select(self, wanted: ImageFilter, excluded: Iterable[str] = ()) -> pa.Table:
        """Return the digests of all matching images except `excluded`, in page order.

        The schema's metadata has the `index_version` (`IndexState.index_version`) that they are of.
        """
        rows, values = selected(wanted)
        without = pa.table({"media_sha256": pa.array(excluded, pa.string())})

        def read(sql: duckdb.DuckDBPyConnection, about: About) -> pa.Table:
            sql.register("excluded", without)
            digests: pa.Table = sql.sql(_DIGESTS.format(**rows), params=values).to_arrow_table()
            return digests.replace_schema_metadata({"index_version": about.index_version})

        return self.read(wanted.view, read)

    def _table(self, view: str, statement: str, values: dict[str, Any]) -> pa.Table:
        return self.read(view, lambda sql, _: sql.sql(statement, params=values).to_arrow_table())

    def read(self, view: str, read: Callable[[duckdb.DuckDBPyConnection, About], T]) -> T:
        """Return `read(cursor, about)` over the tables `cells`, `found` … of the file; a damaged one is replaced, once.

        `about` is the origin of the rows.
        """
        opened = self._opened(view)
        if self.on_read:
            self.on_read(view)
        try:
            return self._read_from(opened, read)
        except duckdb.Error as error:
            if not isinstance(error, _DAMAGED) and type(error) is not duckdb.Error:  # the class of a wrong checksum
                raise
        opened = self._update(view, damaged=opened)
        return self._read_from(opened, read)

    def _read_from(self, opened: OpenIndex, read: Callable[[duckdb.DuckDBPyConnection, About], T]) -> T:
        with opened.sql.cursor() as sql, bounded(sql, self._within_s, "the list of images", "narrow the filter"):
            return read(sql, opened.about)

    def _opened(self, view: str) -> OpenIndex:
        """Return the open file of a view; open the newest, or build one if there is none."""
        opened = self._open.get(view)
        if opened is None:
            opened = open_newest(self._folder_of(view), self._tables, view)
            if opened is None and self.on_missing:
                self.on_missing(view)
                return self._open[view]
            opened = self._open.setdefault(view, opened) if opened else self._update(view)
        return opened

    def _update(self, view: str, damaged: OpenIndex | None = None, follow: bool = False) -> OpenIndex:
        """Open the newest file except `damaged`, of any process; build one if there is none.

        With `follow`, also build one if the tables have newer versions.
        """
        folder = self._folder_of(view)
        view_shown(self._tables, view)  # before a folder is created
        with self._turns[view], locked(folder):
            mine = open_newest(folder, self._tables, view, self._open.get(view))
            if damaged and mine and mine.file == damaged.file:
                mine = None
            if mine is None or follow:

                def on_step(step: int, of_all: int) -> None:
                    self.steps[view] = step, of_all

                source = source_of(self._tables, view)
                mine = updated(self._tables, source, folder, mine, on_step)
            self._open[view] = mine
            return mine

    def _folder_of(self, view: str) -> Path:
        if not NAME.fullmatch(view):
            raise BadRequest(f"invalid name of a view '{view}': use one of resight sql 'from views'")
        return self._folder / view


def beside(wanted: Conditions, place: Place | None, back: bool) -> tuple[dict[str, str], dict[str, Any]]:
    """Return `selected` restricted to images after a place, or before it with `back`; None: to all."""
    rows, values = selected(wanted)
    if place is None:
        return rows, values
    rows["conditions"] += f" and {(_BEFORE if back else _AFTER).format(moment=_MOMENT)}"
    names = ("place_moment", "place_root", "place_path")
    return rows, values | dict(zip(names, place, strict=True))


def _part(sql: duckdb.DuckDBPyConnection, wanted: ImageFilter, place: Place | None, back: bool, limit: int) -> pa.Table:
    """Return the images next to a place, in page order."""
    rows, values = beside(wanted, place, back)
    statement = _PAGE.format(order=_BACKWARDS if back else _FORWARDS, limit=limit, **rows)
    return sql.sql(statement, params=values).to_arrow_table()


def _any(sql: duckdb.DuckDBPyConnection, wanted: ImageFilter, place: Place, back: bool) -> bool:
    """Return whether there are images after a place, or before it with `back`."""
    rows, values = beside(wanted, place, back)
    return bool(sql.execute(_ANY.format(**rows), values).fetchall())


def _up_to(at: datetime) -> Place:
    """Return the place before the images taken at a time, or before those of the whole day."""
    return datetime.combine(at, time.max) if at.time() == time.min else at, "", ""


def _text(bar: object) -> str:
    if isinstance(bar, int):
        return f"{bar:02}"
    return "" if bar is None else str(bar)
