"""RT-DETR in its three exports: a fixed number of queries, no anchors, no NMS.

rtdetr         (n, queries, 4 + classes): cx, cy, w, h as fractions of the picture, class scores
rtdetr_topk    (n, queries, 6): cx, cy, w, h as fractions, score, class id (ranked in the graph)
rtdetr_labels  labels (n, k), boxes (n, k, 4) x1, y1, x2, y2, scores (n, k); the graph is told the size of
               the image by its input orig_target_sizes, which a session sets to the network's input
All are saturated when every place of their list is taken.
"""

from __future__ import annotations

from dataclasses import replace

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


def _queries(image: Array, spec: DecodeSpec) -> Detections:
    """At most one detection a query."""
    boxes = corners(image[:, :4] * spec.corner_px)
    found = best_class(boxes, image[:, 4:], spec)
    return replace(found, saturated=0 < len(found) == len(image))
