"""The rows of a filter run, in order, cut into parts that a filter can judge one by one.

(tables, view, layers below, layer, scope) --load--> Loaded: parts of whole images, or of whole cameras, as tables of
schema PART, out of a scratch database; so the process holds one part at a time, however large the archive is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from archive.dataset import dataset
from archive.hear import hear
from archive.images import images_of
from archive.layers import Layer, newest
from archive.scan import scan
from archive.schemas import ASSERTIONS, CLASSIFICATIONS, RESULTS
from archive.tables import Tables
from archive.views import View
from batch.filters.contract import Context
from batch.filters.parts import also_numbered, cuts, number, number_layers, part
from batch.filters.scope import FilterScope
from batch.plan import latest_images, scope_images
from batch.sample import choose_sample

PART_ROWS = 20_000
"""Of a part, about: at 400 bytes a row 8 MB; a part with logits of 1,000 classes is CLASSES_SHARE of it."""
CLASSES_SHARE = 10
_SAID = "media_sha256, rank, assertion_id, action, label, score, asserted_at"
_CONTENTS = f"""
    create table contents as
    select media_sha256, path, camera_id, captured_at_local::timestamp as taken_local,
        captured_at_utc::timestamp as taken_utc,
        coalesce(array_to_string(timestamp_flags, ','), '') as clock_flags, width_px, height_px,
        camera_id is null as unknown,
        if(camera_id is null, regexp_replace(path, '[^/]*$', ''), camera_id) as place
    from {images_of("media")}
"""
_MEMBERS = "media_sha256 in (select media_sha256 from members)"
_WIDENED = """
    create or replace table chosen as
    select c.media_sha256 from contents c where (unknown, place) in (
        select (unknown, place) from contents join chosen using (media_sha256))
"""


@dataclass(frozen=True)
class Loaded:
    """`images` and `rows` of it all; `cameras` (or folders, where the camera is unknown) that it is about;
    0 where single images are judged."""

    images: int
    rows: int
    cameras: int
    starts: tuple[int, ...]
    sql: duckdb.DuckDBPyConnection
    classifier_key: str | None

    def parts(self) -> Iterator[pa.Table]:
        """In order; other statements may run between."""
        for first, end in zip(self.starts, (*self.starts[1:], self.images), strict=True):
            yield part(self.sql, first, end - 1, self.classifier_key is not None)


def load(
    sql: duckdb.DuckDBPyConnection,
    tables: Tables,
    view: View,
    view_layers: Sequence[Layer],
    below: Sequence[Layer],
    layer_id: str,
    scope: FilterScope,
    context: Context,
    classifier_key: str | None = None,
) -> Loaded:
    """`sql` is a scratch database, which is filled. Raises BadRequest for a scope of nothing, StorageUnreachable."""
    inference_key = view.inference_key
    choose(sql, tables, view, view_layers, scope)
    scan(sql, "result_rows", tables.existing("results"), RESULTS, inference_key)
    sql.execute(_CONTENTS)
    if context == "camera":
        sql.execute(_WIDENED)
    number(sql, context)
    hear(sql, inference_key)
    number_layers(sql, inference_key, below)
    sql.execute(
        f"create table said_by_layer as {newest('assertion_rows', _SAID, of='numbers')}",
        {"layer": layer_id, "key": inference_key},
    )
    known = tables.existing("classifications") if classifier_key else None
    scan(sql, "classification_rows", known, CLASSIFICATIONS, inference_key)
    sql.execute(
        "create view classified as select media_sha256, rank, logits from classification_rows "
        f"where classifier_key = '{classifier_key or ''}' and status = 'ok'"
    )
    also_numbered(sql)
    rows = PART_ROWS // (CLASSES_SHARE if classifier_key else 1)
    counts = sql.sql(
        "select count(*), count(*) + (select count(*) from boxes_n) - (select count(distinct n) from boxes_n), "
        "count(distinct part_of) from images"
    ).fetchall()[0]
    images, total, cameras = (int(count) for count in counts)
    return Loaded(images, total, cameras, cuts(sql, context, rows), sql, classifier_key)


def choose(
    sql: duckdb.DuckDBPyConnection,
    tables: Tables,
    view: View,
    layers: Sequence[Layer],
    scope: FilterScope,
) -> None:
    """Make the table `chosen` (media_sha256) of the images of a scope, and relations `media` and `assertion_rows`.

    `layers` are those of the view. Raises BadRequest for a scope of nothing, StorageUnreachable.
    """
    said = tables.existing("assertions")
    sql.register(
        "said_rows", ASSERTIONS.empty_table() if said is None else dataset(said, ASSERTIONS)
    )
    sql.execute("create view assertion_rows as from said_rows")
    also: dict[str, str] = {}
    if scope.occurrence is not None:
        _select_members(sql, view.inference_key, layers, scope.occurrence)
        also = {"occurrence": _MEMBERS}
    scope_images(sql, tables, tables.existing("media"), scope, view, also)
    latest_images(sql, scope)
    if scope.sample:
        choose_sample(sql, scope.sample)
    sql.execute(
        "create table chosen as select distinct media_sha256 from scoped "
        "where md5_number(media_sha256) in (select id from wanted)"
    )


def _select_members(
    sql: duckdb.DuckDBPyConnection, inference_key: str, layers: Sequence[Layer], occurrence: str
) -> None:
    """Relation `members`: images of the occurrence, as the view's layers have it by now."""
    sql.execute("create table members (media_sha256 varchar)")
    sql.execute(
        "create table perhaps as select distinct media_sha256 from assertion_rows where group_id = $occurrence",
        {"occurrence": occurrence},
    )
    for layer in layers:
        said = newest("assertion_rows", "media_sha256, group_id, action", of="perhaps")
        sql.execute(
            f"insert into members select distinct media_sha256 from ({said}) "
            "where group_id = $occurrence and action <> 'withdraw'",
            {"layer": layer.layer_id, "key": inference_key, "occurrence": occurrence},
        )
