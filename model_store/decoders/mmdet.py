"""MMDetection's exports, suppressed in the graph.

dets (n, k, 5): x1, y1, x2, y2 in network px, score; labels (n, k). k is fixed or as many as were found: only
where the graph declares it, a list without filler is saturated.
"""

from __future__ import annotations

from model_store.decoders.layout import DecodeSpec, Outputs, listed, named, require_lists
from model_store.detections import Detections


def decode_mmdet(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when dets or labels is missing or not as long as the other."""
    dets, labels = named(outputs, "mmdet", "dets", "labels")
    require_lists("mmdet", dets, 5, labels=labels)
    fixed = "dets" in spec.fixed_rows
    rows = zip(dets, labels, strict=True)
    return [listed(det[:, :4], det[:, 4], label, spec, fixed) for det, label in rows]
