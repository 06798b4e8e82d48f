"""List the batches of human statements, newest first, one page at a time.

history(tables, actor, media, limit, before) -> BatchPage(batches, cursor of the next page)
Older statements of files have no batch: those of one person and moment are listed together, without a `batch_id`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from archive.delta.snapshot import open_tables, scan
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS
from archive.views.search import cursor_of, place_of
from model_store.frozen import Frozen

MAX_LABELS = 5
_PAGE = f"""
    with human as (
        select *, coalesce(batch_id, actor || ' ' || epoch_us(asserted_at)) as name
        from stored where method = 'human'),
    page as (
        select name, max(asserted_at) as asserted_at from human
        where ($actor is null or actor = $actor)
            and ($media is null or name in (select name from human where media_sha256 = $media))
        group by name
        having $at is null or (epoch_us(max(asserted_at)), name) < (epoch_us($at::timestamp), $name)
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
    tables: Tables, actor: str | None = None, media: str | None = None, limit: int = 50, before: str = ""
) -> BatchPage:
    """Return batches of a person, or that concern an image. Raises BadRequest for an invalid cursor, StorageError."""
    at, _, name = place_of(before) if before else (None, "", "")
    values = {"actor": actor, "media": media, "at": at, "name": name, "limit": limit + 1}
    sql = open_tables(tables)
    scan(sql, "stored", tables.existing("assertions"), ASSERTIONS)
    rows: list[dict[str, Any]] = sql.sql(_PAGE, params=values).to_arrow_table().to_pylist()
    names = [row.pop("name") for row in rows]
    batches = tuple(BatchSummary(**row) for row in rows[:limit])
    if len(rows) <= limit:
        return BatchPage(batches=batches, before="")
    at = batches[-1].asserted_at.astimezone(UTC).replace(tzinfo=None)
    return BatchPage(batches=batches, before=cursor_of(at, "", names[limit - 1]))
