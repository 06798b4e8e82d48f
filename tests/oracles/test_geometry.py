"""Network inputs of any shape, on numbers worked out by hand; squares are in test_oracles.py."""

from __future__ import annotations

import numpy as np
import pytest

from tests.oracles.geometry import BOX_BACK, PLACE, Geometry, Kind, box_back, place, resize_picture, resize_pixels

SQUARES: tuple[Geometry, ...] = ("letterbox", "stretch", "fit_top_left")
KINDS: tuple[Kind, ...] = (*SQUARES, "rect")


def test_rect_of_a_700_x_500_image() -> None:
    # r = 1280/700; 500 * r = 914.29 -> 914; 366 % 64 = 46, so 960 high and 23 above and below.
    placement, canvas_w, canvas_h = place("rect", 700, 500, 1280, 1280, 64)
    assert (canvas_w, canvas_h) == (1280, 960)
    assert placement == (1280, 914, 0, 23, 1280 / 700, 1280 / 700)


def test_rect_of_a_1111_x_2000_image() -> None:
    # r = 0.64; 1111 * r = 711.04 -> 711; 569 % 64 = 57, so 768 wide: 28 left, 29 right.
    placement, canvas_w, canvas_h = place("rect", 1111, 2000, 1280, 1280, 64)
    assert (canvas_w, canvas_h) == (768, 1280)
    assert placement == (711, 1280, 28, 0, 0.64, 0.64)
    assert canvas_w - 28 - 711 == 29


def test_rect_keeps_less_than_a_stride_and_the_default_is_32() -> None:
    # r = 1/2: 100 x 50 in 100 x 120; 70 % 32 = 6. With stride 1 nothing is left, with 100 all.
    assert place("rect", 200, 100, 100, 120) == ((100, 50, 0, 3, 0.5, 0.5), 100, 56)
    assert place("rect", 200, 100, 100, 120, 1) == ((100, 50, 0, 0, 0.5, 0.5), 100, 50)
    assert place("rect", 200, 100, 100, 120, 100) == ((100, 50, 0, 35, 0.5, 0.5), 100, 120)
    assert place("rect", 320, 320, 64, 64) == ((64, 64, 0, 0, 0.2, 0.2), 64, 64)


def test_only_the_top_left_drops_fractions() -> None:
    # r = 0.625; 681 * r = 425.625: YOLOX's int() says 425, Ultralytics' round() 426.
    assert place("fit_top_left", 1024, 681, 640, 640)[0] == (640, 425, 0, 0, 0.625, 0.625)
    assert place("letterbox", 1024, 681, 640, 640)[0] == (640, 426, 0, 107, 0.625, 0.625)
    # 640 / 681 * 681 is 640 in float64, and nothing is lost there.
    assert place("fit_top_left", 300, 681, 640, 640)[0][:2] == (281, 640)
    assert place("fit_top_left", 2000, 1, 300, 300)[0][:2] == (300, 1)


def test_rect_keeps_one_pixel() -> None:
    # 0.15 px become 1: 299 % 32 = 11, so 12 wide with 5 on either side.
    assert place("rect", 1, 2000, 300, 300) == ((1, 300, 5, 0, 0.15, 0.15), 12, 300)


def test_an_input_wider_than_high() -> None:
    # 300 x 100 into 150 x 80: r = min(0.8, 0.5); 50 high, 30 px of padding, 30 % 32 = 30.
    assert place("letterbox", 300, 100, 150, 80) == ((150, 50, 0, 15, 0.5, 0.5), 150, 80)
    assert place("rect", 300, 100, 150, 80) == ((150, 50, 0, 15, 0.5, 0.5), 150, 80)
    assert place("rect", 300, 100, 150, 80, 8) == ((150, 50, 0, 3, 0.5, 0.5), 150, 56)
    assert place("stretch", 300, 100, 150, 80) == ((150, 80, 0, 0, 0.5, 0.8), 150, 80)
    assert place("fit_top_left", 300, 100, 150, 80) == ((150, 50, 0, 0, 0.5, 0.5), 150, 80)


def test_an_input_higher_than_wide() -> None:
    # 100 x 50 into 20 x 55: r = 0.2; 10 high, 45 px: 22 above, 23 below; 45 % 32 = 13: 6 and 7.
    assert place("letterbox", 100, 50, 20, 55) == ((20, 10, 0, 22, 0.2, 0.2), 20, 55)
    assert place("rect", 100, 50, 20, 55) == ((20, 10, 0, 6, 0.2, 0.2), 20, 23)


def test_a_geometry_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="no geometry 'square'"):
        place("square", 10, 10, 20, 20)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", SQUARES)
@pytest.mark.parametrize("size", [(500, 700), (1, 2000), (13, 900), (640, 640)])
def test_a_square_is_an_input_like_others(kind: Geometry, size: tuple[int, int]) -> None:
    w, h = size
    assert place(kind, w, h, 640, 640) == (PLACE[kind](w, h, 640), 640, 640)
    box = (90.5, -4.0, 300.25, 630.0)
    assert box_back(kind, box, w, h, 640, 640) == BOX_BACK[kind](box, w, h, 640)


def test_boxes_come_back_by_hand() -> None:
    box = (10.0, 23.0, 85.0, 40.0)
    assert box_back("letterbox", box, 300, 100, 150, 80) == (20, 16, 170, 50)
    assert box_back("rect", box, 300, 100, 150, 80, 8) == (20, 40, 170, 74)
    assert box_back("fit_top_left", box, 300, 100, 150, 80) == (20, 46, 170, 80)
    assert box_back("stretch", box, 300, 100, 150, 80) == pytest.approx((20, 28.75, 170, 50))
    assert box_back("rect", (-9, 0, 999, 56), 300, 100, 150, 80, 8) == (0, 0, 300, 100)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(500, 700), (1024, 681), (13, 900), (640, 384)])
def test_a_box_placed_by_the_forward_scale_comes_back(kind: Kind, size: tuple[int, int]) -> None:
    w, h = size
    placement, canvas_w, canvas_h = place(kind, w, h, 640, 384, 64)
    new_w, new_h, left, top, scale_x, scale_y = placement
    assert left + new_w <= canvas_w <= 640
    assert top + new_h <= canvas_h <= 384
    x1, y1, x2, y2 = box = (w * 0.2, h * 0.1, w * 0.7, h * 0.9)
    there = (x1 * scale_x + left, y1 * scale_y + top, x2 * scale_x + left, y2 * scale_y + top)
    assert box_back(kind, there, w, h, 640, 384, 64) == pytest.approx(box)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        # 20 x 10 into 10 x 12 is 10 x 5; 7 rows of padding, 3 above; 7 % 4 = 3, 1 above.
        ("letterbox", "...#####...."),
        ("rect", ".#####.."),
        ("fit_top_left", "#####......."),
        ("stretch", "############"),
    ],
)
def test_pictures_are_placed_on_the_pad(kind: Kind, rows: str) -> None:
    white = np.full((10, 20, 3), 255, np.uint8)
    canvas = resize_picture(white, kind, 10, 12, 4, "nearest", 7)
    assert canvas.shape == (len(rows), 10, 3)
    expected = np.array([255 if row == "#" else 7 for row in rows])
    assert (canvas == expected[:, np.newaxis, np.newaxis]).all()


def test_a_picture_of_the_new_size_is_copied() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    canvas = resize_picture(pixels, "rect", 64, 64)  # 24 rows of padding are less than 32
    assert canvas.shape == (64, 64, 3)
    assert (canvas[12:52] == pixels).all()
    assert (canvas[:12] == 114).all()
    assert (canvas == resize_pixels(pixels, "letterbox", side=64)).all()
