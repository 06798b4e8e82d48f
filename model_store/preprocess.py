"""Pixels to network input, in two steps so that the first can run on any CPU of the cluster.

encoded bytes --read_image--> ImageFacts, Prepared
image (h, w, 3) uint8 RGB --prepare--> Prepared(pixels (side, side, 3) uint8, Fit)
pixels (n, side, side, 3) uint8 --to_tensor--> (n, 3, side, side) float32
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from model_store.config import Preprocess
from model_store.fit import Fit, fit
from model_store.images import MAX_PIXELS, ImageFacts, Pixels, decode

_INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
}


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One image as the network wants it, still uint8, and how to bring its boxes back."""

    pixels: Pixels
    fit: Fit


def read_image(
    data: bytes, spec: Preprocess, max_pixels: int = MAX_PIXELS
) -> tuple[ImageFacts, Prepared]:
    """Encoded bytes to network input: the one way of uploads, runs and probes.

    Raises ImageError.
    """
    image = decode(
        data,
        max_pixels,
        lambda width, height: shrink_factor(width, height, spec),
        tolerant=spec.damaged == "tolerate",
    )
    facts = image.facts
    return facts, prepare(image.pixels, spec, (facts.width_px, facts.height_px))


def shrink_factor(width_px: int, height_px: int, spec: Preprocess) -> int:
    """The largest of 1, 2, 4, 8, up to `jpeg_shrink`, that leaves at least the pixels resized to."""
    width, height = fit(spec.resize, width_px, height_px, spec.side_px).resized_px()
    factor = spec.jpeg_shrink
    while factor > 1 and (width * factor > width_px or height * factor > height_px):
        factor //= 2
    return factor


def prepare(image: Pixels, spec: Preprocess, size_px: tuple[int, int] | None = None) -> Prepared:
    """Resize one image into the network's square; padding has the spec's value.

    `size_px` is the (width, height) that boxes are brought back to, where the pixels are fewer.
    """
    height, width = image.shape[:2]
    placed = fit(spec.resize, *(size_px or (width, height)), spec.side_px)
    size = placed.resized_px()
    resized = image
    if size != (width, height):
        resized = cv2.resize(image, size, interpolation=_INTERPOLATION[spec.interpolation])
    if size == (spec.side_px, spec.side_px):
        return Prepared(np.ascontiguousarray(resized, dtype=np.uint8), placed)
    canvas = np.full((spec.side_px, spec.side_px, 3), spec.pad_value, np.uint8)
    left, top = placed.left_px, placed.top_px
    canvas[top : top + size[1], left : left + size[0]] = resized
    return Prepared(canvas, placed)


def to_tensor(pixels: NDArray[np.uint8], spec: Preprocess) -> NDArray[np.float32]:
    """(n, side, side, 3) uint8 RGB to (n, 3, side, side) float32: order, divisor, mean and std."""
    if spec.channel_order == "BGR":
        pixels = pixels[..., ::-1]
    tensor = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
    tensor /= np.float32(spec.divide_by)
    if any(spec.mean) or any(std != 1.0 for std in spec.std):
        tensor -= np.array(spec.mean, np.float32).reshape(1, 3, 1, 1)
        tensor /= np.array(spec.std, np.float32).reshape(1, 3, 1, 1)
    return tensor
