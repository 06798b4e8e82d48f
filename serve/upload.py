"""What an upload adds to the tables: a row of `media` and one of `results`, on their way to the recorder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from archive.schemas import MEDIA, RESULTS
from archive.seen import seen
from serve.answers import Answer

RUN_ID = "upload"
"""Stands in `results.run_id`: no run has seen the image."""
MOST_WAITING, MOST_BYTES = 5_000, 256 * 2**20
"""Of uploads whose rows are under way: in the recorder, and from a replica."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A row of `media` and one of `results`."""

    media: pa.Table
    result: pa.Table

    @property
    def nbytes(self) -> int:
        return self.media.nbytes + self.result.nbytes

    @staticmethod
    def of(media_row: dict[str, Any], answer: Answer) -> Upload:
        """Everything that the model saw, as a run would write it, whatever the answer shows of it."""
        model, image, times = answer.model, answer.image, answer.timings
        result = seen(answer.detections, model.labels) | {
            "inference_key": model.inference_key,
            "media_sha256": media_row["media_sha256"],
            "decode_note": image.note,
            "width_px": image.width_px,
            "height_px": image.height_px,
            "read_ms": 0.0,
            "decode_ms": times.preprocess_ms,
            "queue_ms": times.queue_ms,
            "inference_ms": times.inference_ms,
            "postprocess_ms": times.postprocess_ms,
            "run_id": RUN_ID,
            "model_name": model.name,
            "model_version": model.version,
            "weights_sha256": model.weights_sha256,
            "finished_at": datetime.now(UTC),
        }
        return Upload(
            pa.Table.from_pylist([media_row], schema=MEDIA),
            pa.Table.from_pylist([result], schema=RESULTS),
        )
