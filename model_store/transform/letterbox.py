"""Fit an image, or a tile of it, into the network's input, and map boxes back.

image (w, h) --letterbox | rect | stretch | fit_top_left--> Fit(scale, offset)
boxes (n, 4) network px --Fit.to_image--> boxes (n, 4) image px, clipped to the image

`letterbox` and `rect` round like Ultralytics: size by round-half-even, centre pads by -0.1 / +0.1.
`fit_top_left` rounds like YOLOX (`preproc`): sizes are truncated to whole pixels.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_store.detections import FloatArray

Resize = Literal["letterbox", "rect", "stretch", "fit_top_left"]
SizePx = tuple[int, int]
"""Width, height."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Position of a piece of an image in the network's input, per axis, in px:
    network = (image - origin) * scale + offset. The piece is a tile or the whole image.
    """

    scale_x: float
    scale_y: float
    left_px: int
    top_px: int
    width_px: int  # of the piece
    height_px: int
    origin_x_px: int = 0  # of the piece in its image
    origin_y_px: int = 0

    def to_image(self, boxes_xyxy: FloatArray) -> FloatArray:
        """Convert boxes (n, 4) from network px to image px, clipped to the piece, computed in float64."""
        offset = np.array([self.left_px, self.top_px] * 2, np.float64)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float64)
        limit = np.array([self.width_px, self.height_px] * 2, np.float64)
        origin = np.array([self.origin_x_px, self.origin_y_px] * 2, np.float64)
        boxes = (boxes_xyxy.astype(np.float64) - offset) / scale
        return (np.clip(boxes, 0.0, limit) + origin).astype(np.float32)

    def to_row(self) -> NDArray[np.float64]:
        """Return the values as (8,) float64, to be sent with a chunk of tensors; `from_row` reads them."""
        return np.array(astuple(self), np.float64)

    @staticmethod
    def from_row(row: NDArray[np.float64]) -> Fit:
        sx, sy, *whole = row.tolist()
        return Fit(sx, sy, *map(int, whole))


def fit(kind: Resize, size_px: SizePx, input_px: SizePx, stride_px: int = 32) -> Fit:
    """Return the fit of an image of this size into an input of `input_px`."""
    (width, height), (across, down) = size_px, input_px
    if kind == "stretch":
        return Fit(across / width, down / height, 0, 0, width, height)
    if kind == "fit_top_left":
        ratio = min(down / height, across / width)
        return Fit(ratio, ratio, 0, 0, width, height)
    resized = resized_px(kind, size_px, input_px)
    canvas = canvas_px(kind, resized, input_px, stride_px)
    left, top = (round((c - r) / 2 - 0.1) for c, r in zip(canvas, resized, strict=True))
    gain = min(canvas[1] / height, canvas[0] / width)  # of the canvas: Ultralytics' scale_boxes
    return Fit(gain, gain, left, top, width, height)


def resized_px(kind: Resize, size_px: SizePx, input_px: SizePx) -> SizePx:
    """Return the size of the resized image inside the input."""
    if kind == "stretch":
        return input_px
    (width, height), (across, down) = size_px, input_px
    ratio = min(down / height, across / width)
    whole = int if kind == "fit_top_left" else round
    return max(1, whole(width * ratio)), max(1, whole(height * ratio))


def canvas_px(kind: Resize, resized_px: SizePx, input_px: SizePx, stride_px: int) -> SizePx:
    """Return the size of the network's input; with `rect`, only padded to a multiple of the network's stride."""
    if kind != "rect":
        return input_px
    (width, height), (across, down) = resized_px, input_px
    return width + (across - width) % stride_px, height + (down - height) % stride_px
