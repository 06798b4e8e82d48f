"""Hostile and odd encoded images, made in code, and what a careful server should make of each.

Expectations:
`ok`           decodes cleanly to 8-bit RGB, nothing lost worth telling.
`note`         decodes, with a note: damaged in part, converted, or only a part of the file is used.
`unreadable`   the magic bytes of a supported format, but no picture can be had from it.
`unsupported`  not one of JPEG, PNG, WebP, TIFF, BMP, whatever the file is called.
`too_large`    more than 100 megapixels by its header; must be refused before decoding.
"""

import random
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image

from tests.hostile_jpegs import Bodies, encoded, jpegs, picture

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def _png_chunks(data: bytes) -> dict[bytes, int]:
    """Offset of the first chunk of each type."""
    chunks: dict[bytes, int] = {}
    position = len(PNG_MAGIC)
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        chunks.setdefault(data[position + 4 : position + 8], position)
        position += 12 + length
    return chunks


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + _crc(kind + payload)


def _crc(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


def _png_with_size(data: bytes, width: int, height: int) -> bytes:
    """Another size in IHDR, with a right CRC, so that only the size is false."""
    header = struct.pack(">II", width, height) + data[24:29]
    return PNG_MAGIC + _chunk(b"IHDR", header) + data[33:]


def _png_bad_crc(data: bytes, kind: bytes) -> bytes:
    """The CRC of the first chunk of that type made wrong; its contents are left alone."""
    position = _png_chunks(data)[kind]
    (length,) = struct.unpack(">I", data[position : position + 4])
    crc = position + 8 + length
    return data[:crc] + bytes(value ^ 0xFF for value in data[crc : crc + 4]) + data[crc + 4 :]


def _pngs() -> Bodies:
    image = picture()
    plain = encoded(image, "PNG")
    alpha = image.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(image.size))
    palette = image.quantize(32)
    grey_16 = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    text = PNG_MAGIC + plain[8:33] + _chunk(b"tEXt", b"Comment\0trail 3") + plain[33:]
    data = _png_chunks(plain)[b"IDAT"]
    return {
        "png_plain": ("ok", plain),
        "png_grey": ("ok", encoded(image.convert("L"), "PNG")),
        # Two grey levels become 0 and 255: exact, so nothing to tell.
        "png_1_bit": ("ok", encoded(image.convert("1"), "PNG")),
        "png_palette": ("ok", encoded(palette, "PNG")),
        # 16 bits become 8, and transparency is thrown away: converted.
        "png_grey_16_bit": ("note", encoded(grey_16, "PNG")),
        "png_rgba": ("note", encoded(alpha, "PNG")),
        "png_palette_transparent": ("note", encoded(palette, "PNG", transparency=3)),
        # libpng refuses a false CRC in picture data: half of the picture could be false.
        "png_bad_crc_data": ("unreadable", _png_bad_crc(plain, b"IDAT")),
        "png_bad_crc_header": ("unreadable", _png_bad_crc(plain, b"IHDR")),
        # A comment with a false CRC harms no pixel; libpng skips the comment and goes on.
        "png_bad_crc_comment": ("ok", _png_bad_crc(text, b"tEXt")),
        # Unlike for JPEG, cv2 and Pillow by default give no picture, and no camera writes PNG.
        "png_truncated": ("unreadable", plain[: len(plain) // 2]),
        "png_cut_before_data": ("unreadable", plain[:data]),
        "png_only_magic": ("unreadable", PNG_MAGIC),
        "png_size_0": ("unreadable", _png_with_size(plain, 0, 0)),
        "png_bomb_50000x50000": ("too_large", _png_with_size(plain, 50000, 50000)),
    }


def _tiff_with(data: bytes, tag: int, value: int) -> bytes:
    """One entry of the first directory (little-endian) replaced by a single LONG."""
    changed = bytearray(data)
    (directory,) = struct.unpack_from("<I", changed, 4)
    (entries,) = struct.unpack_from("<H", changed, directory)
    for position in range(directory + 2, directory + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", changed, position) == (tag,):
            struct.pack_into("<HHII", changed, position, tag, 4, 1, value)
    return bytes(changed)


def _tiffs() -> Bodies:
    image = picture()
    plain = encoded(image, "TIFF")
    pages = encoded(image, "TIFF", save_all=True, append_images=[image.rotate(180)])
    bomb = _tiff_with(_tiff_with(plain, 0x0100, 50000), 0x0101, 50000)
    loop = bytearray(pages)
    (directory,) = struct.unpack_from("<I", loop, 4)
    (entries,) = struct.unpack_from("<H", loop, directory)
    struct.pack_into("<I", loop, directory + 2 + 12 * entries, directory)
    return {
        "tiff_plain": ("ok", plain),
        "tiff_lzw": ("ok", encoded(image, "TIFF", compression="tiff_lzw")),
        # The first page is seen, the others are not: say so.
        "tiff_two_pages": ("note", pages),
        # The first page names itself as the next one. One page, whole; what matters is to return.
        "tiff_directory_loop": ("ok", bytes(loop)),
        "tiff_only_magic": ("unreadable", b"II*\0"),
        "tiff_directory_outside": ("unreadable", b"II*\0" + struct.pack("<I", 0x7FFFFFF0)),
        "tiff_bomb_50000x50000": ("too_large", bomb),
    }


def _others() -> Bodies:
    image = picture()
    lossy = encoded(image, "WEBP", quality=80)
    bmp = encoded(image, "BMP")
    alpha = image.copy()
    alpha.putalpha(128)
    archive = b"PK\x03\x04" + bytes(26)
    return {
        "webp_lossy": ("ok", lossy),
        "webp_lossless": ("ok", encoded(image, "WEBP", lossless=True)),
        "webp_rgba": ("note", encoded(alpha, "WEBP", lossless=True)),
        # libwebp's one-shot decoder gives nothing for a cut file, and so do cv2 and Pillow.
        "webp_truncated": ("unreadable", lossy[: len(lossy) // 2]),
        "webp_only_header": ("unreadable", lossy[:16]),
        "bmp_plain": ("ok", bmp),
        # As for a cut PNG.
        "bmp_truncated": ("unreadable", bmp[: len(bmp) // 2]),
        "bmp_only_magic": ("unreadable", b"BM"),
        "bmp_bomb_50000x50000": ("too_large", bmp[:18] + struct.pack("<ii", 50000, 50000) + bmp[26:]),
        # Readable by Pillow and cv2, yet not on the list: animation and palettes, no camera.
        "gif": ("unsupported", encoded(image, "GIF")),
        # No byte, or one: there is no magic, so no format to call damaged.
        "empty": ("unsupported", b""),
        "one_byte": ("unsupported", b"\xff"),
        "html_named_jpg": ("unsupported", b"<!DOCTYPE html><html><body>Sign in</body></html>"),
        "svg": ("unsupported", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
        "pdf_header": ("unsupported", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"),
        "plain_text": ("unsupported", b"camera 3, station B, battery low\n" * 8),
        "zip_header": ("unsupported", archive),
        "random_4_kb": ("unsupported", random.Random(1).randbytes(4096)),
        "zeros_4_kb": ("unsupported", bytes(4096)),
        # A phone's HEIC: the magic is at offset 4.
        "heic_header": ("unsupported", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)),
        # The container of WebP, but sound.
        "riff_wave": ("unsupported", b"RIFF\x24\0\0\0WAVEfmt " + bytes(28)),
    }


def _all() -> Bodies:
    return {**jpegs(), **_pngs(), **_tiffs(), **_others()}


@cache
def hostile_bodies() -> dict[str, bytes]:
    """Every body by name."""
    return {name: body for name, (_, body) in _all().items()}


expectation: dict[str, str] = {name: wanted for name, (wanted, _) in _all().items()}

# Second answers a careful engineer could also defend; a test may accept them, with its own reason.
also_acceptable: dict[str, str] = {
    "empty": "unreadable",  # "an empty file" is clearer than "an unknown format"
    "one_byte": "unreadable",
    "jpeg_only_soi": "unsupported",  # by a sniffer that wants FF D8 FF
    "jpeg_exif_garbage": "ok",  # most readers ignore a block they cannot parse
    "jpeg_exif_points_outside": "ok",
    "jpeg_two_concatenated": "note",
    "jpeg_trailing_garbage": "note",
    "png_bad_crc_data": "note",  # Pillow does not check the CRC of picture data, cv2 does
    "png_bad_crc_comment": "note",
    "png_truncated": "note",  # the rows before the cut, if the decoder gives them
    "bmp_truncated": "note",
    "tiff_directory_loop": "note",
}
