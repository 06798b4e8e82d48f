"""What waits in the lanes, and how a worker does it: prepared images, or raw tensors, of one version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_store.detector import LoadedDetector
from model_store.names import VersionId
from model_store.preprocess import Prepared
from serve.answers import ImageResult


@dataclass(frozen=True, slots=True)
class LaneKey:
    """What shares a batch: prepared images of one version, or raw tensors of one."""

    version: VersionId
    raw: bool
    detector: LoadedDetector = field(compare=False)

    @staticmethod
    def of(detector: LoadedDetector, raw: bool = False) -> LaneKey:
        return LaneKey(detector.info.id, raw, detector)


Rows = dict[str, NDArray[np.float32]]
Item = Prepared | NDArray[np.float32]


def infer(key: LaneKey, items: Sequence[Item]) -> Sequence[ImageResult | Rows]:
    if key.raw:
        return key.detector.run_rows(items)  # type: ignore[arg-type]
    done = key.detector.infer(items)  # type: ignore[arg-type]
    return [ImageResult(d, done.inference_ms, done.postprocess_ms) for d in done.detections]


def bytes_of(item: Item) -> int:
    return item.pixels.nbytes if isinstance(item, Prepared) else item.nbytes
