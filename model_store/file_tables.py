"""Refuses files whose tables would cost a decoder many times their size, before any decoder sees them.

JPEG  segments and filling: Pillow reads them one by one, in Python. Scans: libjpeg passes over all blocks for
      each, so that 10 KB can be minutes of work.
PNG   chunks, one by one again.
TIFF  tags: libtiff keeps a copy of what each holds, so that 1 MiB to which all of them point is gigabytes.

The limits are far above what cameras and editors write.
"""

from __future__ import annotations

import re
import struct

from model_store.errors import ImageUnreadable

MOST_SEGMENTS = 2000  # an ICC profile and extended XMP take up to some hundred
MOST_FILLING = 64 * 1024  # bytes between segments
MOST_SCANS = 64  # progressive files have about 10
MOST_CHUNKS = 100_000  # 100 megapixels in the usual 8 KiB are 37,000
MOST_TAGS = 1000

_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # but restarts, and FF 00 in picture data
_END, _SCAN, _ALONE = 0xD9, 0xDA, (0x01, 0xD8)
_SEQUENTIAL = (0xC0, 0xC1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_LONGEST = (
    8  # of LONG8, SLONG8 and IFD8, which libtiff reads in a classic TIFF too, and of unknown types
)


def require_bounded_jpeg(data: bytes) -> None:
    """Raises ImageUnreadable. An ordinary file is read up to its first scan only."""
    at, segments, scans, filling, frame, components = 2, 0, 0, 0, 0, 0
    while True:
        end = len(data) if scans else at + MOST_FILLING + 2
        found = _MARKER.search(data, at, end)
        filling += 0 if scans else (found.start() if found else min(end, len(data))) - at
        if segments > MOST_SEGMENTS or filling > MOST_FILLING:
            raise ImageUnreadable(
                f"damaged image/jpeg header: over {MOST_SEGMENTS} segments, or {MOST_FILLING >> 10} "
                "KiB between them"
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
                return  # all of the picture is in this one
            if scans > MOST_SCANS:
                raise ImageUnreadable(f"damaged image/jpeg: over {MOST_SCANS} scans")
        at += max(2, int.from_bytes(data[at : at + 2]))


def require_bounded_tiff(data: bytes) -> None:
    """Raises ImageUnreadable. The first directory is the one that is decoded."""
    order = "<" if data.startswith(b"II") else ">"
    start = struct.unpack_from(f"{order}I", data, 4)[0] if len(data) >= 8 else len(data)
    count = struct.unpack_from(f"{order}H", data, start)[0] if start + 2 <= len(data) else 0
    entries = data[start + 2 : start + 2 + 12 * count]
    held = 0
    for _, kind, number, offset in struct.iter_unpack(
        f"{order}HHII", entries[: len(entries) // 12 * 12]
    ):
        size = _TIFF_BYTES.get(kind, _LONGEST) * number
        held += size if offset + size <= len(data) else 0  # what lies outside is never read
    if count > MOST_TAGS or held > len(data):
        raise ImageUnreadable(
            f"damaged image/tiff header: over {MOST_TAGS} tags, or they overlap: {held} bytes of "
            f"{len(data)}"
        )
