"""What the first bytes of a file say, before any pixel is decoded.

bytes --media_type--> "image/jpeg" | ... | "text/html" | "application/octet-stream"
bytes --read_header--> ImageHeader(size as stored and as displayed, EXIF orientation, pixel mode)
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

from PIL import Image

from model_store.errors import ImageUnreadable, ImageUnsupported

Image.MAX_IMAGE_PIXELS = None  # Resight checks the header itself, with an error that says how

SUPPORTED = ("image/jpeg", "image/png", "image/webp", "image/tiff", "image/bmp")
ORIENTATION_TAG = 0x0112  # EXIF 2.32, table 4

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"BM", "image/bmp"),
    (b"GIF8", "image/gif"),
    (b"%PDF", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Width and height are as displayed, i.e. after EXIF orientation (1..8)."""

    media_type: str
    width_px: int
    height_px: int
    orientation: int
    mode: str  # Pillow's: L, RGB, CMYK, RGBA, P, I;16, ...


def media_type(head: bytes) -> str:
    """Media type by magic bytes (the first 32 are enough), never by file name."""
    if not head:
        return "application/x-empty"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    start = head[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "text/html"
    return "application/octet-stream"


def read_header(data: bytes) -> ImageHeader:
    """Header of an encoded image.

    Raises ImageUnsupported when it is no image Resight decodes, ImageUnreadable when its header is
    damaged.
    """
    kind = media_type(data[:512])
    if kind not in SUPPORTED:
        supported = ", ".join(name.removeprefix("image/") for name in SUPPORTED)
        what = "the file is empty" if not data else f"this is {kind}"
        raise ImageUnsupported(f"{what}; supported are {supported}")
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height, mode = image.width, image.height, image.mode
            orientation = _orientation(image)
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError) as error:
        raise ImageUnreadable(f"damaged {kind} header: {error}"[:300]) from error
    if width < 1 or height < 1:
        raise ImageUnreadable(f"{kind} header says {width}x{height} pixels")
    if orientation >= 5:
        width, height = height, width
    return ImageHeader(kind, width, height, orientation, mode)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; a damaged EXIF block counts as upright, as viewers do."""
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises a dozen kinds on broken EXIF, none of which costs the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
