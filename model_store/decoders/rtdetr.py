"""Decode the three exports of RT-DETR: a fixed number of queries, no anchors, no NMS.

rtdetr         (n, queries, 4 + classes): cx, cy, w, h as fractions, class scores
rtdetr_topk    (n, queries, 6): cx, cy, w, h as fractions, score, class id (ranked in the graph)
rtdetr_labels  labels (n, k), boxes (n, k, 4) x1, y1, x2, y2, scores (n, k); boxes are scaled to the graph's
               input orig_target_sizes, which a session sets to the size of the network's input
All are saturated if every row of their list is a detection.
"""

from __future__ import annotations

from dataclasses import replace

from model_store.decoders.evidence import Evidence, has_anchor_rows, is_ranked
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

MAX_QUERIES = 1000


def decode_rtdetr(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode unranked queries. Raises ModelRefused if the first output is not (n, queries, 4 + classes)."""
    columns = 4 + spec.classes
    raw = only(outputs, "rtdetr", f"(n, queries, {columns})", columns)
    return [_queries(image, spec) for image in raw]


def decode_rtdetr_topk(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode ranked queries. Raises ModelRefused if the first output is not (n, queries, 6)."""
    raw = only(outputs, "rtdetr_topk", "(n, queries, 6)", 6)
    return [listed(corners(image[:, :4] * spec.corner_px), image[:, 4], image[:, 5], spec, fixed=True) for image in raw]


def decode_rtdetr_labels(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode labels, boxes and scores. Raises ModelRefused if one is missing or their lengths differ."""
    labels, boxes, scores = named(outputs, "rtdetr_labels", "labels", "boxes", "scores")
    require_lists("rtdetr_labels", boxes, 4, labels=labels, scores=scores)
    rows = zip(boxes, scores, labels, strict=True)
    return [listed(box, score, label, spec, fixed=True) for box, score, label in rows]


def _queries(image: Array, spec: DecodeSpec) -> Detections:
    """Return at most one detection per query."""
    boxes = corners(image[:, :4] * spec.corner_px)
    detections = best_class(boxes, image[:, 4:], spec)
    return replace(detections, saturated=0 < len(detections) == len(image))


def fits_rtdetr(evidence: Evidence, classes: int) -> bool:
    _, rows, columns = evidence.rows.shape
    fits = columns == 4 + classes and rows <= MAX_QUERIES and not has_anchor_rows(evidence)
    return fits and not (is_ranked(evidence) and evidence.identifies_end2end)


def fits_rtdetr_topk(evidence: Evidence, _: int) -> bool:
    return is_ranked(evidence) and not evidence.identifies_end2end


def fits_rtdetr_labels(evidence: Evidence, _: int) -> bool:
    return evidence.input.sized
