"""Small files that ask for much: pixels out of nothing, tables that cost many times their size, a crash.

`pixel_bombs()` are just below 100 megapixels, so that a server which takes such images must take these;
`table_bombs(mib)` are no larger than that, and no honest file looks like them. `tests.hostile_images`
explains the expectations; made in code, the same on every run.
"""

import struct
import zlib

from PIL import Image

from tests.hostile_jpegs import Bodies, encoded, picture

SIDE = 10_000
MIB = 1 << 20
PRIVATE_TAGS = 52_000
DEFLATE, LONG, SHORT, UNDEFINED, IFD8 = 8, 4, 3, 7, 18


def pixel_bombs() -> Bodies:
    """Up to 100 megapixels each; making them takes seconds."""
    jpeg = encoded(picture(), "JPEG", quality=90)
    progressive = encoded(picture(), "JPEG", quality=90, progressive=True)
    wide = Image.new("RGB", (16_383, 6_100))
    return {
        "jpeg_100_mp_of_nothing": ("note", jpeg_of_size(jpeg, SIDE)),
        "jpeg_progressive_100_mp_of_nothing": ("note", jpeg_of_size(progressive, SIDE)),
        "png_100_mp_rgb": ("ok", png(8, 2)),
        "png_100_mp_rgba_16_bit": ("note", png(16, 6)),
        "webp_100_mp_lossless": ("ok", encoded(wide, "WEBP", lossless=True)),
        "webp_100_mp_lossy": ("ok", encoded(wide, "WEBP", quality=10)),
        "tiff_100_mp_rgb": ("ok", tiff(8)),
        "tiff_100_mp_rgb_16_bit": ("note", tiff(16)),
        "bmp_100_mp_run_length": ("ok", bmp()),
    }


def table_bombs(mib: float) -> Bodies:
    """About `mib` MiB each; the scans need no bytes to speak of, so they are over 16 * `mib` megapixels."""
    size = int(mib * MIB)
    jpeg = encoded(picture(), "JPEG", quality=90)
    tiny_png = encoded(picture(), "PNG")
    chunk = _chunk(b"teSt", b"")
    return {
        "jpeg_scans": ("unreadable", jpeg_of_scans(200, min(SIDE, int(4000 * mib**0.5)))),
        "jpeg_segments": ("unreadable", _after_start(jpeg, b"\xff\xe5\x00\x02" * (size // 4))),
        "jpeg_comments": ("unreadable", _after_start(jpeg, b"\xff\xfe\x00\x02" * (size // 4))),
        "jpeg_fill_bytes": ("unreadable", _after_start(jpeg, b"\xff" * size)),
        "jpeg_junk": ("unreadable", _after_start(jpeg, b"\xff\xe5\x00\x02" + bytes(size))),
        "png_chunks": ("unreadable", tiny_png[:33] + chunk * (size // 12) + tiny_png[33:]),
        "tiff_tags_that_overlap": ("unreadable", tiff_of_tags(2000, max(size - 24_000, 1024))),
        "tiff_tags_that_are_many": ("unreadable", tiff_of_tags(13_000, 0)),
        "tiff_long_tags_that_overlap": ("unreadable", tiff_of_tags(150, max(size - 2_000, 1024), IFD8)),
    }


def animated_png() -> bytes:
    """Its animation is broken off by a chunk that no reader may skip: OpenCV 5.0 does not survive that."""
    size = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    frame = struct.pack(">IIIIIHHBB", 0, 8, 8, 0, 0, 1, 10, 0, 0)
    parts = (
        _chunk(b"IHDR", size),
        _chunk(b"acTL", struct.pack(">II", 2, 0)),
        _chunk(b"IDAT", _zeros(8 * (1 + 3 * 8))),
        _chunk(b"fcTL", frame),
        _chunk(b"FdAT", b"none"),
        _chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def talkative() -> list[bytes]:
    """Each makes a decoder say something that it has not said before: EXIF tags of other lengths, a torn fax."""
    jpeg = encoded(picture().resize((16, 16)), "JPEG")
    head = b"Exif\0\0II*\0\x08\0\0\0\x01\0"
    found: list[bytes] = []
    for count in range(3, 53):
        block = head + struct.pack("<HHIII", 0x0112, SHORT, count, 26, 0) + bytes(2 * count)
        found.append(_after_start(jpeg, b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block))
    fax = encoded(picture().convert("1"), "TIFF", compression="group3")
    return [*found, fax[:300] + b"\xa5" * 300 + fax[600:]]


def jpeg_of_size(jpeg: bytes, side: int) -> bytes:
    """Its frame header says side x side; the rest stays."""
    frame = next(at for at in range(len(jpeg)) if jpeg[at : at + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return jpeg[: frame + 5] + struct.pack(">HH", side, side) + jpeg[frame + 9 :]


def jpeg_of_scans(scans: int, side: int) -> bytes:
    """The last scan's header again and again; each makes a decoder pass over all blocks."""
    whole = jpeg_of_size(encoded(picture(), "JPEG", quality=90, progressive=True), side)
    start = whole.rfind(b"\xff\xda")
    header = whole[start : start + 2 + int.from_bytes(whole[start + 2 : start + 4])]
    return whole[:-2] + header * scans + b"\xff\xd9"


def png(bits: int, colour: int) -> bytes:
    """SIDE x SIDE of zeros."""
    channels = {2: 3, 6: 4}[colour]
    data = _zeros((1 + SIDE * channels * bits // 8) * SIDE)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, bits, colour, 0, 0, 0)
    parts = (_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(bits: int) -> bytes:
    """SIDE x SIDE RGB of zeros in one strip."""
    data = _zeros(3 * SIDE * SIDE * bits // 8)
    at = 8 + len(data)
    entries = [
        (256, LONG, 1, SIDE),
        (257, LONG, 1, SIDE),
        (258, SHORT, 3, at),
        (259, SHORT, 1, DEFLATE),
        (262, SHORT, 1, 2),
        (273, LONG, 1, 8),
        (277, SHORT, 1, 3),
        (278, LONG, 1, SIDE),
        (279, LONG, 1, len(data)),
    ]
    depths = struct.pack("<HHH", bits, bits, bits)
    return b"II*\0" + struct.pack("<I", at + 6) + data + depths + _directory(entries)


def tiff_of_tags(count: int, size: int, kind: int = UNDEFINED) -> bytes:
    """A small picture with so many private tags of a type, each of which holds the same `size` bytes."""
    plain = encoded(picture(), "TIFF")
    (at,) = struct.unpack_from("<I", plain, 4)
    (known,) = struct.unpack_from("<H", plain, at)
    entries = list(struct.iter_unpack("<HHII", plain[at + 2 : at + 2 + 12 * known]))
    number = (size or 4) // (1 if kind == UNDEFINED else 8)
    entries += [(PRIVATE_TAGS + i, kind, number, 0) for i in range(count)]
    body = plain.ljust(size + len(plain), b"\0")
    return body[:4] + struct.pack("<I", len(body)) + body[8:] + _directory(entries)


def bmp() -> bytes:
    """SIDE x SIDE of 8 bits, run-length coded, that ends before its first pixel."""
    start = 54 + 1024
    info = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 8, 1, 2, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + 2, 0, 0, start) + info + bytes(1024) + b"\0\1"


def _after_start(jpeg: bytes, filling: bytes) -> bytes:
    return jpeg[:2] + filling + jpeg[2:]


def _directory(entries: list[tuple[int, ...]]) -> bytes:
    rows = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + rows + bytes(4)


def _chunk(kind: bytes, payload: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + payload))
    return struct.pack(">I", len(payload)) + kind + payload + checksum


def _zeros(size: int) -> bytes:
    """So many zeros, deflated."""
    stream = zlib.compressobj()
    block = bytes(MIB)
    parts = [stream.compress(block) for _ in range(size // MIB)]
    return b"".join(parts) + stream.compress(bytes(size % MIB)) + stream.flush()
