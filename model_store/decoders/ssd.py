"""Decode SSD heads before suppression.

boxes (n, anchors, 4): y1, x1, y2, x2 as fractions; scores (n, anchors, classes), without background
"""

from __future__ import annotations

from model_store.decoders.evidence import Evidence
from model_store.decoders.layout import Array, DecodeSpec, Outputs, best_class, from_yxyx, named, rows_that_pass
from model_store.detections import Detections
from model_store.errors import ModelRefused


def decode_ssd(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode boxes and scores. Raises ModelRefused if one is missing or the number of classes differs."""
    boxes, scores = named(outputs, "ssd", "boxes", "scores")
    fits = boxes.ndim == scores.ndim == 3 and boxes.shape[:2] == scores.shape[:2]
    if not fits or boxes.shape[2] != 4 or scores.shape[2] != spec.classes:
        raise ModelRefused(
            f"decoder ssd needs boxes (n, anchors, 4) and scores (n, anchors, {spec.classes}); "
            f"the model returned {boxes.shape} and {scores.shape}"
        )
    return [_decode_one(box, score, spec) for box, score in zip(boxes, scores, strict=True)]


def _decode_one(boxes: Array, scores: Array, spec: DecodeSpec) -> Detections:
    kept = rows_that_pass(scores, spec)  # few: only their boxes are converted
    return best_class(from_yxyx(boxes[kept], spec), scores[kept], spec)


def fits_ssd(evidence: Evidence, classes: int) -> bool:
    boxes, scores = evidence.outputs["boxes"], evidence.outputs["scores"]
    return scores.shape[-1] == classes and boxes.shape[-1] == 4
