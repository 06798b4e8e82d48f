"""Test embedders: vectors of images and crops, which outputs are vectors, and unusable ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_store.embedder import unit, vectors_of
from model_store.errors import ModelRefused
from tests.fixtures_local import photo
from tests.graphs import constant_graph
from tests.model_store.classifiers import SIDE_PX
from tests.model_store.embedders import WEIGHT, loaded, looks


def test_a_vector_is_what_the_network_returns_for_the_pixels(tmp_path: Path) -> None:
    embedder = loaded(tmp_path, looks())
    image = np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
    (vector,) = embedder.of_images([image])
    assert (vector.shape, vector.dtype) == ((5,), np.float32)
    assert vector == pytest.approx(image.reshape(-1, 3).mean(axis=0) / 255 @ WEIGHT, rel=1e-5)
    alone = np.concatenate([embedder.of_images([one]) for one in (image, image[::-1], image[:, ::2])])
    np.testing.assert_array_equal(embedder.of_images([image, image[::-1], image[:, ::2]]), alone)


def test_a_box_of_an_image_has_the_vector_of_its_pixels(tmp_path: Path) -> None:
    embedder = loaded(tmp_path, looks())
    data = photo("cat")
    _, crop = embedder.read(data, (10, 20, 110, 90))
    pixels = embedder.decode(data).pixels[20:90, 10:110]
    np.testing.assert_array_equal(embedder.infer(crop.pixels), embedder.of_images([pixels]))


def test_the_lengths_of_vectors_are_kept_apart_from_their_directions() -> None:
    units, norms = unit(np.array([[3, 4], [0, -0.5], [1e-30, 1e-30]], np.float32))
    assert units == pytest.approx(np.array([[0.6, 0.8], [0, -1], [0.5**0.5, 0.5**0.5]]), rel=1e-6)
    assert norms == pytest.approx(np.array([5, 0.5, 2**0.5 * 1e-30]), rel=1e-6)


@pytest.mark.parametrize(
    ("outputs", "name", "words"),
    [
        ({"a": (2, 5), "b": (2, 5)}, "", r"the graph has several outputs.*\"output\"; they are a \[2, 5\], b \[2, 5\]"),
        ({"a": (2, 5)}, "b", "the graph has no output 'b'"),
        ({"a": (2, 4)}, "", r"an embedder of size 5 needs an output \[2, 5\]; the graph's are a \[2, 4\]"),
    ],
)
def test_outputs_that_are_not_one_vector_per_image_are_refused(
    outputs: dict[str, tuple[int, ...]], name: str, words: str
) -> None:
    with pytest.raises(ModelRefused, match=words):
        vectors_of({each: np.ones(shape, np.float32) for each, shape in outputs.items()}, 2, name, 5)


def test_the_output_of_the_config_is_used_and_may_have_axes_of_length_1() -> None:
    outputs = {"a": np.zeros((2, 5), np.float32), "b": np.arange(10, dtype=np.float32).reshape(2, 5, 1, 1)}
    assert vectors_of(outputs, 2, "b", 5).tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        ([0.0, 0.0, 0.0], "a vector of zeros, which has no direction"),
        ([np.nan, 1.0, 0.0], "NaN or infinity"),
        (
            [1.0, 2.0, 3.0],
            "the probe cannot distinguish looks@1 from another model: it gives the vector of a grey image",
        ),
    ],
)
def test_a_network_without_information_is_refused(tmp_path: Path, vector: list[float], words: str) -> None:
    graph = constant_graph({"embedding": np.array([vector], np.float32)}, SIDE_PX)
    with pytest.raises(ModelRefused, match=words):
        loaded(tmp_path, graph)
