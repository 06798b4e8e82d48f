"""Build a small archive: images of cameras, and the published results of one model."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from archive.delta.tables import Tables
from archive.schemas import MEDIA
from archive.views.query import query
from archive.views.views import View, Views
from tests.fixtures_local import put_results, result_rows

KEY = "k" * 64
NOON = datetime(2026, 5, 14, 12, 0, 0)
WIDTH_PX, HEIGHT_PX = 1000, 800


def box(rank: int, x1: float, y1: float, side: float, label: str = "deer", score: float = 0.9) -> dict[str, Any]:
    corners = {"x1_px": x1, "y1_px": y1, "x2_px": x1 + side, "y2_px": y1 + side}
    return {"rank": rank, "label": label, "class_id": 0, "score": score, **corners}


def sha(number: int) -> str:
    return f"{number:064x}"


def tables_at(place: Path) -> Tables:
    tables = Tables(str(place / "tables"))
    tables.snapshot("media")
    return tables


def copied(template: Tables, place: Path) -> Tables:
    """Return a copy of tables that several tests begin with."""
    return Tables(str(shutil.copytree(template.url, place / "tables")))


def put(
    tables: Tables, images: Mapping[int, tuple[str | None, float | None, list[dict[str, Any]]]], key: str = KEY
) -> None:
    """Add images: number -> (camera, seconds after NOON or None if undated, detections)."""
    media, results = [], []
    for number, (camera, seconds, found) in images.items():
        taken = None if seconds is None else (NOON + timedelta(seconds=seconds)).isoformat()
        media.append(
            {
                "media_sha256": sha(number),
                "source_root": "/archive",
                "path": f"{camera or 'loose'}/{number:05d}.jpg",
                "width_px": WIDTH_PX,
                "height_px": HEIGHT_PX,
                "captured_at_local": taken,
                "timestamp_flags": [],
                "camera_id": camera,
                "ingested_at": datetime.now(UTC),
            }
        )
        results.append(
            result_rows(
                [sha(number)], key, width_px=WIDTH_PX, height_px=HEIGHT_PX, n_detections=len(found), detections=found
            )
        )
    rows = pa.Table.from_pylist(media, schema=MEDIA)

    def unknown(snapshot: Any, wanted: pa.Table) -> pa.Table:
        there = set(snapshot.to_pyarrow_dataset().to_table(["media_sha256"])["media_sha256"].to_pylist())
        keep = [value not in there for value in wanted["media_sha256"].to_pylist()]
        return wanted.filter(pa.array(keep))

    tables.append("media", rows, "test", unknown)
    put_results(tables, pa.concat_tables(results))


def publish(tables: Tables, key: str = KEY, **more: Any) -> View:
    fields = {"inference_key": key, "model_name": "m", "model_version": "1", "weights_sha256": "w"}
    now = Views(tables.url).current()
    view = View.model_validate({**fields, **more})
    return Views(tables.url).publish(view, after=now.serial if now else 0)


def shown(tables: Tables, columns: Iterable[str] = ("media_sha256", "rank", "label", "score")) -> list[tuple[Any, ...]]:
    names = ", ".join(columns)
    rows = query(tables, f"select {names} from detections order by all").to_pylist()
    return [tuple(row.values()) for row in rows]
