"""Load the rows of a filter run, in order, and split them into parts that a filter judges one by one.

(tables, view, layers below, layer, scope) --load--> Loaded: parts of whole images or cameras, as tables of schema PART.
Rows wait in a scratch database, so the process holds one part at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from archive.annotations.assertions import match_annotations
from archive.annotations.layers import Layer, newest
from archive.catalogue.images import images_of
from archive.delta.snapshot import dataset, scan
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS, CLASSIFICATIONS, RESULTS
from archive.views.clocks import with_deployments
from archive.views.views import View
from batch.filters.contract import Context
from batch.filters.parts import also_numbered, cuts, number, number_layers, part
from batch.filters.scope import FilterScope
from batch.planning.plan import latest_images, scope_images
from batch.planning.sample import choose_sample

PART_ROWS = 20_000
"""Approximate rows of a part: 8 MB at 400 bytes a row."""
CLASSES_SHARE = 10
"""Divisor of PART_ROWS for parts with logits, for about 1,000 classes."""
_ASSERTION_COLUMNS = "media_sha256, rank, assertion_id, action, label, score, asserted_at"
_CONTENTS = """
    create table contents as
    select media_sha256, path, camera_id, captured_at_corrected::timestamp as taken_local,
        captured_at_utc::timestamp + (captured_at_corrected::timestamp - captured_at_local::timestamp) as taken_utc,
        coalesce(array_to_string(timestamp_flags, ','), '') as clock_flags, sequence_number, sequence_length,
        width_px, height_px,
        camera_id is null as unknown,
        if(camera_id is null, regexp_replace(path, '[^/]*$', ''), camera_id) as place
    from {images}
"""
_MEMBERS = "media_sha256 in (select media_sha256 from members)"
_WIDENED = """
    create or replace table chosen as
    select c.media_sha256 from contents c where (unknown, place) in (
        select (unknown, place) from contents join chosen using (media_sha256))
"""


@dataclass(frozen=True)
class Loaded:
    """Rows of a run in a scratch database.

    `images` and `rows` count all parts. `cameras` counts cameras, and folders of unknown cameras; 0 if single images
    are judged. `starts` are the numbers of the first images of parts.
    """

    images: int
    rows: int
    cameras: int
    starts: tuple[int, ...]
    sql: duckdb.DuckDBPyConnection
    classifier_key: str | None

    def parts(self) -> Iterator[pa.Table]:
        """Yield the parts in order; other statements can run in between."""
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
    """Fill the scratch database `sql`. Raises BadRequest if the scope has no images, StorageUnreachable."""
    inference_key = view.inference_key
    choose(sql, tables, view, view_layers, scope)
    scan(sql, "result_rows", tables.existing("results"), RESULTS, inference_key)
    images = with_deployments(sql, tables, images_of("media"))
    sql.execute(_CONTENTS.format(images=images))
    if context == "camera":
        sql.execute(_WIDENED)
    number(sql, context)
    match_annotations(sql, inference_key)
    number_layers(sql, inference_key, below)
    sql.execute(
        f"create table said_by_layer as {newest('assertion_rows', _ASSERTION_COLUMNS, of='numbers')}",
        {"layer": layer_id, "key": inference_key},
    )
    classifications = tables.existing("classifications") if classifier_key else None
    scan(sql, "classification_rows", classifications, CLASSIFICATIONS, inference_key)
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
    sql: duckdb.DuckDBPyConnection, tables: Tables, view: View, layers: Sequence[Layer], scope: FilterScope
) -> None:
    """Create the table `chosen` (media_sha256) of the images of a scope, and relations `media` and `assertion_rows`.

    `layers` are those of the view. Raises BadRequest if the scope has no images, StorageUnreachable.
    """
    sql.register("stored_assertions", dataset(tables.existing("assertions"), ASSERTIONS))
    sql.execute("create view assertion_rows as from stored_assertions")
    conditions: dict[str, str] = {}
    if scope.occurrence is not None:
        _select_members(sql, view.inference_key, layers, scope.occurrence)
        conditions = {"occurrence": _MEMBERS}
    scope_images(sql, tables, tables.existing("media"), scope, view, conditions)
    latest_images(sql, scope)
    if scope.sample:
        choose_sample(sql, tables, scope.sample)
    sql.execute(
        "create table chosen as select distinct media_sha256 from scoped "
        "where md5_number(media_sha256) in (select id from wanted)"
    )


def _select_members(
    sql: duckdb.DuckDBPyConnection, inference_key: str, layers: Sequence[Layer], occurrence: str
) -> None:
    """Create the table `members` of the images of the occurrence, from the current assertions of the view's layers."""
    sql.execute("create table members (media_sha256 varchar)")
    sql.execute(
        "create table candidates as select distinct media_sha256 from assertion_rows where group_id = $occurrence",
        {"occurrence": occurrence},
    )
    for layer in layers:
        current = newest("assertion_rows", "media_sha256, group_id, action", of="candidates")
        sql.execute(
            f"insert into members select distinct media_sha256 from ({current}) "
            "where group_id = $occurrence and action <> 'withdraw'",
            {"layer": layer.layer_id, "key": inference_key, "occurrence": occurrence},
        )
