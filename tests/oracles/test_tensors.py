"""Example outputs have the shapes of real exports and something to find; graphs emit them."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from tests.graphs import constant_graph
from tests.oracles.decoders import ORACLES, coefficients
from tests.oracles.tensors import example


def session_of(graph: bytes) -> ort.InferenceSession:
    return ort.InferenceSession(graph, providers=["CPUExecutionProvider"])


def answers(session: ort.InferenceSession, images: np.ndarray, **more: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(values) for values in session.run(None, {"images": images, **more})]


def pictures(shades: list[int], side_px: int = 64) -> np.ndarray:
    """(n, 3, side, side) in 0..1, each image of one grey."""
    shade = np.array(shades, np.float32)[:, np.newaxis, np.newaxis, np.newaxis] / np.float32(255)
    return np.broadcast_to(shade, (len(shades), 3, side_px, side_px)).copy()


@pytest.mark.parametrize("decoder", ORACLES)
def test_examples_have_the_shapes_of_the_case_by_hand(decoder: str) -> None:
    """Only the number of rows differs, and that of the mask coefficients, and their prototypes."""
    oracle, outputs = ORACLES[decoder], example(decoder, np.random.default_rng(1), classes=2)
    rows = 84 * oracle.per_cell or oracle.rows  # side 64 has 64 + 16 + 4 = 84 cells
    assert outputs.keys() == oracle.case.keys()
    for name, values in outputs.items():
        assert values.ndim == oracle.case[name].ndim
        pairs = zip(values.shape[1:], oracle.case[name].shape[1:], strict=True)
        if name == "output1":
            assert values.shape == (2, 8, 16, 16)
        else:  # 8 coefficients instead of 2
            assert all(have in (want, rows) or have == want + 8 - 2 for have, want in pairs)
            assert values.ndim == 1 or rows in values.shape
    assert {str(values.dtype) for values in outputs.values()} <= {"float32", "int64"}
    again = example(decoder, np.random.default_rng(1), classes=2)
    assert all((again[name] == values).all() for name, values in outputs.items())


@pytest.mark.parametrize("classes", [1, 2, 3, 12])
@pytest.mark.parametrize("decoder", ORACLES)
def test_every_example_shows_something_and_no_score_is_near_a_floor(decoder: str, classes: int) -> None:
    outputs = example(decoder, np.random.default_rng(classes), 3, classes)
    images = ORACLES[decoder].decode(outputs, 64, classes, 0.25)
    assert images == ORACLES[decoder].decode(outputs, 64, classes, 0.011)
    assert len(images) == 3
    assert images[0] != images[1]
    for boxes in images:
        assert len(boxes) >= 8  # at least three objects in three rows, less one without an object
        scores = [box.score for box in boxes]
        assert len(set(scores)) == len(scores)
        assert min(scores) > 0.39
        assert all(box.x1 < box.x2 and box.y1 < box.y2 for box in boxes)


def test_raw_yolox_lies_on_the_grid_and_decoded_in_the_square() -> None:
    raw = example("yolox_raw", np.random.default_rng(3))["output0"]
    assert np.abs(raw[..., :4]).max() < 4
    decoded = example("yolox", np.random.default_rng(3))["output0"]
    assert decoded[..., :2].max() > 32
    for one, other in zip(
        ORACLES["yolox_raw"].decode({"output0": raw}, 64, 3, 0.25),
        ORACLES["yolox"].decode({"output0": decoded}, 64, 3, 0.25),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("decoder", "masks"), [("yolov5", "yolov5_seg"), ("yolov8", "yolov8_seg"), ("end2end", "end2end_seg")]
)
def test_heads_with_masks_show_the_boxes_of_those_without(decoder: str, masks: str) -> None:
    outputs = example(masks, np.random.default_rng(3))
    plain = example(decoder, np.random.default_rng(3))
    expected = ORACLES[decoder].decode(plain, 64, 3, 0.25)
    assert ORACLES[masks].decode(outputs, 64, 3, 0.25) == expected
    for image in (0, 1):
        boxes, weights = coefficients(masks, outputs, image, 3, 0.25)
        assert boxes == expected[image]
        assert weights.shape == (len(boxes), 8)
        assert len({tuple(row) for row in weights.tolist()}) == len(boxes)
        assert np.abs(weights).max() < 6


@pytest.mark.parametrize("decoder", ORACLES)
def test_a_graph_emits_the_row_of_each_pixel(decoder: str) -> None:
    outputs = example(decoder, np.random.default_rng(2), images=3)
    session = session_of(constant_graph(outputs, 64))
    names = [output.name for output in session.get_outputs()]
    assert names == list(outputs)
    emitted = answers(session, pictures([2, 0, 1, 4, 255]))
    for name, values in zip(names, emitted, strict=True):
        assert values.dtype == outputs[name].dtype
        assert (values == outputs[name][[2, 0, 1, 1, 0]]).all()


def test_one_image_answers_the_same_in_any_batch() -> None:
    graph = constant_graph(example("yolov8", np.random.default_rng(2), images=256), 64)
    session = session_of(graph)
    batch = pictures(list(range(256)))
    (together,) = answers(session, batch)
    for place in (0, 77, 255):
        (alone,) = answers(session, batch[place : place + 1])
        assert (alone[0] == together[place]).all()


def test_half_precision_pixels_still_choose_their_row() -> None:
    outputs = {"output0": np.arange(256, dtype=np.float16)[:, np.newaxis]}
    session = session_of(constant_graph(outputs, 64, fp16_input=True))
    assert session.get_inputs()[0].type == "tensor(float16)"
    (emitted,) = answers(session, pictures(list(range(256))).astype(np.float16))
    assert emitted[:, 0].tolist() == list(range(256))
    assert emitted.dtype == np.float16


@pytest.mark.parametrize(
    ("scale", "mean", "std", "pixel"), [(1.0, 0.0, 1.0, (1.0, 0.0)), (1 / 255, 0.485, 0.229, (58.395, 123.675))]
)
def test_other_preprocessings_choose_the_same_rows(
    scale: float, mean: float, std: float, pixel: tuple[float, float]
) -> None:
    session = session_of(constant_graph({"output0": np.arange(256)}, 8, pixel=pixel))
    images = (pictures(list(range(256)), 8) * 255 * scale - mean) / std
    (emitted,) = answers(session, images.astype(np.float32))
    assert emitted.tolist() == list(range(256))


def test_metadata_and_an_extra_input_that_changes_nothing() -> None:
    outputs = example("rtdetr_labels", np.random.default_rng(2))
    names = {"names": "{0: 'deer', 1: 'fox', 2: 'hare'}", "task": "detect"}
    session = session_of(constant_graph(outputs, 64, names, extra_inputs=["orig_target_sizes"]))
    assert session.get_modelmeta().custom_metadata_map == names
    sizes = np.array([[640, 480], [1, 9]], np.int64)
    emitted = answers(session, pictures([1, 0]), orig_target_sizes=sizes)
    for name, values in zip(outputs, emitted, strict=True):
        assert (values == outputs[name][::-1]).all()
    assert [given.name for given in session.get_inputs()] == ["images", "orig_target_sizes"]
    with pytest.raises(ValueError, match="orig_target_sizes"):
        answers(session, pictures([1, 0]))


def test_a_graph_without_a_batch_answers_for_one_image() -> None:
    outputs = example("torchvision", np.random.default_rng(2))
    session = session_of(constant_graph(outputs, 64, batchless=True))
    assert session.get_inputs()[0].shape == [1, 3, 64, 64]
    emitted = answers(session, pictures([1]))
    for name, values in zip(outputs, emitted, strict=True):
        assert (values == outputs[name][1]).all()
    found = ORACLES["torchvision"].decode(dict(zip(outputs, emitted, strict=True)), 64, 3, 0.25)
    assert found == ORACLES["torchvision"].decode(outputs, 64, 3, 0.25)[1:]
