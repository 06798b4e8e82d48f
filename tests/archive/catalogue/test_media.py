"""Rows of `media` from files: identity, header, EXIF and camera."""

from __future__ import annotations

import hashlib
import struct
import warnings
import zlib

import pyarrow as pa
import pytest
import xxhash

from archive.catalogue.listing import ArchiveFile
from archive.catalogue.media import camera_of, compile_template, media_row
from archive.defaults import DEFAULT_TEMPLATE
from archive.schemas import MEDIA
from model_store.errors import BadRequest
from tests.fixtures_local import jpeg, photo
from tests.hostile_images import hostile_bodies

DEFAULT = compile_template(DEFAULT_TEMPLATE)


def row_of(data: bytes, path: str = "north/IMG_1.JPG") -> dict[str, object]:
    row = media_row("/archive", ArchiveFile(path, len(data), "tag"), data, DEFAULT)
    return dict(pa.Table.from_pylist([row], schema=MEDIA).to_pylist()[0])


@pytest.mark.parametrize("damaged", [False, True])
def test_a_row_has_every_column_and_no_other(damaged: bool) -> None:
    data = b"no picture" if damaged else photo("cat")
    row = media_row("/archive", ArchiveFile("a/b.jpg", 0, "tag"), data, DEFAULT)
    assert set(row) == set(MEDIA.names)


def test_a_row_says_what_the_file_is() -> None:
    cat = photo("cat")
    row = row_of(cat)
    assert row["media_sha256"] == hashlib.sha256(cat).hexdigest()
    assert (row["source_root"], row["path"]) == ("/archive", "north/IMG_1.JPG")
    assert (row["size_bytes"], row["content_tag"]) == (len(cat), "tag")
    assert row["quick_digest"] % 2**64 == xxhash.xxh3_64_intdigest(cat)
    assert (row["media_type"], row["width_px"], row["height_px"]) == ("image/jpeg", 451, 300)
    assert row["header_error"] is row["missing_since"] is None
    assert row["ingested_at"] is not None


@pytest.mark.parametrize(
    ("data", "media_type", "words"),
    [
        (b"", "application/x-empty", "the file is empty"),
        (b"<html>", "text/html", "this is text/html"),
        (photo("cat")[:100], "image/jpeg", "damaged image/jpeg header"),
    ],
)
def test_damage_is_in_the_row(data: bytes, media_type: str, words: str) -> None:
    row = row_of(data)
    assert row["media_type"] == media_type
    assert words in str(row["header_error"])
    assert row["width_px"] is row["height_px"] is None


@pytest.mark.parametrize("name", sorted(hostile_bodies()))
def test_every_hostile_file_has_a_row_that_the_table_takes(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        row_of(hostile_bodies()[name])


def test_a_header_that_claims_more_pixels_than_the_columns_hold_is_damage() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 2**32 - 1, 10, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    assert "4294967295x10" in str(row_of(data)["header_error"])


@pytest.mark.parametrize(
    ("serial", "path", "camera", "source"),
    [
        (None, "IMG_1.JPG", None, None),
        (None, "north/IMG_1.JPG", "north", "path"),
        ("H42", "north/IMG_1.JPG", "H42", "exif_serial"),
        ("  ", "north/IMG_1.JPG", "north", "path"),
    ],
)
def test_the_camera_is_the_serial_number_else_the_path_else_unknown(
    serial: str | None, path: str, camera: str | None, source: str | None
) -> None:
    row = row_of(jpeg(detail={0xA431: serial} if serial else {}), path)
    assert (row["camera_id"], row["camera_source"]) == (camera, source)


@pytest.mark.parametrize(
    ("template", "path", "camera"),
    [
        ("{camera}/{rest}", "", None),
        ("{camera}/{rest}", "a/b/c.jpg", "a"),
        ("{camera}/{rest}", "c.jpg", None),
        ("site-{site}/{camera}/{rest}", "site-7/north/c.jpg", "north"),
        ("site-{site}/{camera}/{rest}", "north/x/c.jpg", None),
        ("{rest}/{camera}/{file}", "a/b/north/c.jpg", "north"),
        ("{camera}_{n}.jpg", "north_0001.jpg", "north"),
        ("a+b/{camera}/{rest}", "a+b/north/c.jpg", "north"),
        ("a+b/{camera}/{rest}", "aab/north/c.jpg", None),
        ("{camera}/{rest}", "north\x1b[2J\u202e  pond/c.jpg", "north[2J pond"),
        ("{camera}/{rest}", "=cmd|'calc'!A0/c.jpg", "cmd|'calc'!A0"),
        ("{camera}/{rest}", "\x07/c.jpg", None),
        ("{camera}/{rest}", "north/a\nb.jpg", "north"),
    ],
)
def test_a_template_says_where_the_camera_stands(template: str, path: str, camera: str | None) -> None:
    assert camera_of(path, compile_template(template)) == camera


@pytest.mark.parametrize("template", ["", "{rest}", "camera/{rest}"])
def test_a_template_without_a_camera_is_refused(template: str) -> None:
    with pytest.raises(BadRequest, match=r"must have one \{camera\}, the part of"):
        compile_template(template)


@pytest.mark.parametrize("template", ["{camera}/{rest", "{camera}/rest}", "{Site}/{camera}/{rest}"])
def test_a_template_with_a_brace_that_is_no_name_is_refused(template: str) -> None:
    with pytest.raises(BadRequest, match="unknown name or single brace"):
        compile_template(template)
