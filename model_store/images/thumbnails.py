"""Make small pictures of an image file: thumbnails, crops of boxes, and copies in which boxes are unrecognisable.

bytes --decode at 1/1 to 1/8, upright--> pixels --pixelate `hidden`, cut, resize--> JPEG without any metadata

Boxes are x1, y1, x2, y2 in px of the image as displayed, like those of detections. Pictures are never enlarged. Files
have the limits of uploads: the size that a header states is checked before any pixel is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import simplejpeg  # pyright: ignore[reportMissingTypeStubs]

from model_store.errors import BadRequest
from model_store.images.crops import Box, Corners, corners_px
from model_store.images.decode import MAX_PIXELS, DecodedImage, Pixels, decode

QUALITY = 80
MAX_HEIGHTS = 4
"""Maximum height in requested widths: an image of 1 by 60,000 pixels has a small picture too."""
MAX_SIDE_PX = 65_500
"""Longest side of a JPEG that libjpeg writes."""
CELLS = 6
"""Number of cells along the longer side of a hidden box: the head of a person is about one cell."""
MARGIN_FRAC = 0.3
"""Margin around the box of a crop, as a share of its longer side."""
HIDDEN_MARGIN_FRAC = 0.15
"""Margin around a hidden box, as a share of its longer side: detectors cut off hands and hats."""
MAX_COORDINATE_PX = 1e9
SizePx = tuple[int, int]


def thumbnail(data: bytes, width_px: int, hidden: Sequence[Box] = ()) -> bytes:
    """Return the whole image as a JPEG of at most `width_px`. Raises ImageError."""
    return _picture(data, lambda size_px: (0, 0, *size_px), width_px, hidden)


def crop(data: bytes, box_px: Box, width_px: int, hidden: Sequence[Box] = ()) -> bytes:
    """Return the pixels of `corners_px` as a JPEG of at most `width_px`.

    Raises ImageError, and BadRequest for a box that is empty or outside the image.
    """
    x1, y1, x2, y2 = box_px
    if not (x1 < x2 and y1 < y2 and all(abs(side) < MAX_COORDINATE_PX for side in box_px)):
        raise BadRequest(f"invalid box {box_px}: use x1 < x2 and y1 < y2, in px of the image")

    def area(size_px: SizePx) -> Corners:
        if x1 >= size_px[0] or y1 >= size_px[1] or min(x2, y2) <= 0:
            raise BadRequest(f"box {box_px} is outside the image of {size_px[0]}x{size_px[1]} pixels")
        return corners_px(box_px, MARGIN_FRAC, size_px)

    return _picture(data, area, width_px, hidden)


def _picture(data: bytes, area: Callable[[SizePx], Corners], width_px: int, hidden: Sequence[Box]) -> bytes:
    """Return an area of the image, by the size of the image, as a JPEG of at most `width_px`."""
    most = (width_px, MAX_HEIGHTS * width_px)

    def shrink(width: int, height: int) -> int:
        area_px = _area_px(area((width, height)))
        wanted = _fitted(area_px, most)
        times = min(area_px[0] / wanted[0], area_px[1] / wanted[1])
        return max((n for n in (1, 2, 4, 8) if n <= times), default=1)

    image = decode(data, MAX_PIXELS, shrink)
    corners = area(_size_px(image))
    left, top, right, bottom = _decoded_corners(image, corners)
    return _jpeg(_hide(image, hidden)[top:bottom, left:right], _fitted(_area_px(corners), most))


def redacted(data: bytes, hidden: Sequence[Box]) -> bytes:
    """Return the whole image in its own size as a JPEG. Raises ImageError."""
    image = decode(data, MAX_PIXELS)
    return _jpeg(_hide(image, hidden), _fitted(_size_px(image), (MAX_SIDE_PX, MAX_SIDE_PX)))


def _fitted(size_px: SizePx, most_px: SizePx) -> SizePx:
    """Return width and height in the same proportion, at most `most_px` and never larger."""
    scale = min(1.0, most_px[0] / size_px[0], most_px[1] / size_px[1])
    return max(1, round(size_px[0] * scale)), max(1, round(size_px[1] * scale))


def _size_px(image: DecodedImage) -> SizePx:
    """Return the size of the image as displayed, also if fewer pixels were decoded."""
    return image.facts.width_px, image.facts.height_px


def _area_px(corners: Corners) -> SizePx:
    left, top, right, bottom = corners
    return right - left, bottom - top


def _decoded_corners(image: DecodedImage, corners: Corners | Box, margin_frac: float = 0) -> Corners:
    """Return the decoded pixels that an area of the displayed image touches."""
    height, width = image.pixels.shape[:2]
    across, down = width / image.facts.width_px, height / image.facts.height_px
    x1, y1, x2, y2 = corners
    scaled = (x1 * across, y1 * down, x2 * across, y2 * down)
    return corners_px(scaled, margin_frac, (width, height))


def _hide(image: DecodedImage, hidden: Sequence[Box]) -> Pixels:
    """Return the pixels, in which each hidden box consists of a few cells of one colour.

    The cells depend on the box only, so that many crops together show no more than one does.
    """
    pixels: Any = image.pixels.copy() if hidden else image.pixels
    for box in hidden:
        left, top, right, bottom = _decoded_corners(image, box, HIDDEN_MARGIN_FRAC)
        part: Pixels = pixels[top:bottom, left:right]
        size = (right - left, bottom - top)
        cell = math.ceil(max(size) / CELLS)
        cells = (math.ceil(size[0] / cell), math.ceil(size[1] / cell))
        small = cv2.resize(part, cells, interpolation=cv2.INTER_AREA)
        part[:] = cv2.resize(small, size, interpolation=cv2.INTER_NEAREST)
    return pixels


def _jpeg(pixels: Pixels, size_px: SizePx) -> bytes:
    if size_px != (pixels.shape[1], pixels.shape[0]):
        pixels = cv2.resize(pixels, size_px, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), QUALITY, "RGB", "420"))
