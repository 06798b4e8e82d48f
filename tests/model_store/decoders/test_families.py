"""Every family against its oracle: graphs that emit known tensors, run by the product's own session."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from model_store.config import Nms
from model_store.decoders import DECODERS
from model_store.decoders.layout import DecodeSpec
from model_store.detections import Detections
from model_store.errors import ModelRefused
from model_store.masks import PrototypeMasks
from model_store.nms import suppress
from model_store.runtimes.onnx import OnnxSession
from tests.graphs import constant_graph
from tests.oracles.families import FAMILIES, Box, coefficients
from tests.oracles.nms import nms
from tests.oracles.tensors import example

SIDE_PX = 64
FLOOR = 0.05


def session_of(family: str, outputs: dict[str, np.ndarray], fp16: bool = False) -> OnnxSession:
    sized = ["orig_target_sizes"] if family == "rtdetr_labels" else []
    batchless = family == "torchvision"
    graph = constant_graph(outputs, SIDE_PX, None, fp16, sized, batchless=batchless)
    return OnnxSession(graph, threads=1)


def pictures(rows: Sequence[int]) -> np.ndarray:
    """Images whose first pixel says which row of the graph's tensors they get."""
    images = np.zeros((len(rows), 3, SIDE_PX, SIDE_PX), np.float32)
    images[:, 0, 0, 0] = np.array(rows) / 255
    return images


def columns(found: Detections) -> np.ndarray:
    """(n, 6) sorted by score: the oracle's order is not the product's."""
    table = np.column_stack([found.boxes_xyxy, found.scores, found.class_ids])
    return table[np.argsort(-table[:, 4])]


def wanted(boxes: Sequence[Box]) -> np.ndarray:
    return np.array(sorted(boxes, key=lambda box: -box.score), np.float64).reshape(-1, 6)


def test_every_family_has_an_oracle() -> None:
    assert set(FAMILIES) | {"blobs"} == set(DECODERS)


@pytest.mark.parametrize("fp16", [False, True], ids=["fp32", "fp16 input"])
@pytest.mark.parametrize("classes", [1, 2, 3, 12])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_boxes_are_the_oracles(family: str, classes: int, fp16: bool) -> None:
    outputs = example(family, np.random.default_rng(classes), 3, classes, SIDE_PX)
    rows = [2, 0, 1]
    raw = session_of(family, outputs, fp16).run(pictures(rows))
    found = DECODERS[family](raw, DecodeSpec((SIDE_PX, SIDE_PX), classes, FLOOR))
    oracle = FAMILIES[family](outputs, SIDE_PX, classes, FLOOR)
    assert len(found) == 3
    for row, image in zip(rows, found, strict=True):
        have, want = columns(image), wanted(oracle[row])
        assert have.shape == want.shape
        np.testing.assert_allclose(have[:, :4], want[:, :4], atol=1e-3, rtol=1e-5)
        np.testing.assert_allclose(have[:, 4], want[:, 4], atol=1e-5)
        assert (have[:, 5] == want[:, 5]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_one_image_decodes_the_same_alone_and_in_any_batch(family: str) -> None:
    outputs = example(family, np.random.default_rng(5), 4, 3, SIDE_PX)
    session, spec = session_of(family, outputs), DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR)
    rows = [0, 1, 2, 3, 1, 0, 3, 2, 2, 1, 0, 3, 1, 1, 2, 0]
    alone = [DECODERS[family](session.run(pictures([row])), spec)[0] for row in range(4)]
    for size in (3, 16):
        together = DECODERS[family](session.run(pictures(rows[:size])), spec)
        for row, image in zip(rows[:size], together, strict=True):
            assert (columns(image) == columns(alone[row])).all()


@pytest.mark.parametrize("family", ["yolov5", "yolov8", "yolox_raw", "ssd"])
@pytest.mark.parametrize("class_aware", [True, False])
def test_what_suppression_keeps_is_what_the_oracle_keeps(family: str, class_aware: bool) -> None:
    outputs = example(family, np.random.default_rng(7), 4, 3, SIDE_PX)
    for image in DECODERS[family](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR)):
        kept = suppress(image, Nms(iou=0.5, class_aware=class_aware))
        order = nms(
            image.boxes_xyxy.tolist(),
            image.scores.tolist(),
            image.class_ids.tolist(),
            threshold=0.5,
            class_aware=class_aware,
            max_detections=300,
        )
        assert 0 < len(order) < len(image)
        assert (columns(kept) == columns(image.select(np.array(order, np.intp)))).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_at_the_floor_is_left_out(family: str) -> None:
    outputs = example(family, np.random.default_rng(9), 1, 3, SIDE_PX)
    (image,) = DECODERS[family](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR))
    lowest = float(image.scores.min())
    (fewer,) = DECODERS[family](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 3, lowest))
    assert len(fewer) == len(image) - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_of_another_layout_are_refused_by_shape_or_name(family: str) -> None:
    spec = DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR)
    with pytest.raises(ModelRefused, match=f"decoder {family} needs"):
        DECODERS[family]({"output0": np.zeros((1, 7), np.float32)}, spec)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("family", ["yolov8_seg", "end2end_seg"])
def test_boxes_keep_the_coefficients_of_their_masks(family: str, classes: int) -> None:
    outputs = example(family, np.random.default_rng(classes), 3, classes, SIDE_PX)
    found = DECODERS[family](outputs, DecodeSpec((SIDE_PX, SIDE_PX), classes, FLOOR))
    for i, image in enumerate(found):
        boxes, wanted_coefficients = coefficients(family, outputs, i, classes, FLOOR)
        assert len(image) == len(boxes) > 1
        assert isinstance(image.masks, PrototypeMasks)
        np.testing.assert_allclose(image.boxes_xyxy, [box[:4] for box in boxes], atol=1e-3)
        assert (image.masks.coefficients == wanted_coefficients).all()
        assert (image.masks.prototypes == outputs["output1"][i]).all()


@pytest.mark.parametrize("family", ["yolov8_seg", "end2end_seg"])
@pytest.mark.parametrize(
    "shapes",
    [[(1, 20, 84)], [(1, 20, 84), (1, 8, 16)], [(1, 20, 84), (1, 7, 16, 16)]],
    ids=["one output", "flat prototypes", "other coefficients"],
)
def test_outputs_without_fitting_prototypes_are_refused(
    family: str, shapes: list[tuple[int, ...]]
) -> None:
    outputs = {f"output{i}": np.zeros(shape, np.float32) for i, shape in enumerate(shapes)}
    with pytest.raises(ModelRefused, match=r"\(n, K, h, w\); the model gave"):
        DECODERS[family](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR))


@pytest.mark.parametrize("family", ["rtdetr", "rtdetr_topk", "rfdetr", "ssd", "tf_detection"])
def test_fractions_are_of_the_width_and_of_the_height(family: str) -> None:
    outputs = example(family, np.random.default_rng(4), 1, 3, SIDE_PX)
    (square,) = DECODERS[family](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR))
    (wide,) = DECODERS[family](outputs, DecodeSpec((2 * SIDE_PX, SIDE_PX), 3, FLOOR))
    np.testing.assert_allclose(wide.boxes_xyxy, square.boxes_xyxy * [2, 1, 2, 1], rtol=1e-6)


def test_a_grid_need_not_be_square() -> None:
    """Cells row by row: 8 x 4 of stride 8, 4 x 2 of 16, 2 x 1 of 32."""
    raw = np.zeros((1, 8 * 4 + 4 * 2 + 2, 6), np.float32)
    raw[0, :, 4:] = [0.5, 0.5]
    raw[0, 8, 4:] = 1  # second row, first column
    raw[0, -1, 4:] = 1
    (found,) = DECODERS["yolox_raw"]({"output0": raw}, DecodeSpec((64, 32), 1, 0.9))
    assert found.boxes_xyxy.tolist() == [[-4, 4, 4, 12], [16, -16, 48, 16]]
