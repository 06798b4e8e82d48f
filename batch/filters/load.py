"""Load the rows of a filter run, in order, and split them into parts that a filter judges one by one.

(tables, spec, layers) --load--> Loaded: parts of whole images or cameras, as tables of schema PART

Images are numbered in order, and their data are narrow tables by number, which are joined for one part at a time: no
wide table is sorted, and the process holds one part. Rows wait in a scratch database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import duckdb
import pyarrow as pa

from archive.annotations.assertions import ANNOTATIONS, match_annotations
from archive.annotations.layers import Layer, newest
from archive.catalogue.images import images_of
from archive.delta.snapshot import dataset, scan
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS, CLASSIFICATIONS, RESULTS
from archive.views.clocks import with_deployments
from archive.views.views import View
from batch.filters.evaluate import PART
from batch.filters.registry import filter_of
from batch.filters.spec import FilterSpec
from batch.planning.plan import latest_images, scope_images
from batch.planning.sample import choose_sample
from batch.runs.scope import FilterScope

PART_ROWS = 20_000
"""Approximate rows of a part: 8 MB at 400 bytes a row."""
CLASSES_SHARE = 10
"""Divisor of PART_ROWS for parts with logits, for about 1,000 classes."""
LOGITS = pa.field("logits", pa.list_(pa.float32()))
_ASSERTION_COLUMNS = "media_sha256, rank, assertion_id, action, label, score, asserted_at"
_CONTENTS = """
    create table contents as
    select media_sha256, path, camera_id, deployment_id, location, captured_at_corrected::timestamp as taken_local,
        captured_at_utc::timestamp + (captured_at_corrected::timestamp - captured_at_local::timestamp) as taken_utc,
        if(taken_local is distinct from captured_at_local::timestamp, '',
            coalesce(array_to_string(timestamp_flags, ','), '')) as clock_flags,
        sequence_number, sequence_length, width_px, height_px,
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
_IMAGES = """
    create table images as
    select c.media_sha256, c.path, c.camera_id, c.deployment_id, c.location, c.taken_local, c.taken_utc, c.clock_flags,
        c.sequence_number, c.sequence_length,
        coalesce(s.width_px, c.width_px)::double as width_px, coalesce(s.height_px, c.height_px)::double as height_px,
        {group} as part_of
    from chosen join result_rows s using (media_sha256) join contents c using (media_sha256)
    where s.status = 'ok'
    order by c.unknown, c.place, c.taken_local is null, c.taken_local, c.path, c.media_sha256;
    create table numbers as select media_sha256, rowid as n from images;
    create or replace table boxes_n as
    with flat as (
        select n, unnest(detections) as d from result_rows join numbers using (media_sha256))
    select n, d.rank, d.label, d.score, d.x1_px, d.y1_px, d.x2_px, d.y2_px from flat order by n, d.rank;
    create view boxes as
    select i.media_sha256, b.rank, b.label, b.score, b.x1_px, b.y1_px, b.x2_px, b.y2_px
    from boxes_n b join images i on i.rowid = b.n;
"""
_NUMBERED = {
    "annotated_n": "select n, rank, action from annotated join numbers using (media_sha256) order by n, rank",
    "said_n": """select n, rank, assertion_id, action, label, score
        from said_by_layer join numbers using (media_sha256) where action <> 'withdraw' order by n, rank""",
    "classified_n": """select n, rank, logits
        from classified join numbers using (media_sha256) order by n, rank""",
}
_BELOW = """
    create table below_n (n bigint, rank integer, position integer, weight integer, groups varchar, action varchar,
        label varchar, score float, score_semantics varchar, layer_id varchar, assertion_id varchar,
        reason varchar, group_id varchar, asserted_at timestamptz)
"""
_INSERT_LAYER = """
    insert into below_n
    select n, rank, $position, $position + if(action = 'suppress', $layers, 0), $groups, action, label, score,
        score_semantics, layer_id, assertion_id, reason, group_id, asserted_at
    from assertion_rows join numbers using (media_sha256)
    where method = 'machine' and layer_id = $layer and inference_key = $key order by n
"""
_LAYER_ROWS = """
    create view layer_rows as
    with newest as (
        from below_n where n between getvariable('first') and getvariable('last')
        qualify row_number() over (
            partition by position, n, rank order by asserted_at desc, assertion_id desc) = 1)
    select n as media_sha256, * from newest where action <> 'withdraw';
"""
"""Rows of a part for archive/annotations/annotations.sql, with numbers of images in place of digests."""
_PART = """
    with i as (
            select rowid as n, * from images
            where rowid between getvariable('first') and getvariable('last')),
        b as (from boxes_n where n between getvariable('first') and getvariable('last')),
        l as (select media_sha256 as n, * from layered),
        g as (select media_sha256 as n, event_id from image_groups),
        h as (from annotated_n where n between getvariable('first') and getvariable('last')),
        t as (from said_n where n between getvariable('first') and getvariable('last')),
        a as (from classified_n where n between getvariable('first') and getvariable('last'))
    select i.* exclude (n, part_of), b.rank, coalesce(l.label, b.label) as label,
        coalesce(l.score, b.score)::float as score, b.x1_px::double as x1_px, b.y1_px::double as y1_px,
        b.x2_px::double as x2_px, b.y2_px::double as y2_px, h.action is not null as human, l.group_id, g.event_id,
        coalesce(l.hidden, false) or coalesce(h.action = 'suppress', false) as hidden_below, l.determined_by,
        t.assertion_id as standing_id, t.action as standing_action, t.label as standing_label,
        t.score as standing_score, e.assertion_id as image_standing_id, a.logits
    from i left join b using (n)
        left join l on l.n = b.n and l.rank = b.rank
        left join h on h.n = b.n and h.rank = b.rank
        left join t on t.n = b.n and t.rank = b.rank
        left join a on a.n = b.n and a.rank = b.rank
        left join g on g.n = i.n
        left join t e on e.n = i.n and e.rank is null
    order by i.n, b.rank
"""
_CUTS = """
    with sized as (
        select i.rowid as n, i.part_of, greatest(1, coalesce(k, 0)) as size
        from images i left join (select n, count(*) as k from boxes_n group by n) c on c.n = i.rowid),
    placed as (
        select n, part_of, lag(part_of) over (order by n) as before, sum(size) over (order by n) - size as first
        from sized)
    select min(n) from placed where $any or part_of is distinct from before group by first // $rows order by 1
"""


@dataclass(frozen=True)
class Loaded:
    """Rows of a run in a scratch database.

    `images` and `rows` count all parts. `starts` are the numbers of the first images of parts.
    """

    images: int
    rows: int
    starts: tuple[int, ...]
    sql: duckdb.DuckDBPyConnection
    schema: pa.Schema

    def parts(self) -> Iterator[pa.Table]:
        """Yield the parts in order; other statements can run in between."""
        for first, end in pairwise((*self.starts, self.images)):
            self.sql.execute("set variable first = $first", {"first": first})
            self.sql.execute("set variable last = $last", {"last": end - 1})
            yield self.sql.sql(_PART).to_arrow_table().select(self.schema.names).cast(self.schema)


def load(
    sql: duckdb.DuckDBPyConnection,
    tables: Tables,
    spec: FilterSpec,
    layers: Mapping[str, Layer],
    classifier_key: str | None = None,
) -> Loaded:
    """Fill the scratch database `sql`. Raises BadRequest if the scope has no images, StorageUnreachable."""
    key, by_camera = spec.view.inference_key, filter_of(spec.kind).context == "camera"
    choose(sql, tables, spec.view, [layers[name] for name in spec.view.layers], spec.scope)
    scan(sql, "result_rows", tables.existing("results"), RESULTS, key)
    sql.execute(_CONTENTS.format(images=with_deployments(sql, tables, images_of("media"))))
    if by_camera:
        sql.execute(_WIDENED)
    sql.execute(_IMAGES.format(group="c.unknown::text || c.place" if by_camera else "null"))
    match_annotations(sql, key)
    _number_layers(sql, key, [layers[name] for name in spec.input_layers])
    sql.execute(
        f"create table said_by_layer as {newest('assertion_rows', _ASSERTION_COLUMNS, of='numbers')}",
        {"layer": spec.layer().layer_id, "key": key},
    )
    classifications = tables.existing("classifications") if classifier_key else None
    scan(sql, "classification_rows", classifications, CLASSIFICATIONS, key)
    sql.execute(
        "create view classified as select media_sha256, rank, logits from classification_rows "
        f"where classifier_key = '{classifier_key or ''}' and status = 'ok'"
    )
    for name, query in _NUMBERED.items():
        sql.execute(f"create table {name} as {query}")
    rows = PART_ROWS // (CLASSES_SHARE if classifier_key else 1)
    starts = sql.execute(_CUTS, {"rows": rows, "any": not by_camera}).fetchall()
    images, total = sql.execute(
        "select count(*), count(*) + (select count(*) - count(distinct n) from boxes_n) from images"
    ).fetchall()[0]
    schema = PART.append(LOGITS) if classifier_key else PART
    return Loaded(images, total, tuple(number for (number,) in starts), sql, schema)


def _number_layers(sql: duckdb.DuckDBPyConnection, inference_key: str, below: Sequence[Layer]) -> None:
    """Create below_n: every assertion of these layers on the images; `layered` has the current ones of a part."""
    sql.execute(_BELOW)
    for position, layer in enumerate(below):
        values = {"layer": layer.layer_id, "groups": layer.groups, "key": inference_key}
        sql.execute(_INSERT_LAYER, values | {"position": position, "layers": len(below)})
    sql.execute(_LAYER_ROWS)
    for name in ("layered", "image_groups"):
        sql.execute(ANNOTATIONS.statements[name])


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
