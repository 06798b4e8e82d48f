"""Masks decided at the image's own pixels, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.oracles.geometry import place
from tests.oracles.masks import native_masks, square_logits

SAME = (1.0, 1.0, 0.0, 0.0)  # the image is the network's input
ONE = np.array([[1.0]])


def drawn(mask: np.ndarray) -> list[str]:
    return ["".join(".#"[int(pixel)] for pixel in line) for line in mask]


def full(w: int, h: int, count: int = 1) -> np.ndarray:
    return np.array([[0, 0, w, h]] * count, np.float64)


@pytest.mark.parametrize(("value", "pixel"), [(1, "#"), (0, "."), (-1, ".")])
def test_a_constant_fills_the_box_when_above_zero(value: float, pixel: str) -> None:
    protos = np.full((1, 3, 2), value, np.float32)
    (mask,) = native_masks(ONE, protos, full(5, 4), (5, 4), (0.5, 2.0, 3.0, -1.0), (8, 12))
    assert drawn(mask) == [pixel * 5] * 4


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 4, 3), ["####", "####", "####"]),
        ((0, 1, 3.5, 3), ["....", "###.", "###."]),  # the centre 3.5 is no longer inside
        ((2.5, 0.5, 9, 0.6), ["..##", "....", "...."]),  # centres 2.5 and 0.5 are
        ((2, 1, 2, 3), ["....", "....", "...."]),
    ],
)
def test_the_box_is_in_image_pixels_and_crops_by_centres(
    box: tuple[float, float, float, float], expected: list[str]
) -> None:
    protos = np.ones((1, 2, 2), np.float32)
    (mask,) = native_masks(ONE, protos, np.array([box]), (4, 3), (8.0, 8.0, 5.0, 5.0), (64, 64))
    assert drawn(mask) == expected


def test_a_step_between_two_columns() -> None:
    # Image centres 0.5, 1.5, 2.5, 3.5 are p = -0.25 (so 0), 0.25, 0.75, 1.25 (so 1) and the logits
    # -1, -0.5, 0.5, 1.
    protos = np.array([[[-1, 1], [-1, 1]]], np.float32)
    (mask,) = native_masks(ONE, protos, full(4, 4), (4, 4), SAME, (4, 4))
    assert drawn(mask) == ["..##"] * 4
    (mask,) = native_masks(-ONE, protos, full(4, 4), (4, 4), SAME, (4, 4))
    assert drawn(mask) == ["##.."] * 4
    down = protos.transpose(0, 2, 1)
    (mask,) = native_masks(ONE, down, full(4, 4), (4, 4), SAME, (4, 4))
    assert drawn(mask) == ["....", "....", "####", "####"]


def test_a_ramp_is_cut_between_prototype_pixels() -> None:
    # p - 1.3 over 4 columns of a 16 px wide input: above 0 where u > (1.3 + 0.5) * 4 = 7.2, so
    # (x + 0.5) / 4 + 2 > 7.2, x + 0.5 > 20.8: from 21 on.
    ramp = np.array([[[0, 1, 2, 3]] * 2], np.float64) - 1.3
    size, placement = (40, 3), (0.25, 0.5, 2.0, 1.0)
    (mask,) = native_masks(ONE, ramp, full(*size), size, placement, (16, 8))
    assert drawn(mask) == ["." * 21 + "#" * 19] * 3
    # q - 0.25 over 2 rows of 8 px: v > 3, so (y + 0.5) / 2 + 1 > 3, y + 0.5 > 4: from 4 on.
    ramp = np.array([[[0] * 4, [1] * 4]], np.float64) - 0.25
    (mask,) = native_masks(ONE, ramp, full(3, 6), (3, 6), placement, (16, 8))
    assert drawn(mask) == ["..."] * 4 + ["###"] * 2


def test_the_outermost_values_reach_to_the_edge() -> None:
    # At p = -0.25 the line through 0.1 and 1 would be at -0.125.
    protos = np.array([[[0.1, 1]]], np.float64)
    (mask,) = native_masks(ONE, protos, full(4, 1), (4, 1), SAME, (4, 1))
    assert drawn(mask) == ["####"]
    (mask,) = native_masks(ONE, protos[..., ::-1], full(4, 1), (4, 1), SAME, (4, 1))
    assert drawn(mask) == ["####"]


def test_between_four_values_it_is_bilinear() -> None:
    # -1 in one corner and 1 at the opposite: p + q - 1, above 0 beyond the diagonal.
    protos = np.array([[[-1, 0], [0, 1]]], np.float64)
    (mask,) = native_masks(ONE, protos, full(4, 4), (4, 4), SAME, (4, 4))
    assert drawn(mask) == ["....", "...#", "..##", ".###"]  # p, q in 0, 1/4, 3/4, 1


def test_each_instance_has_its_own_coefficients_and_box() -> None:
    protos = np.array([[[-1, 1]], [[1, 1]]], np.float32)  # a step and all of it
    coeffs = np.array([[1, 0], [0, 1], [1, -2]], np.float32)
    boxes = np.array([[0, 0, 4, 1], [1, 0, 3, 1], [0, 0, 4, 1]], np.float32)
    masks = native_masks(coeffs, protos, boxes, (4, 1), SAME, (4, 1))
    assert [drawn(mask) for mask in masks] == [["..##"], [".##."], ["...."]]
    assert masks.dtype == np.bool_


def test_no_instance_gives_no_mask() -> None:
    none = native_masks(np.zeros((0, 1)), np.zeros((1, 2, 2)), np.zeros((0, 4)), (8, 4), SAME, (8, 8))
    assert none.shape == (0, 4, 8)


def test_the_padding_is_not_looked_at() -> None:
    # 40 x 20 into 32 x 32 by letterbox: r = 0.8, 16 rows from 8 on. Of 4 x 4 prototypes, 8 px each,
    # rows 1 and 2 hold the picture; the first and last stand in the padding, at v = 4 and 28.
    protos = np.full((1, 4, 4), 1, np.float32)
    protos[:, [0, 3]] = -1
    placement, canvas_w, canvas_h = place("letterbox", 40, 20, 32, 32)
    (mask,) = native_masks(
        ONE,
        protos,
        full(40, 20),
        (40, 20),
        (placement.scale_x, placement.scale_y, placement.left, placement.top),
        (canvas_w, canvas_h),
    )
    # The logit turns at v = 8 and 24, the picture's own edges.
    assert drawn(mask) == ["#" * 40] * 20


def test_at_the_size_of_the_input_it_is_the_plain_enlargement() -> None:
    rng = np.random.default_rng(4)
    coeffs, protos = rng.normal(size=(3, 5)), rng.normal(size=(5, 6, 6))
    masks = native_masks(coeffs, protos, full(24, 24, 3), (24, 24), SAME, (24, 24))
    assert (masks == (np.array(square_logits(coeffs, protos, 24)) > 0)).all()
    assert 0 < masks.mean() < 1
