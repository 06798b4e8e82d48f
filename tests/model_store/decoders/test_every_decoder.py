"""Compare every decoder with its oracle on graphs that return constant tensors, run by the product's session."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

from model_store.decoders import DECODERS
from model_store.decoders.layout import DecodeSpec, OutputNonsense
from model_store.detections import Detections
from model_store.errors import ModelRefused
from model_store.runtimes.onnx import OnnxSession
from model_store.transform.masks import PrototypeMasks
from tests.oracles.anchor_decoders import Box
from tests.oracles.decoders import ORACLES, coefficients, saturated
from tests.oracles.tensors import example, export

SIDE_PX = 64
FLOOR = 0.05
SEGMENTING = [name for name, oracle in ORACLES.items() if oracle.masks]
LISTS = [name for name, oracle in ORACLES.items() if oracle.scores]
"""Lists with a length of their own."""


def session_of(decoder: str, outputs: dict[str, np.ndarray], fp16: bool = False) -> OnnxSession:
    return OnnxSession(export(decoder, outputs, SIDE_PX, fp16=fp16), threads=1)


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


@pytest.mark.parametrize("decoder", ORACLES)
def test_records_name_the_outputs_and_masks_of_the_format(decoder: str) -> None:
    assert {*DECODERS} - {*ORACLES} == {"blobs"}, "decoders without a record in ORACLES of tests/oracles/decoders.py"
    record, oracle = DECODERS[decoder], ORACLES[decoder]
    assert record.masks == oracle.masks
    assert record.names in (frozenset(), oracle.outputs.keys())
    assert bool(record.description) is not bool(record.names)


@pytest.mark.parametrize("fp16", [False, True], ids=["fp32", "fp16 input"])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("decoder", ORACLES)
def test_the_boxes_are_the_oracles(decoder: str, classes: int, fp16: bool) -> None:
    outputs = example(decoder, np.random.default_rng(classes), 3, classes, SIDE_PX)
    rows = [2, 0, 1]
    raw = session_of(decoder, outputs, fp16).run(pictures(rows))
    found = DECODERS[decoder](raw, DecodeSpec((SIDE_PX, SIDE_PX), classes, FLOOR))
    oracle = ORACLES[decoder].decode(outputs, SIDE_PX, classes, FLOOR)
    assert len(found) == 3
    for row, image in zip(rows, found, strict=True):
        have, want = columns(image), wanted(oracle[row])
        assert have.shape == want.shape
        np.testing.assert_allclose(have[:, :4], want[:, :4], atol=1e-3, rtol=1e-5)
        np.testing.assert_allclose(have[:, 4], want[:, 4], atol=1e-5)
        assert (have[:, 5] == want[:, 5]).all()


KEEPING_THE_FLOOR = {"yolox", "yolox_raw"}
"""YOLOX's `postprocess` compares `>= conf_thre`; all other frameworks `>`."""


@pytest.mark.parametrize("decoder", ORACLES)
def test_a_score_at_the_floor_is_kept_or_left_out_as_in_the_framework(decoder: str) -> None:
    outputs = example(decoder, np.random.default_rng(9), 1, 3, SIDE_PX)
    (image,) = DECODERS[decoder](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR))
    lowest = float(image.scores.min())
    (fewer,) = DECODERS[decoder](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 3, lowest))
    (wanted_fewer,) = ORACLES[decoder].decode(outputs, SIDE_PX, 3, lowest)
    left_out = 0 if decoder in KEEPING_THE_FLOOR else 1
    assert len(fewer) == len(wanted_fewer) == len(image) - left_out
    assert DECODERS[decoder].keeps_floor is (decoder in KEEPING_THE_FLOOR)
    above = float(np.nextafter(np.float32(lowest), np.float32(1)))
    (fewer,) = DECODERS[decoder](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 3, above))
    assert len(fewer) == len(image) - 1


@pytest.mark.parametrize("decoder", ORACLES)
def test_outputs_of_another_layout_are_refused_by_shape_or_name(decoder: str) -> None:
    spec = DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR)
    with pytest.raises(ModelRefused, match=f"decoder {decoder} needs"):
        DECODERS[decoder]({"output0": np.zeros((1, 7), np.float32)}, spec)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("decoder", SEGMENTING)
def test_boxes_keep_the_coefficients_of_their_masks(decoder: str, classes: int) -> None:
    outputs = example(decoder, np.random.default_rng(classes), 3, classes, SIDE_PX)
    found = DECODERS[decoder](outputs, DecodeSpec((SIDE_PX, SIDE_PX), classes, FLOOR))
    for i, image in enumerate(found):
        boxes, wanted_coefficients = coefficients(decoder, outputs, i, classes, FLOOR)
        assert len(image) == len(boxes) > 1
        assert isinstance(image.masks, PrototypeMasks)
        np.testing.assert_allclose(image.boxes_xyxy, [box[:4] for box in boxes], atol=1e-3)
        assert (image.masks.coefficients == wanted_coefficients).all()
        assert (image.masks.prototypes == outputs["output1"][i]).all()


@pytest.mark.parametrize("decoder", SEGMENTING)
@pytest.mark.parametrize(
    "shapes",
    [[(1, 20, 84)], [(1, 20, 84), (1, 8, 16)], [(1, 20, 84), (1, 7, 16, 16)]],
    ids=["one output", "flat prototypes", "other coefficients"],
)
def test_outputs_without_fitting_prototypes_are_refused(decoder: str, shapes: list[tuple[int, ...]]) -> None:
    outputs = {f"output{i}": np.zeros(shape, np.float32) for i, shape in enumerate(shapes)}
    with pytest.raises(ModelRefused, match=r"\(n, K, h, w\); the model returned"):
        DECODERS[decoder](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR))


@pytest.mark.parametrize("decoder", SEGMENTING)
def test_prototypes_are_known_by_their_rank_and_a_third_output_is_named(decoder: str) -> None:
    spec = DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR)
    outputs = example(decoder, np.random.default_rng(6), 1, 3, SIDE_PX)
    turned = dict(reversed(outputs.items()))
    (image,), (same,) = DECODERS[decoder](outputs, spec), DECODERS[decoder](turned, spec)
    assert (columns(image) == columns(same)).all()
    assert isinstance(image.masks, PrototypeMasks)
    assert isinstance(same.masks, PrototypeMasks)
    assert (image.masks.prototypes == same.masks.prototypes).all()
    with pytest.raises(ModelRefused, match=r"and heat \(1, 3, 8, 8\)$"):
        DECODERS[decoder]({**outputs, "heat": np.zeros((1, 3, 8, 8), np.float32)}, spec)


def filled_up(decoder: str, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keep only the rows of detections, equal in number to those of the first image; `rfdetr` gets too many."""
    if decoder == "rfdetr":
        return {**outputs, "labels": np.full_like(outputs["labels"], 2.0)}
    scores_of = ORACLES[decoder].scores
    assert scores_of is not None
    most = int((scores_of(outputs)[0] > FLOOR).sum())
    order = np.argsort(-scores_of(outputs), axis=1, kind="stable")[:, :most]
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


def test_each_list_has_its_scores_in_the_oracle() -> None:
    """Without `scores`, no test compares when a list is saturated. torchvision's lists are as long as they need."""
    assert [n for n, oracle in ORACLES.items() if not (oracle.per_cell or oracle.scores)] == ["rfdetr", "torchvision"]


@pytest.mark.parametrize("decoder", [*LISTS, "rfdetr"])
def test_a_list_without_a_row_left_is_saturated_as_in_the_oracle(decoder: str) -> None:
    outputs = example(decoder, np.random.default_rng(8), 3, 3, SIDE_PX)
    fixed = frozenset({"dets"})
    for given in (outputs, filled_up(decoder, outputs)):
        for floor in (FLOOR, 0.7):
            found = DECODERS[decoder](given, DecodeSpec((SIDE_PX, SIDE_PX), 3, floor, fixed))
            assert [image.saturated for image in found] == saturated(decoder, given, floor)
    assert saturated(decoder, outputs, FLOOR) == [False] * 3
    assert saturated(decoder, filled_up(decoder, outputs), FLOOR)[0]


@pytest.mark.parametrize("fixed", [True, False])
def test_mmdetection_is_saturated_where_the_graph_declares_its_rows(fixed: bool) -> None:
    outputs = filled_up("mmdet", example("mmdet", np.random.default_rng(8), 1, 3, SIDE_PX))
    session = session_of("mmdet", outputs)
    assert "dets" in session.fixed_rows
    declared = session.fixed_rows if fixed else frozenset[str]()
    spec = DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR, declared)
    (image,) = DECODERS["mmdet"](session.run(pictures([0])), spec)
    assert image.saturated is fixed


@pytest.mark.parametrize("decoder", sorted({*ORACLES} - {"rfdetr"}))  # it has spare logits
def test_a_class_beyond_the_labels_is_nonsense_or_of_another_shape(decoder: str) -> None:
    """A format that names the class of each row fails with the class, as in the oracle; others with their columns."""
    outputs = example(decoder, np.random.default_rng(1), 1, 3, SIDE_PX)
    try:
        ORACLES[decoder].decode(outputs, SIDE_PX, 2, FLOOR)
        named = False
    except ValueError as error:
        named = bool(re.search("class .* of 2", str(error)))
    said = "returned class 2, but the model has 2 labels" if named else f"decoder {decoder} needs"
    with pytest.raises(OutputNonsense if named else ModelRefused, match=said):
        DECODERS[decoder](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 2, FLOOR))


@pytest.mark.parametrize("class_id", [0.5, 3e9])
def test_a_class_is_a_whole_number_of_any_size(class_id: float) -> None:
    row = np.array([[[1, 1, 9, 9, 0.5, class_id], [1, 1, 9, 9, 0.01, 7]]], np.float32)
    with pytest.raises(OutputNonsense, match="returned class (0.5|3e.09)"):
        DECODERS["end2end"]({"output0": row}, DecodeSpec((SIDE_PX, SIDE_PX), 2, FLOOR))


@pytest.mark.parametrize(
    ("decoder", "name"),
    [
        ("rtdetr_labels", "labels"),
        ("torchvision", "boxes"),
        ("tf_detection", "detection_classes"),
        ("mmdet", "labels"),
        ("rfdetr", "dets"),
        ("ssd", "boxes"),
        ("ssd", "scores"),
    ],
)
def test_lists_of_other_lengths_and_ranks_are_refused(decoder: str, name: str) -> None:
    outputs = example(decoder, np.random.default_rng(1), 2, 3, SIDE_PX)
    spec = DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR)
    first = outputs[name]
    for odd in (first[:, :-1], first[:, 0], first.reshape(-1), first[..., np.newaxis]):
        with pytest.raises(ModelRefused, match=f"decoder {decoder} needs"):
            DECODERS[decoder]({**outputs, name: odd}, spec)


def test_counts_of_tensorflow_are_one_an_image_and_within_the_list() -> None:
    outputs = example("tf_detection", np.random.default_rng(1), 2, 3, SIDE_PX)
    spec = DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR)
    odd = np.array([-3, 1000], np.float32)
    none, everything = DECODERS["tf_detection"]({**outputs, "num_detections": odd}, spec)
    assert len(none) == 0
    assert len(everything) == len(ORACLES["tf_detection"].decode(outputs, SIDE_PX, 3, FLOOR)[1])
    with pytest.raises(ModelRefused, match=r"num_detections \(n,\); the model returned \(3,\)"):
        DECODERS["tf_detection"]({**outputs, "num_detections": np.zeros(3, np.float32)}, spec)


@pytest.mark.parametrize("decoder", ["rtdetr", "rtdetr_topk", "rfdetr", "ssd", "tf_detection"])
def test_fractions_are_of_the_width_and_of_the_height(decoder: str) -> None:
    outputs = example(decoder, np.random.default_rng(4), 1, 3, SIDE_PX)
    (square,) = DECODERS[decoder](outputs, DecodeSpec((SIDE_PX, SIDE_PX), 3, FLOOR))
    (wide,) = DECODERS[decoder](outputs, DecodeSpec((2 * SIDE_PX, SIDE_PX), 3, FLOOR))
    np.testing.assert_allclose(wide.boxes_xyxy, square.boxes_xyxy * [2, 1, 2, 1], rtol=1e-6)


def test_a_grid_need_not_be_square() -> None:
    """Cells are in row order: 8 x 4 of stride 8, 4 x 2 of 16, 2 x 1 of 32."""
    raw = np.zeros((1, 8 * 4 + 4 * 2 + 2, 6), np.float32)
    raw[0, :, 4:] = [0.5, 0.5]
    raw[0, 8, 4:] = 1  # second row, first column
    raw[0, -1, 4:] = 1
    (found,) = DECODERS["yolox_raw"]({"output0": raw}, DecodeSpec((64, 32), 1, 0.9))
    assert found.boxes_xyxy.tolist() == [[-4, 4, 4, 12], [16, -16, 48, 16]]


def test_filler_of_a_negative_class_is_no_box() -> None:
    row = np.array([[[1, 1, 9, 9, 0.5, -1], [1, 1, 9, 9, 0.5, 0]]], np.float32)
    (image,) = DECODERS["end2end"]({"output0": row}, DecodeSpec((SIDE_PX, SIDE_PX), 2, FLOOR))
    assert len(image) == 1
    assert not image.saturated
