"""Run a loaded embedder: images or crops in, one vector out. Its direction describes what is visible.

values (n, size) of a `CropModel` --unit--> vectors of length 1; their dot product is the cosine similarity
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.config import EmbedderConfig
from model_store.crop_model import CropModel, Outputs, Values
from model_store.decoders.layout import OutputNonsense
from model_store.errors import ModelRefused


@dataclass(frozen=True)
class Embedder(CropModel):
    """An embedder version in memory; its values are vectors of any length."""

    config: EmbedderConfig

    @property
    def width(self) -> int:
        return self.config.size

    def values(self, outputs: Outputs, rows: int) -> Values:
        """Return the vectors (rows, size). Raises OutputNonsense for a vector of length 0, ModelRefused as
        `vectors_of`.
        """
        vectors = vectors_of(outputs, rows, self.config.output, self.config.size)
        if not vectors.any(axis=1).all():
            raise OutputNonsense("the network's output is a vector of zeros, which has no direction")
        return vectors


def vectors_of(outputs: Outputs, rows: int, name: str, size: int) -> Values:
    """Return the output `name` (empty: the only one), (n, size) with any axes of length 1, as (n, size) float32.

    Raises ModelRefused if it is missing, ambiguous, or of another size.
    """
    shapes = ", ".join(f"{each} {list(out.shape)}" for each, out in outputs.items())
    if name not in outputs and (name or len(outputs) != 1):
        known = f"no output '{name}'" if name else "several outputs"
        raise ModelRefused(f'the graph has {known}: name one in the config file, as "output"; they are {shapes}')
    found = outputs[name or next(iter(outputs))]
    if found.size != rows * size:
        raise ModelRefused(f"an embedder of size {size} needs an output [{rows}, {size}]; the graph's are {shapes}")
    return found.reshape(rows, size).astype(np.float32, copy=False)


def unit(vectors: Values) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the vectors (n, size) scaled to length 1, and their lengths (n,); computed in float64."""
    wide = vectors.astype(np.float64)
    norms = np.sqrt((wide * wide).sum(axis=1))
    return (wide / norms[:, np.newaxis]).astype(np.float32), norms.astype(np.float32)
