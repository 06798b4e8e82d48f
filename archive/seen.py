"""What was seen in an image, in the columns of `results` that say it: the same for runs and for uploads.

(Detections, labels) -> status, n_detections, max_score, saturated, detections
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from model_store.detections import Detections, RunLengths


def seen(found: Detections, labels: Sequence[str]) -> dict[str, Any]:
    """`found` is all from the model's floor up, ranked; what of it is shown is the views' affair."""
    return {
        "status": "ok" if len(found) else "empty",
        "n_detections": len(found),
        "max_score": float(found.scores[0]) if len(found) else None,
        "saturated": found.saturated,
        "detections": list(_detections(found, labels)),
    }


def _detections(found: Detections, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    masks: Sequence[tuple[str | None, int | None]] = [(None, None)] * len(found)
    if isinstance(found.masks, RunLengths):
        masks = list(zip(found.masks.counts, found.masks.area_px.tolist(), strict=True))
    columns = zip(
        found.boxes_xyxy.tolist(),
        found.scores.tolist(),
        found.class_ids.tolist(),
        masks,
        strict=True,
    )
    for rank, ((x1, y1, x2, y2), score, class_id, (rle, area_px)) in enumerate(columns):
        yield {
            "rank": rank,
            "label": labels[class_id],
            "class_id": class_id,
            "score": score,
            "x1_px": x1,
            "y1_px": y1,
            "x2_px": x2,
            "y2_px": y2,
            "mask_rle": rle,
            "mask_area_px": area_px,
        }
