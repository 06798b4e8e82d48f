"""Encoded bytes become upright RGB pixels, or raise an error of the right kind."""

import io
import time
from itertools import product

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from model_store.errors import ImageError, ImageTooLarge, ImageUnreadable, ImageUnsupported
from model_store.images.decode import Pixels, decode
from tests.hostile_images import also_acceptable, expectation, hostile_bodies
from tests.hostile_jpegs import HEIGHT, ORIENTATION_TAG, UNDO_ORIENTATION, WIDTH, encoded, picture, upright_pixels
from tests.shared_data import shared

BODIES = hostile_bodies()
ERRORS = {ImageUnreadable: "unreadable", ImageUnsupported: "unsupported", ImageTooLarge: "too_large"}
ENOUGH_S = 0.5  # a rejection takes well under a millisecond; decoding a bomb takes many seconds


def outcome(body: bytes) -> str:
    try:
        return "note" if decode(body).note else "ok"
    except ImageError as error:
        return ERRORS[type(error)]


def loss(found: Pixels, wanted: Pixels) -> float:
    """Return the mean difference in grey levels of two images of one shape."""
    assert found.shape == wanted.shape
    return float(np.abs(found.astype(int) - wanted.astype(int)).mean())


def rgb(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"))


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if any pixel is decoded."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("pixels were decoded")

    monkeypatch.setattr(cv2, "imdecode", refuse)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", refuse)
    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)


@pytest.mark.parametrize("name", ["empty", *sorted(expectation.keys() - {"empty"})])
def test_hostile_bodies_meet_their_expectation(name: str) -> None:
    started = time.perf_counter()
    assert outcome(BODIES[name]) in {expectation[name], also_acceptable.get(name)}
    assert time.perf_counter() - started < ENOUGH_S


@pytest.mark.parametrize("name", sorted(n for n in expectation if expectation[n] == "too_large"))
@pytest.mark.usefixtures("no_decoder")
def test_bombs_are_refused_before_any_pixel_is_decoded(name: str) -> None:
    with pytest.raises(ImageTooLarge, match="over the limit of 100 megapixels"):
        decode(BODIES[name])


def test_whole_pictures_over_the_limit_are_refused_before_decoding(no_decoder: None) -> None:
    wide = Image.new("L", (1300, 1000))
    for image_format in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        body = io.BytesIO()
        wide.save(body, image_format)
        with pytest.raises(ImageTooLarge, match="1300x1000"):
            decode(body.getvalue(), max_pixels=1_299_999)


@pytest.mark.parametrize("claim", [0xFFFFFFFF, 10_000])
@pytest.mark.parametrize("chunk", [b"tEXt", b"IDAT"])
def test_a_png_chunk_longer_than_the_file_is_refused(claim: int, chunk: bytes, no_decoder: None) -> None:
    # OpenCV allocates the size that the chunk states before it checks the data.
    end = BODIES["png_plain"].index(b"IDAT") - 4
    body = BODIES["png_plain"][:end] + claim.to_bytes(4) + chunk + bytes(100)
    with pytest.raises(ImageUnreadable, match="cut short"):
        decode(body)


def test_errors_say_the_same_each_time() -> None:
    # Messages are stored with the rows: no memory address, no temporary name.
    for name, wanted in expectation.items():
        if wanted in ("unreadable", "unsupported"):
            first, second = (pytest.raises(ImageError, decode, BODIES[name]) for _ in range(2))
            assert str(first.value) == str(second.value)
            assert "0x7" not in str(first.value), first.value
            assert "object at" not in str(first.value), first.value


def test_errors_are_in_plain_words() -> None:
    said = str(pytest.raises(ImageUnreadable, decode, BODIES["jpeg_cut_before_scan"]).value)
    assert "no image data" in said
    assert "subsampling" not in said
    assert "the file is empty" in str(pytest.raises(ImageUnsupported, decode, b"").value)
    said = str(pytest.raises(ImageUnsupported, decode, BODIES["html_named_jpg"]).value)
    assert "text/html" in said
    assert "jpeg, png, webp, tiff, bmp" in said


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("jpeg_plain", None),
        ("jpeg_cmyk", "cmyk_converted"),
        ("jpeg_cut_30_percent", "damaged_tolerated: "),
        ("png_grey_16_bit", "16bit_scaled"),
        ("png_rgba", "alpha_dropped"),
        ("png_palette_transparent", "alpha_dropped"),
        ("webp_rgba", "alpha_dropped"),
        ("tiff_two_pages", "first_page_only"),
    ],
)
def test_the_note_says_what_was_lost(name: str, note: str | None) -> None:
    found = decode(BODIES[name]).note
    assert found == note or (found or "").startswith(note or "?")


def test_sixteen_bit_colour_and_animations_are_noted_too() -> None:
    deep = upright_pixels()[..., ::-1].astype(np.uint16) * 257
    for kind in (".png", ".tiff"):
        image = decode(cv2.imencode(kind, deep)[1].tobytes())
        assert image.note == "16bit_scaled"
        assert loss(image.pixels, upright_pixels()) == 0
    pages = {"save_all": True, "append_images": [picture().rotate(180)], "lossless": True}
    for image_format in ("PNG", "WEBP"):
        image = decode(encoded(picture(), image_format, **pages))
        assert image.note == "first_page_only"
        assert loss(image.pixels, upright_pixels()) == 0


@pytest.mark.parametrize(
    ("name", "wanted", "most"),
    [
        ("jpeg_plain", picture(), 7),
        ("jpeg_progressive", picture(), 7),
        ("jpeg_444", picture(), 7),
        ("jpeg_grey", picture().convert("L"), 4),
        ("jpeg_cmyk", picture(), 7),
        ("jpeg_two_concatenated", picture(), 7),
        ("png_plain", picture(), 0),
        ("png_grey", picture().convert("L"), 0),
        ("png_1_bit", picture().convert("1"), 0),
        ("png_palette", picture().quantize(32), 0),
        ("png_grey_16_bit", picture().convert("L"), 0),
        ("png_rgba", picture(), 0),
        ("png_bad_crc_comment", picture(), 0),
        ("tiff_plain", picture(), 0),
        ("tiff_lzw", picture(), 0),
        ("tiff_two_pages", picture(), 0),
        ("tiff_directory_loop", picture(), 0),
        ("webp_lossless", picture(), 0),
        ("webp_lossy", picture(), 9),
        ("bmp_plain", picture(), 0),
    ],
)
def test_pixels_are_those_of_the_picture(name: str, wanted: Image.Image, most: float) -> None:
    image = decode(BODIES[name])
    assert image.pixels.dtype == np.uint8
    assert loss(image.pixels, rgb(wanted)) <= most
    assert (image.facts.width_px, image.facts.height_px) == (WIDTH, HEIGHT)
    assert image.media_type == f"image/{name.split('_')[0]}"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_come_out_upright(orientation: int) -> None:
    image = decode(BODIES[f"jpeg_orientation_{orientation}"])
    assert image.note is None
    assert loss(image.pixels, upright_pixels()) < 8
    assert image.pixels.flags.c_contiguous


@pytest.mark.parametrize(("image_format", "orientation"), list(product(["PNG", "WEBP", "TIFF"], [2, 6, 8])))
def test_other_formats_are_turned_once_and_only_once(image_format: str, orientation: int) -> None:
    undo = UNDO_ORIENTATION[orientation]
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    stored = picture() if undo is None else picture().transpose(undo)
    lossless = {"lossless": True} if image_format == "WEBP" else {}
    image = decode(encoded(stored, image_format, exif=exif, **lossless))
    assert loss(image.pixels, upright_pixels()) == 0


def test_camera_files_with_a_second_picture_inside_work() -> None:
    body = encoded(picture(), "MPO", quality=90, save_all=True, append_images=[picture().rotate(180)])
    with Image.open(io.BytesIO(body)) as image:
        assert image.format == "MPO"
    image = decode(body)
    assert (image.media_type, image.note) == ("image/jpeg", None)
    assert loss(image.pixels, upright_pixels()) < 8


def test_real_camera_files_decode() -> None:
    twins = ("test_the_note_says_what_was_lost", "test_pixels_are_those_of_the_picture")
    folder = shared("camera_trap", *twins, "test_all_eight_orientations_come_out_upright")
    plain = decode((folder / "african_elephants.jpg").read_bytes())
    notes = {
        "african_elephants.jpg": None,
        "african_elephants_bw.jpg": None,
        "african_elephants_cmyk.jpg": "cmyk_converted",
        "african_elephants_truncated_file.jpg": "damaged_tolerated",
        "african_elephants_with_exif_orientation.jpg": None,
    }
    for name, note in notes.items():
        image = decode((folder / name).read_bytes())
        assert (image.note or "").split(":")[0] == (note or ""), name
        assert loss(image.pixels[:200], plain.pixels[:200]) < 25, name


@given(
    st.sampled_from(sorted(BODIES)),
    st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 255)), max_size=12),
    st.integers(0, 30_000),
)
@settings(deadline=2000, max_examples=100)
def test_whatever_is_changed_it_decodes_or_raises_an_image_error(
    name: str, changes: list[tuple[int, int]], cut: int
) -> None:
    body = bytearray(BODIES[name])
    for position, value in changes:
        if body:
            body[position % len(body)] = value
    if cut % 3 == 0:
        body = body[: cut % (len(body) + 1)]
    try:
        image = decode(bytes(body), max_pixels=4_000_000)
    except ImageError:
        return
    assert image.pixels.dtype == np.uint8
    assert image.pixels.ndim == 3
    assert image.pixels.shape[2] == 3
