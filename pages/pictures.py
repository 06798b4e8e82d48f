"""Find the file of an image in the catalogue, read it, and find what it must not show.

digests --picture_rows--> {digest: row of its first file, with the others as `elsewhere`} --picture_bytes--> bytes
digests --hidden_boxes--> {digest: boxes}, without images that have no result
Lookup(query).get(digest): concurrent look-ups share one query; the digests of the next gather while one runs.

Bytes that do not match the catalogue are never returned. Hidden are boxes of the labels in section [privacy] of the
policy (docs/reference/policy.md). A box counts from a low score on, because a person shown by mistake is a greater harm
than a blurred deer. For the same reason layers do not uncover a box, nor does a rejection: people also reject boxes to
call a picture empty of animals. A person uncovers a box with another label.
"""

# pyright: reportAttributeAccessIssue=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (pyarrow.compute defines its functions at run time)

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from archive.delta.snapshot import dataset, storage_errors
from archive.delta.tables import Tables
from archive.schemas import MEDIA
from archive.views.query import connect
from batch.pipeline.read_image import image_bytes, within_memory
from batch.schedule.policy import Privacy
from model_store.errors import Conflict, ImageError, ModelNotFound
from model_store.images.crops import Box

Row = Mapping[str, Any]
T = TypeVar("T")
_COLUMNS = ("media_sha256", "source_root", "path", "quick_digest")
_ORDER = ("missing_since", "catalogued_at", "ingested_at")
_BOXES = """
    with hiding as (select unnest($labels::varchar[]) as name),
    covered as (
        select b.media_sha256, b.x1_px, b.y1_px, b.x2_px, b.y2_px
        from boxes b left join resolved r on r.media_sha256 = b.media_sha256 and r.rank = b.rank
        where if(coalesce(r.human and not r.hidden, false), lower(coalesce(r.label, b.label)) in (from hiding),
            (lower(r.label) in (from hiding) or lower(b.label) in (from hiding))
                and greatest(r.score, b.score) >= $min_score::float)
        union
        select media_sha256, x1_px, y1_px, x2_px, y2_px from standing
        where lower(label) in (from hiding) and action <> 'suppress' and x1_px is not null)
    select media_sha256,
        list((x1_px, y1_px, x2_px, y2_px) order by x1_px, y1_px, x2_px, y2_px) filter (x1_px is not null)
    from seen left join covered using (media_sha256) where status <> 'failed' group by media_sha256
"""


class Lookup(Generic[T]):
    """Values by digest, from `query` in a thread. Use it on one event loop."""

    def __init__(self, query: Callable[[Sequence[str]], Mapping[str, T]]) -> None:
        self._query, self._thread = query, ThreadPoolExecutor(1, "lookup")
        self._waiting: dict[str, asyncio.Future[T | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, media_sha256: str) -> T | None:
        """Return the value, None if there is none. Raises the errors of the query."""
        if media_sha256 not in self._waiting:
            self._waiting[media_sha256] = asyncio.get_running_loop().create_future()
        value = self._waiting[media_sha256]
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._answer())
        return await asyncio.shield(value)

    async def _answer(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            loop = asyncio.get_running_loop()
            try:
                found = await loop.run_in_executor(self._thread, self._query, list(asked))
            except Exception as error:
                for value in asked.values():
                    value.set_exception(error)
                    value.exception()  # read here, as all requests for it may have ended
            else:
                for media_sha256, value in asked.items():
                    value.set_result(found.get(media_sha256))


def picture_rows(tables: Tables, digests: Sequence[str]) -> Mapping[str, Row]:
    """Return the files of each image as a row for `picture_bytes`. Raises StorageUnreachable."""
    chosen = pc.field("media_sha256").isin(list(digests))
    columns = [*_COLUMNS, *_ORDER]
    with storage_errors(tables):
        files = dataset(tables.existing("media"), MEDIA).to_table(columns, filter=chosen)
    rows: dict[str, dict[str, Any]] = {}
    for file in sorted(files.to_pylist(), key=_rank):
        first = rows.setdefault(file["media_sha256"], {**file, "elsewhere": []})
        if first["path"] != file["path"] or first["source_root"] != file["source_root"]:
            first["elsewhere"].append(file)
    return rows


def _rank(file: Row) -> tuple[object, ...]:
    """Rank the files of an image as `images_of` does, and missing ones last."""
    since = file["catalogued_at"] or file["ingested_at"]
    return file["missing_since"] is not None, str(since), file["source_root"], file["path"]


def picture_bytes(row: Row) -> bytes:
    """Return the bytes of an image, from any of its files.

    Raises ModelNotFound if they cannot be read, and Conflict if they have changed; both name the file. Raises
    StorageUnreachable if the archive is unavailable.
    """
    outcome = image_bytes(row)
    if isinstance(outcome, bytes):
        return outcome
    kind = ModelNotFound if outcome.error_code == "access" else Conflict
    raise kind(f"{row['path']} cannot be shown: {outcome.error_detail}")


def made_of(row: Row, make: Callable[[bytes], T]) -> T:
    """Return `make(bytes of the image)`. Raises Conflict, with the file, for an ImageError; else as `picture_bytes`."""
    try:
        with within_memory():
            return make(picture_bytes(row))
    except ImageError as error:
        raise Conflict(f"{row['path']} cannot be shown: {error}") from error


def hidden_boxes(tables: Tables, privacy: Privacy, digests: Sequence[str]) -> Mapping[str, tuple[Box, ...]]:
    """Return the boxes to hide in each image that the published view has a result of. Raises StorageUnreachable."""
    labels = [label.lower() for label in privacy.hide_labels]
    values = {"labels": labels, "min_score": privacy.min_score}
    images = pa.chunked_array([pa.array(digests, pa.string())])
    with storage_errors(tables), connect(tables, images=images, statement=_BOXES) as sql:
        rows = sql.execute(_BOXES, values).fetchall()
    return {digest: tuple(boxes or ()) for digest, boxes in rows}
