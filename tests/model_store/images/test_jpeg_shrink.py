"""JPEGs decoded at reduced size have the same places, and nearly the same pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from model_store.config import Preprocess
from model_store.errors import ImageUnreadable
from model_store.images.decode import decode
from model_store.transform.preprocess import read_image, shrink_factor
from tests.fixtures_local import encoded, photo


def jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    """Return a smooth image with a different colour in each corner."""
    y, x = np.mgrid[:height, :width]
    planes = [255 * x / width, 255 * y / height, 255 * (1 - x / width)]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image = Image.fromarray(np.stack(planes, 2).astype(np.uint8))
    image.save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(
    ("size", "spec", "factor"),
    [
        ((1920, 1080), {"jpeg_shrink": 1}, 1),
        ((1920, 1080), {"jpeg_shrink": 8, "side_px": 640}, 2),  # 640 x 360 is wanted: 3 fits, 4 not
        ((1920, 1080), {"jpeg_shrink": 8, "side_px": 300, "resize": "stretch"}, 2),  # 1080 / 300
        ((2592, 2400), {"jpeg_shrink": 8, "side_px": 300, "resize": "stretch"}, 8),
        ((640, 480), {"jpeg_shrink": 8, "side_px": 640}, 1),
    ],
)
def test_never_below_what_is_resized_to(size: tuple[int, int], spec: dict[str, object], factor: int) -> None:
    assert shrink_factor(*size, Preprocess.model_validate(spec)) == factor


@pytest.mark.parametrize("resize", ["letterbox", "stretch", "fit_top_left"])
@pytest.mark.parametrize("orientation", [1, 4, 7])
def test_the_network_sees_the_same_picture_at_the_same_place(orientation: int, resize: str) -> None:
    data = jpeg(1283, 967, orientation)
    spec = Preprocess.model_validate({"side_px": 160, "resize": resize})
    full_facts, full = read_image(data, spec)
    facts, shrunk = read_image(data, spec.model_copy(update={"jpeg_shrink": 4}))
    assert facts == full_facts
    assert shrunk.fits == full.fits
    assert np.abs(shrunk.pixels.astype(int) - full.pixels).max() <= 6


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_shrunken_pixels_are_those_of_another_decoder(factor: int) -> None:
    """Pillow's draft mode does the same with its own libjpeg."""
    data = jpeg(1283, 967)
    ours = decode(data, shrink=lambda width, height: factor).pixels
    theirs = Image.open(io.BytesIO(data))
    theirs.draft("RGB", (1283 // factor, 967 // factor))
    assert ours.shape[:2] == theirs.size[::-1]
    assert np.abs(ours.astype(int) - np.asarray(theirs)).max() <= 2


def test_other_kinds_and_damage_are_as_before() -> None:
    spec = Preprocess(side_px=64, jpeg_shrink=8)
    plain = spec.model_copy(update={"jpeg_shrink": 1})
    png = encoded(decode(photo("cat")).pixels, "PNG")
    assert (read_image(png, spec)[1].pixels == read_image(png, plain)[1].pixels).all()
    cut = photo("moose")[:-20_000]
    facts, _ = read_image(cut, spec)
    assert str(facts.note).startswith("damaged_tolerated")
    assert (facts.width_px, facts.height_px) == (1024, 683)


def test_a_damaged_jpeg_is_tolerated_or_refused_as_the_model_says() -> None:
    cut = photo("moose")[:-20_000]
    facts, _ = read_image(cut, Preprocess(side_px=64))
    assert str(facts.note).startswith("damaged_tolerated")
    with pytest.raises(ImageUnreadable, match="damaged image/jpeg: "):
        read_image(cut, Preprocess(side_px=64, damaged="refuse"))
    whole, _ = read_image(photo("moose"), Preprocess(side_px=64, damaged="refuse"))
    assert whole.note is None
