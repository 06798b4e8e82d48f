"""Output of the `motion` runtime: (n, k, 5) x1, y1, x2, y2 in network px and a score; one class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model_store.decoders.layout import DecodeSpec, Outputs, listed, only
from model_store.detections import Detections


def decode_blobs(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Rows of score 0 are padding; without any, blobs were cut off and the count is a floor."""
    raw = only(outputs, "blobs", "(n, k, 5)", 5)
    return [
        replace(
            listed(blobs[:, :4], blobs[:, 4], np.zeros(len(blobs), np.float32), spec, fixed=True),
            saturated=bool((blobs[:, 4] > 0).all()),
        )
        for blobs in raw
    ]
