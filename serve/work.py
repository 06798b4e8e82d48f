"""What waits in the lanes, and how a worker does it: prepared images, or raw tensors, of one version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.config import Batch
from model_store.detector import LoadedDetector
from model_store.names import VersionId
from model_store.preprocess import Prepared
from serve.answers import ImageResult

Rows = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class LaneKey:
    """What shares a batch: prepared images of one version, or raw tensors of one."""

    version: VersionId
    raw: bool


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """An image (Prepared) or the input of a network ((3, h, w) float32), and the detector it waits for: one
    that is released meanwhile still answers, and is gone when nothing waits for it.
    """

    detector: LoadedDetector
    data: Prepared | NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        return self.data.pixels.nbytes if isinstance(self.data, Prepared) else self.data.nbytes


def work(
    detector: LoadedDetector, data: Iterable[Prepared | NDArray[np.float32]], raw: bool = False
) -> tuple[LaneKey, list[Item]]:
    """For `Lanes.submit`."""
    return LaneKey(detector.info.id, raw), [Item(detector, one) for one in data]


def batch_of(_: LaneKey, newest: Item) -> Batch:
    return newest.detector.lane_batch


def infer(key: LaneKey, items: Sequence[Item]) -> Sequence[ImageResult | Rows]:
    detector, data = items[-1].detector, [item.data for item in items]
    if key.raw:
        return detector.run_rows(data)  # type: ignore[arg-type]
    done = detector.infer(data)  # type: ignore[arg-type]
    return [ImageResult(d, done.inference_ms, done.postprocess_ms) for d in done.detections]
