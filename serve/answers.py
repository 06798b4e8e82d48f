"""What a replica's work comes to: of one image in a batch, and of a whole request."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.crops import Box
from model_store.detections import Detections
from model_store.detector import LoadedDetector
from model_store.images import ImageFacts
from model_store.store import ModelInfo


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds of one image; inference and postprocess are those of its batch."""

    queue_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float


@dataclass(frozen=True, slots=True)
class ImageResult:
    detections: Detections
    inference_ms: float
    postprocess_ms: float


@dataclass(frozen=True, slots=True)
class ClassResult:
    logits: NDArray[np.float32]  # (labels,)
    inference_ms: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything an HTTP answer of a detector says."""

    model: ModelInfo
    alias: str | None
    detector: LoadedDetector
    image: ImageFacts
    detections: Detections
    timings: Timings
    waited_first: bool = False
    """Whether it waited before it was decoded."""

    def facts(self) -> dict[str, Any]:
        """For its line in the log."""
        who = _who(self.model, self.alias)
        return who | {"detections": len(self.detections), **_times(self.timings)}


@dataclass(frozen=True, slots=True)
class ClassAnswer:
    """Everything an HTTP answer of a classifier says; `box_xyxy_px` is the crop that was asked for."""

    model: ModelInfo
    alias: str | None
    image: ImageFacts
    box_xyxy_px: Box | None
    logits: NDArray[np.float32]  # (labels,)
    timings: Timings
    waited_first: bool = False
    """As in Answer."""

    def facts(self) -> dict[str, Any]:
        """For its line in the log."""
        best = self.model.labels[int(self.logits.argmax())]
        return _who(self.model, self.alias) | {"label": best, **_times(self.timings)}


@dataclass(frozen=True, slots=True)
class TensorAnswer:
    """Raw outputs by name, (n, …) each."""

    model: ModelInfo
    alias: str | None
    outputs: dict[str, NDArray[np.float32]]
    queue_ms: float

    def facts(self) -> dict[str, Any]:
        """For its line in the log."""
        return _who(self.model, self.alias) | {"queue_ms": round(self.queue_ms, 2)}


def _who(model: ModelInfo, alias: str | None) -> dict[str, Any]:
    digest = model.weights_sha256[:12]
    return {"version": str(model.id), "weights_sha256": digest, "alias": alias}


def _times(timings: Timings) -> dict[str, float]:
    return {name: round(value, 2) for name, value in asdict(timings).items()}
