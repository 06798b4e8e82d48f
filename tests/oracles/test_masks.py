"""Masks and run lengths worked out by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.oracles.masks import Back, bilinear, compress, expand, instance_masks, mask_of, run_lengths, square_logits

# Left half negative, right half positive. At side 4 the centres fall on -0.25 (the edge repeats),
# 0.25, 0.75 and 1.25 of the two columns: logits -1, -0.5, 0.5, 1 in every row.
PROTOS = np.array([[[-1, 1], [-1, 1]]], np.float32)
ONE = np.array([[1]], np.float32)


def drawn(mask: np.ndarray) -> list[str]:
    return ["".join(".#"[int(pixel)] for pixel in line) for line in mask]


def test_logits_in_the_square() -> None:
    (plane,) = square_logits(ONE, PROTOS, 4)
    assert plane == [[-1, -0.5, 0.5, 1]] * 4
    # Two prototypes: 2 * the first - 1 * the second, which is all 1.
    both = np.concatenate([PROTOS, np.ones((1, 2, 2), np.float32)])
    (plane,) = square_logits(np.array([[2, -1]], np.float32), both, 4)
    assert plane == [[-3, -2, 0, 1]] * 4


@pytest.mark.parametrize("size", [(3, 5), (7, 4), (20, 31), (5, 1), (1, 1)])
def test_bilinear_is_what_cv2_does(size: tuple[int, int]) -> None:
    plane = np.random.default_rng(1).normal(size=(6, 9)).astype(np.float32)
    expected = cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(bilinear(plane.tolist(), *size), expected, atol=1e-5)


def test_no_instance_gives_no_mask() -> None:
    coeffs, boxes = np.zeros((0, 1), np.float32), np.zeros((0, 4), np.float32)
    assert instance_masks(coeffs, PROTOS, boxes, (8, 4), 4).shape == (0, 4, 8)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 4, 4), ["..##"] * 4),
        ((0, 1, 4, 3), ["....", "..##", "..##", "...."]),
        ((0, 0, 3.5, 4), ["..#."] * 4),  # the centre 3.5 is no longer inside
        ((2.5, 0.5, 4, 0.6), ["..##", "....", "....", "...."]),  # centres 2.5 and 0.5 are
        ((3, 3, 3, 4), ["...."] * 4),
    ],
)
def test_the_box_crops_by_pixel_centres(box: tuple[float, float, float, float], expected: list[str]) -> None:
    boxes = np.array([box], np.float32)
    (mask,) = instance_masks(ONE, PROTOS, boxes, (4, 4), 4)
    assert drawn(mask) == expected


def test_the_padding_is_cut_and_the_picture_enlarged() -> None:
    # 8 x 4 at ratio 1/2 is 4 x 2 in rows 1 and 2; the box keeps row 1 (image rows 0, 1) and
    # column 2 (image columns 4, 5) of the positive half.
    boxes = np.array([[0, 0, 3.2, 2]], np.float32)
    (mask,) = instance_masks(ONE, PROTOS, boxes, (8, 4), 4)
    assert drawn(mask) == ["....##..", "....##..", "........", "........"]


def test_masks_of_other_geometries() -> None:
    boxes = np.array([[0, 0, 4, 1]], np.float32)
    (mask,) = instance_masks(ONE, PROTOS, boxes, (8, 4), 4, geometry="stretch")
    assert drawn(mask) == ["....####", "........", "........", "........"]
    # In the corner the picture is rows 0 and 1 of the square.
    (mask,) = instance_masks(ONE, PROTOS, boxes, (8, 4), 4, geometry="fit_top_left")
    assert drawn(mask) == ["....####", "....####", "........", "........"]


@pytest.mark.parametrize(
    ("back", "expected"),
    [
        # 4 -> 6 pixels: centres at 1/3, 1, 5/3, 7/3, 3, 11/3; columns 2 and 3 are set.
        ("nearest", "...###"),
        ("nearest_floor", "...###"),  # 0, 2/3, 4/3, 2, 8/3, 10/3
        ("linear", "...###"),  # less 1/2: -1/6, 1/2, 7/6, 11/6, 5/2, 19/6 -> 0, 0, 1/6, 5/6, 1, 1
        ("logits", "..####"),  # 7/6 lies between -0.5 cropped to 0 and 0.5: 1/12 > 0
    ],
)
def test_the_orders_differ_on_the_boundary(back: Back, expected: str) -> None:
    boxes = np.array([[2, 0, 4, 4]], np.float32)
    (mask,) = instance_masks(ONE, PROTOS, boxes, (6, 6), 4, back=back)
    assert drawn(mask) == [expected] * 6


def test_nearest_by_centre_and_by_floor() -> None:
    # 4 -> 3 pixels. Centres 2/3, 2, 10/3: columns 0, 2, 3. Floors 0, 4/3, 8/3: columns 0, 1, 2.
    boxes = np.array([[3, 0, 4, 4]], np.float32)
    found = [
        drawn(instance_masks(ONE, PROTOS, boxes, (3, 3), 4, back=back)[0])[0] for back in ("nearest", "nearest_floor")
    ]
    assert found == ["..#", "..."]


@pytest.mark.parametrize(
    ("mask", "counts", "text"),
    [
        ([[0, 0], [0, 0]], [4], "4"),
        ([[1, 1], [1, 1]], [0, 4], "04"),
        ([[0, 1], [1, 1]], [1, 3], "13"),  # down the first column: 0 1, then 1 1
        ([[0, 0, 1], [1, 0, 0]], [1, 1, 2, 1, 1], "1120O"),  # 1 - 1 = 0; 1 - 2 = -1 is 31
    ],
)
def test_run_lengths_by_hand(mask: list[list[int]], counts: list[int], text: str) -> None:
    pixels = np.array(mask, np.bool_)
    assert run_lengths(pixels) == counts
    assert (mask_of(counts, pixels.shape) == pixels).all()
    assert compress(counts) == text
    assert expand(text) == counts


def test_long_runs_take_several_characters() -> None:
    # 16 has bit 4 set, which alone would read as -16: 16 | 32, then 0. 40 is 8 | 32, then 1.
    # From the fourth on: 4 - 1, 5 - 40 = -35 is 29 | 32 then 30, 4 - 4, 5 - 5, 4 - 4, 21 - 5 = 16.
    assert compress([16]) == "`0"
    counts = [6, 1, 40, 4, 5, 4, 5, 4, 21]
    assert compress(counts) == "61X13mN000`0"
    assert expand("61X13mN000`0") == counts
    assert mask_of(counts, (9, 10)).sum() == 1 + 4 + 4 + 4


def test_random_masks_come_back() -> None:
    rng = np.random.default_rng(5)
    for h, w in ((1, 1), (1, 70), (70, 1), (40, 33)):
        mask = rng.random((h, w)) < 0.05
        counts = run_lengths(mask)
        assert sum(counts) == h * w
        assert expand(compress(counts)) == counts
        assert (mask_of(counts, (h, w)) == mask).all()


def test_counts_must_fill_the_picture() -> None:
    with pytest.raises(ValueError, match="3 pixels do not fill 2 x 2"):
        mask_of([1, 2], (2, 2))
