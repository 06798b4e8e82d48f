"""Compare network input with the oracle pixel by pixel, and check the arithmetic of the tensor."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model_store.config import Preprocess
from model_store.transform.letterbox import fit
from model_store.transform.preprocess import prepare, to_tensor
from tests.oracles.geometry import resize_picture
from tests.oracles.yolov8 import tensor

specs = st.builds(
    Preprocess,
    resize=st.sampled_from(["letterbox", "rect", "stretch", "fit_top_left"]),
    side_px=st.integers(1, 12).map(lambda cells: 8 * cells),
    height_px=st.one_of(st.none(), st.integers(1, 12).map(lambda cells: 8 * cells)),
    stride_px=st.just(8),
    interpolation=st.sampled_from(["nearest", "linear", "area", "cubic"]),
    pad_value=st.integers(0, 255),
)


@given(specs, st.integers(1, 200), st.integers(1, 200), st.integers(0, 2**32 - 1))
@example(Preprocess(side_px=64), 1, 200, 0)
@example(Preprocess(side_px=64, resize="fit_top_left"), 200, 1, 0)
@example(Preprocess(side_px=64), 64, 64, 0)
@settings(deadline=None, max_examples=100)
def test_pixels_are_the_oracles_exactly(spec: Preprocess, width: int, height: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    prepared = prepare(image, spec)
    wanted = resize_picture(
        image, spec.resize, *spec.input_px, spec.stride_px, interpolation=spec.interpolation, pad_value=spec.pad_value
    )
    assert prepared.pixels.dtype == np.uint8
    assert np.array_equal(prepared.pixels, wanted[np.newaxis])
    assert prepared.fits == (fit(spec.resize, (width, height), spec.input_px, spec.stride_px),)
    assert prepared.size_px == (width, height)


def test_tensor_is_the_oracles_and_contiguous() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    made = to_tensor(pixels, Preprocess())
    assert made.dtype == np.float32
    assert made.flags.c_contiguous
    for one, image in zip(made, pixels, strict=True):
        assert np.abs(one - tensor(image)[0]).max() <= 1e-7


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (Preprocess(), (51 / 255, 102 / 255, 1.0)),
        (Preprocess(channel_order="BGR"), (1.0, 102 / 255, 51 / 255)),
        (Preprocess(divide_by=1), (51, 102, 255)),
        (Preprocess(divide_by=1, mean=(1, 2, 5), std=(2, 4, 5)), (25, 25, 50)),
        (Preprocess(divide_by=1, channel_order="BGR", mean=(5, 0, 1)), (250, 102, 50)),
    ],
)
def test_order_divisor_mean_and_std_apply_in_that_order(spec: Preprocess, wanted: tuple[float, float, float]) -> None:
    pixels = np.full((1, 2, 2, 3), (51, 102, 255), np.uint8)
    assert to_tensor(pixels, spec)[0, :, 1, 1].tolist() == pytest.approx(wanted)
    assert pixels[0, 0, 0].tolist() == [51, 102, 255]
