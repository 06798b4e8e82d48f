"""List the batches of human statements, newest first, one page at a time.

history(tables, actor, media, limit, before) -> BatchPage(batches, cursor of the next page)
Statements of a file have no batch: those of one person and moment are listed together, without a `batch_id`.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from archive.delta.snapshot import open_tables, scan
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS
from model_store.errors import BadRequest
from model_store.frozen import Frozen

MAX_LABELS = 5
_MARK = TypeAdapter(tuple[int, str])
_PAGE = f"""
    with human as (
        select *, coalesce(batch_id, actor || ' ' || epoch_us(asserted_at)) as name
        from stored where method = 'human'),
    page as (
        select name, max(asserted_at) as asserted_at from human
        where ($actor is null or actor = $actor)
            and ($media is null or name in (select name from human where media_sha256 = $media))
        group by name
        having $at_us is null or (epoch_us(max(asserted_at)), name) < ($at_us, $name)
        order by all desc limit $limit),
    withdrawn as (select withdraws from human where withdraws is not null)
    select any_value(batch_id) as batch_id, any_value(actor) as actor, page.asserted_at,
        count(*) as statements, count(distinct media_sha256) as images, min(media_sha256) as media_sha256,
        list(distinct action order by action) as actions,
        coalesce(list(distinct label order by label) filter (label is not null), [])[:{MAX_LABELS}] as labels,
        count(*) filter (assertion_id in (from withdrawn)) as withdrawn,
        (select batch_id from human t where t.assertion_id = any_value(human.withdraws)) as of_batch, name
    from human join page using (name) group by name, page.asserted_at order by page.asserted_at desc, name desc
"""


class BatchSummary(Frozen):
    """A batch: `media_sha256` is one of its images, `labels` some of its labels.

    `withdrawn` counts its statements that were withdrawn; `of_batch` is the batch that it withdrew itself.
    """

    batch_id: str | None
    actor: str
    asserted_at: datetime
    statements: int
    images: int
    media_sha256: str
    actions: tuple[str, ...]
    labels: tuple[str, ...]
    withdrawn: int
    of_batch: str | None


class BatchPage(Frozen):
    """Some batches; `before` is the cursor of the next page, "" at the end."""

    batches: tuple[BatchSummary, ...]
    before: str


def history(
    tables: Tables,
    actor: str | None = None,
    media: str | None = None,
    limit: int = 50,
    before: str = "",
) -> BatchPage:
    """Return batches of a person, or that concern an image. Raises BadRequest for an invalid cursor, StorageError."""
    at_us, name = _marked(before) if before else (None, None)
    values = {"actor": actor, "media": media, "at_us": at_us, "name": name, "limit": limit + 1}
    sql = open_tables(tables)
    scan(sql, "stored", tables.existing("assertions"), ASSERTIONS)
    rows: list[dict[str, Any]] = sql.sql(_PAGE, params=values).to_arrow_table().to_pylist()
    names = [row.pop("name") for row in rows]
    batches = tuple(BatchSummary(**row) for row in rows[:limit])
    more = len(rows) > limit
    return BatchPage(batches=batches, before=_mark(batches[-1], names[limit - 1]) if more else "")


def _mark(batch: BatchSummary, name: str) -> str:
    at_us = round(batch.asserted_at.timestamp() * 1e6)
    return base64.urlsafe_b64encode(_MARK.dump_json((at_us, name))).decode()


def _marked(mark: str) -> tuple[int, str]:
    try:
        return _MARK.validate_json(base64.b64decode(mark, b"-_", validate=True))
    except ValueError as error:  # also of base64 and of pydantic
        raise BadRequest("invalid cursor in `before`: use that of the previous page") from error
