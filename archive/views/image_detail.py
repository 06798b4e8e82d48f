"""Details of one image: its files, the result and boxes of a view, and human statements.

image_details(tables, digests, view) -> {digest: ImageDetail}; several images cost one scan, like one image
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from pydantic import Field

from archive.delta.tables import Tables
from archive.views.query import connect, storage_errors
from archive.views.views import View
from model_store.errors import ModelNotFound
from model_store.frozen import Frozen

_IMAGE = """
    select m.*, d.captured_at_corrected, d.deployment_id, d.location, r.status, r.error_code, r.error_detail,
        r.decode_note, r.saturated, r.run_id, r.model_name, r.model_version, r.weights_sha256, r.inference_key,
        r.finished_at,
        m.media_sha256 in (select media_sha256 from standing) as reviewed
    from media m left join image_deployments d using (media_sha256) left join results r using (media_sha256)
    where m.media_sha256 in (select unnest($digests))
    order by m.missing_since is not null, coalesce(m.catalogued_at, m.ingested_at), m.source_root, m.path
"""
_BOXES = """
    select d.media_sha256, d.inference_key, d.rank, d.label, d.model_label, d.score, d.model_score,
        d.x1_px, d.y1_px, d.x2_px, d.y2_px, d.is_human, d.said_by, d.reason,
        is_shown(d.is_hidden, d.is_human, d.score, t.score) as is_shown,
        r.determined_by as assertion_id, d.event_id
    from resolved_detections d left join label_thresholds t on t.label = d.label
        left join resolved r on r.media_sha256 = d.media_sha256 and r.rank = d.rank
    where d.media_sha256 in (select unnest($digests))
    union all by name
    select a.media_sha256, a.label, a.x1_px, a.y1_px, a.x2_px, a.y2_px, true as is_shown, true as is_human,
        'human' as said_by, a.reason, a.assertion_id
    from added a where a.media_sha256 in (select unnest($digests))
    order by rank nulls last, assertion_id
"""
_STATEMENTS = """
    select a.*, a.assertion_id in (select assertion_id from standing) as stands
    from assertion_rows a where a.media_sha256 in (select unnest($digests)) and a.method = 'human'
    order by a.asserted_at desc, a.assertion_id
"""


_FACTS = (
    "camera_make",
    "camera_model",
    "camera_serial",
    "camera_source",
    "exif_orientation",
    "timestamp_source",
    "timestamp_flags",
    "media_type",
    "deployment_id",
    "location",
)


class Box(Frozen):
    """A box in pixels of the displayed image. `rank` is null for one that a person added.

    `model_label` and `model_score` are the model's own; `assertion_id` is the statement or layer row that determined
    `label`, `score` or `is_shown`, and `said_by` its layer.
    """

    inference_key: str | None
    rank: int | None
    label: str | None
    model_label: str | None
    score: float | None
    model_score: float | None
    x1_px: float
    y1_px: float
    x2_px: float
    y2_px: float
    is_shown: bool
    is_human: bool
    said_by: str | None
    reason: str | None
    assertion_id: str | None


class HumanStatement(Frozen):
    """A human statement about the image; `stands`: it is valid now."""

    assertion_id: str
    actor: str
    action: str
    label: str | None
    x1_px: float | None
    y1_px: float | None
    x2_px: float | None
    y2_px: float | None
    reason: str | None
    asserted_at: datetime
    batch_id: str | None = None
    withdraws: str | None = None
    stands: bool


class ImageDetail(Frozen):
    """An image in a view. `files` are its present and missing places, the chosen one first."""

    media_sha256: str
    files: tuple[str, ...]
    camera_id: str | None
    captured_at_local: str | None
    captured_at_corrected: str | None = Field(
        description="the same with the clock offset of the deployment"
    )
    width_px: int | None
    height_px: int | None
    size_bytes: int | None
    facts: dict[str, str] = Field(
        description="about the camera and its clock: from EXIF and the path"
    )
    status: str = Field(description="ok, empty, failed or missing, as relation `results` has it")
    problem: str | None = Field(description="why the image failed, or was read with a note")
    model: str | None
    run_id: str | None
    inference_key: str | None
    reviewed: bool
    event_id: str | None
    boxes: tuple[Box, ...]
    statements: tuple[HumanStatement, ...]


def image_details(
    tables: Tables, digests: Collection[str], view: View | None
) -> dict[str, ImageDetail]:
    """Return the images of a view by digest, without unknown ones; view None: nothing is published.

    Raises StorageUnreachable.
    """
    values = {"digests": list(digests)}
    chosen = pa.chunked_array([pa.array(digests, pa.string())])
    text = _IMAGE + _BOXES + _STATEMENTS
    with storage_errors(tables), connect(tables, view, chosen, statement=text) as sql:
        files, boxes, said = (
            _by_digest(sql.sql(statement, params=values).to_arrow_table().to_pylist())
            for statement in (_IMAGE, _BOXES, _STATEMENTS)
        )
    return {digest: _detail(files[digest], boxes[digest], said[digest]) for digest in files}


def image_detail(tables: Tables, media_sha256: str, view: View | None) -> ImageDetail:
    """Return one image of a view. Raises ModelNotFound, StorageUnreachable."""
    found = image_details(tables, [media_sha256], view)
    if not found:
        raise unknown_image(media_sha256)
    return found[media_sha256]


def unknown_image(media_sha256: str) -> ModelNotFound:
    return ModelNotFound(f"no image has the digest {media_sha256[:80]}")


def _by_digest(rows: Sequence[dict[str, Any]]) -> defaultdict[str, list[dict[str, Any]]]:
    grouped: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        grouped[row["media_sha256"]].append(row)
    return grouped


def _detail(
    files: Sequence[Mapping[str, Any]],
    boxes: Sequence[Mapping[str, Any]],
    said: Sequence[Mapping[str, Any]],
) -> ImageDetail:
    chosen = files[0]
    moment: datetime | None = chosen["captured_at_local"]
    corrected: datetime | None = chosen["captured_at_corrected"] or moment
    version = f"{chosen['model_name']}@{chosen['model_version']}"
    return ImageDetail(
        **_fields(ImageDetail, chosen)
        | {
            "files": tuple(f"{file['source_root']}/{file['path']}" for file in files),
            "captured_at_local": moment and moment.isoformat(sep=" ", timespec="seconds"),
            "captured_at_corrected": corrected and corrected.isoformat(sep=" ", timespec="seconds"),
            "facts": {name: str(chosen[name]) for name in _FACTS if chosen[name]},
            "status": chosen["status"] or "missing",
            "problem": chosen["error_detail"] or chosen["header_error"] or chosen["decode_note"],
            "model": version if chosen["model_name"] else None,
            "event_id": next((box["event_id"] for box in boxes if box["event_id"]), None),
            "boxes": tuple(Box(**_fields(Box, box)) for box in boxes),
            "statements": tuple(HumanStatement(**_fields(HumanStatement, row)) for row in said),
        }
    )


def _fields(kind: type[Frozen], row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in kind.model_fields if name in row}
