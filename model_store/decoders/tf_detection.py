"""The TensorFlow Object Detection API: suppressed in the graph, with a count.

detection_boxes (n, k, 4): y1, x1, y2, x2 as fractions; detection_scores (n, k); detection_classes (n, k),
from 1; num_detections (n,): rows beyond it are filler. k is fixed: without filler it is saturated.
"""

from __future__ import annotations

from model_store.decoders.layout import (
    DecodeSpec,
    Outputs,
    from_yxyx,
    listed,
    named,
    require_lists,
)
from model_store.detections import Detections
from model_store.errors import ModelRefused


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
        xyxy = from_yxyx(boxes[i, :count], spec)
        full = bool(count == boxes.shape[1])
        decoded.append(listed(xyxy, scores[i, :count], classes[i, :count] - 1, spec, fixed=full))
    return decoded
