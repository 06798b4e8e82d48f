"""An archive with one box in each image, and its vector."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from archive.delta.tables import Tables
from archive.views.views import View, Views
from tests.fixtures_local import put_results, put_rows, result_rows

KEY, EMBEDDER = "k" * 64, "e" * 64
_BOX = {"class_id": 0, "label": "deer", "score": 0.9, "rank": 0, "x1_px": 1.0, "y1_px": 2.0, "x2_px": 9.0, "y2_px": 9.0}


def named_animals(place: Path | str, vectors: np.ndarray, cameras: Sequence[str | None], **more: Any) -> Tables:
    """Return a published archive with a row of `vectors` for image n, taken 10 minutes times n after the first.

    `more`: columns of `media`.
    """
    tables, now = Tables(str(place)), datetime.now(UTC)
    first = datetime(2026, 5, 1, 6)
    shas = [f"{n:064x}" for n in range(len(vectors))]
    at = [(first + timedelta(minutes=10 * n)).isoformat() for n in range(len(vectors))]
    media = [
        {"media_sha256": sha, "source_root": "/a", "path": f"{n}.jpg", "camera_id": cameras[n], "ingested_at": now}
        | {"captured_at_local": at[n], **more}
        for n, sha in enumerate(shas)
    ]
    put_rows(tables, "media", *media)
    put_results(tables, result_rows(shas, KEY, width_px=60, height_px=40, detections=[_BOX]))
    same = {"inference_key": KEY, "embedder_key": EMBEDDER, "margin_frac": 0.0, "status": "ok", "rank": 0}
    same |= {"model_name": "looks", "model_version": "1", "finished_at": now}
    rows = [{"media_sha256": sha, "vector": vector.tolist()} | same for sha, vector in zip(shas, vectors, strict=True)]
    put_rows(tables, "embeddings", *rows)
    view = View(inference_key=KEY, model_name="m", model_version="1", weights_sha256="w", threshold=0.5)
    Views(tables.url).publish(view, after=0)
    return tables
