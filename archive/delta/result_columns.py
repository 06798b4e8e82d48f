"""Convert detections to columns of `results`, the same for runs and for uploads.

(Detections, labels) -> status, n_detections, max_score, saturated, detections
thresholds --shows_nothing--> SQL that finds the rows without a detection at these thresholds
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from archive.delta.sql_literal import literal
from model_store.detections import Detections, RunLengths


def detection_columns(found: Detections, labels: Sequence[str]) -> dict[str, Any]:
    """Return the columns for `found`: all ranked detections above the model's minimum score. Views apply thresholds."""
    return {
        "status": "ok",
        "n_detections": len(found),
        "max_score": float(found.scores[0]) if len(found) else None,
        "saturated": found.saturated,
        "detections": list(_detections(found, labels)),
    }


def shows_nothing(threshold: float, label_thresholds: Mapping[str, float]) -> str:
    """Return an SQL condition on a row of `results` that did not fail: no score reaches the threshold of its label.

    Scores and thresholds are compared as 32-bit numbers.
    """
    if not label_thresholds:
        return f"coalesce(max_score < {threshold!r}::float, true)"
    limits = ", ".join(f"{literal(label)}: {score!r}" for label, score in label_thresholds.items())
    limit = f"coalesce(map {{{limits}}}[d.label], {threshold!r})::float"
    return f"len(list_filter(detections, lambda d: d.score >= {limit})) = 0"


def _detections(found: Detections, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    masks: Sequence[tuple[str | None, int | None]] = [(None, None)] * len(found)
    if isinstance(found.masks, RunLengths):
        masks = list(zip(found.masks.counts, found.masks.area_px.tolist(), strict=True))
    columns = zip(found.boxes_xyxy.tolist(), found.scores.tolist(), found.class_ids.tolist(), masks, strict=True)
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
