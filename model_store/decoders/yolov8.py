"""YOLOv8 layout, also YOLOv9, 11, 12 and every head exported like it.

output (n, 4 + classes, anchors): cx, cy, w, h in network px, then one score per class (sigmoid
already applied, no objectness). The best class of an anchor is its class, ties to the lower index.
"""

from __future__ import annotations

import numpy as np

from model_store.decoders.layout import Array, DecodeSpec, Outputs, best_class, corners, only
from model_store.detections import Detections
from model_store.errors import ModelRefused


def decode_yolov8(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when the first output is not (n, 4 + classes, anchors)."""
    wanted = f"(n, {4 + spec.classes}, anchors)"
    raw = only(outputs, "yolov8", wanted)
    if raw.shape[1] != 4 + spec.classes:
        raise ModelRefused(f"decoder yolov8 needs {wanted}; the model gave {raw.shape}")
    return [_decode_one(image, spec) for image in raw]


def _decode_one(raw: Array, spec: DecodeSpec) -> Detections:
    scores = raw[4:]
    anchors = np.flatnonzero(spec.passes(scores.max(axis=0)))  # few: only these are transposed
    return best_class(corners(raw[:4, anchors].T), scores[:, anchors].T, spec)
