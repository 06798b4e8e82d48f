"""How an image is laid into a network input, and how boxes come back. Plain Python, float64.

Four geometries, each from a (w, h) image into an input of across x down px:

`letterbox`     one ratio, centred on a grey (114) canvas; the Ultralytics rounding.
`stretch`       each axis by its own ratio; fills the input.
`fit_top_left`  one ratio, placed at (0, 0); the rest of the canvas is the pad value.
`rect`          as `letterbox`, but the canvas loses whole strides of padding on either axis.

`place`, `box_back` and `resize_picture` take all four. The functions with a `side` are the first
three in a square. This module knows nothing of the product: it is what the product is compared with.
"""

import math
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Geometry = Literal["letterbox", "stretch", "fit_top_left"]
Kind = Literal["letterbox", "stretch", "fit_top_left", "rect"]
Box = tuple[float, float, float, float]

LETTERBOX_PAD = 114
INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


class Placement(NamedTuple):
    """Size of the resized image, its place on the canvas, and original-to-network scales."""

    new_w: int
    new_h: int
    left: int
    top: int
    scale_x: float
    scale_y: float


def _before(padding: int) -> int:
    """Pixels left of (above) a centred picture: round(padding / 2 - 0.1), half to even.

    The 0.1 sends an odd pixel of padding to the right and to the bottom.
    """
    before, after = round(padding / 2 - 0.1), round(padding / 2 + 0.1)
    assert before + after == padding
    return before


def place(kind: Kind, w: int, h: int, across: int, down: int, stride: int = 32) -> tuple[Placement, int, int]:
    """(placement, canvas_w, canvas_h) of a (w, h) image in an input of (across, down) px.

    r = min(down/h, across/w); new = (round(w*r), round(h*r)), banker's rounding, at least one
    pixel; `fit_top_left` drops the fraction instead, as YOLOX does. Both scales are r, not new/old.
    Ultralytics has no "at least one pixel" (cv2.resize then fails on 1 x 2000); it is added here.
    Only `rect` looks at the stride, and only its canvas may be smaller than the input: new + (input
    - new) % stride on each axis. Ultralytics brings boxes back by min(canvas/old), which in a `rect`
    can be a little less than r.
    """
    if kind == "stretch":
        return Placement(across, down, 0, 0, across / w, down / h), across, down
    ratio = min(down / h, across / w)
    if kind == "fit_top_left":
        new_w, new_h = max(1, math.floor(w * ratio)), max(1, math.floor(h * ratio))
        return Placement(new_w, new_h, 0, 0, ratio, ratio), across, down
    new_w, new_h = max(1, round(w * ratio)), max(1, round(h * ratio))
    pad_w, pad_h = across - new_w, down - new_h
    if kind == "rect":
        pad_w, pad_h = pad_w % stride, pad_h % stride
    elif kind != "letterbox":
        raise ValueError(f"no geometry {kind!r}")
    canvas_w, canvas_h = new_w + pad_w, new_h + pad_h
    gain = min(canvas_w / w, canvas_h / h) if kind == "rect" else ratio
    placement = Placement(new_w, new_h, _before(pad_w), _before(pad_h), gain, gain)
    return placement, canvas_w, canvas_h


def _clip(value: float, high: float) -> float:
    return min(max(value, 0.0), float(high))


def box_back(kind: Kind, box: Box, w: int, h: int, across: int, down: int, stride: int = 32) -> Box:
    """x1, y1, x2, y2 in canvas px to image px, clipped to [0, w] x [0, h].

    Subtract the integer left/top pads actually used, divide by the scales. A ratio is the exact
    float, not new_w / w, so rounding of the resized size is not undone.
    """
    _, _, left, top, scale_x, scale_y = place(kind, w, h, across, down, stride)[0]
    x1, y1, x2, y2 = box
    return (
        _clip((x1 - left) / scale_x, w),
        _clip((y1 - top) / scale_y, h),
        _clip((x2 - left) / scale_x, w),
        _clip((y2 - top) / scale_y, h),
    )


def letterbox(w: int, h: int, side: int) -> Placement:
    """`place` of a letterbox in a square."""
    return place("letterbox", w, h, side, side)[0]


def stretch(w: int, h: int, side: int) -> Placement:
    """`place` of a stretched image: it is the whole square."""
    return place("stretch", w, h, side, side)[0]


def fit_top_left(w: int, h: int, side: int) -> Placement:
    """`place` in the square's top left corner; padding right and below only."""
    return place("fit_top_left", w, h, side, side)[0]


def letterbox_box_back(box: Box, w: int, h: int, side: int) -> Box:
    """`box_back` from a letterbox in a square."""
    return box_back("letterbox", box, w, h, side, side)


def stretch_box_back(box: Box, w: int, h: int, side: int) -> Box:
    """`box_back` from a stretched square."""
    return box_back("stretch", box, w, h, side, side)


def fit_top_left_box_back(box: Box, w: int, h: int, side: int) -> Box:
    """`box_back` from the square's top left corner."""
    return box_back("fit_top_left", box, w, h, side, side)


PLACE = {"letterbox": letterbox, "stretch": stretch, "fit_top_left": fit_top_left}
BOX_BACK = {"letterbox": letterbox_box_back, "stretch": stretch_box_back, "fit_top_left": fit_top_left_box_back}


def resize_picture(
    image_rgb_uint8: NDArray[np.uint8],
    kind: Kind,
    across: int,
    down: int,
    stride: int = 32,
    interpolation: str = "linear",
    pad_value: int = LETTERBOX_PAD,
) -> NDArray[np.uint8]:
    """(h, w, 3) -> (canvas_h, canvas_w, 3): one cv2.resize, placed on a canvas of `pad_value`.

    An image that already has its new size is copied (cv2.resize is the identity there).
    """
    h, w = image_rgb_uint8.shape[:2]
    placement, canvas_w, canvas_h = place(kind, w, h, across, down, stride)
    new_w, new_h, left, top, _, _ = placement
    canvas = np.full((canvas_h, canvas_w, 3), pad_value, dtype=np.uint8)
    resized = image_rgb_uint8
    if (new_w, new_h) != (w, h):
        resized = cv2.resize(image_rgb_uint8, (new_w, new_h), interpolation=INTERPOLATIONS[interpolation])
    canvas[top : top + new_h, left : left + new_w] = resized
    return canvas


def resize_pixels(
    image_rgb_uint8: NDArray[np.uint8],
    geometry: Geometry,
    interpolation: str = "linear",
    *,
    side: int,
    pad_value: int = LETTERBOX_PAD,
) -> NDArray[np.uint8]:
    """The (S, S, 3) network picture: `resize_picture` in a square."""
    return resize_picture(image_rgb_uint8, geometry, side, side, interpolation=interpolation, pad_value=pad_value)
