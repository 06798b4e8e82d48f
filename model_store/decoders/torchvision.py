"""torchvision's detectors (Faster R-CNN, RetinaNet, FCOS, SSD), suppressed in the graph.

boxes (n, k, 4): x1, y1, x2, y2 in network px; labels (n, k), from 1 (0 is background); scores (n, k). The
graphs have no batch dimension, so sessions run image by image and fill up with rows of score 0; k is as many
as were found, so that a full list says nothing.
"""

from __future__ import annotations

from model_store.decoders.layout import DecodeSpec, Outputs, listed, named, require_lists
from model_store.detections import Detections


def decode_torchvision(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when boxes, labels or scores is missing or not as long as the others."""
    boxes, labels, scores = named(outputs, "torchvision", "boxes", "labels", "scores")
    require_lists("torchvision", boxes, 4, labels=labels, scores=scores)
    rows = zip(boxes, scores, labels, strict=True)
    return [listed(box, score, label - 1, spec, fixed=False) for box, score, label in rows]
