"""Decode RF-DETR: a fixed number of queries, each with one or more classes; no anchors, no NMS.

dets (n, queries, 4): cx, cy, w, h as fractions; labels (n, queries, classes and background): logits.
The best `queries` pairs of query and class are kept; saturated if more pairs are above the floor.
"""

from __future__ import annotations

import numpy as np

from model_store.decoders.evidence import Evidence
from model_store.decoders.layout import Array, DecodeSpec, Outputs, corners, named
from model_store.detections import Detections
from model_store.errors import ModelRefused


def decode_rfdetr(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode dets and labels; extra logits are background. Raises ModelRefused for other outputs."""
    boxes, logits = named(outputs, "rfdetr", "dets", "labels")
    fits = boxes.ndim == logits.ndim == 3 and boxes.shape[:2] == logits.shape[:2]
    if not fits or boxes.shape[2] != 4 or logits.shape[2] < spec.classes:
        raise ModelRefused(
            f"decoder rfdetr needs dets (n, queries, 4) and labels (n, queries, at least "
            f"{spec.classes}); the model returned {boxes.shape} and {logits.shape}"
        )
    return [_top_pairs(b, _sigmoid(x), spec) for b, x in zip(boxes, logits, strict=True)]


def _top_pairs(boxes: Array, scores: Array, spec: DecodeSpec) -> Detections:
    """Return the best pairs of (query, class) over all logits, at most the number of queries."""
    flat = scores.ravel()
    over = np.flatnonzero(spec.passes(flat))
    order = over[np.argsort(-flat[over], kind="stable")][: len(boxes)]
    queries, class_ids = np.divmod(order, scores.shape[1])
    real = class_ids < spec.classes
    queries, class_ids = queries[real], class_ids[real]
    return Detections(
        corners(boxes[queries] * spec.corner_px),
        scores[queries, class_ids],
        class_ids.astype(np.int32),
        saturated=len(over) > len(boxes),
    )


def _sigmoid(logits: Array) -> Array:
    """Return the sigmoid as float32, without overflow for large negative logits."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)


def fits_rfdetr(evidence: Evidence, classes: int) -> bool:
    """Return True for one logit per label, with or without one for background."""
    dets, labels = evidence.outputs["dets"], evidence.outputs["labels"]
    return dets.shape[-1] != 5 and labels.shape[-1] - classes in (0, 1)
