"""Graphs that rank their own detections: YOLOv10, YOLO26 and any export made with `nms=True`.

output (n, k, 6): x1, y1, x2, y2 in network px, score, class id; k is fixed, unused rows have score 0
"""

from __future__ import annotations

from model_store.decoders.layout import DecodeSpec, Outputs, listed, only
from model_store.detections import Detections


def decode_end2end(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when the first output is not (n, k, 6)."""
    raw = only(outputs, "end2end", "(n, k, 6)", 6)
    return [listed(image[:, :4], image[:, 4], image[:, 5], spec, fixed=True) for image in raw]
