"""What people say in a file, made into rows of `assertions`: all of them, or none.

Statements name an image by its content or its path, and a box by its corners or by the detection they looked
at; here both are looked up in `media` and `results`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from archive.assertions import HUMAN
from archive.scan import scan
from archive.schemas import ASSERTIONS, MEDIA, RESULTS
from archive.statements import BOX, Statement, read_file
from archive.tables import Tables
from model_store.errors import BadRequest

SHOWN_ERRORS = 20
OUTSIDE_PX = 1.0
"""How far a box may lie outside its image: other programs round."""


@dataclass(frozen=True, slots=True)
class Image:
    """A catalogued content; its size as displayed, where its header could be read."""

    media_sha256: str
    width_px: int | None
    height_px: int | None


def read_assertions(
    tables: Tables, file: Path, actor: str | None = None, asserted_at: str | None = None
) -> pa.Table:
    """Rows of `assertions`, ids not yet set; `actor` and `asserted_at` are for rows that have none.

    Raises BadRequest that lists what is wrong, row by row, counted from 1 without a header.
    """
    said, wrong = read_file(file, {"actor": actor, "asserted_at": asserted_at})
    sql = duckdb.connect()
    images = _images(sql, tables, said)
    detections = _detections(sql, tables, said, images)
    rows: list[dict[str, Any]] = []
    for number, one in said.items():
        try:
            rows.append(_row(one, images.get(number, []), detections.get(number)))
        except ValueError as error:
            wrong[number] = str(error)
    if wrong:
        lines = [f"row {number}: {why}" for number, why in sorted(wrong.items())]
        more = [f"and {len(lines) - SHOWN_ERRORS} more"] if len(lines) > SHOWN_ERRORS else []
        raise BadRequest("\n".join([f"{file}: nothing was added", *lines[:SHOWN_ERRORS], *more]))
    return pa.Table.from_pylist(rows, schema=ASSERTIONS)


def _images(
    sql: duckdb.DuckDBPyConnection, tables: Tables, said: Mapping[int, Statement]
) -> dict[int, list[Image]]:
    """Row number to the contents it may mean."""
    columns = ("media_sha256", "path", "source_root")
    asked = {
        name: pa.array([getattr(s, name) for s in said.values()], pa.string()) for name in columns
    }
    sql.register("asked", pa.table({"row": pa.array(list(said), pa.int64()), **asked}))
    scan(sql, "media", tables.existing("media"), MEDIA)
    found: dict[int, list[Image]] = {}
    for key in ("media_sha256", "path"):
        rows = sql.sql(
            "select distinct row, m.media_sha256, m.width_px, m.height_px "
            f"from asked join media m on asked.{key} = m.{key} "
            "where asked.source_root is null or asked.source_root = m.source_root order by all"
        ).fetchall()
        for number, sha256, width_px, height_px in rows:
            found.setdefault(number, []).append(Image(sha256, width_px, height_px))
    return found


def _detections(
    sql: duckdb.DuckDBPyConnection,
    tables: Tables,
    said: Mapping[int, Statement],
    images: Mapping[int, list[Image]],
) -> dict[int, dict[str, Any]]:
    """Row number to the detection it names."""
    named = [
        {"row": n, "key": one.inference_key, "sha256": images[n][0].media_sha256, "rank": one.rank}
        for n, one in said.items()
        if one.rank is not None and n in images
    ]
    if not named:
        return {}
    sql.register("named", pa.Table.from_pylist(named))
    found: dict[int, dict[str, Any]] = {}
    for key in sorted({str(one["key"]) for one in named}):
        scan(sql, "results", tables.existing("results"), RESULTS, key)
        rows = sql.execute(
            "with seen as (select row, named.rank, unnest(detections) as d from named "
            "join results on sha256 = media_sha256 where key = $key) "
            "select row, d from seen where d.rank = seen.rank",
            {"key": key},
        ).fetchall()
        found |= dict(rows)
    return found


def _row(
    one: Statement, images: list[Image], detection: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Raises ValueError for a statement about what is not there."""
    if not images:
        name = one.media_sha256 or one.path
        raise ValueError(f"no image {name} is catalogued; run 'resight ingest' where it lies")
    if len({image.media_sha256 for image in images}) > 1:
        raise ValueError(f"several images are {one.path}; add source_root, or use media_sha256")
    if one.rank is not None and detection is None:
        raise ValueError(f"no detection {one.rank} of that image under {one.inference_key}")
    seen = detection or {}
    box = one.box or {name: seen.get(name) for name in BOX}
    label = one.label or seen.get("label")
    if one.action == "keep" and not label:
        raise ValueError("keep needs the label that is right")
    if one.box:
        _require_inside(one.box, images[0])
    return {
        "layer_id": HUMAN,
        "method": HUMAN,
        "actor": one.actor,
        "action": one.action,
        "media_sha256": images[0].media_sha256,
        "inference_key": one.inference_key,
        "rank": one.rank,
        **box,
        "label": label,
        "reason": one.reason,
        "asserted_at": one.asserted_at,
    }


def _require_inside(box: Mapping[str, float], image: Image) -> None:
    """Coordinates of the image as stored are the usual slip, where EXIF turns it."""
    if image.width_px is None or image.height_px is None:
        return
    x1, y1, x2, y2 = box.values()
    if min(x1, y1) < -OUTSIDE_PX or (
        x2 > image.width_px + OUTSIDE_PX or y2 > image.height_px + OUTSIDE_PX
    ):
        raise ValueError(
            f"the box lies outside the image: that is {image.width_px} x {image.height_px} px as "
            "displayed, after EXIF orientation"
        )
