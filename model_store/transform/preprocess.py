"""Convert pixels to network input in two steps, so that the first can run on any CPU of the cluster.

encoded bytes --read_image--> ImageFacts, Prepared
image (h, w, 3) uint8 RGB --prepare--> Prepared(pixels (tiles, down, across, 3) uint8, a Fit each)
pixels and a box --prepare_crop--> corners of the crop, Prepared, for requests and runs alike
pixels (n, down, across, 3) uint8 --to_tensor--> (n, 3, down, across) float32
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from model_store.config import Preprocess
from model_store.images.crops import Box, Corners, corners_px
from model_store.images.decode import MAX_PIXELS, ImageFacts, Pixels, decode
from model_store.transform.letterbox import Fit, SizePx, canvas_px, fit, resized_px
from model_store.transform.tiling import Tile, tiles

_INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
}


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One image as network input, still uint8, and the fits that map its boxes back.

    pixels (tiles, down, across, 3): one tile, the whole image, unless the model is tiled.
    """

    pixels: Pixels
    fits: tuple[Fit, ...]
    size_px: SizePx
    """Width and height of the image that boxes are mapped back to."""


def read_image(data: bytes, spec: Preprocess, max_pixels: int = MAX_PIXELS) -> tuple[ImageFacts, Prepared]:
    """Decode encoded bytes to network input, for uploads, runs and probes alike. Raises ImageError."""
    image = decode(
        data, max_pixels, lambda width, height: shrink_factor(width, height, spec), tolerant=spec.damaged == "tolerate"
    )
    facts = image.facts
    return facts, prepare(image.pixels, spec, (facts.width_px, facts.height_px))


def shrink_factor(width_px: int, height_px: int, spec: Preprocess) -> int:
    """Return the largest of 1, 2, 4, 8, up to `jpeg_shrink`, that keeps at least the resized size."""
    width, height = resized_px(spec.resize, (width_px, height_px), spec.input_px)
    factor = spec.jpeg_shrink
    while factor > 1 and (width * factor > width_px or height * factor > height_px):
        factor //= 2
    return factor


def prepare(image: Pixels, spec: Preprocess, size_px: SizePx | None = None) -> Prepared:
    """Resize one image into the network's input; padding has the spec's value.

    `size_px` is the size that boxes are mapped back to, if the image was decoded smaller. Raises ImageTooLarge if it
    needs too many tiles.
    """
    height, width = image.shape[:2]
    size_px = size_px or (width, height)
    cut: list[Tile] = [(0, 0, width, height)]
    fits = (_fit(spec, size_px),)
    if spec.tiling is not None:
        cut = tiles(width, height, spec.tiling)
        fits = tuple(replace(_fit(spec, (w, h)), origin_x_px=x, origin_y_px=y) for x, y, w, h in cut)
    # equal for all tiles of an image: only `rect` varies it, without tiles
    across, down = canvas_px(spec.resize, _size_px(fits[0], spec), spec.input_px, spec.stride_px)
    pixels = np.empty((len(cut), down, across, 3), np.uint8)
    for (x, y, w, h), one, canvas in zip(cut, fits, pixels, strict=True):
        _place(image[y : y + h, x : x + w], one, spec, canvas)
    return Prepared(pixels, fits, size_px)


def prepare_crop(
    image: Pixels, box_xyxy_px: Box, spec: Preprocess, margin_frac: float = 0.0
) -> tuple[Corners, Prepared]:
    """Cut a box with its margin out of upright RGB (h, w, 3) uint8, and resize it into the network's input."""
    height_px, width_px = image.shape[:2]
    left, top, right, bottom = corners = corners_px(box_xyxy_px, margin_frac, (width_px, height_px))
    return corners, prepare(image[top:bottom, left:right], spec)


def _fit(spec: Preprocess, size_px: SizePx) -> Fit:
    return fit(spec.resize, size_px, spec.input_px, spec.stride_px)


def _size_px(placed: Fit, spec: Preprocess) -> SizePx:
    """Return the size of the resized image inside the canvas."""
    return resized_px(spec.resize, (placed.width_px, placed.height_px), spec.input_px)


def _place(image: Pixels, placed: Fit, spec: Preprocess, canvas: Pixels) -> None:
    """Fill the canvas (down, across, 3) with the resized image and padding around it."""
    size = _size_px(placed, spec)
    if size != (canvas.shape[1], canvas.shape[0]):
        canvas[:] = spec.pad_value
    left, top = placed.left_px, placed.top_px
    inside = canvas[top : top + size[1], left : left + size[0]]
    if size == (image.shape[1], image.shape[0]):
        inside[:] = image
    else:
        cv2.resize(image, size, inside, interpolation=_INTERPOLATION[spec.interpolation])


def to_tensor(pixels: NDArray[np.uint8], spec: Preprocess) -> NDArray[np.float32]:
    """Convert (n, down, across, 3) uint8 RGB to (n, 3, down, across) float32 by order, divisor, mean, std."""
    if spec.channel_order == "BGR":
        pixels = pixels[..., ::-1]
    tensor = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
    tensor /= np.float32(spec.divide_by)
    if any(spec.mean) or any(std != 1.0 for std in spec.std):
        tensor -= np.array(spec.mean, np.float32).reshape(1, 3, 1, 1)
        tensor /= np.array(spec.std, np.float32).reshape(1, 3, 1, 1)
    return tensor
