"""Boxes to whole pixels, and pixels to JPEG, against arithmetic in fractions and against Pillow."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batch.crops.write import Cut, crop
from model_store.images.crops import corners_px
from tests.batch.box_bench import picture

SIZE = (60, 40)


def cut(margin_frac: float = 0.0, quality: int = 95) -> Cut:
    return Cut(margin_frac, quality, (0.5,))


def box(x1: float, y1: float, x2: float, y2: float) -> dict[str, float]:
    return {"x1_px": x1, "y1_px": y1, "x2_px": x2, "y2_px": y2}


@pytest.mark.parametrize(
    ("sides", "margin_frac", "corners"),
    [
        ((10.0, 20.0, 30.0, 30.0), 0.0, (10, 20, 30, 30)),
        ((10.4, 20.6, 29.2, 30.01), 0.0, (10, 20, 30, 31)),  # whole pixels, none of the box lost
        ((20.0, 10.0, 30.0, 15.0), 0.5, (15, 5, 35, 20)),  # of the longer side, on each side
        ((20.0, 10.0, 25.0, 20.0), 0.5, (15, 5, 30, 25)),
        ((0.0, 0.0, 10.0, 10.0), 0.25, (0, 0, 13, 13)),  # clipped at the edge
        ((50.0, 30.0, 60.0, 40.0), 0.25, (47, 27, 60, 40)),
        ((0.0, 0.0, 60.0, 40.0), 2.0, (0, 0, 60, 40)),
        ((30.0, 20.0, 30.0, 20.0), 0.5, (30, 20, 31, 21)),  # nothing is one pixel
        ((60.0, 40.0, 60.0, 40.0), 0.5, (59, 39, 60, 40)),
        ((0.0, 0.0, 0.0, 0.0), 0.0, (0, 0, 1, 1)),
        ((12.0, 5.0, 12.0, 9.0), 0.0, (12, 5, 13, 9)),  # a line
        ((60.0, 0.0, 60.0, 40.0), 0.0, (59, 0, 60, 40)),
        ((70.0, -9.0, 80.0, -3.0), 0.0, (59, 0, 60, 1)),  # beside the picture
    ],
)
def test_corners(
    sides: tuple[float, float, float, float], margin_frac: float, corners: tuple[int, int, int, int]
) -> None:
    assert corners_px(sides, margin_frac, SIZE) == corners


SIDES = st.floats(-5, 70, width=32)


def touched(start: Fraction, end: Fraction, length_px: int) -> set[int]:
    """Pixels of a line of which some part is between start and end."""
    return {pixel for pixel in range(length_px) if pixel < end and pixel + 1 > start}


@given(SIDES, SIDES, SIDES, SIDES, st.floats(0, 2), st.integers(1, 65), st.integers(1, 65))
def test_corners_hold_the_box_and_its_margin_and_nothing_else(
    a: float, b: float, c: float, d: float, margin_frac: float, width: int, height: int
) -> None:
    (x1, x2), (y1, y2) = sorted((a, c)), sorted((b, d))
    left, top, right, bottom = corners_px((x1, y1, x2, y2), margin_frac, (width, height))
    margin = Fraction(margin_frac) * max(Fraction(x2) - Fraction(x1), Fraction(y2) - Fraction(y1))
    slack = Fraction(1, 10**6)  # of floats against fractions
    for got, start, end, length in (
        (range(left, right), Fraction(x1), Fraction(x2), width),
        (range(top, bottom), Fraction(y1), Fraction(y2), height),
    ):
        assert got
        assert touched(start - margin + slack, end + margin - slack, length) <= set(got)
        most = touched(start - margin - slack, end + margin + slack, length)
        assert set(got) <= most or len(got) == 1


def test_quality_and_margin_are_obeyed() -> None:
    pixels = picture(1)
    small, large = (crop(pixels, box(10, 10, 30, 30), cut(quality=q)) for q in (30, 95))
    assert len(small.data) < len(large.data)
    assert crop(pixels, box(10, 10, 30, 30), cut(0.5)).size_px == (40, 40)


def test_the_pixels_are_those_of_the_box() -> None:
    pixels = picture(1)
    snip = crop(pixels, box(10, 20, 40, 40), cut())
    image = Image.open(io.BytesIO(snip.data))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (30, 20))
    assert snip.size_px == (30, 20)
    wanted = Image.fromarray(pixels).crop((10, 20, 40, 40))
    difference = np.asarray(image).astype(int) - np.asarray(wanted).astype(int)
    assert np.abs(difference).mean() < 4  # that of JPEG; another place differs by some 85
    assert np.abs(difference).max() < 40


def test_a_snip_says_nothing_but_its_pixels() -> None:
    data = crop(picture(1), box(10, 10, 30, 30), cut()).data
    image = Image.open(io.BytesIO(data))
    assert not image.getexif()
    assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
