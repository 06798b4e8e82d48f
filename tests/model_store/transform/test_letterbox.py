"""Boxes are mapped into the network's input and back; every number agrees with the oracle."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model_store.transform.letterbox import Fit, Resize, canvas_px, fit, resized_px
from tests.oracles.geometry import box_back, place

KINDS: tuple[Resize, ...] = ("letterbox", "stretch", "fit_top_left")

lengths_px = st.integers(1, 4000)
fractions = st.tuples(*[st.floats(0, 1, width=32)] * 4)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_clipped_to_the_image(kind: Resize) -> None:
    far = np.array([[-999, -999, 9999, 9999]], np.float32)
    back = fit(kind, (640, 480), (320, 320)).to_image(far)
    assert back.tolist() == [[0, 0, 640, 480]]
    assert back.dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_survives_travelling_as_a_row(kind: Resize) -> None:
    placed = fit(kind, (1283, 967), (320, 320))
    row = placed.to_row()
    assert (row.shape, row.dtype) == ((8,), np.float64)
    assert Fit.from_row(row) == placed
    assert isinstance(Fit.from_row(row).left_px, int)


all_kinds = st.sampled_from([*KINDS, "rect"])
strides = st.sampled_from([1, 32, 64])
inputs_px = st.tuples(st.integers(1, 20), st.integers(1, 20))


@given(all_kinds, lengths_px, lengths_px, inputs_px, strides, fractions)
@example("rect", 700, 500, (20, 20), 64, (0, 0, 1, 1))
@example("letterbox", 1, 2000, (5, 5), 32, (0, 0, 1, 1))
@example("fit_top_left", 2000, 1, (5, 5), 32, (0, 0, 1, 1))
@example("letterbox", 500, 700, (10, 10), 32, (0, 0, 1, 1))
@settings(deadline=None, max_examples=150)
def test_inputs_of_any_shape_are_the_oracles(
    kind: Resize, width: int, height: int, cells: tuple[int, int], stride: int, at: tuple[float, ...]
) -> None:
    across, down = (64 * cell for cell in cells)
    placed = fit(kind, (width, height), (across, down), stride)
    wanted, *canvas = place(kind, width, height, across, down, stride)
    resized = resized_px(kind, (width, height), (across, down))
    assert resized == wanted[:2]
    assert list(canvas_px(kind, resized, (across, down), stride)) == canvas
    assert placed == Fit(wanted.scale_x, wanted.scale_y, wanted.left, wanted.top, width, height)
    box = (np.array([at]) * [*canvas, *canvas]).astype(np.float32)
    x1, y1, x2, y2 = map(float, box[0])
    back = box_back(kind, (x1, y1, x2, y2), width, height, across, down, stride)
    assert placed.to_image(box)[0].tolist() == pytest.approx(back, rel=1e-6, abs=1e-6)


def test_the_published_sizes_of_padding_to_a_stride() -> None:
    """SpeciesNet's: 500 x 700 (h x w) becomes 960 x 1280, 2000 x 1111 becomes 1280 x 768."""
    for size, canvas, pad in (((700, 500), (1280, 960), (0, 23)), ((1111, 2000), (768, 1280), (28, 0))):
        placed = fit("rect", size, (1280, 1280), 64)
        resized = resized_px("rect", size, (1280, 1280))
        assert canvas_px("rect", resized, (1280, 1280), 64) == canvas
        assert (placed.left_px, placed.top_px) == pad


def test_the_top_left_is_cut_to_whole_pixels_as_yolox_does() -> None:
    """YOLOX's `preproc` uses int(w * r), int(h * r); the padding below starts a pixel higher."""
    assert resized_px("fit_top_left", (1024, 681), (640, 640)) == (640, 425)
    assert resized_px("letterbox", (1024, 681), (640, 640)) == (640, 426)


@given(lengths_px, lengths_px, st.integers(0, 3000), st.integers(0, 3000), fractions)
@settings(deadline=None, max_examples=50)
def test_boxes_of_a_tile_come_back_into_the_image(
    width: int, height: int, x: int, y: int, at: tuple[float, ...]
) -> None:
    whole = fit("letterbox", (width, height), (640, 640))
    tile = replace(whole, origin_x_px=x, origin_y_px=y)
    box = np.array([at], np.float32) * 640
    np.testing.assert_allclose(tile.to_image(box), whole.to_image(box) + np.array([x, y, x, y]), atol=1e-3)
