"""Read local time, UTC offset, place and camera from the EXIF data of an image.

encoded bytes --read_exif--> Exif
No value is guessed: the offset is None if the file has none, and the time of a clock that was never set is kept, with
a flag. Tags: EXIF 2.32, tables 4, 7, 8 and 66. Texts are untrusted, so they are cut and cleaned (`clean_text`).
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from PIL import Image
from PIL.ExifTags import IFD

from model_store.images.header import media_type, png_exif, require_bounded_jpeg

MAX_CHARS = 100
FORMULA_SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20"
"""Spreadsheets evaluate a CSV cell that begins with one of these; the last four are full-width forms."""
_TIMES = (  # source, (ifd, date tag), sub-second tag, offset tag; sub-second and offset are in Exif IFD
    ("exif_original", (IFD.Exif, 0x9003), 0x9291, 0x9011),
    ("exif_digitized", (IFD.Exif, 0x9004), 0x9292, 0x9012),
    ("exif_modify", (None, 0x0132), 0x9290, 0x9010),
)
_RESET_CLOCKS = ((1970, 1, 1), (1980, 1, 1), (2000, 1, 1), (2012, 1, 1))
MIN_BELIEVABLE_YEAR = 2001  # camera-trap tools agree on it


@dataclass(frozen=True, slots=True)
class Exif:
    """Columns of `media` with the same names; None if the file has no usable value."""

    captured_at_local: str | None = None
    utc_offset_min: int | None = None
    captured_at_utc: datetime | None = None
    timestamp_source: str = "none"
    timestamp_flags: tuple[str, ...] = ()
    latitude: float | None = None
    longitude: float | None = None
    gps_source: str | None = None
    camera_make: str | None = None
    camera_model: str | None = None
    camera_serial: str | None = None


def read_exif(data: bytes) -> Exif:
    """Return the EXIF fields. Never raises: fields of a damaged block are None."""
    try:
        root, detail, gps = _tables(data)
    except Exception:  # Pillow raises a dozen kinds on broken EXIF
        return Exif()
    latitude, longitude = _position(gps)
    return Exif(
        **_time(root, detail),
        latitude=latitude,
        longitude=longitude,
        gps_source="exif" if latitude is not None else None,
        camera_make=clean_text(_text(root.get(0x010F))),
        camera_model=clean_text(_text(root.get(0x0110))),
        camera_serial=clean_text(_text(detail.get(0xA431))),
    )


def clean_text(text: str | None) -> str | None:
    """Return at most MAX_CHARS printable characters in one line (NFC), or None if none are left.

    Drops control and formatting characters (including those that reverse the writing direction), and leading
    FORMULA_SIGNS.
    """
    if text is None:
        return None
    normalised = unicodedata.normalize("NFC", text[: 10 * MAX_CHARS])
    printable = "".join(c if c.isprintable() else " " if c.isspace() else "" for c in normalised)
    return " ".join(printable.split()).lstrip(FORMULA_SIGNS + " ")[:MAX_CHARS].rstrip() or None


def _tables(data: bytes) -> tuple[Mapping[int, Any], Mapping[int, Any], Mapping[int, Any]]:
    """Return the tags of the image, of the exposure and of the GPS position."""
    kind = media_type(data[:512])
    if kind == "image/png":  # Pillow would decode the whole image to find them
        exif = png_exif(data)
        return exif, exif.get_ifd(IFD.Exif), exif.get_ifd(IFD.GPSInfo)
    if kind == "image/jpeg":
        require_bounded_jpeg(data)
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
        return exif, exif.get_ifd(IFD.Exif), exif.get_ifd(IFD.GPSInfo)


def _time(root: Mapping[int, Any], detail: Mapping[int, Any]) -> dict[str, Any]:
    for source, (ifd, tag), subsec_tag, offset_tag in _TIMES:
        local = _date((detail if ifd else root).get(tag), detail.get(subsec_tag))
        if local is None:
            continue
        offset = _offset_min(detail.get(offset_tag))
        return {
            "captured_at_local": local.isoformat(),
            "utc_offset_min": offset,
            "captured_at_utc": _utc(local, offset),
            "timestamp_source": source,
            "timestamp_flags": time_flags(local),
        }
    return {}


def _utc(local: datetime, offset_min: int | None) -> datetime | None:
    if offset_min is None:
        return None
    try:
        return (local - timedelta(minutes=offset_min)).replace(tzinfo=UTC)
    except OverflowError:  # a date at the limit of datetime
        return None


def _date(value: object, subsec: object) -> datetime | None:
    text = _text(value)
    if text is None:
        return None
    try:
        date = datetime.strptime(text[:19], "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
    digits = _text(subsec) or ""
    return date.replace(microsecond=int(digits[:6].ljust(6, "0"))) if digits.isdecimal() else date


def time_flags(local: datetime) -> tuple[str, ...]:
    """Return the doubts about a time of a camera's clock."""
    flags: list[str] = []
    if local.year < MIN_BELIEVABLE_YEAR:
        flags.append("before_2001")
    if (local.year, local.month, local.day) in _RESET_CLOCKS:
        flags.append("reset_default")
    if local > datetime.now() + timedelta(days=1):
        flags.append("after_now")
    return tuple(flags)


def _offset_min(value: object) -> int | None:
    text = _text(value) or ""
    match = re.fullmatch(r"([+-])([01]\d):([0-5]\d)", text)
    if not match:
        return 0 if text == "Z" else None
    minutes = int(match[2]) * 60 + int(match[3])
    return -minutes if match[1] == "-" else minutes


def _position(gps: Mapping[int, Any]) -> tuple[float | None, float | None]:
    latitude = _degrees(gps.get(2), gps.get(1), "S")
    longitude = _degrees(gps.get(4), gps.get(3), "W")
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None, None
    return latitude, longitude


def _degrees(parts: Any, ref: object, negative: str) -> float | None:
    try:
        degrees, minutes, seconds = (float(part) for part in parts)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    value = degrees + minutes / 60 + seconds / 3600
    if value != value:  # 0/0 rationals
        return None
    return -value if _text(ref) == negative else value


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if not isinstance(value, str):
        return None
    return value.replace("\x00", "").strip() or None
