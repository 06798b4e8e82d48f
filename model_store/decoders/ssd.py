"""SSD heads and the TensorFlow Object Detection API, torchvision and MMDetection.

ssd           boxes (n, anchors, 4): y1, x1, y2, x2 as fractions; scores (n, anchors, classes)
tf_detection  detection_boxes (n, k, 4): y1, x1, y2, x2 as fractions; detection_scores (n, k);
              detection_classes (n, k), from 1; num_detections (n,): rows beyond it are filler;
              k is fixed
torchvision   boxes (n, k, 4) x1, y1, x2, y2 in network px, labels (n, k) from 1 (0 is background),
              scores (n, k); the graphs have no batch dimension, so sessions run image by image and
              fill up with rows of score 0; k is as many as were found
mmdet         dets (n, k, 5): x1, y1, x2, y2 in network px, score; labels (n, k); k is either
A list of fixed k with no filler is saturated.
"""

from __future__ import annotations

import numpy as np

from model_store.decoders.layout import (
    Array,
    DecodeSpec,
    Outputs,
    best_class,
    listed,
    named,
    require_lists,
)
from model_store.detections import Detections, FloatArray
from model_store.errors import ModelRefused


def decode_ssd(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when boxes or scores is missing or has another number of classes."""
    boxes, scores = named(outputs, "ssd", "boxes", "scores")
    fits = boxes.ndim == scores.ndim == 3 and boxes.shape[:2] == scores.shape[:2]
    if not fits or boxes.shape[2] != 4 or scores.shape[2] != spec.classes:
        raise ModelRefused(
            f"decoder ssd needs boxes (n, anchors, 4) and scores (n, anchors, {spec.classes}); "
            f"the model gave {boxes.shape} and {scores.shape}"
        )
    return [
        best_class(_from_yxyx(box, spec), score, spec.score_floor)
        for box, score in zip(boxes, scores, strict=True)
    ]


def decode_tf_detection(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when one of the four outputs is missing or not as long as the others."""
    names = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
    boxes, scores, classes, counts = named(outputs, "tf_detection", *names)
    require_lists("tf_detection", boxes, 4, detection_scores=scores, detection_classes=classes)
    if counts.size != len(boxes):
        raise ModelRefused(
            f"decoder tf_detection needs num_detections (n,); the model gave {counts.shape} for "
            f"{len(boxes)} images"
        )
    decoded: list[Detections] = []
    for i, count in enumerate(counts.reshape(-1).clip(0, boxes.shape[1]).astype(int)):
        xyxy = _from_yxyx(boxes[i, :count], spec)
        full = bool(count == boxes.shape[1])
        decoded.append(listed(xyxy, scores[i, :count], classes[i, :count] - 1, spec, fixed=full))
    return decoded


def decode_torchvision(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when boxes, labels or scores is missing or not as long as the others."""
    boxes, labels, scores = named(outputs, "torchvision", "boxes", "labels", "scores")
    require_lists("torchvision", boxes, 4, labels=labels, scores=scores)
    rows = zip(boxes, scores, labels, strict=True)
    return [listed(box, score, label - 1, spec, fixed=False) for box, score, label in rows]


def decode_mmdet(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when dets or labels is missing or not as long as the other."""
    dets, labels = named(outputs, "mmdet", "dets", "labels")
    require_lists("mmdet", dets, 5, labels=labels)
    fixed = "dets" in spec.fixed_rows
    rows = zip(dets, labels, strict=True)
    return [listed(det[:, :4], det[:, 4], label, spec, fixed) for det, label in rows]


def _from_yxyx(boxes: Array, spec: DecodeSpec) -> FloatArray:
    return np.ascontiguousarray(boxes[:, [1, 0, 3, 2]]) * spec.corner_px
