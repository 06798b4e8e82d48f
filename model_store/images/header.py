"""Read type, size and orientation from the header of an image file, before any pixel is decoded.

bytes --media_type--> "image/jpeg" | ... | "text/html" | "application/octet-stream"
bytes --read_header--> ImageHeader(size as displayed, EXIF orientation, what 8-bit RGB will lose)
PNG headers are parsed here: Pillow decodes the whole image to find EXIF, and rejects a comment with a wrong
checksum.

Files with tables that would cost a decoder many times their size are rejected before any decoder reads them. The limits
are far above the files of cameras and editors:
JPEG  segments and fill bytes: Pillow reads them one by one, in Python. Scans: libjpeg passes over all blocks for
      each, so that 10 KB can take minutes.
PNG   chunks, also one by one.
TIFF  tags: libtiff copies the value of each, so that tags that all point to the same 1 MiB need gigabytes.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from model_store.errors import ImageUnreadable, ImageUnsupported

Image.MAX_IMAGE_PIXELS = None  # Resight checks the header itself, with a more helpful error

# Python keeps every warning text, and these contain numbers of the file: memory would grow without limit.
warnings.filterwarnings("ignore", module=r"PIL\.")

SUPPORTED = ("image/jpeg", "image/png", "image/webp", "image/tiff", "image/bmp")
ORIENTATION_TAG = 0x0112  # EXIF 2.32, table 4
BIG_TIFF = "image/tiff; BigTIFF"

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
    (b"\x1aE\xdf\xa3", "video/x-matroska"),
)
_STILL_BRANDS = (b"avif", b"avis", b"crx ", b"hei", b"hevc", b"hevx", b"mif1", b"msf1")
"""Brands of still pictures in the container of MP4: AVIF, Canon's raw, HEIF."""
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
MOST_SEGMENTS = 2000  # an ICC profile and extended XMP take up to some hundred
MOST_FILLING = 64 * 1024  # bytes between segments
MOST_SCANS = 64  # progressive files have about 10
MOST_CHUNKS = 100_000  # 100 megapixels in chunks of 8 KiB, the usual size, have 37,000
MOST_TAGS = 1000

_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # without restarts, and FF 00 in pixel data
_END, _SCAN, _ALONE = 0xD9, 0xDA, (0x01, 0xD8)
_SEQUENTIAL = (0xC0, 0xC1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_LONGEST = 8  # LONG8, SLONG8 and IFD8, which libtiff also reads in a classic TIFF, and unknown types


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Width and height are as displayed, i.e. after EXIF orientation (1..8)."""

    media_type: str
    width_px: int
    height_px: int
    orientation: int
    losses: tuple[str, ...]  # for the note: information that is lost in 8-bit RGB


def media_type(head: bytes) -> str:
    """Return the media type by magic bytes (the first 32 are enough), never by file name."""
    if not head:
        return "application/x-empty"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "video/x-msvideo"
    if head[4:8] == b"ftyp" and not head[8:12].startswith(_STILL_BRANDS):
        return "video/quicktime" if head[8:12] == b"qt  " else "video/mp4"
    if head[4:8] in (b"moov", b"mdat", b"wide"):  # of a QuickTime file without its type
        return "video/quicktime"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    start = head[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "text/html"
    return "application/octet-stream"


def require_supported(head: bytes) -> str:
    """Return the media type. Raises ImageUnsupported if it is not that of an image that Resight decodes."""
    kind = media_type(head[:512])
    if kind not in SUPPORTED:
        supported = ", ".join(name.removeprefix("image/") for name in SUPPORTED)
        way_out = ", which is not read: save it as a classic TIFF or a PNG" if kind == BIG_TIFF else ""
        what = f"this is {kind}{way_out}" if head else "the file is empty"
        raise ImageUnsupported(f"{what}; supported are {supported}")
    return kind


def read_header(data: bytes) -> ImageHeader:
    """Read the header of an encoded image.

    Raises ImageUnsupported if it is not an image that Resight decodes, ImageUnreadable if its header is damaged.
    """
    kind = require_supported(data)
    if kind == "image/jpeg":
        require_bounded_jpeg(data)
    elif kind == "image/tiff":
        require_bounded_tiff(data)
    read = _read_png if kind == "image/png" else _read_other
    width, height, orientation, losses = read(data, kind)
    lost = tuple(word for word, is_lost in losses.items() if is_lost)
    if width < 1 or height < 1:
        raise ImageUnreadable(f"damaged {kind} header: invalid size of {width}x{height} pixels")
    if orientation >= 5:
        width, height = height, width
    return ImageHeader(kind, width, height, orientation, lost)


_Read = tuple[int, int, int, dict[str, bool]]  # stored width, stored height, orientation, losses


def _read_other(data: bytes, kind: str) -> _Read:
    try:
        with Image.open(io.BytesIO(data), formats=[kind.removeprefix("image/")]) as image:
            width, height = image.size
            if isinstance(image, TiffImageFile):  # Pillow has already rotated its size
                width, height = int(image.tag_v2[IMAGEWIDTH]), int(image.tag_v2[IMAGELENGTH])
            return width, height, _orientation(image.getexif), _losses(image, kind)
    except UnidentifiedImageError:  # its message contains a memory address, new in every run
        raise ImageUnreadable(f"damaged {kind} header: cut short, or of another type") from None
    except Exception as error:  # Pillow raises a dozen kinds on broken headers
        raise ImageUnreadable(f"damaged {kind} header: {error}"[:300]) from error


def _losses(image: Image.Image, kind: str) -> dict[str, bool]:
    deep = image.mode.startswith("I") or any(";16" in str(tile.args) for tile in image.tile)  # type: ignore[attr-defined]
    # Further images of a JPEG (MPO) are previews and other views; the first is the photograph.
    pages = kind != "image/jpeg" and getattr(image, "is_animated", False)
    return {
        "cmyk_converted": image.mode == "CMYK",
        "16bit_scaled": deep,
        "alpha_dropped": image.has_transparency_data,
        "first_page_only": pages,
    }


def _read_png(data: bytes, kind: str) -> _Read:
    chunks = _png_chunks(data)
    header = chunks.get(b"IHDR", b"")
    if len(header) != 13 or data[29:33] != zlib.crc32(data[12:29]).to_bytes(4):
        raise ImageUnreadable(f"damaged {kind} header: cut short, or its checksum is wrong")
    width, height, bits, colour = struct.unpack(">IIBB", header[:10])
    losses = {
        "16bit_scaled": bits == 16,
        "alpha_dropped": colour in (4, 6) or b"tRNS" in chunks,
        "first_page_only": b"acTL" in chunks,
    }
    return width, height, _orientation(lambda: _exif(chunks)), losses


def png_exif(data: bytes) -> Image.Exif:
    """Return the EXIF data of a PNG, empty without any. Raises ImageUnreadable, and any error for damaged data."""
    return _exif(_png_chunks(data))


def _png_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return the contents of the first chunk of each kind; the decoder verifies checksums.

    Raises ImageUnreadable for a chunk longer than the file, for which OpenCV would allocate up to 4 GB.
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
    """Return the default image of an animated PNG as a separate file.

    OpenCV up to 5.0 does not handle libpng's errors in animations: a damaged one ends the process
    (opencv/opencv#27744).
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


def _exif(chunks: dict[bytes, bytes]) -> Image.Exif:
    exif = Image.Exif()
    exif.load(chunks.get(b"eXIf", b""))
    return exif


def _orientation(read_exif: Callable[[], Image.Exif]) -> int:
    """Return the EXIF orientation; a damaged EXIF block counts as upright, as in viewers."""
    try:
        value = read_exif().get(ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises a dozen kinds on damaged EXIF; none makes the image unreadable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def require_bounded_jpeg(data: bytes) -> None:
    """Raise ImageUnreadable for too many segments, fill bytes or scans.

    An ordinary file is read only up to its first scan.
    """
    at, segments, scans, filling, frame, components = 2, 0, 0, 0, 0, 0
    while True:
        end = len(data) if scans else at + MOST_FILLING + 2
        found = _MARKER.search(data, at, end)
        filling += 0 if scans else (found.start() if found else min(end, len(data))) - at
        if segments > MOST_SEGMENTS or filling > MOST_FILLING:
            raise ImageUnreadable(
                f"damaged image/jpeg header: over {MOST_SEGMENTS} segments, or {MOST_FILLING >> 10} KiB between them"
            )
        if found is None or found[1][0] == _END:
            return
        code, at = found[1][0], found.end()
        segments += 1
        if code in _ALONE:
            continue
        if code in _FRAMES:
            frame, components = code, int.from_bytes(data[at + 7 : at + 8])
        if code == _SCAN:
            scans += 1
            if frame in _SEQUENTIAL and data[at + 2 : at + 3] == bytes([components]):
                return  # this scan contains the whole image
            if scans > MOST_SCANS:
                raise ImageUnreadable(f"damaged image/jpeg: over {MOST_SCANS} scans")
        at += max(2, int.from_bytes(data[at : at + 2]))


def require_bounded_tiff(data: bytes) -> None:
    """Raise ImageUnreadable for too many tags, or tags that overlap, in the first directory, which is decoded."""
    order = "<" if data.startswith(b"II") else ">"
    start = struct.unpack_from(f"{order}I", data, 4)[0] if len(data) >= 8 else len(data)
    count = struct.unpack_from(f"{order}H", data, start)[0] if start + 2 <= len(data) else 0
    entries = data[start + 2 : start + 2 + 12 * count]
    total = 0
    for _, kind, number, offset in struct.iter_unpack(f"{order}HHII", entries[: len(entries) // 12 * 12]):
        size = _TIFF_BYTES.get(kind, _LONGEST) * number
        total += size if offset + size <= len(data) else 0  # values outside the file are never read
    if count > MOST_TAGS or total > len(data):
        raise ImageUnreadable(
            f"damaged image/tiff header: over {MOST_TAGS} tags, or they overlap: {total} bytes of {len(data)}"
        )
