"""ONNX graphs of any batch size return separate rows for each image; unsupported graphs are rejected."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from model_store.config import Preprocess
from model_store.errors import ModelRefused
from model_store.runtimes.inputs import joined
from model_store.runtimes.onnx import OnnxSession
from tests.graphs import constant_graph
from tests.model_store.tiny_graphs import (
    ANCHORS,
    ROWS,
    SIDE_PX,
    averaging,
    in_a_list,
    passing_on,
    same_answer,
    two_inputs,
)


def only(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    (output,) = outputs.values()
    return output


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(count).random((count, 3, SIDE_PX, SIDE_PX), np.float32)


@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_fixed_batch_gives_the_rows_of_a_free_one(batch: int, images: int) -> None:
    tensor = pictures(images)
    (free,) = OnnxSession(averaging(), threads=1).run(tensor).values()
    (fixed,) = OnnxSession(averaging(batch), threads=1).run(tensor).values()
    assert free.shape == (images, ROWS, ANCHORS)
    assert np.array_equal(fixed, free)
    wanted = tensor.mean(axis=1).reshape(images, ROWS, ANCHORS)
    assert np.abs(free - wanted).max() < 1e-6


def test_one_session_answers_several_threads() -> None:
    session = OnnxSession(averaging(), threads=1)
    tensors = [pictures(count) for count in range(1, 5)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(session.run, tensors))
    for tensor, found in zip(tensors, together, strict=True):
        assert np.array_equal(only(found), only(session.run(tensor)))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (b"", "not an ONNX file: it is empty"),
        (b"no onnx", "not an ONNX file, or only a part of one"),
        (two_inputs(), r"2 inputs \(left, right\)"),
        (passing_on(None), "is needed"),
        (passing_on(["n", 3, SIDE_PX]), "is needed"),
        (passing_on(["n", 4, SIDE_PX, SIDE_PX]), "is needed"),
        (passing_on(["n", 3, SIDE_PX, 64]), f"side_px {SIDE_PX}"),
    ],
)
def test_a_graph_that_wants_something_else_is_refused(weights: bytes, said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        OnnxSession(weights, threads=1).input.require(Preprocess(side_px=SIDE_PX))


def test_channels_may_come_last_as_tensorflow_has_them() -> None:
    session = OnnxSession(passing_on(["n", SIDE_PX, SIDE_PX, 3]), threads=1)
    assert np.array_equal(only(session.run(pictures(2))), pictures(2).transpose(0, 2, 3, 1))


def test_images_with_different_numbers_of_detections_are_filled_up() -> None:
    """Return a graph without a batch dimension, as torchvision exports it, with one row per image."""
    boxes = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    graph = constant_graph({"boxes": boxes, "scores": boxes[..., 0]}, SIDE_PX, batchless=True)
    found = OnnxSession(graph, threads=1).run(pictures(2))
    assert (found["boxes"].shape, found["scores"].shape) == ((2, 3, 4), (2, 3))
    ragged = [np.ones((1, 2, 4), np.float32), np.ones((1, 5, 4), np.float32)]
    filled = joined(ragged)
    assert filled.shape == (2, 5, 4)
    assert filled[0].sum() == 8


@pytest.mark.parametrize("shape", [[1, ROWS, ANCHORS], []])
def test_an_output_without_a_row_for_each_image_is_refused(shape: list[int]) -> None:
    session = OnnxSession(same_answer(shape), threads=1)
    with pytest.raises(ModelRefused, match=r"run on a batch of 2.*number 0: \(.*batch .* fixed to 1"):
        session.run(pictures(2))


def test_the_outputs_of_a_fixed_number_of_rows_are_known() -> None:
    fixed = OnnxSession(averaging(), threads=1)
    free = OnnxSession(passing_on(["n", None, "h", "w"]), threads=1)
    assert (fixed.fixed_rows, free.fixed_rows) == ({"output0"}, set())


@pytest.mark.parametrize("scale", [{"divide_by": 255}, {"mean": (1, 0, 0)}, {"std": (1, 1, 2)}])
def test_whole_numbers_are_not_scaled_to_fractions(scale: dict[str, object]) -> None:
    session = OnnxSession(passing_on(["n", 3, 8, 8], kind=TensorProto.UINT8), threads=1)
    plain: dict[str, object] = {"side_px": 8, "divide_by": 1}
    session.input.require(Preprocess.model_validate(plain))
    with pytest.raises(ModelRefused, match=r'uint8.*"divide_by": 1, "mean": \[0, 0, 0\]'):
        session.input.require(Preprocess.model_validate(plain | scale))


def test_an_output_that_holds_no_numbers_is_refused() -> None:
    with pytest.raises(ModelRefused, match=r"output output0 is seq\(tensor\(float\)\); tensors"):
        OnnxSession(in_a_list(), threads=1)


def test_what_is_too_new_is_refused_with_what_is_known() -> None:
    model = onnx.load_model_from_string(averaging())
    model.opset_import[0].version = 999
    with pytest.raises(ModelRefused, match=r"with opset \d+ or older, or upgrade onnxruntime$"):
        OnnxSession(model.SerializeToString(), threads=1)
    model.opset_import[0].version, model.ir_version = 13, 999
    with pytest.raises(ModelRefused, match=r"IR version 999 is too new: .* IR version \d+ or older"):
        OnnxSession(model.SerializeToString(), threads=1)
