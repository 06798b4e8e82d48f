"""Read type, displayed size and orientation from the first bytes, quickly and correctly."""

import struct

import pytest
from PIL import Image

from model_store.errors import ImageUnreadable, ImageUnsupported
from model_store.images.header import SUPPORTED, media_type, read_header, require_bounded_tiff
from tests.hostile_bombs import UNDEFINED, tiff_of_tags
from tests.hostile_images import hostile_bodies
from tests.hostile_jpegs import HEIGHT, ORIENTATION_TAG, WIDTH, encoded, picture

BODIES = hostile_bodies()


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", "application/x-empty"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\x89PNG", "application/octet-stream"),
        (b"RIFF0000WEBPVP8 ", "image/webp"),
        (b"RIFF0000WAVEfmt ", "application/octet-stream"),
        (b"II*\0", "image/tiff"),
        (b"II+\0", "image/tiff; BigTIFF"),
        (b"MM\0+", "image/tiff; BigTIFF"),
        (b"GIF89a", "image/gif"),
        (b"\n  <!DOCTYPE html><html>", "text/html"),
        (b"camera 3", "application/octet-stream"),
    ],
)
def test_the_kind_is_read_from_the_magic(head: bytes, kind: str) -> None:
    assert media_type(head) == kind


def test_a_big_tiff_is_refused_with_what_to_do() -> None:
    body = b"II" + struct.pack("<HHHQ", 43, 8, 0, 16) + bytes(64)
    with pytest.raises(ImageUnsupported, match="BigTIFF, which is not read: save it as a classic"):
        read_header(body)


@pytest.mark.parametrize("kind", SUPPORTED)
def test_every_supported_kind_tells_its_size(kind: str) -> None:
    header = read_header(encoded(picture(), kind.removeprefix("image/").upper()))
    assert (header.width_px, header.height_px) == (WIDTH, HEIGHT)
    assert (header.media_type, header.orientation, header.losses) == (kind, 1, ())


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 2, 4, 5, 8])
def test_the_size_is_the_one_displayed(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    header = read_header(encoded(picture(), image_format, exif=exif))
    assert header.orientation == orientation
    stored = (WIDTH, HEIGHT)
    assert (header.width_px, header.height_px) == (stored if orientation < 5 else stored[::-1])


@pytest.mark.parametrize("orientation", [0, 9])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_an_orientation_that_does_not_exist_is_upright(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    assert read_header(encoded(picture(), image_format, exif=exif)).orientation == 1


@pytest.mark.parametrize("name", ["jpeg_exif_garbage", "jpeg_exif_points_outside"])
def test_damaged_exif_costs_nothing_but_the_orientation(name: str) -> None:
    assert read_header(BODIES[name]).orientation == 1


@pytest.mark.parametrize("kind", [UNDEFINED, 16, 99], ids=["bytes", "LONG8", "unknown"])
def test_tags_that_overlap_are_refused_whatever_their_type(kind: int) -> None:
    with pytest.raises(ImageUnreadable, match="they overlap"):
        require_bounded_tiff(tiff_of_tags(150, 4096, kind))
    require_bounded_tiff(tiff_of_tags(1, 4096, kind))
