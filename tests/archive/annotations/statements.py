"""Two catalogued images, one with two detections, and statements about them as rows of a file."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from archive.annotations.assertions import HUMAN, append, assertion_id, human_assertions
from archive.annotations.import_file import read_assertions
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS
from tests.fixtures_local import put_results, put_rows, result_rows

NOON = datetime(2026, 5, 14, 12, tzinfo=UTC)
A, B = "a" * 64, "b" * 64
KEY = "k" * 64
CORNERS = {"x1_px": 1.0, "y1_px": 2.0, "x2_px": 11.0, "y2_px": 12.0}
OTHER = CORNERS | {"x1_px": 5.0}
WHO = {"actor": "kim", "asserted_at": "2026-05-14T12:00:00Z"}
KEEP = {"media_sha256": A, "action": "keep", "label": "deer", **CORNERS, **WHO}
APART = dict(zip(CORNERS, (20.0, 20.0, 30.0, 30.0), strict=True))


def put_pair(tables: Tables) -> None:
    """Catalogue the images; KEY has two detections of the first."""
    media = [
        {"media_sha256": A, "source_root": "/x", "path": "a.jpg", "width_px": 40, "height_px": 30},
        {"media_sha256": B, "source_root": "/x", "path": "b.jpg", "width_px": None},
        {"media_sha256": B, "source_root": "/y", "path": "a.jpg"},
        {"media_sha256": B, "source_root": "/z", "path": "b.jpg"},
        {"media_sha256": "d" * 64, "source_root": "/z", "path": "d.mp4", "frame_count": 9},
    ]
    put_rows(tables, "media", *media)
    seen = [{"rank": 0, "label": "fox", "score": 0.9, **CORNERS}, {"rank": 1, "label": "boar", **OTHER}]
    put_results(tables, result_rows([A], KEY, detections=seen))


def said(tables: Tables, *rows: dict[str, Any]) -> int:
    """Import rows from a file; return the number added."""
    file = Path(tables.url).parent / "said.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return append(tables, read_assertions(tables, file).rows)


def standing(tables: Tables) -> list[tuple[Any, ...]]:
    columns = ("action", "label", "x1_px")
    return [tuple(row[c] for c in columns) for row in human_assertions(tables).to_pylist()]


def at(minute: int) -> dict[str, str]:
    return {"asserted_at": f"2026-05-14T12:{minute:02}:00Z"}


def record(tables: Tables, *rows: dict[str, Any]) -> list[str]:
    """Append rows of people as they are; return their ids."""
    full = [{"layer_id": HUMAN, "method": HUMAN, "actor": "kim", **row} for row in rows]
    append(tables, pa.Table.from_pylist(full, schema=ASSERTIONS))
    return [assertion_id(row) for row in pa.Table.from_pylist(full, schema=ASSERTIONS).to_pylist()]
