"""The waist: images in, one Detections per image out, in the same order; empty allowed.

detect = prepare -> to_tensor -> Session.run -> decoder -> suppress -> Fit.to_image
Each is a pure function or one call; nothing above this file knows formats or runtimes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_store.batch_size import measured_batch
from model_store.config import Batch, ModelConfig
from model_store.decoders import DECODERS
from model_store.decoders.layout import DecodeSpec, Outputs
from model_store.detections import Detections
from model_store.fit import Fit
from model_store.images import MAX_PIXELS, ImageFacts, Pixels
from model_store.names import VersionId
from model_store.nms import suppress
from model_store.preprocess import Prepared, prepare, read_image, to_tensor
from model_store.probe import check_probe
from model_store.runtimes import Session, open_session
from model_store.store import ModelInfo, ModelStore


class Detector(Protocol):
    """What serve, batch and benchmarks know of a model."""

    info: ModelInfo

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """Upright RGB images (h, w, 3) uint8 to detections in image px, ranked."""
        ...


@dataclass(frozen=True, slots=True)
class Inferred:
    """Detections of a batch in image px, and where its time went."""

    detections: list[Detections]
    inference_ms: float
    postprocess_ms: float


@dataclass(frozen=True)
class LoadedDetector:
    """A version in memory. Thread-safe: it holds no state but the session."""

    info: ModelInfo
    config: ModelConfig
    session: Session
    batch: Batch
    """How the lanes fill a call: as the config allows, or `with_measured_batch`."""

    def read(self, data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[ImageFacts, Prepared]:
        """Encoded bytes to network input, as its preprocess says. Raises ImageError."""
        return read_image(data, self.config.preprocess, max_pixels)

    def prepare(self, image: Pixels) -> Prepared:
        return prepare(image, self.config.preprocess)

    def infer(self, pixels: Sequence[NDArray[np.uint8]], fits: Sequence[Fit]) -> Inferred:
        """Prepared pixels (side, side, 3) uint8 of any number of images."""
        if not len(pixels):
            return Inferred([], 0.0, 0.0)
        started = time.perf_counter()
        tensor = to_tensor(np.stack(pixels), self.config.preprocess)
        outputs = self.session.run(tensor)
        inferred = time.perf_counter()
        _require_finite(outputs)
        decoded = DECODERS[self.config.decoder](outputs, self._decode_spec)
        found = [self._finish(one, fit) for one, fit in zip(decoded, fits, strict=True)]
        done = time.perf_counter()
        return Inferred(found, (inferred - started) * 1e3, (done - inferred) * 1e3)

    @property
    def _decode_spec(self) -> DecodeSpec:
        config = self.config
        return DecodeSpec(config.preprocess.side_px, len(config.labels), config.score_floor)

    def detect_encoded(self, data: bytes) -> tuple[ImageFacts, Detections]:
        """What an upload of these bytes would be answered. Raises ImageError."""
        facts, prepared = self.read(data)
        return facts, self.infer([prepared.pixels], [prepared.fit]).detections[0]

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        prepared = [self.prepare(image) for image in images]
        return self.infer([p.pixels for p in prepared], [p.fit for p in prepared]).detections

    def _finish(self, candidates: Detections, fit: Fit) -> Detections:
        kept = suppress(candidates, self.config.nms)
        return kept.with_boxes(fit.to_image(kept.boxes_xyxy)).ranked()


def _require_finite(outputs: Outputs) -> None:
    """Raises FloatingPointError: a NaN compares false and would silently be a missing animal."""
    for name, values in outputs.items():
        if not np.isfinite(values.sum(dtype=np.float64)):
            raise FloatingPointError(f"the model's output {name} holds NaN or infinity")


def load_detector(store: ModelStore, version: VersionId, threads: int = 1) -> LoadedDetector:
    """Verify every file, load, and reproduce the golden probe; only then is it ready.

    Raises ModelNotFound, ModelRefused, DigestMismatch, ProbeFailed.
    """
    described = store.describe(version)
    files = {name: store.read_file(described, name) for name in described.digests}
    config = described.config
    session = open_session(config, files, threads)
    detector = LoadedDetector(described.info, config, session, config.batch)
    check_probe(detector, files)
    return detector


def with_measured_batch(detector: LoadedDetector) -> LoadedDetector:
    """The same detector with `batch.max` brought down to what pays on this device."""
    spec, batch = detector.config.preprocess, detector.config.batch
    blank = np.zeros((batch.max, spec.side_px, spec.side_px, 3), np.uint8)

    def run(size: int) -> object:
        return detector.session.run(to_tensor(blank[:size], spec))

    return replace(detector, batch=batch.model_copy(update={"max": measured_batch(run, batch.max)}))
