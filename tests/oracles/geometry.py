"""How an image is laid into a square network input, and how boxes come back. Plain Python, float64.

Three geometries, each from a (w, h) image into a side x side square:

`letterbox`     one ratio, centred on a grey (114) canvas; the Ultralytics rounding.
`stretch`       each axis by its own ratio; fills the square.
`fit_top_left`  one ratio, placed at (0, 0); the rest of the canvas is the pad value.

This module knows nothing of the product: it is what the product is compared with.
"""

from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Geometry = Literal["letterbox", "stretch", "fit_top_left"]
Box = tuple[float, float, float, float]

LETTERBOX_PAD = 114
INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


class Placement(NamedTuple):
    """Size of the resized image, its place in the square, and original-to-network scales."""

    new_w: int
    new_h: int
    left: int
    top: int
    scale_x: float
    scale_y: float


def _same_ratio(w: int, h: int, side: int) -> tuple[float, int, int]:
    """r = min(S/h, S/w); new = (round(w*r), round(h*r)), banker's rounding, at least one pixel.

    Ultralytics has no "at least one pixel" (cv2.resize then fails on 1 x 2000); it is added here.
    """
    ratio = min(side / h, side / w)
    return ratio, max(1, round(w * ratio)), max(1, round(h * ratio))


def letterbox(w: int, h: int, side: int) -> Placement:
    """Centred, one ratio: left = round((S-new_w)/2 - 0.1), top likewise; scales are r, not new/old.

    The 0.1 sends an odd pixel of padding to the right and to the bottom.
    """
    ratio, new_w, new_h = _same_ratio(w, h, side)
    half_x = (side - new_w) / 2
    half_y = (side - new_h) / 2
    left, right = round(half_x - 0.1), round(half_x + 0.1)
    top, bottom = round(half_y - 0.1), round(half_y + 0.1)
    assert left + new_w + right == side
    assert top + new_h + bottom == side
    return Placement(new_w, new_h, left, top, ratio, ratio)


def stretch(w: int, h: int, side: int) -> Placement:
    """Non-uniform: the resized image is the whole square; scales are S/w and S/h."""
    return Placement(side, side, 0, 0, side / w, side / h)


def fit_top_left(w: int, h: int, side: int) -> Placement:
    """The ratio and rounding of `letterbox`, placed at (0, 0); padding right and below only."""
    ratio, new_w, new_h = _same_ratio(w, h, side)
    return Placement(new_w, new_h, 0, 0, ratio, ratio)


def _clip(value: float, high: float) -> float:
    return min(max(value, 0.0), float(high))


def letterbox_box_back(box: Box, w: int, h: int, side: int) -> Box:
    """Subtract the integer left/top pads actually used, divide by the ratio r, clip to the image.

    r is the exact float ratio, not new_w / w, so rounding of the resized size is not undone.
    """
    ratio = min(side / h, side / w)
    _, _, left, top, _, _ = letterbox(w, h, side)
    x1, y1, x2, y2 = box
    return (
        _clip((x1 - left) / ratio, w),
        _clip((y1 - top) / ratio, h),
        _clip((x2 - left) / ratio, w),
        _clip((y2 - top) / ratio, h),
    )


def stretch_box_back(box: Box, w: int, h: int, side: int) -> Box:
    """Divide x by S/w and y by S/h, clip to [0, w] x [0, h]."""
    x1, y1, x2, y2 = box
    ratio_x, ratio_y = side / w, side / h
    return (
        _clip(x1 / ratio_x, w),
        _clip(y1 / ratio_y, h),
        _clip(x2 / ratio_x, w),
        _clip(y2 / ratio_y, h),
    )


def fit_top_left_box_back(box: Box, w: int, h: int, side: int) -> Box:
    """Divide by r (there is no pad on the left or at the top), clip to [0, w] x [0, h]."""
    x1, y1, x2, y2 = box
    ratio = min(side / h, side / w)
    return (
        _clip(x1 / ratio, w),
        _clip(y1 / ratio, h),
        _clip(x2 / ratio, w),
        _clip(y2 / ratio, h),
    )


PLACE = {"letterbox": letterbox, "stretch": stretch, "fit_top_left": fit_top_left}
BOX_BACK = {
    "letterbox": letterbox_box_back,
    "stretch": stretch_box_back,
    "fit_top_left": fit_top_left_box_back,
}


def resize_pixels(
    image_rgb_uint8: NDArray[np.uint8],
    geometry: Geometry,
    interpolation: str = "linear",
    *,
    side: int,
    pad_value: int = LETTERBOX_PAD,
) -> NDArray[np.uint8]:
    """The (S, S, 3) network picture: one cv2.resize, then placement on a canvas of `pad_value`.

    An image that already has its new size is copied (cv2.resize is the identity there).
    """
    h, w = image_rgb_uint8.shape[:2]
    new_w, new_h, left, top, _, _ = PLACE[geometry](w, h, side)
    canvas = np.full((side, side, 3), pad_value, dtype=np.uint8)
    resized = image_rgb_uint8
    if (new_w, new_h) != (w, h):
        resized = cv2.resize(
            image_rgb_uint8, (new_w, new_h), interpolation=INTERPOLATIONS[interpolation]
        )
    canvas[top : top + new_h, left : left + new_w] = resized
    return canvas
