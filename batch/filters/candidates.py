"""List the slots of a repeat-detections layer for review by people.

(tables, layer, inference key) --candidates--> a Candidate for each slot: camera, number of images, period, first box
"""

from __future__ import annotations

from typing import Any

from archive.annotations.layers import Layer, newest
from archive.catalogue.images import images_of
from archive.delta.snapshot import dataset, open_tables, scan
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS, MEDIA, RESULTS
from archive.views.clocks import with_deployments
from batch.filters.review import Candidate
from model_store.errors import BadRequest

_CANDIDATES = """
    with said as (from ({newest}) where action <> 'withdraw' and group_id is not null),
    files as (
        select media_sha256, source_root as root, path, camera_id as camera, captured_at_corrected::timestamp as taken,
            len(coalesce(timestamp_flags, [])) = 0 as sure
        from {images}),
    boxes as (select media_sha256, unnest(detections) as d from result_rows),
    members as (
        select s.group_id, s.media_sha256, s.rank, s.action, s.x1_px, s.y1_px, s.x2_px, s.y2_px, b.d.label as label,
            b.d.score as score, root, path, camera, taken, sure
        from said s join files using (media_sha256)
            join boxes b on b.media_sha256 = s.media_sha256 and b.d.rank = s.rank)
    select group_id, min(camera), min(label), count(distinct media_sha256), count(distinct taken::date) filter (sure),
        min(taken), max(taken),
        arg_min({{'sha': media_sha256, 'root': root, 'path': path, 'score': score,
            'x1': x1_px, 'y1': y1_px, 'x2': x2_px, 'y2': y2_px}},
            coalesce(strftime(taken, '%Y-%m-%dT%H:%M:%S'), '~') || path)
    from members group by group_id order by 1
"""


def candidates(tables: Tables, layer: Layer, inference_key: str) -> list[Candidate]:
    """Return the slots in order of id. Raises BadRequest for a layer of another kind, StorageUnreachable."""
    if layer.kind != "repeat-detections":
        raise BadRequest(f"layer {layer.layer_id[:12]} is {layer.kind}; only repeat-detections layers can be reviewed")
    with open_tables(tables) as sql:
        sql.register("assertion_rows", dataset(tables.existing("assertions"), ASSERTIONS))
        scan(sql, "media_rows", tables.existing("media"), MEDIA)
        scan(sql, "result_rows", tables.existing("results"), RESULTS, inference_key)
        statement = _CANDIDATES.format(
            newest=newest("assertion_rows"), images=with_deployments(sql, tables, images_of("media_rows"))
        )
        slots = sql.execute(statement, {"layer": layer.layer_id, "key": inference_key}).fetchall()
    return [_candidate(slot) for slot in slots]


def _candidate(row: tuple[Any, ...]) -> Candidate:
    slot_id, camera, label, images, days, first, last, sample = row
    return Candidate(
        slot_id=slot_id,
        camera_id=camera,
        label=label,
        images=images,
        days=days,
        first_local=first,
        last_local=last,
        box_px=(sample["x1"], sample["y1"], sample["x2"], sample["y2"]),
        score=sample["score"],
        media_sha256=sample["sha"],
        path=sample["path"],
        source_root=sample["root"],
    )
