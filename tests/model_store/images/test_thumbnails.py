"""Small pictures have the right pixels in the right place, compared with Pillow, and show nothing that is hidden."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from model_store.errors import BadRequest, ImageTooLarge, ImageUnreadable
from model_store.images.crops import Box
from model_store.images.thumbnails import CELLS, crop, redacted, thumbnail
from tests.hostile_jpegs import ORIENTATION_TAG, UNDO_ORIENTATION

WIDTH, HEIGHT = 1200, 900
BOX: Box = (700.0, 150.0, 1000.0, 350.0)


def scene(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Return smooth ramps with a green BOX and a red top left corner; no symmetry of any kind."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([255 * x / width, 60 + 0 * x, 255 * y / height], 2).astype(np.uint8)
    x1, y1, x2, y2 = (int(side * width / WIDTH) for side in BOX)
    pixels[y1:y2, x1:x2] = (20, 240, 40)
    pixels[: height // 6, : width // 6] = (230, 20, 30)
    return Image.fromarray(pixels)


@cache
def stored(orientation: int, kind: str = "JPEG", size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    """Encode the scene so that its EXIF orientation displays it upright."""
    undo, image = UNDO_ORIENTATION[orientation], scene(*size)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    file = io.BytesIO()
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    (image if undo is None else image.transpose(undo)).save(file, kind, exif=exif, **options)
    return file.getvalue()


def displayed(data: bytes) -> Image.Image:
    """Return the image as browsers display it, by Pillow."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def opened(picture: bytes) -> Image.Image:
    """Open a picture that was made: a JPEG without metadata."""
    image = Image.open(io.BytesIO(picture))
    assert image.format == "JPEG"
    assert not image.getexif()
    assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    return image


def difference(a: Image.Image, b: Image.Image) -> float:
    """Return the mean difference in grey levels of two images of one size."""
    assert a.size == b.size
    return float(np.abs(np.asarray(a, int) - np.asarray(b, int)).mean())


def green_px(image: Image.Image) -> tuple[int, int, int, int]:
    """Return the corners of what is green."""
    red, green, blue = np.moveaxis(np.asarray(image, int), 2, 0)
    y, x = np.nonzero((green > red + 80) & (green > blue + 80))
    return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1


@pytest.mark.parametrize(("orientation", "kind"), [(1, "JPEG"), (4, "JPEG"), (7, "JPEG"), (6, "PNG")])
def test_a_thumbnail_is_the_image_as_displayed(orientation: int, kind: str) -> None:
    data = stored(orientation, kind)
    small = opened(thumbnail(data, 160))
    assert small.size == (160, 120)
    assert difference(small, displayed(data).resize((160, 120), Image.Resampling.BOX)) < 4


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("width_px", [60, 448])
def test_a_crop_is_in_the_coordinates_of_boxes(orientation: int, width_px: int) -> None:
    data = stored(orientation)
    part = opened(crop(data, BOX, width_px))
    expected = displayed(data).crop((610, 60, 1090, 440))  # the margin is 90 px, 0.3 of 300
    width = min(width_px, 480)
    assert part.size == (width, round(380 * width / 480))
    assert difference(part, expected.resize(part.size, Image.Resampling.BOX)) < 10
    assert np.abs(np.subtract(green_px(part), np.multiply((90, 90, 390, 290), width / 480))).max() < 1.5


@pytest.mark.parametrize("width_px", [160, 1600])
@pytest.mark.parametrize("size", [(1283, 967), (161, 97), (1, 1)])
def test_widths_are_never_larger_than_the_image(size: tuple[int, int], width_px: int) -> None:
    small = opened(thumbnail(stored(6, size=size), width_px))
    width = min(width_px, size[0])
    assert small.size == (width, round(size[1] * width / size[0]))


def test_a_strip_is_small_in_both_directions() -> None:
    tall, wide = (4, 20_000), (20_000, 4)
    assert opened(thumbnail(stored(1, size=tall), 160)).size == (1, 640)
    assert opened(thumbnail(stored(1, size=wide), 160)).size == (160, 1)


def test_few_pixels_of_a_jpeg_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    original = simplejpeg.decode_jpeg

    def counted(*args: object, **more: object) -> object:
        decoded.append(original(*args, **more).size)
        return original(*args, **more)

    data = stored(8, size=(1600, 1200))
    monkeypatch.setattr(simplejpeg, "decode_jpeg", counted)
    thumbnail(data, 160)
    crop(data, (100.0, 100.0, 1500.0, 1100.0), 224)
    thumbnail(data, 1600)
    assert decoded == [200 * 150 * 3, 400 * 300 * 3, 1600 * 1200 * 3]


@pytest.mark.parametrize(
    "box",
    [
        (10.0, 10.0, 10.0, 20.0),
        (float("nan"), 0.0, 5.0, 5.0),
        (-1e308, 0.0, 1e308, 5.0),
        (1200.0, 0.0, 1300.0, 50.0),
        (-50.0, 0.0, 0.0, 50.0),
    ],
)
def test_boxes_that_show_nothing_are_refused(box: Box) -> None:
    with pytest.raises(BadRequest, match="box"):
        crop(stored(1), box, 224)


def test_an_image_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_store.images.thumbnails.MAX_PIXELS", 1_000_000)
    for make in (lambda data: thumbnail(data, 320), lambda data: redacted(data, ())):
        with pytest.raises(ImageTooLarge, match="limit of 1 megapixels"):
            make(stored(1))


def test_damage_is_shown_as_far_as_it_can_be_read() -> None:
    data = stored(3)
    small = opened(thumbnail(data[: len(data) // 2], 160))  # stored upside down: the lower half is read
    below, whole = (0, 80, 160, 120), displayed(data).resize((160, 120))
    assert difference(small.crop(below), whole.crop(below)) < 8
    with pytest.raises(ImageUnreadable):
        thumbnail(data[:20], 160)


# what is hidden

CLOSE: Box = (760.0, 200.0, 940.0, 300.0)


def noisy() -> bytes:
    """Return the scene with a chessboard of 4 px in BOX: a detail that must not survive."""
    pixels = np.asarray(scene()).copy()
    y, x = np.mgrid[150:350, 700:1000]
    pixels[150:350, 700:1000] = np.where(((x // 4 + y // 4) % 2)[..., None], 255, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def contrast(image: Image.Image, box: tuple[float, ...]) -> float:
    """Return the largest standard deviation of any 8 x 8 px in the box: 127 for a chessboard, 0 for one colour."""
    grey = np.asarray(image.convert("L"), float)
    x1, y1, x2, y2 = (round(side) for side in box)
    parts = grey[y1:y2, x1:x2][: (y2 - y1) // 8 * 8, : (x2 - x1) // 8 * 8]
    blocks = parts.reshape(parts.shape[0] // 8, 8, parts.shape[1] // 8, 8).swapaxes(1, 2)
    return float(blocks.std(axis=(2, 3)).max())


def test_details_of_a_hidden_box_are_in_no_picture() -> None:
    data = noisy()
    assert contrast(opened(redacted(data, ())), BOX) > 100
    assert contrast(opened(redacted(data, [BOX])), BOX) < 30
    assert contrast(opened(crop(data, CLOSE, 448)), (40, 40, 200, 120)) > 100
    assert contrast(opened(crop(data, CLOSE, 448, hidden=[BOX])), (40, 40, 200, 120)) < 30
    assert contrast(opened(thumbnail(data, 1600)), BOX) > 100
    assert contrast(opened(thumbnail(data, 1600, [BOX])), BOX) < 30


def test_a_hidden_box_has_a_few_colours_and_its_margin_too() -> None:
    image = opened(redacted(stored(1), [BOX]))
    before = displayed(stored(1))
    assert image.size == before.size
    rows = np.asarray(image.convert("L"), int)[250, 655:1045]
    assert (np.abs(np.diff(rows)) > 6).sum() <= 3 * CELLS
    outside = (0, 0, 640, 900)
    assert difference(image.crop(outside), before.crop(outside)) < 3
    margin = (660, 110, 695, 390)
    assert difference(image.crop(margin), before.crop(margin)) > 3


def test_boxes_of_any_size_can_be_hidden() -> None:
    data = stored(5)
    boxes: list[Box] = [(0, 0, 1200, 900), (5, 5, 5.5, 5.5), (1199, 899, 1300, 1000), (-9, -9, -1, -1)]
    for hidden in boxes:
        assert opened(thumbnail(data, 160, [hidden])).size == (160, 120)
        assert opened(crop(data, BOX, 224, hidden=[hidden])).size[0] == 224
