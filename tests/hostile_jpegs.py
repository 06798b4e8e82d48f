"""JPEG bodies, whole, odd and broken, each with what a careful server should make of it.

`jpegs()` maps a name to (expectation, bytes); `tests.hostile_images` explains the expectations.
Everything is made in code from one small synthetic picture, the same on every run.
"""

import io
import random
import struct
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bodies = dict[str, tuple[str, bytes]]

WIDTH, HEIGHT = 160, 120
ORIENTATION_TAG = 0x0112
# How the stored picture must be turned so that its EXIF orientation turns it upright again.
UNDO_ORIENTATION: dict[int, Image.Transpose | None] = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@cache
def picture() -> Image.Image:
    """160 x 120 RGB: two ramps, a red top-left quarter and mild noise; no symmetry of any kind."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([columns * 255 // WIDTH, rows * 255 // HEIGHT, (rows + columns) % 256], -1)
    pixels[: HEIGHT // 4, : WIDTH // 4] = (220, 20, 30)
    noise = np.random.default_rng(7).integers(-12, 13, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def upright_pixels() -> NDArray[np.uint8]:
    """The picture all eight `jpeg_orientation_N` bodies show once turned (within JPEG loss)."""
    return np.asarray(picture())


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    """The image in the named Pillow format."""
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def _segment(data: bytes, codes: tuple[int, ...]) -> int:
    """Offset of the first marker (FF xx) whose code is among `codes`, walking the segments."""
    position = 2
    while data[position + 1] not in codes:
        position += 2 + struct.unpack(">H", data[position + 2 : position + 4])[0]
    return position


def _with_size(data: bytes, width: int, height: int) -> bytes:
    """The JPEG with another width and height in its frame header; the data stays as it was."""
    sof = _segment(data, (0xC0, 0xC2))
    return data[: sof + 5] + struct.pack(">HH", height, width) + data[sof + 9 :]


def _flipped(data: bytes) -> bytes:
    """200 bytes of entropy-coded data replaced by noise; the file keeps its length and its EOI.

    libjpeg notices ("Corrupt JPEG data"), which not every single flipped bit would make it do.
    """
    start = _segment(data, (0xDA,)) + (len(data) - _segment(data, (0xDA,))) // 2
    return data[:start] + random.Random(3).randbytes(200) + data[start + 200 :]


def _with_app1(data: bytes, payload: bytes) -> bytes:
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + data[2:]


def _oriented(orientation: int) -> bytes:
    undo = UNDO_ORIENTATION[orientation]
    stored = picture() if undo is None else picture().transpose(undo)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    return encoded(stored, "JPEG", quality=90, exif=exif)


def jpegs() -> Bodies:
    """Every JPEG body with its expectation."""
    plain = encoded(picture(), "JPEG", quality=90)
    progressive = encoded(picture(), "JPEG", quality=90, progressive=True)
    scan = _segment(plain, (0xDA,))
    size = len(plain)
    bodies: Bodies = {
        "jpeg_plain": ("ok", plain),
        "jpeg_progressive": ("ok", progressive),
        "jpeg_444": ("ok", encoded(picture(), "JPEG", quality=90, subsampling=0)),
        # Night pictures of infrared cameras: nothing is lost by repeating the grey three times.
        "jpeg_grey": ("ok", encoded(picture().convert("L"), "JPEG", quality=90)),
        # The colours are approximated without the ink profile: say so.
        "jpeg_cmyk": ("note", encoded(picture().convert("CMYK"), "JPEG", quality=90)),
        "jpeg_1x1": ("ok", encoded(picture().crop((0, 0, 1, 1)), "JPEG")),
        # One pixel wide: a letterbox to 300 would round the width to 0.
        "jpeg_1x2000": ("ok", encoded(picture().resize((1, 2000)), "JPEG")),
        "jpeg_2000x1": ("ok", encoded(picture().resize((2000, 1)), "JPEG")),
        # Cameras append thumbnails and makers' data after EOI; the picture itself is whole.
        "jpeg_trailing_garbage": ("ok", plain + random.Random(5).randbytes(512)),
        # The same: what follows the first EOI is not part of the picture (phones' MPO files).
        "jpeg_two_concatenated": ("ok", plain + encoded(picture().rotate(180), "JPEG")),
        # The pixels are whole, but which way is up is not known: worth a note, not a refusal.
        "jpeg_exif_garbage": ("note", _with_app1(plain, b"Exif\0\0" + random.Random(9).randbytes(300))),
        # A TIFF header that is valid and a directory that lies outside the block.
        "jpeg_exif_points_outside": ("note", _with_app1(plain, b"Exif\0\0II*\0" + struct.pack("<I", 0xFFFF))),
        # Only part of the rows is real; the rest is grey. Field cards are full of these.
        "jpeg_cut_30_percent": ("note", plain[: size * 30 // 100]),
        "jpeg_cut_60_percent": ("note", plain[: size * 60 // 100]),
        "jpeg_progressive_cut_50_percent": ("note", progressive[: len(progressive) // 2]),
        # Every pixel may be there, but the file is not whole: the upload may have been cut.
        "jpeg_missing_eoi": ("note", plain[:-2]),
        "jpeg_flipped_bytes": ("note", _flipped(plain)),
        # FF D8 is JPEG's start marker and nothing else's, so "damaged JPEG" helps more than
        # "unsupported". A sniffer that wants FF D8 FF would say the latter; we do not.
        "jpeg_only_soi": ("unreadable", plain[:2]),
        "jpeg_cut_20_bytes": ("unreadable", plain[:20]),
        "jpeg_cut_in_header": ("unreadable", plain[: _segment(plain, (0xC0,)) + 7]),
        # The whole header and not one byte of picture: all grey would be an invented image.
        "jpeg_cut_before_scan": ("unreadable", plain[:scan]),
        "jpeg_no_tables": ("unreadable", plain[:2] + plain[_segment(plain, (0xC0,)) :]),
        # Height 0 announces a DNL marker, which libjpeg does not support.
        "jpeg_height_0": ("unreadable", _with_size(plain, WIDTH, 0)),
        "jpeg_bomb_65500x65500": ("too_large", _with_size(plain, 65500, 65500)),
        # 100.01 megapixels: the limit itself, not only the absurd.
        "jpeg_bomb_10001x10000": ("too_large", _with_size(plain, 10001, 10000)),
    }
    for orientation in UNDO_ORIENTATION:
        bodies[f"jpeg_orientation_{orientation}"] = ("ok", _oriented(orientation))
    return bodies
