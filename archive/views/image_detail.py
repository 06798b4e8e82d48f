"""Details of one image: its files, the result and boxes of a view, and human statements.

image_details(tables, digests, view) -> {digest: ImageDetail}; several images cost one scan, like one image
details_in(sql, digests): the same from the file of an index of images, without a scan of the tables
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa
from pydantic import Field

from archive.delta.snapshot import storage_errors
from archive.delta.tables import Tables
from archive.views.image_index_file import READ, row_statements
from archive.views.query import connect
from archive.views.views import View
from model_store.frozen import Frozen

Row = Mapping[str, Any]
_ALSO_MISSING = """
    create or replace temp table present as from images;
    create or replace temp view images as from present union all by name
    select *, captured_at_local as captured_at_corrected from media
    where media_sha256 not in (select media_sha256 from present) qualify row_number() over (
        partition by media_sha256 order by coalesce(catalogued_at, ingested_at), source_root, path) = 1
"""
_IMAGES = """
    select * exclude (moment), nullif(moment, '-infinity') as captured_at_corrected,
        coalesce(error_detail, header_error, decode_note) as problem
    from {of}cells join {of}details using (image_id) where media_sha256 in (select unnest($keys))
"""
_PARTS = {
    "boxes": "from {of}boxes where image_id in (select unnest($keys)) order by rank nulls last, assertion_id",
    "statements": """
        from {of}statements where image_id in (select unnest($keys)) order by asserted_at desc, assertion_id
    """,
    "files": "from {of}files where image_id in (select unnest($keys)) order by is_missing, since, file",
}
_FACTS = (
    *("camera_make", "camera_model", "camera_serial", "camera_source", "exif_orientation"),
    *("timestamp_source", "timestamp_flags", "media_type", "deployment_id", "location"),
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
    captured_at_corrected: str | None = Field(description="the same with the clock offset of the deployment")
    width_px: int | None
    height_px: int | None
    size_bytes: int | None
    facts: dict[str, str] = Field(description="about the camera and its clock: from EXIF and the path")
    status: str = Field(description="ok, empty, failed or missing, as relation `results` has it")
    problem: str | None = Field(description="why the image failed, or was read with a note")
    model: str | None
    run_id: str | None
    inference_key: str | None
    reviewed: bool
    flagged: bool
    event_id: str | None
    boxes: tuple[Box, ...]
    statements: tuple[HumanStatement, ...]


def image_details(tables: Tables, digests: Collection[str], view: View | None) -> dict[str, ImageDetail]:
    """Return the images of a view by digest, without unknown ones; view None: nothing is published.

    Raises StorageUnreachable.
    """
    chosen = pa.chunked_array([pa.array(digests, pa.string())])
    with storage_errors(tables), connect(tables, view, chosen, statement=READ) as sql:
        sql.execute(_ALSO_MISSING)
        for statement in row_statements():
            sql.execute(statement)
        return details_in(sql, digests, "new_")


def details_in(sql: duckdb.DuckDBPyConnection, digests: Collection[str], of: str = "") -> dict[str, ImageDetail]:
    """Return images by the tables of an index, or by the relations `of` the same columns (`row_statements`)."""

    def rows(statement: str, keys: Collection[Any]) -> list[dict[str, Any]]:
        found = sql.sql(statement.format(of=of), params={"keys": list(keys)})
        return found.to_arrow_table().to_pylist()

    images = rows(_IMAGES, digests) if digests else []
    parts = {(name, image["image_id"]): list[dict[str, Any]]() for image in images for name in _PARTS}
    for name, statement in _PARTS.items() if images else ():
        for row in rows(statement, [image["image_id"] for image in images]):
            parts[name, row["image_id"]].append(row)
    return {
        image["media_sha256"]: _detail(image, *(parts[name, image["image_id"]] for name in _PARTS)) for image in images
    }


def _detail(image: Row, boxes: Sequence[Row], statements: Sequence[Row], files: Sequence[Row]) -> ImageDetail:
    moment: datetime | None = image["captured_at_local"]
    corrected: datetime | None = image["captured_at_corrected"]
    return ImageDetail(
        **_fields(ImageDetail, image)
        | {
            "captured_at_local": moment and moment.isoformat(sep=" ", timespec="seconds"),
            "captured_at_corrected": corrected and corrected.isoformat(sep=" ", timespec="seconds"),
            "facts": {name: str(image[name]) for name in _FACTS if image[name]},
            "boxes": tuple(Box(**_fields(Box, row)) for row in boxes),
            "statements": tuple(HumanStatement(**_fields(HumanStatement, row)) for row in statements),
            "files": tuple(row["file"] for row in files),
        }
    )


def _fields(kind: type[Frozen], row: Row) -> dict[str, Any]:
    return {name: row[name] for name in kind.model_fields if name in row}
