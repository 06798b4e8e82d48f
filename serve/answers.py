"""What a replica's work comes to: of one image in a batch, and of a whole request."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
class Answer:
    """Everything an HTTP answer says."""

    model: ModelInfo
    alias: str | None
    detector: LoadedDetector
    image: ImageFacts
    detections: Detections
    timings: Timings

    def facts(self) -> dict[str, Any]:
        """For its line in the log."""
        times = {name: round(value, 2) for name, value in asdict(self.timings).items()}
        who: dict[str, Any] = {"version": str(self.model.id)}
        who |= {"weights_sha256": self.model.weights_sha256[:12]}
        return who | {"alias": self.alias, "detections": len(self.detections), **times}


@dataclass(frozen=True, slots=True)
class TensorAnswer:
    """Raw outputs by name, (n, …) each."""

    model: ModelInfo
    alias: str | None
    outputs: dict[str, NDArray[np.float32]]
    queue_ms: float

    def facts(self) -> dict[str, Any]:
        """For its line in the log."""
        who = {"version": str(self.model.id), "weights_sha256": self.model.weights_sha256[:12]}
        return {**who, "alias": self.alias, "queue_ms": round(self.queue_ms, 2)}
