"""Compare every family with its oracle on graphs that return constant tensors, run by the product's session."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from model_store.config import Nms
from model_store.decoders import DECODERS
from model_store.decoders.layout import DecodeSpec, OutputNonsense
from model_store.detections import Detections
from model_store.errors import ModelRefused
from model_store.runtimes.onnx import OnnxSession
from model_store.transform.masks import PrototypeMasks
from model_store.transform.nms import suppress
from tests.graphs import constant_graph
from tests.oracles.families import FAMILIES, SCORES, Box, coefficients, saturated
from tests.oracles.nms import nms
from tests.oracles.tensors import example

SIDE_PX = 64
FLOOR = 0.05
SEGMENTING = ["yolov5_seg", "yolov8_seg", "end2end_seg"]


def session_of(family: str, outputs: dict[str, np.ndarray], fp16: bool = False) -> OnnxSession:
    sized = ["orig_target_sizes"] if family == "rtdetr_labels" else []
    batchless = family == "torchvision"
    graph = constant_graph(outputs, SIDE_PX, None, fp16, sized, batchless=batchless)
    return OnnxSession(graph, threads=1)


def pictures(rows: Sequence[int]) -> np.ndarray:
    """Return images; the first pixel of each selects its row of the graph's tensors."""
    images = np.zeros((len(rows), 3, SIDE_PX, SIDE_PX), np.float32)
    images[:, 0, 0, 0] = np.array(rows) / 255
    return images


def columns(found: Detections) -> np.ndarray:
    """Sort (n, 6) by score, since the oracle's order differs."""
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


KEEPING_THE_FLOOR = {"yolox", "yolox_raw"}
"""YOLOX's `postprocess` compares `>= conf_thre`; all other frameworks `>`."""


@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_at_the_floor_is_kept_or_left_out_as_in_the_framework(family: str) -> None:
    outputs = example(family, np.random.default_rng(9), 1, 3, SIDE_PX)
    (image,) = DECODERS[family](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR))
    lowest = float(image.scores.min())
    (fewer,) = DECODERS[family](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 3, lowest))
    (wanted_fewer,) = FAMILIES[family](outputs, SIDE_PX, 3, lowest)
    left_out = 0 if family in KEEPING_THE_FLOOR else 1
    assert len(fewer) == len(wanted_fewer) == len(image) - left_out
    assert DECODERS[family].keeps_floor is (family in KEEPING_THE_FLOOR)
    above = float(np.nextafter(np.float32(lowest), np.float32(1)))
    (fewer,) = DECODERS[family](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 3, above))
    assert len(fewer) == len(image) - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_of_another_layout_are_refused_by_shape_or_name(family: str) -> None:
    spec = DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR)
    with pytest.raises(ModelRefused, match=f"decoder {family} needs"):
        DECODERS[family]({"output0": np.zeros((1, 7), np.float32)}, spec)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("family", SEGMENTING)
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


@pytest.mark.parametrize("family", SEGMENTING)
@pytest.mark.parametrize(
    "shapes",
    [[(1, 20, 84)], [(1, 20, 84), (1, 8, 16)], [(1, 20, 84), (1, 7, 16, 16)]],
    ids=["one output", "flat prototypes", "other coefficients"],
)
def test_outputs_without_fitting_prototypes_are_refused(
    family: str, shapes: list[tuple[int, ...]]
) -> None:
    outputs = {f"output{i}": np.zeros(shape, np.float32) for i, shape in enumerate(shapes)}
    with pytest.raises(ModelRefused, match=r"\(n, K, h, w\); the model returned"):
        DECODERS[family](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR))


@pytest.mark.parametrize("family", SEGMENTING)
def test_prototypes_are_known_by_their_rank_and_a_third_output_is_named(family: str) -> None:
    spec = DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR)
    outputs = example(family, np.random.default_rng(6), 1, 3, SIDE_PX)
    turned = dict(reversed(outputs.items()))
    (image,), (same,) = DECODERS[family](outputs, spec), DECODERS[family](turned, spec)
    assert (columns(image) == columns(same)).all()
    assert isinstance(image.masks, PrototypeMasks)
    assert isinstance(same.masks, PrototypeMasks)
    assert (image.masks.prototypes == same.masks.prototypes).all()
    with pytest.raises(ModelRefused, match=r"and heat \(1, 3, 8, 8\)$"):
        DECODERS[family]({**outputs, "heat": np.zeros((1, 3, 8, 8), np.float32)}, spec)


def filled_up(family: str, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keep only the rows of detections, equal in number to those of the first image; `rfdetr` gets too many."""
    if family == "rfdetr":
        return {**outputs, "labels": np.full_like(outputs["labels"], 2.0)}
    most = int((SCORES[family](outputs)[0] > FLOOR).sum())
    order = np.argsort(-SCORES[family](outputs), axis=1, kind="stable")[:, :most]
    short = {}
    for name, rows in outputs.items():
        if name == "num_detections":
            short[name] = np.full_like(rows, most)
        elif name == "output1":
            short[name] = rows
        else:
            at = order.reshape(*order.shape, *[1] * (rows.ndim - 2))
            short[name] = np.take_along_axis(rows, at, axis=1)
    return short


@pytest.mark.parametrize("family", [*SCORES, "rfdetr"])
def test_a_list_without_a_row_left_is_saturated_as_in_the_oracle(family: str) -> None:
    outputs = example(family, np.random.default_rng(8), 3, 3, SIDE_PX)
    fixed = frozenset({"dets"})
    for given in (outputs, filled_up(family, outputs)):
        for floor in (FLOOR, 0.7):
            found = DECODERS[family](given, DecodeSpec((SIDE_PX, SIDE_PX), 3, floor, fixed))
            assert [image.saturated for image in found] == saturated(family, given, floor)
    assert saturated(family, outputs, FLOOR) == [False] * 3
    assert saturated(family, filled_up(family, outputs), FLOOR)[0]


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {*SCORES, "rfdetr"}))
def test_what_is_still_to_be_suppressed_is_never_saturated(family: str) -> None:
    outputs = example(family, np.random.default_rng(8), 2, 3, SIDE_PX)
    full = {name: np.full_like(rows, 1) for name, rows in outputs.items()}
    found = DECODERS[family](full, DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR, frozenset(full)))
    assert [image.saturated for image in found] == [False, False]


@pytest.mark.parametrize("fixed", [True, False])
def test_mmdetection_is_saturated_where_the_graph_declares_its_rows(fixed: bool) -> None:
    outputs = filled_up("mmdet", example("mmdet", np.random.default_rng(8), 1, 3, SIDE_PX))
    session = session_of("mmdet", outputs)
    assert "dets" in session.fixed_rows
    declared = session.fixed_rows if fixed else frozenset[str]()
    spec = DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR, declared)
    (image,) = DECODERS["mmdet"](session.run(pictures([0])), spec)
    assert image.saturated is fixed


NAMING = ["end2end", "end2end_seg", "mmdet", "rtdetr_labels", "rtdetr_topk", "tf_detection"]


@pytest.mark.parametrize("family", [*NAMING, "torchvision"])
def test_a_class_beyond_the_labels_is_nonsense(family: str) -> None:
    outputs = example(family, np.random.default_rng(1), 1, 3, SIDE_PX)
    spec = DecodeSpec((SIDE_PX, SIDE_PX), 2, FLOOR)
    with pytest.raises(OutputNonsense, match="returned class 2, but the model has 2 labels"):
        DECODERS[family](outputs, spec)
    with pytest.raises(ValueError, match="of 2"):
        FAMILIES[family](outputs, SIDE_PX, 2, FLOOR)


@pytest.mark.parametrize("class_id", [0.5, 3e9])
def test_a_class_is_a_whole_number_of_any_size(class_id: float) -> None:
    row = np.array([[[1, 1, 9, 9, 0.5, class_id], [1, 1, 9, 9, 0.01, 7]]], np.float32)
    with pytest.raises(OutputNonsense, match="returned class (0.5|3e.09)"):
        DECODERS["end2end"]({"output0": row}, DecodeSpec((SIDE_PX, SIDE_PX), 2, FLOOR))


def test_filler_of_a_negative_class_is_no_box() -> None:
    row = np.array([[[1, 1, 9, 9, 0.5, -1], [1, 1, 9, 9, 0.5, 0]]], np.float32)
    (image,) = DECODERS["end2end"]({"output0": row}, DecodeSpec((SIDE_PX, SIDE_PX), 2, FLOOR))
    assert len(image) == 1
    assert not image.saturated


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("rtdetr_labels", "labels"),
        ("rtdetr_labels", "scores"),
        ("rtdetr_labels", "boxes"),
        ("torchvision", "labels"),
        ("torchvision", "boxes"),
        ("tf_detection", "detection_classes"),
        ("tf_detection", "detection_scores"),
        ("mmdet", "labels"),
        ("mmdet", "dets"),
        ("rfdetr", "labels"),
        ("rfdetr", "dets"),
        ("ssd", "boxes"),
        ("ssd", "scores"),
    ],
)
def test_lists_of_other_lengths_and_ranks_are_refused(family: str, name: str) -> None:
    outputs = example(family, np.random.default_rng(1), 2, 3, SIDE_PX)
    spec = DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR)
    first = outputs[name]
    for odd in (first[:, :-1], first[:, 0], first.reshape(-1), first[..., np.newaxis]):
        with pytest.raises(ModelRefused, match=f"decoder {family} needs"):
            DECODERS[family]({**outputs, name: odd}, spec)


def test_counts_of_tensorflow_are_one_an_image_and_within_the_list() -> None:
    outputs = example("tf_detection", np.random.default_rng(1), 2, 3, SIDE_PX)
    spec = DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR)
    odd = np.array([-3, 1000], np.float32)
    none, everything = DECODERS["tf_detection"]({**outputs, "num_detections": odd}, spec)
    assert len(none) == 0
    assert len(everything) == len(FAMILIES["tf_detection"](outputs, SIDE_PX, 3, FLOOR)[1])
    with pytest.raises(ModelRefused, match=r"num_detections \(n,\); the model returned \(3,\)"):
        DECODERS["tf_detection"]({**outputs, "num_detections": np.zeros(3, np.float32)}, spec)


@pytest.mark.parametrize("family", ["rtdetr", "rtdetr_topk", "rfdetr", "ssd", "tf_detection"])
def test_fractions_are_of_the_width_and_of_the_height(family: str) -> None:
    outputs = example(family, np.random.default_rng(4), 1, 3, SIDE_PX)
    (square,) = DECODERS[family](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR))
    (wide,) = DECODERS[family](outputs, DecodeSpec((2 * SIDE_PX, SIDE_PX), 3, FLOOR))
    np.testing.assert_allclose(wide.boxes_xyxy, square.boxes_xyxy * [2, 1, 2, 1], rtol=1e-6)


def test_a_grid_need_not_be_square() -> None:
    """Cells are in row order: 8 x 4 of stride 8, 4 x 2 of 16, 2 x 1 of 32."""
    raw = np.zeros((1, 8 * 4 + 4 * 2 + 2, 6), np.float32)
    raw[0, :, 4:] = [0.5, 0.5]
    raw[0, 8, 4:] = 1  # second row, first column
    raw[0, -1, 4:] = 1
    (found,) = DECODERS["yolox_raw"]({"output0": raw}, DecodeSpec((64, 32), 1, 0.9))
    assert found.boxes_xyxy.tolist() == [[-4, 4, 4, 12], [16, -16, 48, 16]]
