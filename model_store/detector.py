"""Run a loaded detector: images in, one Detections (possibly empty) per image out, in the same order.

detect = prepare -> to_tensor -> Session.run -> decoder -> suppress -> Fit.to_image [-> merge of tiles]
Each step is a pure function or one call; callers of this module do not depend on a format or runtime.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store.config import Batch, ModelConfig
from model_store.decoders import DECODERS
from model_store.decoders.layout import DecodeSpec, OutputNonsense, Outputs
from model_store.detections import Detections
from model_store.images.decode import MAX_PIXELS, ImageFacts, Pixels
from model_store.runtimes import Session
from model_store.store import ModelInfo
from model_store.transform.letterbox import Fit, SizePx
from model_store.transform.masks import PrototypeMasks, run_lengths
from model_store.transform.nms import suppress
from model_store.transform.preprocess import Prepared, prepare, read_image, to_tensor
from model_store.transform.tiling import merge


@dataclass(frozen=True, slots=True)
class DetectorOutput:
    """Detections of a batch in image px, and the time of its stages."""

    detections: list[Detections]
    inference_ms: float
    postprocess_ms: float


@dataclass(frozen=True)
class LoadedDetector:
    """A detector version in memory. Thread-safe: its only state is the session."""

    info: ModelInfo
    config: ModelConfig
    session: Session
    batch: Batch
    """Batch of a session call: from the config, or from `with_measured_batch`."""

    def read(self, data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[ImageFacts, Prepared]:
        """Convert encoded bytes to network input by the config's `preprocess`. Raises ImageError."""
        return read_image(data, self.config.preprocess, max_pixels)

    @property
    def lane_batch(self) -> Batch:
        """Return the batch that a lane should pass at once; a tiled image fills calls by itself."""
        if self.config.preprocess.tiling is None:
            return self.batch
        return self.batch.model_copy(update={"max": 1})

    def prepare(self, image: Pixels) -> Prepared:
        return prepare(image, self.config.preprocess)

    def infer(self, images: Sequence[Prepared]) -> DetectorOutput:
        """Detect on any number of prepared images, `batch.max` tiles of one shape per session call.

        Raises OutputNonsense if the output for any of them is invalid; the caller must repeat the others one by one.
        """
        started = time.perf_counter()
        tiles = [
            _Tile(pixels, fit, image.size_px)
            for image in images
            for pixels, fit in zip(image.pixels, image.fits, strict=True)
        ]
        by_tile: dict[int, Detections] = {}
        inference_s = 0.0
        for call in _calls(tiles, self.batch.max):
            began = time.perf_counter()
            stacked = np.stack([tiles[i].pixels for i in call])
            outputs = self.session.run(to_tensor(stacked, self.config.preprocess))
            inference_s += time.perf_counter() - began
            _require_finite(outputs)
            decoded = DECODERS[self.config.decoder](outputs, self._decode_spec(stacked))
            for i, candidates in zip(call, decoded, strict=True):
                by_tile[i] = self._finish(candidates, tiles[i])
        parts = iter([by_tile[i] for i in range(len(tiles))])
        whole = [self._merged([next(parts) for _ in image.fits]) for image in images]
        total_s = time.perf_counter() - started
        return DetectorOutput(whole, inference_s * 1e3, (total_s - inference_s) * 1e3)

    def detect_encoded(self, data: bytes) -> tuple[ImageFacts, Detections]:
        """Detect on encoded bytes, as for an upload. Raises ImageError, OutputNonsense."""
        facts, prepared = self.read(data)
        return facts, self.infer([prepared]).detections[0]

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return the ranked detections, in image px, of upright RGB images (h, w, 3) uint8."""
        return self.infer([self.prepare(image) for image in images]).detections

    def _decode_spec(self, stacked: NDArray[np.uint8]) -> DecodeSpec:
        down, across = stacked.shape[1:3]
        # only the ONNX session has it: other runtimes do not report the declared shapes of outputs
        fixed: frozenset[str] = getattr(self.session, "fixed_rows", frozenset())
        classes, floor = len(self.config.labels), self.config.score_floor
        return DecodeSpec((across, down), classes, floor, fixed)

    def _finish(self, candidates: Detections, tile: _Tile) -> Detections:
        kept = suppress(candidates, self.config.nms, tile.fit.scale_x)
        placed = replace(kept, boxes_xyxy=tile.fit.to_image(kept.boxes_xyxy))
        if isinstance(placed.masks, PrototypeMasks):
            masks = run_lengths(placed.masks, placed.boxes_xyxy, tile.fit, tile.image_px)
            placed = replace(placed, masks=masks)
        return placed.ranked()

    def _merged(self, parts: list[Detections]) -> Detections:
        tiling = self.config.preprocess.tiling
        return merge(parts, tiling, self.config.nms) if tiling and len(parts) > 1 else parts[0]


class _Tile(NamedTuple):
    """One row of a session call: a whole image, or a tile of it."""

    pixels: Pixels
    fit: Fit
    image_px: SizePx


def _calls(tiles: Sequence[_Tile], max_size: int) -> Iterator[list[int]]:
    """Yield positions of tiles of one shape, at most `max_size` at a time."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, tile in enumerate(tiles):
        by_shape.setdefault(tile.pixels.shape, []).append(i)
    for alike in by_shape.values():
        yield from (alike[i : i + max_size] for i in range(0, len(alike), max_size))


def _require_finite(outputs: Outputs) -> None:
    """Raise OutputNonsense for NaN or infinity: a NaN compares false and would silently be a missed animal."""
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise OutputNonsense(f"the network's output {name} holds NaN or infinity")
