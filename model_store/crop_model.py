"""Run a loaded model of crops: an image or a box of it in, one row of numbers out.

encoded bytes --read--> uint8 input of one size --infer--> values (n, width) float32
The values are the logits of a `Classifier` or the vectors of an `Embedder`. `prepare` can run on any CPU of the
cluster; callers of this module do not depend on a runtime.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.config import Batch, CropConfig
from model_store.decoders.layout import OutputNonsense
from model_store.errors import BadRequest
from model_store.images.crops import Box
from model_store.images.decode import MAX_PIXELS, DecodedImage, ImageFacts, Pixels, decode
from model_store.runtimes import Session
from model_store.store import ModelInfo
from model_store.transform.preprocess import Prepared, prepare, prepare_crop, to_tensor

Values = NDArray[np.float32]
Outputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class CropModel(ABC):
    """A version in memory that reads crops of one size. Thread-safe: its only state is the session."""

    info: ModelInfo
    config: CropConfig
    session: Session
    batch: Batch
    """Batch of a session call: from the config, or from `with_measured_batch`."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Return the number of values for each crop."""

    @abstractmethod
    def values(self, outputs: Outputs, rows: int) -> Values:
        """Return the values (rows, width) of the network's outputs. Raises OutputNonsense, ModelRefused."""

    @property
    def lane_batch(self) -> Batch:
        """Return the batch that a lane should pass at once."""
        return self.batch

    def read(
        self, data: bytes, box_xyxy_px: Box | None = None, max_pixels: int = MAX_PIXELS
    ) -> tuple[ImageFacts, Prepared]:
        """Convert encoded bytes, or a box of the image in px of the upright image, to network input.

        Raises ImageError. Raises BadRequest if the box does not overlap the image.
        """
        return self.read_box(self.decode(data, max_pixels), box_xyxy_px)

    def decode(self, data: bytes, max_pixels: int = MAX_PIXELS) -> DecodedImage:
        """Decode an image as this version requires it. Raises ImageError."""
        return decode(data, max_pixels, tolerant=self.config.preprocess.damaged == "tolerate")

    def read_box(self, image: DecodedImage, box_xyxy_px: Box | None = None) -> tuple[ImageFacts, Prepared]:
        """Convert a decoded image, or a box of it, to network input. Raises BadRequest as `read`."""
        pixels, facts = image.pixels, image.facts
        if box_xyxy_px is None:
            return facts, prepare(pixels, self.config.preprocess)
        _require_inside(box_xyxy_px, facts)
        return facts, prepare_crop(pixels, box_xyxy_px, self.config.preprocess)[1]

    def read_boxes(self, data: bytes, boxes_xyxy_px: Sequence[Box], max_pixels: int = MAX_PIXELS) -> list[Prepared]:
        """Convert the boxes of an encoded image to network input, as runs do. Raises ImageError."""
        pixels = self.decode(data, max_pixels).pixels
        return [prepare_crop(pixels, box, self.config.preprocess)[1] for box in boxes_xyxy_px]

    def prepare(self, image: Pixels) -> Pixels:
        """Resize upright RGB (h, w, 3) uint8 to network input (down, across, 3) uint8, still RGB."""
        return prepare(image, self.config.preprocess).pixels[0]

    def infer(self, inputs: NDArray[np.uint8]) -> Values:
        """Return the values (n, width) of prepared images (n, down, across, 3), `batch.max` per session call.

        Raises OutputNonsense for NaN or infinity, and as `values`.
        """
        size, spec = self.batch.max, self.config.preprocess
        calls = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        parts = [self._finite(self.session.run(to_tensor(call, spec)), len(call)) for call in calls]
        return np.concatenate([np.zeros((0, self.width), np.float32), *parts])

    def of_images(self, images: Sequence[Pixels]) -> Values:
        """Return the values (n, width) of upright RGB images (h, w, 3) uint8, in order."""
        across, down = self.config.preprocess.input_px
        empty = np.zeros((0, down, across, 3), np.uint8)
        return self.infer(np.concatenate([empty, *(self.prepare(image)[None] for image in images)]))

    def _finite(self, outputs: Outputs, rows: int) -> Values:
        values = self.values(outputs, rows)
        if not np.isfinite(values).all():
            raise OutputNonsense("the network's output holds NaN or infinity")
        return values


def _require_inside(box_xyxy_px: Box, image: ImageFacts) -> None:
    """Raise BadRequest if a box does not overlap the image."""
    x1, y1, x2, y2 = box_xyxy_px
    inside = max(x1, 0) < min(x2, image.width_px) and max(y1, 0) < min(y2, image.height_px)
    if not inside:
        raise BadRequest(
            f"the box {x1:g},{y1:g},{x2:g},{y2:g} does not overlap the image of {image.width_px} x "
            f"{image.height_px} px: use x1,y1,x2,y2 in px of the upright image"
        )
