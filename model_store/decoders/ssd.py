"""SSD heads and the TensorFlow Object Detection API, torchvision and MMDetection.

ssd           boxes (n, anchors, 4): y1, x1, y2, x2 as fractions; scores (n, anchors, classes)
tf_detection  detection_boxes (n, k, 4): y1, x1, y2, x2 as fractions; detection_scores (n, k);
              detection_classes (n, k), from 1; num_detections (n,): rows beyond it are filler
torchvision   boxes (n, k, 4) x1, y1, x2, y2 in network px, labels (n, k) from 1 (0 is background),
              scores (n, k); the graphs have no batch dimension, so sessions run image by image and
              fill up with rows of score 0
mmdet         dets (n, k, 5): x1, y1, x2, y2 in network px, score; labels (n, k)
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
)
from model_store.detections import Detections, FloatArray
from model_store.errors import ModelRefused


def decode_ssd(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when boxes or scores is missing or has another number of classes."""
    boxes, scores = named(outputs, "ssd", "boxes", "scores")
    if scores.ndim != 3 or scores.shape[2] != spec.classes or boxes.shape[1] != scores.shape[1]:
        raise ModelRefused(
            f"decoder ssd needs boxes (n, anchors, 4) and scores (n, anchors, {spec.classes}); "
            f"the model gave {boxes.shape} and {scores.shape}"
        )
    return [
        best_class(_from_yxyx(box, spec), score, spec.score_floor)
        for box, score in zip(boxes, scores, strict=True)
    ]


def decode_tf_detection(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when one of the four outputs is missing."""
    names = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
    boxes, scores, classes, counts = named(outputs, "tf_detection", *names)
    decoded: list[Detections] = []
    for i, count in enumerate(counts.reshape(-1).astype(int)):
        xyxy = _from_yxyx(boxes[i, :count], spec)
        decoded.append(listed(xyxy, scores[i, :count], classes[i, :count] - 1, spec.score_floor))
    return decoded


def decode_torchvision(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when boxes, labels or scores is missing."""
    boxes, labels, scores = named(outputs, "torchvision", "boxes", "labels", "scores")
    rows = zip(boxes, scores, labels, strict=True)
    return [listed(box, score, label - 1, spec.score_floor) for box, score, label in rows]


def decode_mmdet(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when dets or labels is missing."""
    dets, labels = named(outputs, "mmdet", "dets", "labels")
    rows = zip(dets, labels, strict=True)
    return [listed(det[:, :4], det[:, 4], label, spec.score_floor) for det, label in rows]


def _from_yxyx(boxes: Array, spec: DecodeSpec) -> FloatArray:
    return np.ascontiguousarray(boxes[:, [1, 0, 3, 2]]) * spec.corner_px
