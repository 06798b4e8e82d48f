"""The waist: images in, one Detections per image out, in the same order; empty allowed.

detect = prepare -> to_tensor -> Session.run -> decoder -> suppress -> Fit.to_image [-> merge of tiles]
Each is a pure function or one call; nothing above this file knows formats or runtimes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from model_store.config import Batch, ModelConfig
from model_store.decoders import DECODERS
from model_store.decoders.layout import DecodeSpec, OutputNonsense, Outputs
from model_store.detections import Detections
from model_store.fit import Fit, SizePx
from model_store.images import MAX_PIXELS, ImageFacts, Pixels
from model_store.masks import PrototypeMasks, run_lengths
from model_store.nms import suppress
from model_store.preprocess import Prepared, prepare, read_image, to_tensor
from model_store.runtimes import Session
from model_store.store import ModelInfo
from model_store.tiling import merge


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

    @property
    def lane_batch(self) -> Batch:
        """How many images a lane should hand over at once; a tiled one fills calls by itself."""
        if self.config.preprocess.tiling is None:
            return self.batch
        return self.batch.model_copy(update={"max": 1})

    def prepare(self, image: Pixels) -> Prepared:
        return prepare(image, self.config.preprocess)

    def infer(self, images: Sequence[Prepared]) -> Inferred:
        """Any number of prepared images, `batch.max` tiles of one shape to a call.

        Raises OutputNonsense for what the network says of one of them; the others must be asked alone.
        """
        started = time.perf_counter()
        tiles = [
            _Tile(pixels, fit, image.size_px)
            for image in images
            for pixels, fit in zip(image.pixels, image.fits, strict=True)
        ]
        found: dict[int, Detections] = {}
        inference_s = 0.0
        for call in _calls(tiles, self.batch.max):
            began = time.perf_counter()
            stacked = np.stack([tiles[i].pixels for i in call])
            outputs = self.session.run(to_tensor(stacked, self.config.preprocess))
            inference_s += time.perf_counter() - began
            _require_finite(outputs)
            decoded = DECODERS[self.config.decoder](outputs, self._decode_spec(stacked))
            for i, candidates in zip(call, decoded, strict=True):
                found[i] = self._finish(candidates, tiles[i])
        parts = iter([found[i] for i in range(len(tiles))])
        whole = [self._merged([next(parts) for _ in image.fits]) for image in images]
        total_s = time.perf_counter() - started
        return Inferred(whole, inference_s * 1e3, (total_s - inference_s) * 1e3)

    def run_rows(self, rows: Sequence[NDArray[np.float32]]) -> list[dict[str, NDArray[np.float32]]]:
        """Tensors (3, h, w), each as `to_tensor` makes them, to their rows of the raw outputs."""
        shapes = {row.shape for row in rows}
        answers: list[dict[str, NDArray[np.float32]]] = [{} for _ in rows]
        for shape in shapes:
            alike = [i for i, row in enumerate(rows) if row.shape == shape]
            outputs = self.session.run(np.stack([rows[i] for i in alike]))
            for place, i in enumerate(alike):
                answers[i] = {name: values[place] for name, values in outputs.items()}
        return answers

    def detect_encoded(self, data: bytes) -> tuple[ImageFacts, Detections]:
        """What an upload of these bytes would be answered. Raises ImageError, OutputNonsense."""
        facts, prepared = self.read(data)
        return facts, self.infer([prepared]).detections[0]

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        return self.infer([self.prepare(image) for image in images]).detections

    def _decode_spec(self, stacked: NDArray[np.uint8]) -> DecodeSpec:
        down, across = stacked.shape[1:3]
        # of ONNX graphs only: other runtimes do not say what a graph declares of its outputs
        fixed: frozenset[str] = getattr(self.session, "fixed_rows", frozenset())
        classes, floor = len(self.config.labels), self.config.score_floor
        return DecodeSpec((across, down), classes, floor, fixed)

    def _finish(self, candidates: Detections, tile: _Tile) -> Detections:
        kept = suppress(candidates, self.config.nms, tile.fit.scale_x)
        found = kept.with_boxes(tile.fit.to_image(kept.boxes_xyxy))
        if isinstance(found.masks, PrototypeMasks):
            masks = run_lengths(found.masks, found.boxes_xyxy, tile.fit, tile.image_px)
            found = replace(found, masks=masks)
        return found.ranked()

    def _merged(self, parts: list[Detections]) -> Detections:
        tiling = self.config.preprocess.tiling
        return merge(parts, tiling, self.config.nms) if tiling and len(parts) > 1 else parts[0]


class _Tile(NamedTuple):
    """What one row of a call to the session is: the whole of an image, or a tile of it."""

    pixels: Pixels
    fit: Fit
    image_px: SizePx


def _calls(tiles: Sequence[_Tile], most: int) -> Iterator[list[int]]:
    """Positions of tiles of one shape, at most so many at a time."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, tile in enumerate(tiles):
        by_shape.setdefault(tile.pixels.shape, []).append(i)
    for alike in by_shape.values():
        yield from (alike[i : i + most] for i in range(0, len(alike), most))


def _require_finite(outputs: Outputs) -> None:
    """Raises OutputNonsense: a NaN compares false and would silently be a missing animal."""
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise OutputNonsense(f"the network's output {name} holds NaN or infinity")
