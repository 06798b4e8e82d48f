"""Raw network outputs to boxes in network px: one pure function per family.

decode(outputs, score_floor) -> list of Detections, one per image, scores >= score_floor, before NMS.
DECODERS is the only list of formats: a new one is a file, a line here, and a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model_store.decoders.blobs import decode_blobs
from model_store.decoders.yolov8 import decode_yolov8
from model_store.detections import Detections

Decoder = Callable[[Sequence[NDArray[np.float32]], float], list[Detections]]

DECODERS: Mapping[str, Decoder] = {
    "yolov8": decode_yolov8,
    "blobs": decode_blobs,
}
