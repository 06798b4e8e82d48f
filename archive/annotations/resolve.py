"""Resolve what a view shows of each detection from the model's result, the layers and human annotations.

relations `boxes` (media_sha256, rank, label, score, x1_px …) and `assertion_rows`, of one inference key
--resolve--> `resolved` (a row for each detection with an assertion), `image_groups`, `orphaned`

A later layer overrides an earlier one, and a person overrides all layers (`archive/annotations/match_boxes.py`). The
layer that hides a detection also determines its `said_by` and `reason`.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from archive.annotations.layers import Layer, holds
from archive.annotations.match_boxes import match_annotations
from archive.delta.sql_literal import literal

_LAYER_ROWS = """
    create or replace view layer_said as
    with chosen(position, layer_id, groups) as (values {layers}),
    newest as (
        select a.* from assertion_rows a where method = 'machine' and inference_key = {key}
            and layer_id in (select layer_id from chosen)
        {holds})
    select newest.*, position, groups,
        position + if(action = 'suppress', (select count(*) from chosen), 0) as weight
    from newest join chosen using (layer_id) where action <> 'withdraw';
"""
OF_DETECTION = """
        bool_or(action = 'suppress') as hidden,
        arg_max(label, position) filter (action = 'relabel') as label,
        arg_max(score, position) filter (action in ('relabel', 'rescore')) as score,
        arg_max(score_semantics, position) filter (action in ('relabel', 'rescore')) as score_semantics,
        arg_max(layer_id, weight) filter (action <> 'group') as said_by,
        arg_max(reason, weight) filter (action <> 'group') as reason,
        arg_max(assertion_id, weight) filter (action <> 'group') as determined_by,
        arg_max(group_id, position) as group_id,
        arg_max(group_id, position) filter (groups = 'occurrence') as occurrence_id,
        arg_max(group_id, position) filter (groups = 'slot') as slot_id
"""
"""SQL aggregates over the rows of all layers about one detection; the rows have `position` and `weight`."""
OF_IMAGE = "arg_max(group_id, position) as event_id, arg_max(reason, position) as event_note"
_LAYERED = """
    create or replace view layered as
    select media_sha256, rank, {of_detection}
    from layer_said where rank is not null group by media_sha256, rank;
    create or replace view image_groups as
    select media_sha256, {of_image}
    from layer_said where rank is null and groups = 'event' group by media_sha256;
"""
_RESOLVED = """
    create or replace view resolved as
    select coalesce(l.media_sha256, h.media_sha256) as media_sha256, coalesce(l.rank, h.rank) as rank,
        coalesce(h.action = 'suppress', l.hidden, false) as hidden,
        coalesce(if(h.action <> 'suppress', h.label, null), l.label) as label,
        l.score, if(h.action is not null, 'human', l.score_semantics) as score_semantics,
        h.action is not null as human,
        if(h.action is not null, 'human', l.said_by) as said_by,
        if(h.action is not null, h.reason, l.reason) as reason,
        coalesce(h.assertion_id, l.determined_by) as determined_by,
        l.group_id, l.occurrence_id, l.slot_id
    from layered l full join heard h on l.media_sha256 = h.media_sha256 and l.rank = h.rank;
"""
_NO_LAYER = "(-1, '', null::varchar)"


def resolve(sql: duckdb.DuckDBPyConnection, inference_key: str, layers: Sequence[Layer]) -> None:
    """Create the relations, including those of `archive/annotations/match_boxes.py`."""
    match_annotations(sql, inference_key)
    listed = ", ".join(
        f"({position}, {literal(layer.layer_id)}, {literal(layer.groups) if layer.groups else 'null'})"
        for position, layer in enumerate(layers)
    )
    values = {
        "key": literal(inference_key),
        "layers": listed or _NO_LAYER,
        "holds": holds("layer_id, media_sha256, rank"),
        "of_detection": OF_DETECTION,
        "of_image": OF_IMAGE,
    }
    for statements in (_LAYER_ROWS, _LAYERED, _RESOLVED):
        sql.execute(statements.format(**values))
