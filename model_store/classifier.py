"""Run a loaded classifier: images or crops in, one logit per label out.

values (n, labels) of a `CropModel` --softmax--> scores
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.config import ClassifierConfig
from model_store.crop_model import CropModel, Outputs, Values
from model_store.decoders.layout import OutputNonsense
from model_store.errors import ModelRefused

LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)
"""Value that replaces a probability of 0 before its logarithm is taken: the logit is then -87.3."""
SUM_TOLERANCE = 0.01
"""Largest deviation of the sum of an image's probabilities from 1: float16 graphs round."""


@dataclass(frozen=True)
class Classifier(CropModel):
    """A classifier version in memory; its values are logits."""

    config: ClassifierConfig

    @property
    def labels(self) -> tuple[str, ...]:
        return self.config.labels

    @property
    def width(self) -> int:
        return len(self.config.labels)

    def values(self, outputs: Outputs, rows: int) -> Values:
        """Return the logits (rows, labels).

        If the graph returns probabilities, the logits are their natural logarithms, so that `softmax` restores
        the probabilities. Raises OutputNonsense for invalid probabilities, ModelRefused as `scores_of`.
        """
        scores = scores_of(outputs, rows, len(self.labels))
        if self.config.scores == "logits" or not np.isfinite(scores).all():
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


def softmax(logits: Values) -> NDArray[np.float32]:
    """Return scores (n, labels) with the sum 1 in each row, computed in float64."""
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True, initial=-np.inf))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def best(logits: NDArray[np.float32], count: int) -> list[int]:
    """Return the class ids of the highest values of one row (labels,), best first; ties to the lower id."""
    return [int(i) for i in np.argsort(-logits, kind="stable")[:count]]
