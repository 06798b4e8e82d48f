"""Decode YOLOv8 and YOLOv5: anchors that are neither ranked nor suppressed.

yolov8  output (n, 4 + classes, anchors): cx, cy, w, h in network px, then one score per class (sigmoid already
        applied, no objectness). Each anchor has its best class; ties go to the lower index. Also YOLOv9, 11, 12 and
        every head exported in this layout
yolov5  output (n, anchors, 5 + classes): cx, cy, w, h in network px, objectness, one score per class. Also
        MegaDetector v5, both P5 (640) and P6 (1280)
"""

from __future__ import annotations

import numpy as np

from model_store.decoders.evidence import Evidence, rows_of_yolov5
from model_store.decoders.layout import Array, DecodeSpec, Outputs, best_class, corners, only, with_objectness
from model_store.detections import Detections
from model_store.errors import ModelRefused
from model_store.transform.masks import PrototypeMasks


def decode_yolov8(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode anchors without objectness. Raises ModelRefused if the first output is not (n, 4 + classes, anchors)."""
    wanted = f"(n, {4 + spec.classes}, anchors)"
    raw = only(outputs, "yolov8", wanted)
    if raw.shape[1] != 4 + spec.classes:
        raise ModelRefused(f"decoder yolov8 needs {wanted}; the model returned {raw.shape}")
    return [anchors_of(image, spec) for image in raw]


def anchors_of(raw: Array, spec: DecodeSpec, prototypes: Array | None = None) -> Detections:
    """Decode columns (4 + classes, anchors); with prototypes, the numbers below are the coefficients of masks."""
    end = 4 + spec.classes
    over = np.flatnonzero(spec.passes(raw[4:end].max(axis=0)))  # few: only these are transposed
    masks = None if prototypes is None else PrototypeMasks(raw[end:, over].T, prototypes, spec.network_px)
    return best_class(corners(raw[:4, over].T), raw[4:end, over].T, spec, masks)


def decode_yolov5(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode anchors with objectness. Raises ModelRefused if the first output is not (n, anchors, 5 + classes)."""
    columns = 5 + spec.classes
    raw = only(outputs, "yolov5", f"(n, anchors, {columns})", columns)
    return [with_objectness(image, spec) for image in raw]


def fits_yolov8(evidence: Evidence, classes: int) -> bool:
    return evidence.rows.shape[1] == 4 + classes + evidence.prototypes


def fits_yolov5(evidence: Evidence, classes: int) -> bool:
    _, rows, columns = evidence.rows.shape
    return columns == 5 + classes + evidence.prototypes and rows in rows_of_yolov5(evidence)
