"""The rows of a filter run, in order, cut into parts that a filter can judge one by one.

(tables, key, layers below, layer, scope) --load--> Loaded: parts of whole images, or of whole cameras, as tables of
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
from archive.schemas import ASSERTIONS, CLASSIFICATIONS, MEDIA, RESULTS
from archive.tables import Tables
from batch.filters.contract import Context
from batch.filters.parts import also_numbered, cuts, number, number_layers, part
from batch.filters.scope import FilterScope
from batch.id_list import read_ids
from model_store.errors import BadRequest

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
    from {images_of("media_rows")}
"""
_CHOSEN = {
    "run": "select media_sha256 from contents",
    "camera": "select media_sha256 from contents where camera_id = $camera",
    "time": """select media_sha256 from contents
        where taken_local >= $start::timestamp and taken_local < $end::timestamp""",
    "ids": "select media_sha256 from listed",
    "occurrence": "select distinct media_sha256 from members",
}
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
    inference_key: str,
    view_layers: Sequence[Layer],
    below: Sequence[Layer],
    layer_id: str,
    scope: FilterScope,
    context: Context,
    classifier_key: str | None = None,
) -> Loaded:
    """`sql` is a scratch database, which is filled. Raises BadRequest for a scope of nothing, StorageUnreachable."""
    scan(sql, "media_rows", tables.existing("media"), MEDIA)
    scan(sql, "result_rows", tables.existing("results"), RESULTS, inference_key)
    said = tables.existing("assertions")
    sql.register(
        "said_rows", ASSERTIONS.empty_table() if said is None else dataset(said, ASSERTIONS)
    )
    sql.execute("create view assertion_rows as from said_rows")
    sql.execute(_CONTENTS)
    if scope.kind == "occurrence":
        _know_occurrence(sql, inference_key, view_layers, scope)
    _choose(sql, tables, scope)
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


def _know_occurrence(
    sql: duckdb.DuckDBPyConnection, inference_key: str, layers: Sequence[Layer], scope: FilterScope
) -> None:
    """Relation `members`: images of the occurrence, as the view's layers have it by now."""
    sql.execute("create table members (media_sha256 varchar)")
    sql.execute(
        "create table perhaps as select distinct media_sha256 from assertion_rows where group_id = $occurrence",
        {"occurrence": scope.occurrence},
    )
    for layer in layers:
        said = newest("assertion_rows", "media_sha256, group_id, action", of="perhaps")
        sql.execute(
            f"insert into members select distinct media_sha256 from ({said}) "
            "where group_id = $occurrence and action <> 'withdraw'",
            {"layer": layer.layer_id, "key": inference_key, "occurrence": scope.occurrence},
        )


def _choose(sql: duckdb.DuckDBPyConnection, tables: Tables, scope: FilterScope) -> None:
    parameters: dict[str, object] = {}
    if scope.kind == "time":
        parameters = {
            "start": (scope.start.isoformat() if scope.start else "-infinity"),
            "end": (scope.end.isoformat() if scope.end else "infinity"),
        }
    elif scope.kind == "camera":
        parameters = {"camera": scope.camera}
    elif scope.kind == "ids":
        assert scope.ids is not None
        sql.register("listed", pa.table({"media_sha256": read_ids(tables.url, scope.ids)}))
    sql.execute(f"create table chosen as {_CHOSEN[scope.kind]}", parameters or None)
    ((count, known),) = sql.sql(
        "select count(*), count(*) filter (media_sha256 in (select media_sha256 from contents)) from chosen"
    ).fetchall()
    if known < count:
        raise BadRequest(f"{count - known} of {count} listed images are not in the catalogue")
    if not count:
        raise BadRequest(
            f"no image is in the scope {scope.words()}; see: resight sql, relation media"
        )
