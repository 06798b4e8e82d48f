"""What waits in the lanes, and how a worker does it: images, decoded or not yet, or raw tensors, of one version."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.classifier import Classifier
from model_store.config import Batch
from model_store.loaded import Loaded
from model_store.names import VersionId
from model_store.preprocess import Prepared
from serve.answers import ClassResult, ImageResult
from serve.picture import Picture

Rows = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class LaneKey:
    """What shares a batch: images of one version, or raw tensors of one."""

    version: VersionId
    raw: bool


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """An image of a request (Picture) or of a run (Prepared), or the input of a network ((3, h, w) float32), and
    the model it waits for: one that is released meanwhile still answers, and is gone when nothing waits for it.
    """

    model: Loaded
    data: Picture | Prepared | NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        return self.data.pixels.nbytes if isinstance(self.data, Prepared) else self.data.nbytes


def work(
    model: Loaded, data: Iterable[Picture | Prepared | NDArray[np.float32]], raw: bool = False
) -> tuple[LaneKey, list[Item]]:
    """For `Lanes.submit`."""
    return LaneKey(model.info.id, raw), [Item(model, one) for one in data]


def batch_of(_: LaneKey, newest: Item) -> Batch:
    return newest.model.lane_batch


def infer(key: LaneKey, items: Sequence[Item]) -> Sequence[ImageResult | ClassResult | Rows]:
    """Raises what decoding an image raises, too."""
    model = items[-1].model
    data = [one.prepared() if isinstance(one := item.data, Picture) else one for item in items]
    if isinstance(model, Classifier):
        return _classified(model, data)  # type: ignore[arg-type]
    if key.raw:
        return model.run_rows(data)  # type: ignore[arg-type]
    done = model.infer(data)  # type: ignore[arg-type]
    return [ImageResult(d, done.inference_ms, done.postprocess_ms) for d in done.detections]


def _classified(model: Classifier, pictures: Sequence[Prepared]) -> list[ClassResult]:
    """All of one size: a classifier has but one."""
    started = time.perf_counter()
    logits = model.infer(np.concatenate([one.pixels for one in pictures]))
    took_ms = (time.perf_counter() - started) * 1e3
    return [ClassResult(row, took_ms) for row in logits]
