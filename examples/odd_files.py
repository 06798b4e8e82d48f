"""Encode a frame as a file: ordinary JPEG, other formats, and damaged files.

frame (h, w, 3) uint8 RGB, upright  +  Shot  --encode-->  bytes of the file

UNREADABLE lists the kinds that no decoder can read. A JPEG cut in its data counts as readable:
most decoders fill the rest with grey.
"""

import io
from typing import Any

import cv2
import numpy as np
from PIL import Image

from examples.archive_plan import Kind, Shot
from examples.exif_tags import exif_of
from examples.scenes import RgbImage

UNREADABLE: frozenset[Kind] = frozenset({"cut_header", "html", "empty"})
JPEG_QUALITY = 85
PNG_LEVEL = 1  # the fastest level of zlib: noise hardly compresses
KEPT_OF_CUT_DATA = 0.6
KEPT_OF_CUT_HEADER_BYTES = 200  # ends within EXIF: no frame header, no start of scan
NOT_FOUND_PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>404 Not Found</title></head>
<body>
<h1>Not Found</h1>
<p>The requested image was not found on this server.</p>
<hr><address>nginx/1.24.0</address>
</body>
</html>
"""
STORED: dict[int, int | None] = {  # EXIF orientation -> how upright pixels turn before storing
    1: None,
    3: cv2.ROTATE_180,
    6: cv2.ROTATE_90_COUNTERCLOCKWISE,  # shown turned clockwise
    8: cv2.ROTATE_90_CLOCKWISE,
}


def encode(frame: RgbImage, shot: Shot) -> bytes:
    """Return the bytes of the shot's file. Kinds without pixels ignore `frame`."""
    match shot.kind:
        case "empty":
            return b""
        case "html":
            return NOT_FOUND_PAGE
        case "cut_header":
            return _jpeg(Image.fromarray(frame), shot)[:KEPT_OF_CUT_HEADER_BYTES]
        case "cut_data":
            whole = _jpeg(Image.fromarray(frame), shot)
            return whole[: int(len(whole) * KEPT_OF_CUT_DATA)]
        case "jpeg":
            return _jpeg(Image.fromarray(turned(frame, shot.orientation)), shot)
        case "grey_jpeg":
            return _jpeg(Image.fromarray(turned(frame, shot.orientation)[..., 0]), shot)
        case "cmyk_jpeg":
            return _jpeg(Image.fromarray(frame).convert("CMYK"), shot)
        case "png":
            return _saved(Image.fromarray(frame), shot, "PNG", compress_level=PNG_LEVEL)
        case "webp":
            return _saved(Image.fromarray(frame), shot, "WEBP", quality=JPEG_QUALITY)
        case "tiff":
            return _saved(Image.fromarray(frame), shot, "TIFF")
        case "grey16_png":
            return _saved(Image.fromarray(_grey16(frame)), shot, "PNG", compress_level=PNG_LEVEL)
        case "alpha_png":
            return _saved(Image.fromarray(_with_alpha(frame)), shot, "PNG", compress_level=PNG_LEVEL)
        case "copy":
            raise ValueError(f"{shot.path} is a copy of {shot.copy_of}: copy the bytes of that file")


def turned(frame: RgbImage, orientation: int) -> RgbImage:
    """Return the pixels to store, so that a viewer that applies `orientation` shows `frame`."""
    turn = STORED[orientation]
    return frame if turn is None else np.asarray(cv2.rotate(frame, turn), dtype=np.uint8)


def _jpeg(image: Image.Image, shot: Shot) -> bytes:
    return _saved(image, shot, "JPEG", quality=JPEG_QUALITY)


def _saved(image: Image.Image, shot: Shot, image_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, exif=exif_of(shot), **options)
    return file.getvalue()


def _grey16(frame: RgbImage) -> np.ndarray:
    """Return the brightness as (h, w) uint16 over the full range of 16 bits."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return np.asarray(grey, dtype=np.uint16) * 257


def _with_alpha(frame: RgbImage) -> np.ndarray:
    """Return (h, w, 4): opaque except for a border that fades out over an eighth of the frame."""
    across, down = (np.clip(np.minimum(np.arange(n), np.arange(n)[::-1]) / (n / 8), 0, 1) for n in frame.shape[1::-1])
    alpha = np.rint(255 * np.outer(down, across)).astype(np.uint8)
    return np.dstack((frame, alpha))
