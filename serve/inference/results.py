"""Results of a replica: of one image in a batch, and of a whole request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from model_store.detections import Detections
from model_store.detector import LoadedDetector
from model_store.images.crops import Box
from model_store.images.decode import ImageFacts
from model_store.store import ModelInfo

STAGES = ("queue", "preprocess", "inference", "postprocess")
"""Stages of an image with a time, in the order of the HTTP API."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Times of one image in ms; `inference_ms` and `postprocess_ms` are those of its batch."""

    queue_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float


@dataclass(frozen=True, slots=True)
class ImageResult:
    """Output of a detector for one image of a batch; times in ms are those of the batch."""

    detections: Detections
    inference_ms: float
    postprocess_ms: float


@dataclass(frozen=True, slots=True)
class CropResult:
    """Output of a model of crops for one image of a batch; `inference_ms` is that of the batch."""

    values: NDArray[np.float32]  # (width,)
    inference_ms: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Content of a detector's HTTP response for one image."""

    rows: ClassVar[int] = 1

    model: ModelInfo
    alias: str | None
    detector: LoadedDetector
    image: ImageFacts
    detections: Detections
    timings: Timings
    waited_first: bool = False
    """True if the image waited in the lane before it was decoded, not after."""

    def facts(self) -> dict[str, Any]:
        return _model_facts(self.model, self.alias) | {"detections": len(self.detections)} | _times(self.timings)


@dataclass(frozen=True, slots=True)
class CropAnswer:
    """Content of the HTTP response of a model of crops for one image; `box_xyxy_px` is the requested crop."""

    rows: ClassVar[int] = 1

    model: ModelInfo
    alias: str | None
    image: ImageFacts
    box_xyxy_px: Box | None
    values: NDArray[np.float32]  # (labels,) logits of a classifier; (size,) vector of an embedder
    timings: Timings
    waited_first: bool = False
    """See `Answer.waited_first`."""

    def facts(self) -> dict[str, Any]:
        labels = self.model.labels
        best = {"label": labels[int(self.values.argmax())]} if labels else {}
        return _model_facts(self.model, self.alias) | best | _times(self.timings)


@dataclass(frozen=True, slots=True)
class BoxesAnswer:
    """Values (boxes, width) of a model of crops for the boxes of one image; times are those of the slowest box."""

    model: ModelInfo
    alias: str | None
    values: NDArray[np.float32]
    timings: Timings
    waited_first: ClassVar[bool] = False

    @property
    def rows(self) -> int:
        return len(self.values)

    def facts(self) -> dict[str, Any]:
        return _model_facts(self.model, self.alias) | {"boxes": self.rows} | _times(self.timings)


@dataclass(frozen=True, slots=True)
class TensorAnswer:
    """Raw outputs of a network by name, each of shape (n, …)."""

    model: ModelInfo
    alias: str | None
    outputs: dict[str, NDArray[np.float32]]
    queue_ms: float

    @property
    def rows(self) -> int:
        return len(next(iter(self.outputs.values())))

    def facts(self) -> dict[str, Any]:
        return _model_facts(self.model, self.alias) | {"queue_ms": round(self.queue_ms, 2)}


def _model_facts(model: ModelInfo, alias: str | None) -> dict[str, Any]:
    return {"version": str(model.id), "weights_sha256": model.weights_sha256[:12], "alias": alias}


def _times(timings: Timings) -> dict[str, float]:
    return {f"{stage}_ms": round(getattr(timings, f"{stage}_ms"), 2) for stage in STAGES}
