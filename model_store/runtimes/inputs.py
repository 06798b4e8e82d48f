"""Describe the image input of a graph, and run any number of images through it.

ImageInput.require(preprocess) rejects a config that does not fit it; run_in_steps runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from model_store.config import Preprocess
from model_store.errors import ModelRefused

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Image input of a graph. `shape` is (n, 3, h, w) or (n, h, w, 3), None for a free length; `most` limits n."""

    name: str
    shape: tuple[int | None, ...]
    dtype: DTypeLike
    sized: bool = False
    """True if the graph also has the input `orig_target_sizes`."""
    most: int | None = None

    @property
    def channels_last(self) -> bool:
        """Return True for (n, h, w, 3), the order of TensorFlow."""
        return self.shape[3] == 3 and self.shape[1] != 3

    @property
    def size_px(self) -> tuple[int | None, int | None]:
        """Return width, height."""
        down, across = self.shape[1:3] if self.channels_last else self.shape[2:4]
        return across, down

    @property
    def fixed_batch(self) -> int | None:
        return self.shape[0]

    def require(self, spec: Preprocess) -> None:
        """Raise ModelRefused if images prepared by `spec` do not fit."""
        channels = self.shape[3 if self.channels_last else 1]
        if channels not in (3, None):
            raise ModelRefused(f"the graph's input is {self}; (n, 3, height, width) is needed")
        if spec.resize == "rect" and any(self.size_px):
            raise ModelRefused(f"the graph's input is {self}; resize rect needs a free size")
        for own, given in zip(self.size_px, spec.input_px, strict=True):
            if own not in (given, None):
                wide, high = spec.input_px
                raise ModelRefused(
                    f"the graph's input is {self}, but config.json has side_px {wide} (height_px {high}): correct it"
                )
        scaled = (spec.divide_by, *spec.mean, *spec.std) != (1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
        if self.dtype == np.uint8 and scaled:
            raise ModelRefused(
                "the graph's input is uint8, integers from 0 to 255, but config.json scales pixels to "
                'fractions, which it would truncate: use {"preprocess": {"divide_by": 1, "mean": '
                '[0, 0, 0], "std": [1, 1, 1]}}, or export the graph with a float input'
            )

    def feed(self, tensor: NDArray[np.float32]) -> Array:
        """Convert (n, 3, h, w) float32 to the graph's order and type."""
        images = tensor.transpose(0, 2, 3, 1) if self.channels_last else tensor
        return np.ascontiguousarray(images, self.dtype)

    def __str__(self) -> str:
        return str([length or "any" for length in self.shape])


def run_in_steps(
    source: ImageInput, tensor: NDArray[np.float32], run: Callable[[Array], Sequence[Array]]
) -> list[Array]:
    """Run a graph; with a fixed batch, that number of rows at a time, the last ones padded with zeros.

    Raises ModelRefused if an output does not have one row per image.
    """
    step = source.fixed_batch or min(len(tensor), source.most or len(tensor))
    parts: list[list[Array]] = []
    for start in range(0, len(tensor), step):
        rows = tensor[start : start + step]
        missing = (source.fixed_batch or 0) - len(rows)
        padded = np.pad(rows, [(0, missing), (0, 0), (0, 0), (0, 0)]) if missing > 0 else rows
        outputs = list(run(source.feed(padded)))
        if source.fixed_batch == 1 and all(out.ndim < 3 for out in outputs):
            outputs = [out[np.newaxis] for out in outputs]  # torchvision: no batch dimension
        _require_rows(outputs, len(padded))
        parts.append([out[: len(rows)] for out in outputs])
    return parts[0] if len(parts) == 1 else [joined(c) for c in zip(*parts, strict=True)]


def _require_rows(outputs: Sequence[Array], fed: int) -> None:
    wrong = [f"{i}: {out.shape}" for i, out in enumerate(outputs) if out.shape[:1] != (fed,)]
    if wrong:
        raise ModelRefused(
            f"the graph was run on a batch of {fed}, but its outputs have other numbers of rows (number "
            f"{', '.join(wrong)}): a constant batch is part of it. Export it again, with a batch that is "
            "dynamic throughout, or fixed to 1"
        )


def joined(parts: Sequence[Array]) -> Array:
    """Concatenate along the batch; images with fewer detections are padded with rows of zeros."""
    if len(parts) == 1:
        return parts[0]
    if len({part.shape[1:2] for part in parts}) > 1:
        longest = max(part.shape[1] for part in parts)
        fill = [(0, 0)] * (parts[0].ndim - 2)
        parts = [np.pad(p, [(0, 0), (0, longest - p.shape[1]), *fill]) for p in parts]
    return np.concatenate(parts)
