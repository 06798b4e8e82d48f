"""Decode lists of boxes, one a row, with scores and classes; most are ranked by the graph and need no suppression.

end2end       output (n, k, 6): x1, y1, x2, y2 in network px, score, class id. YOLOv10, YOLO26 and any export made with
              `nms=True`; k is fixed, unused rows have score 0
torchvision   boxes (n, k, 4): x1, y1, x2, y2 in network px; labels (n, k), from 1 (0 is background); scores (n, k).
              Faster R-CNN, RetinaNet, FCOS, SSD. The graphs have no batch dimension, so sessions run image by image
              and pad with rows of score 0. k is the number of detections, so a full list is not saturated
mmdet         dets (n, k, 5): x1, y1, x2, y2 in network px, score; labels (n, k). k is fixed, or the number of
              detections. A list without filler is saturated only if the graph declares k
tf_detection  TensorFlow Object Detection API: detection_boxes (n, k, 4): y1, x1, y2, x2 as fractions;
              detection_scores (n, k); detection_classes (n, k), from 1; num_detections (n,): rows beyond it are
              filler. k is fixed: a list without filler is saturated
blobs         (n, k, 5): x1, y1, x2, y2 in network px and a score; one class. The runtime `motion`
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model_store.decoders.evidence import Evidence, is_ranked
from model_store.decoders.layout import DecodeSpec, Outputs, from_yxyx, listed, named, only, require_lists
from model_store.detections import Detections
from model_store.errors import ModelRefused


def decode_end2end(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode a ranked list. Raises ModelRefused if the first output is not (n, k, 6)."""
    raw = only(outputs, "end2end", "(n, k, 6)", 6)
    return [listed(image[:, :4], image[:, 4], image[:, 5], spec, fixed=True) for image in raw]


def decode_torchvision(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode boxes, labels and scores. Raises ModelRefused if one is missing or their lengths differ."""
    boxes, labels, scores = named(outputs, "torchvision", "boxes", "labels", "scores")
    require_lists("torchvision", boxes, 4, labels=labels, scores=scores)
    rows = zip(boxes, scores, labels, strict=True)
    return [listed(box, score, label - 1, spec, fixed=False) for box, score, label in rows]


def decode_mmdet(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode dets and labels. Raises ModelRefused if one is missing or their lengths differ."""
    dets, labels = named(outputs, "mmdet", "dets", "labels")
    require_lists("mmdet", dets, 5, labels=labels)
    fixed = "dets" in spec.fixed_rows
    rows = zip(dets, labels, strict=True)
    return [listed(det[:, :4], det[:, 4], label, spec, fixed) for det, label in rows]


def decode_tf_detection(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode the four outputs. Raises ModelRefused if one is missing or their lengths differ."""
    names = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
    boxes, scores, classes, counts = named(outputs, "tf_detection", *names)
    require_lists("tf_detection", boxes, 4, detection_scores=scores, detection_classes=classes)
    if counts.size != len(boxes):
        raise ModelRefused(
            f"decoder tf_detection needs num_detections (n,); the model returned {counts.shape} for {len(boxes)} images"
        )
    decoded: list[Detections] = []
    for i, count in enumerate(counts.reshape(-1).clip(0, boxes.shape[1]).astype(int)):
        xyxy = from_yxyx(boxes[i, :count], spec)
        full = bool(count == boxes.shape[1])
        decoded.append(listed(xyxy, scores[i, :count], classes[i, :count] - 1, spec, fixed=full))
    return decoded


def decode_blobs(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode blobs; rows of score 0 are padding. Without padding, blobs may be missing and `saturated` is set."""
    raw = only(outputs, "blobs", "(n, k, 5)", 5)
    return [
        replace(
            listed(blobs[:, :4], blobs[:, 4], np.zeros(len(blobs), np.float32), spec, fixed=True),
            saturated=bool((blobs[:, 4] > 0).all()),
        )
        for blobs in raw
    ]


def fits_end2end(evidence: Evidence, _: int) -> bool:
    return is_ranked(evidence) and (evidence.declares_ranked or not evidence.names_rtdetr)


def fits_torchvision(evidence: Evidence, _: int) -> bool:
    return not evidence.input.sized


def fits_mmdet(evidence: Evidence, _: int) -> bool:
    return evidence.outputs["dets"].shape[-1] == 5


def fits_tf_detection(_: Evidence, __: int) -> bool:
    return True
