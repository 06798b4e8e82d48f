"""YOLOv8 layout, also YOLOv9, 11, 12 and every head exported like it.

output (n, 4 + classes, anchors): cx, cy, w, h in network px, then one score per class (sigmoid
already applied, no objectness). The best class of an anchor is its class, ties to the lower index.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model_store.detections import Detections, FloatArray
from model_store.errors import ModelRefused


def decode_yolov8(outputs: Sequence[NDArray[np.float32]], score_floor: float) -> list[Detections]:
    """Raises ModelRefused when the first output is not (n, 4 + classes, anchors)."""
    raw = outputs[0]
    if raw.ndim != 3 or raw.shape[1] < 5:
        raise ModelRefused(
            f"decoder yolov8 needs (n, 4 + classes, anchors); the model gave {raw.shape}"
        )
    return [_decode_one(image, score_floor) for image in raw]


def _decode_one(raw: NDArray[np.float32], score_floor: float) -> Detections:
    scores = raw[4:]
    anchors = np.flatnonzero(scores.max(axis=0) >= score_floor)
    class_ids = scores[:, anchors].argmax(axis=0)
    best = scores[class_ids, anchors].astype(np.float32)
    return Detections(_corners(raw[:4, anchors]), best, class_ids.astype(np.int32))


def _corners(cxcywh: NDArray[np.float32]) -> FloatArray:
    """(4, k) centre and size to (k, 4) corners."""
    cx, cy, w, h = cxcywh.astype(np.float32)
    return np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)
