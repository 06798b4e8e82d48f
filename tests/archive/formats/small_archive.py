"""A small archive with a published view: images with boxes, an empty, a failed and a missing one, and statements."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from archive.delta.tables import Tables
from archive.schemas import RESULTS
from archive.views.views import View, Views
from tests.fixtures_local import put_results, put_rows

KEY, ROOT = "k" * 64, "/data/deer"
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
Box = tuple[str, float, float, float, float, float]
"""Label, score and corners."""
LABELS = ("animal", "person", "vehicle")


def media_row(sha: str, path: str, **more: Any) -> dict[str, Any]:
    common = {
        "source_root": ROOT,
        "media_type": "image/jpeg",
        "size_bytes": 1000,
        "width_px": 1000,
        "height_px": 500,
        "captured_at_local": "2026-05-01T09:30:00",
        "timestamp_flags": [],
        "camera_id": path.partition("/")[0],
        "ingested_at": NOW,
        "catalogued_at": NOW,
    }
    return {"media_sha256": sha, "path": path, **common, **more}


def put_media(tables: Tables, *rows: dict[str, Any]) -> None:
    put_rows(tables, "media", *rows)


def put_boxes(tables: Tables, images: dict[str, list[Box] | None], key: str = KEY) -> None:
    """Add results: boxes by content, None for a failed one."""
    rows: list[dict[str, Any]] = []
    for sha, boxes in images.items():
        row: dict[str, Any] = {
            "inference_key": key,
            "media_sha256": sha,
            "status": "failed" if boxes is None else "ok",
            "error_code": "decode" if boxes is None else None,
            "error_detail": "not a JPEG" if boxes is None else None,
            "width_px": None if boxes is None else 1000,
            "height_px": None if boxes is None else 500,
            "run_id": "r",
            "model_name": "md",
            "model_version": "5a",
            "weights_sha256": "w" * 64,
            "finished_at": NOW,
        }
        row["detections"] = [
            dict(
                zip(
                    ("rank", "label", "class_id", "score", "x1_px", "y1_px", "x2_px", "y2_px"),
                    (rank, box[0], LABELS.index(box[0]), *box[1:]),
                    strict=True,
                )
            )
            for rank, box in enumerate(boxes or [])
        ]
        row["n_detections"] = len(row["detections"])
        row["max_score"] = max((box[1] for box in boxes or []), default=None)
        rows.append(row)
    put_results(tables, pa.Table.from_pylist(rows, schema=RESULTS))


def state(tables: Tables, sha: str, action: str, **more: Any) -> None:
    """Add a statement of a person."""
    row = {
        "assertion_id": f"{sha}-{action}",
        "layer_id": "human",
        "method": "human",
        "actor": "Ana",
        "action": action,
        "media_sha256": sha,
        "asserted_at": NOW,
    }
    put_rows(tables, "assertions", {**row, **more})


def seal(tables: Tables, run_id: str = "r", key: str = KEY) -> None:
    """Record the run of the results."""
    row = {"run_id": run_id, "event": 1, "state": "sealed", "event_at": NOW, "inference_key": key}
    put_rows(tables, "runs", row)


def publish(tables: Tables, threshold: float = 0.2, key: str = KEY) -> View:
    fields = {
        "inference_key": key,
        "model_name": "md",
        "model_version": "5a",
        "weights_sha256": "w" * 64,
        "threshold": threshold,
        "run_id": "r",
    }
    return Views(tables.url).publish(View.model_validate(fields), after=0)


def corners(box: Box) -> dict[str, float]:
    return dict(zip(("x1_px", "y1_px", "x2_px", "y2_px"), box[2:], strict=True))


FOX: Box = ("animal", 0.9, 100.0, 50.0, 300.0, 250.0)
BRANCH: Box = ("animal", 0.6, 500.0, 100.0, 600.0, 200.0)
FAINT: Box = ("person", 0.1, 0.0, 0.0, 50.0, 50.0)


def small_archive(place: str) -> Tables:
    """Return tables with five contents in six files; a fox is named, a branch hidden, a person added."""
    tables = Tables(place)
    put_media(
        tables,
        media_row("a", "north/a.jpg"),
        media_row("b", "north/b.jpg"),
        media_row("c", "south/c.jpg", width_px=None, height_px=None),
        media_row("d", "south/d.jpg"),
        media_row("e", "z.jpg", captured_at_local=None, camera_id=None),
        media_row("a", "south/copy.jpg"),
        media_row("g", "north/gone.jpg", missing_since=NOW),
    )
    put_boxes(tables, {"a": [FOX, BRANCH, FAINT], "b": [FAINT], "c": None, "e": [], "g": [FOX]})
    state(tables, "a", "relabel", label="fox", **corners(FOX))
    state(tables, "a", "suppress", **corners(BRANCH))
    state(tables, "e", "add", label="person", x1_px=1.0, y1_px=2.0, x2_px=3.0, y2_px=4.0)
    seal(tables)
    publish(tables)
    return tables
