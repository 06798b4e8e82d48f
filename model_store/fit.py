"""Fit an image into the network's square, and bring boxes back.

image (w, h) --letterbox | stretch | fit_top_left--> Fit(scale, offset)
boxes (n, 4) network px --Fit.to_image--> boxes (n, 4) image px, clipped to the image
Rounding of `letterbox` is Ultralytics': size by round-half-even, centre pads by -0.1 / +0.1.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_store.detections import FloatArray

Resize = Literal["letterbox", "stretch", "fit_top_left"]


@dataclass(frozen=True, slots=True)
class Fit:
    """Where the image lies in the square: network = image * scale + offset, per axis, in px."""

    scale_x: float
    scale_y: float
    left_px: int
    top_px: int
    width_px: int  # of the original image
    height_px: int

    def to_image(self, boxes_xyxy: FloatArray) -> FloatArray:
        """Boxes (n, 4) from network px to image px, clipped, computed in float64."""
        offset = np.array([self.left_px, self.top_px] * 2, np.float64)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float64)
        limit = np.array([self.width_px, self.height_px] * 2, np.float64)
        boxes = (boxes_xyxy.astype(np.float64) - offset) / scale
        return np.clip(boxes, 0.0, limit).astype(np.float32)

    def to_network(self, boxes_xyxy: FloatArray) -> FloatArray:
        """The exact opposite of `to_image`, without clipping."""
        offset = np.array([self.left_px, self.top_px] * 2, np.float64)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float64)
        return (boxes_xyxy.astype(np.float64) * scale + offset).astype(np.float32)

    def resized_px(self) -> tuple[int, int]:
        """Size (w, h) of the image inside the square."""
        return _at_least_1(self.width_px * self.scale_x), _at_least_1(self.height_px * self.scale_y)

    def to_row(self) -> NDArray[np.float64]:
        """(6,) float64, to travel beside a chunk of tensors; `from_row` reads it."""
        return np.array(astuple(self), np.float64)

    @staticmethod
    def from_row(row: NDArray[np.float64]) -> Fit:
        sx, sy, left, top, width, height = row.tolist()
        return Fit(sx, sy, int(left), int(top), int(width), int(height))


def fit(kind: Resize, width_px: int, height_px: int, side_px: int) -> Fit:
    """How an image of this size goes into a square of `side_px`."""
    if kind == "stretch":
        return Fit(side_px / width_px, side_px / height_px, 0, 0, width_px, height_px)
    ratio = min(side_px / height_px, side_px / width_px)
    if kind == "fit_top_left":
        return Fit(ratio, ratio, 0, 0, width_px, height_px)
    left = round((side_px - _at_least_1(width_px * ratio)) / 2 - 0.1)
    top = round((side_px - _at_least_1(height_px * ratio)) / 2 - 0.1)
    return Fit(ratio, ratio, left, top, width_px, height_px)


def _at_least_1(length_px: float) -> int:
    return max(1, round(length_px))
