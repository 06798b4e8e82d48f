"""Boxes go into the network's square and come back; every number agrees with the oracle's."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model_store.fit import Fit, Resize, fit
from tests.oracles.geometry import BOX_BACK, PLACE

KINDS: tuple[Resize, ...] = ("letterbox", "stretch", "fit_top_left")

kinds = st.sampled_from(KINDS)
lengths_px = st.integers(1, 4000)
sides_px = st.integers(1, 1280)
fractions = st.tuples(*[st.floats(0, 1, width=32)] * 4)


@given(kinds, lengths_px, lengths_px, sides_px)
@example("letterbox", 1, 2000, 300)
@example("fit_top_left", 2000, 1, 300)
@example("letterbox", 10, 5, 5)
@example("letterbox", 500, 700, 640)
@settings(deadline=None, max_examples=300)
def test_placement_is_the_oracles(kind: Resize, width: int, height: int, side: int) -> None:
    placed = fit(kind, width, height, side)
    new_w, new_h, left, top, scale_x, scale_y = PLACE[kind](width, height, side)
    assert placed == Fit(scale_x, scale_y, left, top, width, height)
    assert placed.resized_px() == (new_w, new_h)


@given(kinds, lengths_px, lengths_px, sides_px, fractions)
@settings(deadline=None, max_examples=300)
def test_boxes_come_back_as_the_oracle_brings_them(
    kind: Resize, width: int, height: int, side: int, at: tuple[float, ...]
) -> None:
    box = np.array([at], np.float32) * np.float32(1.5 * side) - np.float32(side / 4)
    (back,) = fit(kind, width, height, side).to_image(box)
    x1, y1, x2, y2 = map(float, box[0])
    assert back.tolist() == pytest.approx(
        BOX_BACK[kind]((x1, y1, x2, y2), width, height, side), rel=1e-6, abs=1e-6
    )


@given(kinds, lengths_px, lengths_px, st.integers(32, 1280), fractions)
@settings(deadline=None, max_examples=300)
def test_image_to_network_to_image_is_the_same_box(
    kind: Resize, width: int, height: int, side: int, at: tuple[float, ...]
) -> None:
    placed = fit(kind, width, height, side)
    boxes = (np.array([at]) * [width, height, width, height]).astype(np.float32)
    assert np.abs(placed.to_image(placed.to_network(boxes)) - boxes).max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_no_boxes_come_back_as_no_boxes(kind: Resize) -> None:
    none = np.zeros((0, 4), np.float32)
    assert fit(kind, 640, 480, 320).to_image(none).shape == (0, 4)
    assert fit(kind, 640, 480, 320).to_network(none).shape == (0, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_clipped_to_the_image(kind: Resize) -> None:
    far = np.array([[-999, -999, 9999, 9999]], np.float32)
    back = fit(kind, 640, 480, 320).to_image(far)
    assert back.tolist() == [[0, 0, 640, 480]]
    assert back.dtype == np.float32


@given(kinds, lengths_px, lengths_px, sides_px)
@settings(deadline=None, max_examples=50)
def test_a_fit_survives_travelling_as_a_row(
    kind: Resize, width: int, height: int, side: int
) -> None:
    placed = fit(kind, width, height, side)
    row = placed.to_row()
    assert (row.shape, row.dtype) == ((6,), np.float64)
    assert Fit.from_row(row) == placed
    assert isinstance(Fit.from_row(row).left_px, int)
