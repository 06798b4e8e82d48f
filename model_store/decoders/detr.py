"""Detection transformers: a fixed number of queries, no anchors, no NMS.

rtdetr         (n, queries, 4 + classes): cx, cy, w, h as fractions of the picture, class scores
rtdetr_topk    (n, queries, 6): cx, cy, w, h as fractions, score, class id (ranked in the graph)
rtdetr_labels  labels (n, k), boxes (n, k, 4) x1, y1, x2, y2, scores (n, k); the graph is told the size of
               the image by its input orig_target_sizes, which a session sets to the network's input
rfdetr         dets (n, queries, 4): cx, cy, w, h as fractions; labels (n, queries, classes): logits.
               The best `queries` pairs of query and class; one query may give several classes
All are saturated when every place of their list is taken.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model_store.decoders.layout import (
    Array,
    DecodeSpec,
    Outputs,
    best_class,
    corners,
    listed,
    named,
    only,
    require_lists,
)
from model_store.detections import Detections
from model_store.errors import ModelRefused


def decode_rtdetr(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when the first output is not (n, queries, 4 + classes)."""
    columns = 4 + spec.classes
    raw = only(outputs, "rtdetr", f"(n, queries, {columns})", columns)
    return [_queries(image, spec) for image in raw]


def decode_rtdetr_topk(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when the first output is not (n, queries, 6)."""
    raw = only(outputs, "rtdetr_topk", "(n, queries, 6)", 6)
    return [
        listed(corners(image[:, :4] * spec.corner_px), image[:, 4], image[:, 5], spec, fixed=True)
        for image in raw
    ]


def decode_rtdetr_labels(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when labels, boxes or scores is missing or not as long as the others."""
    labels, boxes, scores = named(outputs, "rtdetr_labels", "labels", "boxes", "scores")
    require_lists("rtdetr_labels", boxes, 4, labels=labels, scores=scores)
    rows = zip(boxes, scores, labels, strict=True)
    return [listed(box, score, label, spec, fixed=True) for box, score, label in rows]


def decode_rfdetr(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Logits beyond the model's labels are background. Raises ModelRefused for other outputs."""
    boxes, logits = named(outputs, "rfdetr", "dets", "labels")
    fits = boxes.ndim == logits.ndim == 3 and boxes.shape[:2] == logits.shape[:2]
    if not fits or boxes.shape[2] != 4 or logits.shape[2] < spec.classes:
        raise ModelRefused(
            f"decoder rfdetr needs dets (n, queries, 4) and labels (n, queries, at least "
            f"{spec.classes}); the model gave {boxes.shape} and {logits.shape}"
        )
    return [_top_pairs(b, _sigmoid(x), spec) for b, x in zip(boxes, logits, strict=True)]


def _queries(image: Array, spec: DecodeSpec) -> Detections:
    """At most one detection a query."""
    boxes = corners(image[:, :4] * spec.corner_px)
    found = best_class(boxes, image[:, 4:], spec.score_floor)
    return replace(found, saturated=0 < len(found) == len(image))


def _top_pairs(boxes: Array, scores: Array, spec: DecodeSpec) -> Detections:
    """The best pairs of (query, class), as many as there are queries, over all logits."""
    flat = scores.ravel()
    over = np.flatnonzero(flat > spec.score_floor)
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
    """Without overflow for large negative logits."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)
