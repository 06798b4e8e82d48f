"""The waist for classifiers: pictures or crops in, one logit a label out.

encoded bytes --read--> uint8 input of one size --infer--> logits (n, labels) float32 --softmax--> scores
`prepare` can run on any CPU of the cluster; nothing above this file knows runtimes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.config import Batch, ClassifierConfig
from model_store.crops import Box, crop
from model_store.decoders.layout import OutputNonsense
from model_store.errors import BadRequest, ModelRefused
from model_store.images import MAX_PIXELS, ImageFacts, Pixels, decode
from model_store.preprocess import Prepared, prepare, to_tensor
from model_store.runtimes import Session
from model_store.store import ModelInfo

Logits = NDArray[np.float32]
LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)
"""What a probability of 0 counts as where its logarithm is taken: the logit is then -87.3."""
SUM_TOLERANCE = 0.01
"""How far probabilities of a picture may be from 1 together: float16 graphs round."""


@dataclass(frozen=True)
class Classifier:
    """A version in memory. Thread-safe: it holds no state but the session."""

    info: ModelInfo
    config: ClassifierConfig
    session: Session
    batch: Batch
    """How the lanes fill a call: as the config allows, or `with_measured_batch`."""

    @property
    def labels(self) -> tuple[str, ...]:
        return self.config.labels

    @property
    def lane_batch(self) -> Batch:
        """How many pictures a lane should hand over at once."""
        return self.batch

    def read(
        self, data: bytes, box_xyxy_px: Box | None = None, max_pixels: int = MAX_PIXELS
    ) -> tuple[ImageFacts, Prepared]:
        """Encoded bytes, or a box of them in px of the upright image, to network input.

        Raises ImageError, and BadRequest for a box that lies beside the image.
        """
        tolerant = self.config.preprocess.damaged == "tolerate"
        image = decode(data, max_pixels, tolerant=tolerant)
        pixels, facts = image.pixels, image.facts
        if box_xyxy_px is not None:
            _require_inside(box_xyxy_px, facts)
            pixels = crop(pixels, box_xyxy_px)
        return facts, prepare(pixels, self.config.preprocess)

    def prepare(self, image: Pixels) -> Pixels:
        """Upright RGB (h, w, 3) uint8 to network input (down, across, 3) uint8, still RGB."""
        return prepare(image, self.config.preprocess).pixels[0]

    def infer(self, inputs: NDArray[np.uint8]) -> Logits:
        """Any number of prepared pictures (n, down, across, 3), `batch.max` to a call, to logits (n, labels).

        Of a graph that gives probabilities these are their natural logarithms, so that `softmax` brings the
        probabilities back. Raises OutputNonsense for NaN, infinity, or probabilities that are none.
        """
        most, spec = self.batch.max, self.config.preprocess
        calls = [inputs[start : start + most] for start in range(0, len(inputs), most)]
        parts = [self._logits(self.session.run(to_tensor(one, spec)), len(one)) for one in calls]
        return np.concatenate([np.zeros((0, len(self.labels)), np.float32), *parts])

    def classify(self, images: Sequence[Pixels]) -> Logits:
        """Upright RGB images (h, w, 3) uint8 to logits (n, labels), in order."""
        across, down = self.config.preprocess.input_px
        inputs = [np.zeros((0, down, across, 3), np.uint8)]
        return self.infer(np.concatenate([*inputs, *(self.prepare(one)[None] for one in images)]))

    def _logits(self, outputs: Mapping[str, NDArray[np.float32]], rows: int) -> Logits:
        scores = scores_of(outputs, rows, len(self.labels))
        if not np.isfinite(scores).all():
            raise OutputNonsense("the network's output holds NaN or infinity")
        if self.config.scores == "logits":
            return scores
        if (scores < 0).any() or (np.abs(scores.sum(axis=1) - 1) > SUM_TOLERANCE).any():
            raise OutputNonsense(
                'the network gives no probabilities, which are 0 or more and 1 together; "scores" of its config '
                "says it does"
            )
        return np.log(np.maximum(scores, np.float32(LEAST_PROBABILITY)))


def scores_of(
    outputs: Mapping[str, NDArray[np.float32]], rows: int, labels: int
) -> NDArray[np.float32]:
    """The one output, (n, labels) but for axes of length 1, as (n, labels) float32.

    Raises ModelRefused for several outputs or another number of scores.
    """
    found = list(outputs.values())
    if len(found) != 1 or found[0].size != rows * labels:
        shapes = ", ".join(f"{name} {list(out.shape)}" for name, out in outputs.items())
        raise ModelRefused(
            f"a classifier of {labels} labels has one output [{rows}, {labels}]; the graph's are {shapes}"
        )
    return found[0].reshape(rows, labels).astype(np.float32, copy=False)


def _require_inside(box_xyxy_px: Box, image: ImageFacts) -> None:
    """Raises BadRequest for a box that holds nothing of the image."""
    x1, y1, x2, y2 = box_xyxy_px
    inside = max(x1, 0) < min(x2, image.width_px) and max(y1, 0) < min(y2, image.height_px)
    if not inside:
        raise BadRequest(
            f"the box {x1:g},{y1:g},{x2:g},{y2:g} holds nothing of the image of {image.width_px} x "
            f"{image.height_px} px: write x1,y1,x2,y2 in px of the upright image"
        )


def softmax(logits: Logits) -> NDArray[np.float32]:
    """Scores (n, labels), 1 together in each row; computed in float64."""
    wide = logits.astype(np.float64)
    raised = np.exp(wide - wide.max(axis=1, keepdims=True, initial=-np.inf))
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)


def best(logits: NDArray[np.float32], count: int) -> list[int]:
    """Class ids of the highest of one row (labels,), best first; the lower id of equals."""
    return [int(i) for i in np.argsort(-logits, kind="stable")[:count]]
