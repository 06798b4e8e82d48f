"""YOLOv5 and MegaDetector v5, P5 (640) and P6 (1280) alike.

output (n, anchors, 5 + classes): cx, cy, w, h in network px, objectness, one score per class
"""

from __future__ import annotations

from model_store.decoders.layout import DecodeSpec, Outputs, only, with_objectness
from model_store.detections import Detections


def decode_yolov5(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when the first output is not (n, anchors, 5 + classes)."""
    columns = 5 + spec.classes
    raw = only(outputs, "yolov5", f"(n, anchors, {columns})", columns)
    return [with_objectness(image, spec) for image in raw]
