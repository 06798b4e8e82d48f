"""Build the rows of `results` for one chunk, as an Arrow table: always one row per image.

(ReadImage ..., ChunkAnswer for those that could be read) -> pa.Table
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from archive.delta.result_columns import detection_columns
from archive.schemas import RESULTS
from batch.pipeline.read_image import MAX_DETAIL, ReadImage
from model_store.detections import Detections
from model_store.store import ModelInfo
from serve.inference.chunks import ChunkAnswer


def result_table(run_id: str, model: ModelInfo, images: Sequence[ReadImage], answer: ChunkAnswer | None) -> pa.Table:
    """Return one row per image. `answer` covers exactly the images with `prepared`, in order; None if none has it."""
    lineage = {
        "inference_key": model.inference_key,
        "run_id": run_id,
        "model_name": model.name,
        "model_version": model.version,
        "weights_sha256": model.weights_sha256,
        "finished_at": datetime.now(UTC),
    }
    outcomes = _outcomes(answer)
    rows = [
        {**lineage, "media_sha256": image.media_sha256, "saturated": False, "detections": []}
        | {"n_detections": 0, "read_ms": image.read_ms, "decode_ms": image.decode_ms}
        | (_failed(image.error_code, image.error_detail or "") if image.error_code else {})
        | (_seen(image, *next(outcomes), model.labels) if image.prepared else {})
        for image in images
    ]
    return pa.Table.from_pylist(rows, schema=RESULTS)


def _outcomes(answer: ChunkAnswer | None) -> Iterator[tuple[Detections, Sequence[float], str | None]]:
    if answer is not None:
        yield from zip(answer.detections(), answer.timings_ms.tolist(), answer.errors, strict=True)


def _failed(code: str, detail: str) -> dict[str, Any]:
    return {"status": "failed", "error_code": code, "error_detail": detail[:MAX_DETAIL]}


def _seen(
    image: ReadImage, found: Detections, times_ms: Sequence[float], error: str | None, labels: tuple[str, ...]
) -> dict[str, Any]:
    assert image.facts is not None
    size = {"width_px": image.facts.width_px, "height_px": image.facts.height_px}
    if error is not None:
        code, _, detail = error.partition(": ")
        return size | _failed(code, detail)
    queue_ms, inference_ms, postprocess_ms = times_ms
    return (
        size
        | detection_columns(found, labels)
        | {
            "decode_note": image.facts.note,
            "queue_ms": queue_ms,
            "inference_ms": inference_ms,
            "postprocess_ms": postprocess_ms,
        }
    )
