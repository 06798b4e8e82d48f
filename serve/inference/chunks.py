"""Columnar messages between Ray Data and a replica: prepared images to it, results back.

Chunk: pixels of n images end to end + shapes (n, 5) + fits (tiles, 8), for one model version
ChunkAnswer: detections of n images end to end, and their number per image in `counts` (n,)
CropsAnswer: values of a model of crops, one row per image
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model_store.detections import Detections
from model_store.errors import ImageError, ModelError, Overloaded
from model_store.store import ModelInfo
from model_store.transform.letterbox import Fit
from model_store.transform.preprocess import Prepared

if TYPE_CHECKING:
    from model_store.crop_model import CropModel
    from serve.inference.results import CropResult, ImageResult

TIMING_COLUMNS = ("queue_ms", "inference_ms", "postprocess_ms")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Prepared images for one model version; `model` is `name@version`, never an alias."""

    model: str
    pixels: NDArray[np.uint8]  # (bytes,): images may differ in size and in their number of tiles
    shapes: NDArray[np.int64]  # (n, 5): tiles, height, width; width and height of the image; px
    fits: NDArray[np.float64]  # (tiles of all images, 8)

    @staticmethod
    def of(model: str, images: Sequence[Prepared]) -> Chunk:
        """Pack prepared images. Raises ValueError if there are none."""
        return Chunk(
            model,
            np.concatenate([image.pixels.ravel() for image in images]),
            np.array([[*image.pixels.shape[:3], *image.size_px] for image in images], np.int64),
            np.stack([fit.to_row() for image in images for fit in image.fits]),
        )

    @staticmethod
    def of_inputs(model: str, inputs: NDArray[np.uint8]) -> Chunk:
        """Pack inputs of a model of crops, (n, height, width, 3) as `CropModel.prepare` returns them."""
        count, down, across, _ = inputs.shape
        return Chunk(
            model,
            inputs.reshape(-1),
            np.tile(np.array([1, down, across, across, down], np.int64), (count, 1)),
            np.tile(Fit(1.0, 1.0, 0, 0, across, down).to_row(), (count, 1)),
        )

    def items(self) -> list[Prepared]:
        """Return the images, as views of the chunk's pixels."""
        images: list[Prepared] = []
        at = row = 0
        for tiles, down, across, width_px, height_px in self.shapes.tolist():
            size = tiles * down * across * 3
            pixels = self.pixels[at : at + size].reshape(tiles, down, across, 3)
            fits = tuple(Fit.from_row(fit) for fit in self.fits[row : row + tiles])
            images.append(Prepared(pixels, fits, (width_px, height_px)))
            at, row = at + size, row + tiles
        return images


@dataclass(frozen=True, slots=True)
class ChunkAnswer:
    """Detections of a chunk. `errors[i]` is None, or the reason why image i failed, with a count of 0."""

    model: ModelInfo
    counts: NDArray[np.int64]
    all_detections: Detections
    saturated: NDArray[np.bool_]
    timings_ms: NDArray[np.float32]  # (n, 3), TIMING_COLUMNS
    errors: tuple[str | None, ...]

    def detections(self) -> list[Detections]:
        """Return the detections of each image, in order."""
        ends = np.cumsum(self.counts)
        parts: list[Detections] = []
        for start, end, saturated in zip(ends - self.counts, ends, self.saturated, strict=True):
            parts.append(replace(self.all_detections.select(np.arange(start, end)), saturated=bool(saturated)))
        return parts


@dataclass(frozen=True, slots=True)
class CropsAnswer:
    """Values of a chunk. `errors[i]` is None, or the reason why image i failed, with values of NaN."""

    model: ModelInfo
    values: NDArray[np.float32]  # (n, width) of `CropModel.infer`
    queue_ms: NDArray[np.float32]  # (n,)
    inference_ms: NDArray[np.float32]  # (n,), of its batch
    errors: tuple[str | None, ...]


def pack_answers(model: ModelInfo, outcomes: Sequence[tuple[ImageResult, float] | BaseException]) -> ChunkAnswer:
    """Pack the outcomes of a detector, in order. Raises errors of the whole replica instead of packing them."""
    _raise_replica_error(outcomes)
    results = [None if isinstance(o, BaseException) else o for o in outcomes]
    detections = [r[0].detections if r else Detections.empty() for r in results]
    times = [(r[1], r[0].inference_ms, r[0].postprocess_ms) if r else (0.0, 0.0, 0.0) for r in results]
    return ChunkAnswer(
        model=model,
        counts=np.array([len(d) for d in detections], np.int64),
        all_detections=Detections.join(detections),
        saturated=np.array([d.saturated for d in detections], np.bool_),
        timings_ms=np.array(times, np.float32).reshape(-1, 3),
        errors=tuple(_reason(o) for o in outcomes),
    )


def pack_crops(model: CropModel, outcomes: Sequence[tuple[CropResult, float] | BaseException]) -> CropsAnswer:
    """Pack the outcomes of a model of crops, in order. Raises errors of the whole replica instead of packing them."""
    _raise_replica_error(outcomes)
    values = np.full((len(outcomes), model.width), np.nan, np.float32)
    times_ms = np.zeros((2, len(outcomes)), np.float32)
    for i, outcome in enumerate(outcomes):
        if not isinstance(outcome, BaseException):
            result, queue_ms = outcome
            values[i] = result.values
            times_ms[:, i] = queue_ms, result.inference_ms
    return CropsAnswer(model.info, values, times_ms[0], times_ms[1], tuple(_reason(o) for o in outcomes))


def _raise_replica_error(outcomes: Sequence[object]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, ModelError | Overloaded) or (
            isinstance(outcome, BaseException) and not isinstance(outcome, Exception)
        ):
            raise outcome
    unknown = [o for o in outcomes if isinstance(o, Exception) and not isinstance(o, ImageError)]
    if len(unknown) == len(outcomes) > 1:  # all failed: not the fault of one image
        raise unknown[0]


def _reason(outcome: object) -> str | None:
    if isinstance(outcome, ImageError):
        return f"{outcome.code}: {outcome}"
    return f"model: {outcome}"[:300] if isinstance(outcome, BaseException) else None
