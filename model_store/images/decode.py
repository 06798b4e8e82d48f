"""Decode image files to upright RGB pixels, with the same code for HTTP bodies and archive files.

bytes --decode--> DecodedImage(pixels (h, w, 3) uint8 RGB after EXIF orientation, note)
The note lists tolerated damage and conversions; it is stored with the result.
"""

# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg  # libjpeg-turbo, and unlike cv2 it reports damaged data
from numpy.typing import NDArray

from model_store.errors import ImageTooLarge, ImageUnreadable
from model_store.images.header import ImageHeader, read_header, without_animation

Pixels = NDArray[np.uint8]
Shrink = Callable[[int, int], int]
MAX_PIXELS = 100_000_000
# it would log a line for each damaged row, without the file's name
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_ROTATE = {3: cv2.ROTATE_180, 6: cv2.ROTATE_90_CLOCKWISE, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Properties of a decoded image: size after orientation, note, and media type."""

    width_px: int
    height_px: int
    note: str | None
    media_type: str


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Upright pixels (h, w, 3) uint8 RGB, a note on damage and conversions, and the media type."""

    pixels: Pixels
    note: str | None
    media_type: str
    shrunk_from_px: tuple[int, int] | None = None  # width, height, where fewer pixels were decoded

    @property
    def facts(self) -> ImageFacts:
        height_px, width_px = self.pixels.shape[:2]
        width_px, height_px = self.shrunk_from_px or (width_px, height_px)
        return ImageFacts(width_px, height_px, self.note, self.media_type)


def decode(
    data: bytes, max_pixels: int = MAX_PIXELS, shrink: Shrink = lambda width_px, height_px: 1, tolerant: bool = True
) -> DecodedImage:
    """Decode one image; a JPEG at 1/shrink(width, height) of its upright size.

    If `tolerant`, the readable part of a JPEG with damaged data is decoded, with a note; else it is rejected.

    Raises ImageUnsupported, ImageUnreadable, or ImageTooLarge if the header states more than `max_pixels` pixels
    (checked before any pixel is decoded).
    """
    header = read_header(data)
    if header.width_px * header.height_px > max_pixels:
        raise ImageTooLarge(
            f"{header.width_px}x{header.height_px} is over the limit of {max_pixels / 1e6:.0f} "
            "megapixels; scale the image down, or raise limits.megapixels of the application or "
            "--megapixels of the run"
        )
    size_px = (header.width_px, header.height_px)
    if header.media_type == "image/jpeg":
        factor = shrink(*size_px)
        pixels, damage = _decode_jpeg(data, header, factor, tolerant)
    else:
        factor, pixels, damage = 1, _decode_other(data, header), None
    # OpenCV always rotates a TIFF upright, and leaves the others as they are stored.
    turn = 1 if header.media_type == "image/tiff" else header.orientation
    note = "; ".join(filter(None, (damage, *header.losses))) or None
    shrunk = size_px if factor > 1 else None
    return DecodedImage(upright(pixels, turn), note, header.media_type, shrunk)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation (1..8): 2 mirrored, 3 upside down, 4 flipped, 5-8 on their side."""
    if orientation in (2, 5, 7):
        pixels = cv2.flip(pixels, 1)  # type: ignore[assignment]
    if orientation == 4:
        return cv2.flip(pixels, 0)  # type: ignore[return-value]
    turn = {5: 8, 7: 6}.get(orientation, orientation)
    return cv2.rotate(pixels, _ROTATE[turn]) if turn in _ROTATE else pixels  # type: ignore[return-value]


def _decode_jpeg(data: bytes, header: ImageHeader, factor: int, tolerant: bool) -> tuple[Pixels, str | None]:
    """Decode at 1/factor of the size by omitting frequencies, which avoids most of the work."""
    upright_px = (math.ceil(header.width_px / factor), math.ceil(header.height_px / factor))
    width, height = upright_px[::-1] if header.orientation >= 5 else upright_px  # as stored
    width, height = (width, height) if factor > 1 else (0, 0)  # 0: full size
    try:
        return simplejpeg.decode_jpeg(data, min_width=width, min_height=height), None
    except ValueError as damage:
        reason = str(damage)
        if not tolerant:
            raise ImageUnreadable(f"damaged image/jpeg: {reason}"[:300]) from damage
    try:
        pixels = simplejpeg.decode_jpeg(data, strict=False, min_width=width, min_height=height)
        return pixels, f"damaged_tolerated: {reason}"
    except ValueError as error:
        reason = str(error)
        if "subsampling" in reason:  # libjpeg-turbo's message for an incomplete header
            reason = "no image data follows the header, or its colour sampling is unknown"
        raise ImageUnreadable(f"damaged image/jpeg: {reason}"[:300]) from error


def _decode_other(data: bytes, header: ImageHeader) -> Pixels:
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    data = without_animation(data) if header.media_type == "image/png" else data
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageUnreadable(f"damaged {header.media_type}: {error.err}"[:300]) from error
    if pixels is None:
        raise ImageUnreadable(f"damaged or unusual {header.media_type}: no decoder accepts it")
    return pixels  # type: ignore[return-value]
