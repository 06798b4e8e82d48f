"""Output of the `motion` runtime: (n, k, 5) x1, y1, x2, y2 in network px and a score; one class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model_store.detections import Detections


def decode_blobs(outputs: Sequence[NDArray[np.float32]], score_floor: float) -> list[Detections]:
    """Rows of score 0 are padding; without any, blobs were cut off and the count is a floor."""
    decoded: list[Detections] = []
    for blobs in outputs[0]:
        kept = blobs[(blobs[:, 4] >= score_floor) & (blobs[:, 4] > 0)]
        class_ids = np.zeros(len(kept), np.int32)
        full = bool((blobs[:, 4] > 0).all())
        decoded.append(Detections(kept[:, :4], kept[:, 4], class_ids, full))
    return decoded
