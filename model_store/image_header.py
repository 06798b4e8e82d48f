"""What the first bytes of a file say, before any pixel is decoded.

bytes --media_type--> "image/jpeg" | ... | "text/html" | "application/octet-stream"
bytes --read_header--> ImageHeader(size as displayed, EXIF orientation, what 8-bit RGB will lose)
PNG headers are read here: Pillow decodes the whole picture to look for EXIF, and gives up on a
comment with a wrong checksum.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (libraries here have no complete types)

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from model_store.errors import ImageUnreadable, ImageUnsupported
from model_store.file_tables import MOST_CHUNKS, require_bounded_jpeg, require_bounded_tiff

Image.MAX_IMAGE_PIXELS = None  # Resight checks the header itself, with an error that says how
# Python keeps every text it has warned with, and these hold numbers of the file: memory without end
warnings.filterwarnings("ignore", module=r"PIL\.")

SUPPORTED = ("image/jpeg", "image/png", "image/webp", "image/tiff", "image/bmp")
ORIENTATION_TAG = 0x0112  # EXIF 2.32, table 4
BIG_TIFF = "image/tiff; BigTIFF"
_WAYS_OUT = {BIG_TIFF: ", which is not read: save it as a classic TIFF or a PNG"}

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", BIG_TIFF),
    (b"MM\x00+", BIG_TIFF),
    (b"BM", "image/bmp"),
    (b"GIF8", "image/gif"),
    (b"%PDF", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
)
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Width and height are as displayed, i.e. after EXIF orientation (1..8)."""

    media_type: str
    width_px: int
    height_px: int
    orientation: int
    losses: tuple[str, ...]  # words for the note: what the RGB picture will not hold


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
        what = "the file is empty" if not data else f"this is {kind}{_WAYS_OUT.get(kind, '')}"
        raise ImageUnsupported(f"{what}; supported are {supported}")
    if kind == "image/jpeg":
        require_bounded_jpeg(data)
    elif kind == "image/tiff":
        require_bounded_tiff(data)
    read = _read_png if kind == "image/png" else _read_other
    width, height, orientation, losses = read(data, kind)
    if width < 1 or height < 1:
        raise ImageUnreadable(f"{kind} header says {width}x{height} pixels")
    if orientation >= 5:
        width, height = height, width
    return ImageHeader(kind, width, height, orientation, losses)


_Read = tuple[int, int, int, tuple[str, ...]]  # stored width, stored height, orientation, losses


def _read_other(data: bytes, kind: str) -> _Read:
    try:
        with Image.open(io.BytesIO(data), formats=[kind.removeprefix("image/")]) as image:
            width, height = image.size
            if isinstance(image, TiffImageFile):  # whose size Pillow has turned already
                width, height = int(image.tag_v2[IMAGEWIDTH]), int(image.tag_v2[IMAGELENGTH])
            return width, height, _orientation(image.getexif), _losses(image, kind)
    except UnidentifiedImageError:  # its own words hold a memory address, new in every run
        raise ImageUnreadable(f"damaged {kind} header: cut short, or not what it says") from None
    except Exception as error:  # Pillow raises a dozen kinds on broken headers
        raise ImageUnreadable(f"damaged {kind} header: {error}"[:300]) from error


def _losses(image: Image.Image, kind: str) -> tuple[str, ...]:
    deep = image.mode.startswith("I") or any(";16" in str(tile.args) for tile in image.tile)  # type: ignore[attr-defined]
    # A JPEG's further pictures (MPO) are previews and other views; the first is the photograph.
    pages = kind != "image/jpeg" and getattr(image, "is_animated", False)
    found = {
        "cmyk_converted": image.mode == "CMYK",
        "16bit_scaled": deep,
        "alpha_dropped": image.has_transparency_data,
        "first_page_only": pages,
    }
    return tuple(word for word, is_lost in found.items() if is_lost)


def _read_png(data: bytes, kind: str) -> _Read:
    chunks = _png_chunks(data)
    header = chunks.get(b"IHDR", b"")
    if len(header) != 13 or data[29:33] != zlib.crc32(data[12:29]).to_bytes(4):
        raise ImageUnreadable(f"damaged {kind} header: cut short, or its checksum is wrong")
    width, height, bits, colour = struct.unpack(">IIBB", header[:10])
    found = {
        "16bit_scaled": bits == 16,
        "alpha_dropped": colour in (4, 6) or b"tRNS" in chunks,
        "first_page_only": b"acTL" in chunks,
    }
    losses = tuple(word for word, is_lost in found.items() if is_lost)
    return width, height, _orientation(lambda: _exif(chunks.get(b"eXIf", b""))), losses


def png_exif(data: bytes) -> bytes:
    """Return the contents of the `eXIf` chunk of a PNG, b"" without one. Raises ImageUnreadable."""
    return _png_chunks(data).get(b"eXIf", b"")


def _png_chunks(data: bytes) -> dict[bytes, bytes]:
    """Contents of the first chunk of each kind; checksums are left to the decoder.

    A chunk longer than the file is refused: OpenCV would allocate up to 4 GB for it.
    """
    chunks: dict[bytes, bytes] = {}
    position, count, kind = 8, 0, b""
    while position < len(data) and kind != b"IEND":
        length = int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8]
        if position + 12 + length > len(data):
            raise ImageUnreadable(f"damaged image/png: cut short in chunk {kind!r}")
        count += 1
        if count > MOST_CHUNKS:
            raise ImageUnreadable(f"damaged image/png: over {MOST_CHUNKS} chunks")
        if kind not in chunks:
            chunks[kind] = data[position + 8 : position + 8 + length]
        position += 12 + length
    return chunks


def without_animation(png: bytes) -> bytes:
    """The default image of an animated PNG, as a file of its own.

    OpenCV up to 5.0 reads animations without a place for libpng's errors to return to: a damaged one
    ends the process (opencv/opencv#27744).
    """
    if b"acTL" not in png:
        return png
    parts, position = [png[:8]], 8
    while position < len(png):
        end = position + 12 + int.from_bytes(png[position : position + 4])
        if png[position + 4 : position + 8] not in _ANIMATION:
            parts.append(png[position:end])
        position = end
    return b"".join(parts)


def _exif(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    return exif


def _orientation(read_exif: Callable[[], Image.Exif]) -> int:
    """EXIF orientation; a damaged EXIF block counts as upright, as viewers do."""
    try:
        value = read_exif().get(ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises a dozen kinds on broken EXIF, none of which costs the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
