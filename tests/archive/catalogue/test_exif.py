"""EXIF as written by cameras, and damaged EXIF."""

from __future__ import annotations

import random
import struct
import warnings
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD
from PIL.TiffImagePlugin import IFDRational

from archive.catalogue.exif import MAX_CHARS, Exif, clean_text, read_exif
from tests.fixtures_local import encoded, jpeg

MODIFIED, MAKE, MODEL = 0x0132, 0x010F, 0x0110
ORIGINAL, DIGITIZED, SERIAL = 0x9003, 0x9004, 0xA431
OFFSET, OFFSET_ORIGINAL, OFFSET_DIGITIZED = 0x9010, 0x9011, 0x9012
SUBSEC, SUBSEC_ORIGINAL, SUBSEC_DIGITIZED = 0x9290, 0x9291, 0x9292
NOON = "2026:05:14 12:00:00"


@pytest.mark.parametrize("data", [b"", b"no image", jpeg(), jpeg()[:20]])
def test_without_exif_every_field_is_empty(data: bytes) -> None:
    assert read_exif(data) == Exif()


@pytest.mark.parametrize(
    ("root", "detail", "local", "source"),
    [
        ({}, {}, None, "none"),
        ({MODIFIED: NOON}, {}, "2026-05-14T12:00:00", "exif_modify"),
        ({MODIFIED: NOON}, {DIGITIZED: "2026:05:13 11:00:00"}, "2026-05-13T11:00:00", "exif_digitized"),
        ({MODIFIED: NOON}, {DIGITIZED: NOON, ORIGINAL: "2026:05:12 10:00:00"}, "2026-05-12T10:00:00", "exif_original"),
        ({MODIFIED: NOON}, {ORIGINAL: "    :  :     :  :  "}, "2026-05-14T12:00:00", "exif_modify"),
        ({}, {ORIGINAL: "0000:00:00 00:00:00"}, None, "none"),
        ({}, {ORIGINAL: "2026:13:45 99:00:00"}, None, "none"),
        ({}, {ORIGINAL: "2026-05-14T12:00:00"}, None, "none"),
    ],
)
def test_the_best_usable_time_is_taken(
    root: dict[int, str], detail: dict[int, str], local: str | None, source: str
) -> None:
    exif = read_exif(jpeg(root, detail))
    assert (exif.captured_at_local, exif.timestamp_source) == (local, source)


@pytest.mark.parametrize(
    ("offset", "minutes", "utc"),
    [
        (None, None, None),
        ("Z", 0, "12:00"),
        ("+02:00", 120, "10:00"),
        ("-03:30", -210, "15:30"),
        ("+05:45", 345, "06:15"),
        ("+99:99", None, None),
    ],
)
def test_an_offset_gives_utc_and_no_offset_is_never_guessed(
    offset: str | None, minutes: int | None, utc: str | None
) -> None:
    exif = read_exif(jpeg(detail={ORIGINAL: NOON} | ({OFFSET_ORIGINAL: offset} if offset else {})))
    assert exif.captured_at_local == "2026-05-14T12:00:00"
    assert exif.utc_offset_min == minutes
    want = None if utc is None else datetime.fromisoformat(f"2026-05-14T{utc}:00+00:00")
    assert exif.captured_at_utc == want
    assert want is None or (exif.captured_at_utc is not None and exif.captured_at_utc.tzinfo == UTC)


def test_offset_and_sub_seconds_are_those_of_the_time_that_is_taken() -> None:
    detail = {DIGITIZED: NOON, OFFSET_ORIGINAL: "+01:00", SUBSEC_ORIGINAL: "9"}
    exif = read_exif(jpeg(detail=detail | {OFFSET_DIGITIZED: "+02:00", SUBSEC_DIGITIZED: "25"}))
    assert (exif.captured_at_local, exif.utc_offset_min) == ("2026-05-14T12:00:00.250000", 120)
    exif = read_exif(jpeg({MODIFIED: NOON}, {OFFSET: "-01:00", SUBSEC: "5", SUBSEC_ORIGINAL: "9"}))
    assert (exif.captured_at_local, exif.utc_offset_min) == ("2026-05-14T12:00:00.500000", -60)


def test_texts_of_an_image_are_cleaned_before_they_are_kept() -> None:
    make, model, serial = (f"={name}\x1b[2J" + "7" * 1000 for name in ("make", "model", "serial"))
    exif = read_exif(jpeg({MAKE: make, MODEL: model}, {SERIAL: serial}))
    texts = (exif.camera_make, exif.camera_model, exif.camera_serial)
    assert texts == tuple(f"{name}[2J".ljust(MAX_CHARS, "7") for name in ("make", "model", "serial"))


@pytest.mark.parametrize(
    ("subsec", "tail"),
    [
        ("", ""),
        ("123", ".123000"),
        ("007", ".007000"),
        ("1234567", ".123456"),
        ("12\x00", ".120000"),
        ("-1", ""),
        ("1\xb3", ""),
    ],
)
def test_sub_seconds_are_a_fraction(subsec: str, tail: str) -> None:
    exif = read_exif(jpeg(detail={ORIGINAL: NOON, SUBSEC_ORIGINAL: subsec.encode("latin-1")}))
    assert exif.captured_at_local == f"2026-05-14T12:00:00{tail}"


@pytest.mark.parametrize(
    ("time", "flags"),
    [
        (NOON, ()),
        ("2000:01:01 00:00:12", ("before_2001", "reset_default")),
        ("1970:01:01 05:00:00", ("before_2001", "reset_default")),
        ("2012:01:01 00:00:00", ("reset_default",)),
        ("1999:07:01 00:00:00", ("before_2001",)),
        (f"{datetime.now() + timedelta(days=3):%Y:%m:%d} 12:00:00", ("after_now",)),
    ],
    ids=["right", "before", "epoch", "reset", "old", "ahead"],
)
def test_a_clock_that_was_never_set_is_kept_and_flagged(time: str, flags: tuple[str, ...]) -> None:
    exif = read_exif(jpeg(detail={ORIGINAL: time}))
    assert exif.timestamp_flags == flags
    assert exif.captured_at_local == datetime.strptime(time, "%Y:%m:%d %H:%M:%S").isoformat()


@pytest.mark.parametrize(
    ("gps", "place"),
    [
        ({}, (None, None)),
        ({1: "N", 2: (47.0, 30.0, 36.0), 3: "E", 4: (9.0, 15.0, 0.0)}, (47.51, 9.25)),
        ({1: "S", 2: (47.0, 30.0, 36.0), 3: "W", 4: (9.0, 15.0, 0.0)}, (-47.51, -9.25)),
        ({2: (47.0, 30.0, 36.0), 4: (9.0, 15.0, 0.0)}, (47.51, 9.25)),
        ({1: "N", 2: (47.0, 30.0, 36.0)}, (None, None)),
        ({1: "N", 2: (97.0, 0.0, 0.0), 3: "E", 4: (9.0, 0.0, 0.0)}, (None, None)),
        ({1: "N", 2: (47.0, 0.0, 0.0), 3: "E", 4: (190.0, 0.0, 0.0)}, (None, None)),
        ({1: "N", 2: (47.0, 30.0), 3: "E", 4: (9.0, 15.0)}, (None, None)),
        ({1: "N", 2: (IFDRational(0, 0),) * 3, 3: "E", 4: (9.0, 0.0, 0.0)}, (None, None)),
    ],
)
def test_the_place_has_its_hemisphere_or_is_unknown(
    gps: dict[int, Any], place: tuple[float | None, float | None]
) -> None:
    exif = read_exif(jpeg(gps=gps))
    assert (exif.latitude, exif.longitude) == pytest.approx(place)
    assert exif.gps_source == (None if place == (None, None) else "exif")


def test_the_camera_is_named_without_padding() -> None:
    exif = read_exif(jpeg({MAKE: "RECONYX\x00\x00", MODEL: " HYPERFIRE 2 "}, {SERIAL: "H 42 "}))
    assert (exif.camera_make, exif.camera_model, exif.camera_serial) == ("RECONYX", "HYPERFIRE 2", "H 42")


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("H" * 50_000, "H" * MAX_CHARS),
        (" \x00" * 20 + "H 42", "H 42"),
        ("south\x1b[2J\x1b]0;pwned\x07\nnorth,1", "south[2J]0;pwned north,1"),
        ("a\u202eb\u2066c\u200b\u2028d\x85e\U000e0041", "abc d e"),
        ("Bo\u0308hm", "B\xf6hm"),
        ("=cmd|' /C calc'!A0", "cmd|' /C calc'!A0"),
        ("\x00\t+ -@\uff1d=SUM(1)", "SUM(1)"),
        ("RECONYX-7 +2", "RECONYX-7 +2"),
        ("\x00 \u202e", None),
        ("=" * 5000 + "x", None),
        ("e" + "\u0301" * 5000, "\xe9" + "\u0301" * (MAX_CHARS - 1)),
        ("\ud800H", "H"),
        (None, None),
    ],
)
def test_a_text_is_one_short_printable_line_that_no_spreadsheet_runs(written: str | None, kept: str | None) -> None:
    assert clean_text(written) == kept


def exif_block() -> bytes:
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif).update({ORIGINAL: NOON, SERIAL: "H42"})
    return exif.tobytes().removeprefix(b"Exif\x00\x00")


def png_of(width: int, height: int, *more: tuple[bytes, bytes]) -> bytes:
    """Return a grey PNG of zeros: a few kilobytes for any size in pixels."""
    scanlines = zlib.compressobj(9)
    rows = b"".join(scanlines.compress(bytes(width + 1)) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", rows + scanlines.flush()), *more, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def test_no_pixel_of_a_png_is_decoded_for_its_exif(monkeypatch: pytest.MonkeyPatch) -> None:
    """PNG files of one megabyte may have a thousand megapixels."""
    large = png_of(4_000, 3_000, (b"eXIf", exif_block()))

    def no_decoding(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", no_decoding)
    assert read_exif(large).camera_serial == "H42"
    assert read_exif(png_of(10, 10)) == Exif()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_the_exif_of_every_kind_of_file_is_read(kind: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif).update({SERIAL: "H42"})
    data = encoded(np.full((8, 8, 3), 90, np.uint8), kind, exif=exif.tobytes())
    assert read_exif(data).camera_serial == "H42"


def test_the_exif_of_a_jpeg_is_not_searched_behind_bytes_that_its_header_may_not_have() -> None:
    """Pillow reads fill bytes and segments one by one, a second for each MB."""
    data = jpeg({MAKE: "RECONYX"})
    assert read_exif(data[:2] + bytes([255]) * 60_000 + data[2:]).camera_make == "RECONYX"
    assert read_exif(data[:2] + bytes([255]) * 70_000 + data[2:]) == Exif()


def test_damaged_exif_never_raises() -> None:
    whole = jpeg(
        {MAKE: "RECONYX", MODEL: "HYPERFIRE 2", MODIFIED: NOON},
        {ORIGINAL: NOON, OFFSET_ORIGINAL: "+02:00", SUBSEC_ORIGINAL: "12", SERIAL: "H42"},
        {1: "N", 2: (47.0, 30.0, 36.0), 3: "E", 4: (9.0, 15.0, 0.0)},
    )
    assert read_exif(whole).camera_serial == "H42"
    rng = random.Random(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, one for every oddity
        for _ in range(1000):
            damaged = bytearray(whole)
            for _ in range(rng.randint(1, 4)):
                damaged[rng.randrange(20, 420)] = rng.randrange(256)
            read_exif(bytes(damaged))
        for length in range(20, 420):
            read_exif(whole[:length])
