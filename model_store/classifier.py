"""Run a loaded classifier: images or crops in, one logit per label out.

encoded bytes --read--> uint8 input of one size --infer--> logits (n, labels) float32 --softmax--> scores
`prepare` can run on any CPU of the cluster; callers of this module do not depend on a runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.config import Batch, ClassifierConfig
from model_store.decoders.layout import OutputNonsense
from model_store.errors import BadRequest, ModelRefused
from model_store.images.crops import Box, crop
from model_store.images.decode import MAX_PIXELS, DecodedImage, ImageFacts, Pixels, decode
from model_store.runtimes import Session
from model_store.store import ModelInfo
from model_store.transform.preprocess import Prepared, prepare, to_tensor

Logits = NDArray[np.float32]
LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)
"""Value that replaces a probability of 0 before its logarithm is taken: the logit is then -87.3."""
SUM_TOLERANCE = 0.01
"""Largest deviation of the sum of an image's probabilities from 1: float16 graphs round."""


@dataclass(frozen=True)
class Classifier:
    """A classifier version in memory. Thread-safe: its only state is the session."""

    info: ModelInfo
    config: ClassifierConfig
    session: Session
    batch: Batch
    """Batch of a session call: from the config, or from `with_measured_batch`."""

    @property
    def labels(self) -> tuple[str, ...]:
        return self.config.labels

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
        if box_xyxy_px is not None:
            _require_inside(box_xyxy_px, facts)
            pixels = crop(pixels, box_xyxy_px)
        return facts, prepare(pixels, self.config.preprocess)

    def prepare(self, image: Pixels) -> Pixels:
        """Resize upright RGB (h, w, 3) uint8 to network input (down, across, 3) uint8, still RGB."""
        return prepare(image, self.config.preprocess).pixels[0]

    def infer(self, inputs: NDArray[np.uint8]) -> Logits:
        """Return the logits (n, labels) of prepared images (n, down, across, 3), `batch.max` per session call.

        If the graph returns probabilities, the logits are their natural logarithms, so that `softmax` restores
        the probabilities. Raises OutputNonsense for NaN, infinity, or invalid probabilities.
        """
        size, spec = self.batch.max, self.config.preprocess
        calls = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        parts = [self._logits(self.session.run(to_tensor(call, spec)), len(call)) for call in calls]
        return np.concatenate([np.zeros((0, len(self.labels)), np.float32), *parts])

    def classify(self, images: Sequence[Pixels]) -> Logits:
        """Return the logits (n, labels) of upright RGB images (h, w, 3) uint8, in order."""
        across, down = self.config.preprocess.input_px
        empty = np.zeros((0, down, across, 3), np.uint8)
        return self.infer(np.concatenate([empty, *(self.prepare(image)[None] for image in images)]))

    def _logits(self, outputs: Mapping[str, NDArray[np.float32]], rows: int) -> Logits:
        scores = scores_of(outputs, rows, len(self.labels))
        if not np.isfinite(scores).all():
            raise OutputNonsense("the network's output holds NaN or infinity")
        if self.config.scores == "logits":
            return scores
        if (scores < 0).any() or (np.abs(scores.sum(axis=1) - 1) > SUM_TOLERANCE).any():
            raise OutputNonsense(
                'the network\'s output is not probabilities (each 0 or more, with the sum 1), but "scores" of its '
                'config is "probabilities"'
            )
        return np.log(np.maximum(scores, np.float32(LEAST_PROBABILITY)))


def scores_of(outputs: Mapping[str, NDArray[np.float32]], rows: int, labels: int) -> NDArray[np.float32]:
    """Return the only output, (n, labels) with any axes of length 1, as (n, labels) float32.

    Raises ModelRefused if there are several outputs, or another number of scores.
    """
    found = list(outputs.values())
    if len(found) != 1 or found[0].size != rows * labels:
        shapes = ", ".join(f"{name} {list(out.shape)}" for name, out in outputs.items())
        raise ModelRefused(
            f"a classifier with {labels} labels needs one output [{rows}, {labels}]; the graph's are {shapes}"
        )
    return found[0].reshape(rows, labels).astype(np.float32, copy=False)


def _require_inside(box_xyxy_px: Box, image: ImageFacts) -> None:
    """Raise BadRequest if a box does not overlap the image."""
    x1, y1, x2, y2 = box_xyxy_px
    inside = max(x1, 0) < min(x2, image.width_px) and max(y1, 0) < min(y2, image.height_px)
    if not inside:
        raise BadRequest(
            f"the box {x1:g},{y1:g},{x2:g},{y2:g} does not overlap the image of {image.width_px} x "
            f"{image.height_px} px: use x1,y1,x2,y2 in px of the upright image"
        )


def softmax(logits: Logits) -> NDArray[np.float32]:
    """Return scores (n, labels) with the sum 1 in each row, computed in float64."""
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True, initial=-np.inf))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def best(logits: NDArray[np.float32], count: int) -> list[int]:
    """Return the class ids of the highest values of one row (labels,), best first; ties to the lower id."""
    return [int(i) for i in np.argsort(-logits, kind="stable")[:count]]
