"""Boxes are mapped into the network's input and back; every number agrees with the oracle."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model_store.transform.letterbox import Fit, Resize, canvas_px, fit, resized_px
from tests.oracles.geometry import BOX_BACK, PLACE, box_back, place

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
@settings(deadline=None, max_examples=150)
def test_placement_is_the_oracles(kind: Resize, width: int, height: int, side: int) -> None:
    placed = fit(kind, (width, height), (side, side))
    new_w, new_h, left, top, scale_x, scale_y = PLACE[kind](width, height, side)
    assert placed == Fit(scale_x, scale_y, left, top, width, height)
    assert resized_px(kind, (width, height), (side, side)) == (new_w, new_h)


@given(kinds, lengths_px, lengths_px, sides_px, fractions)
@settings(deadline=None, max_examples=150)
def test_boxes_come_back_as_the_oracle_brings_them(
    kind: Resize, width: int, height: int, side: int, at: tuple[float, ...]
) -> None:
    box = np.array([at], np.float32) * np.float32(1.5 * side) - np.float32(side / 4)
    (back,) = fit(kind, (width, height), (side, side)).to_image(box)
    x1, y1, x2, y2 = map(float, box[0])
    assert back.tolist() == pytest.approx(BOX_BACK[kind]((x1, y1, x2, y2), width, height, side), rel=1e-6, abs=1e-6)


@given(
    st.sampled_from([*KINDS, "rect"]),
    lengths_px,
    lengths_px,
    st.tuples(st.integers(5, 20), st.integers(5, 20)),
    st.sampled_from([8, 32, 64]),
    fractions,
)
@example("rect", 700, 500, (20, 12), 64, (0, 0, 1, 1))
@example("rect", 1, 4000, (5, 20), 8, (0, 0, 1, 1))
@settings(deadline=None, max_examples=150)
def test_image_to_network_to_image_is_the_same_box(
    kind: Resize, width: int, height: int, cells: tuple[int, int], stride: int, at: tuple[float, ...]
) -> None:
    """Inputs from 320 to 1,280 px: the precision of a float32 in network px limits that in a 50 times larger image."""
    across, down = (64 * n for n in cells)
    placed = fit(kind, (width, height), (across, down), stride)
    boxes = (np.array([at]) * [width, height, width, height]).astype(np.float32)
    assert np.abs(placed.to_image(placed.to_network(boxes)) - boxes).max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_no_boxes_come_back_as_no_boxes(kind: Resize) -> None:
    none = np.zeros((0, 4), np.float32)
    assert fit(kind, (640, 480), (320, 320)).to_image(none).shape == (0, 4)
    assert fit(kind, (640, 480), (320, 320)).to_network(none).shape == (0, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_clipped_to_the_image(kind: Resize) -> None:
    far = np.array([[-999, -999, 9999, 9999]], np.float32)
    back = fit(kind, (640, 480), (320, 320)).to_image(far)
    assert back.tolist() == [[0, 0, 640, 480]]
    assert back.dtype == np.float32


@given(kinds, lengths_px, lengths_px, sides_px)
@settings(deadline=None, max_examples=50)
def test_a_fit_survives_travelling_as_a_row(kind: Resize, width: int, height: int, side: int) -> None:
    placed = fit(kind, (width, height), (side, side))
    row = placed.to_row()
    assert (row.shape, row.dtype) == ((8,), np.float64)
    assert Fit.from_row(row) == placed
    assert isinstance(Fit.from_row(row).left_px, int)


all_kinds = st.sampled_from([*KINDS, "rect"])
strides = st.sampled_from([1, 32, 64])
inputs_px = st.tuples(st.integers(1, 20), st.integers(1, 20))


@given(all_kinds, lengths_px, lengths_px, inputs_px, strides, fractions)
@example("rect", 700, 500, (20, 20), 64, (0, 0, 1, 1))
@example("rect", 1111, 2000, (20, 20), 64, (0, 0, 1, 1))
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
@settings(deadline=None, max_examples=100)
def test_boxes_of_a_tile_come_back_into_the_image(
    width: int, height: int, x: int, y: int, at: tuple[float, ...]
) -> None:
    whole = fit("letterbox", (width, height), (640, 640))
    tile = replace(whole, origin_x_px=x, origin_y_px=y)
    box = np.array([at], np.float32) * 640
    np.testing.assert_allclose(tile.to_image(box), whole.to_image(box) + np.array([x, y, x, y]), atol=1e-3)
    inside = tile.to_image(box)
    np.testing.assert_allclose(tile.to_image(tile.to_network(inside)), inside, atol=1e-3)
