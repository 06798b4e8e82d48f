"""Infer preprocessing without options: by the graph, its metadata, its anchors, else the usual."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from model_store.errors import ModelRefused
from tests.graphs import constant_graph, pooling
from tests.model_store.adding.first_layers import GATHERED, begun, div, mul, sub
from tests.model_store.adding.recognised import reasons, recognised
from tests.model_store.adding.test_recognise_decoders import SIZELESS, export

PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
FRACTIONS = {"channel_order": "RGB", "divide_by": 255.0, **PLAIN}
BYTES = {"divide_by": 1.0, **PLAIN}
IMAGENET = (sub(0.485, 0.456, 0.406), div(0.229, 0.224, 0.225))


def prepared(weights: bytes, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    return recognised(weights, overrides or {}).preprocess.model_dump(mode="json")


@pytest.mark.parametrize("decoder", ["yolox", "yolox_raw"])
def test_yolox_that_scales_its_pixels_is_not_fed_as_its_authors_feed_it(decoder: str) -> None:
    """The authors use BGR from 0 to 255 on grey; an export that includes the scaling uses other code."""
    usual = prepared(export(decoder))
    assert usual.items() >= {"channel_order": "BGR", "pad_value": 114, **BYTES}.items()
    weights = begun(export(decoder), mul(255))
    own = prepared(weights)
    assert own.items() >= {"pad_value": 0, "resize": "fit_top_left", **FRACTIONS}.items()
    said = reasons(weights)
    assert said["pixels"][0] == "RGB, 0 to 1"
    assert "begins with Mul 255" in said["pixels"][1]
    assert "assumed" in said["pixels"][1]
    assert said["resize"][0] == "fit_top_left, padded with 0"


def test_a_graph_that_turns_the_channels_round_is_fed_rgb() -> None:
    weights = begun(export("yolox"), GATHERED)
    assert prepared(weights)["channel_order"] == "RGB"
    assert "it reverses the channels" in reasons(weights)["pixels"][1]
    assert prepared(begun(export("yolov8"), GATHERED, mul(255))).items() >= FRACTIONS.items()


@pytest.mark.parametrize("decoder", ["yolov8", "rfdetr"])
def test_what_a_graph_does_to_pixels_is_not_done_before_it(decoder: str) -> None:
    """RF-DETR's mean and std are ImageNet's, unless its graph has them."""
    assert prepared(begun(export(decoder), *IMAGENET)).items() >= FRACTIONS.items()
    assert prepared(begun(export(decoder), div(255))).items() >= BYTES.items()
    assert reasons(begun(export(decoder), div(255)))["pixels"][0] == "RGB, 0 to 255"


def test_steps_that_tell_nothing_leave_what_is_usual() -> None:
    usual, odd = export("rfdetr"), begun(export("rfdetr"), mul(0.5))
    assert prepared(odd) == prepared(usual)
    said = reasons(odd)["pixels"][1]
    assert said.startswith("assumed: the usual for rfdetr")
    assert "begins with Mul 0.5" in said


def test_the_config_file_is_stronger_than_the_graph() -> None:
    given = {"preprocess": {"divide_by": 128.0, "pad_value": 7}, "nms": {"iou": 0.3}}
    weights = begun(export("yolox"), mul(255))
    assert prepared(weights, given).items() >= {"divide_by": 128.0, "pad_value": 7}.items()
    said = reasons(weights, given)
    assert {said[what][1] for what in ("pixels", "resize", "suppression")} == {"the config file"}
    assert said["decoder"][1] != "the config file"
    assert said["threshold"][1].startswith("assumed: no weights file states it")
    given = {"thresholds": {"default": 0.3, "per_label": {"fox": 0.5}}}
    assert reasons(weights, given)["threshold"] == ("0.3, fox 0.5", "the config file")
    assert said["input"][1] == "fixed by the graph"


def heads(rows: int, anchors: int, side_px: int = 300, metadata: dict[str, str] | None = None) -> bytes:
    names = str([f"label {i}" for i in range(rows - 4)])
    outputs = {"output0": np.zeros((1, rows, anchors), np.float32)}
    return constant_graph(outputs, side_px, {"names": names, **(metadata or {})})


@pytest.mark.parametrize(
    ("anchors", "side_px", "resize"),
    [
        (1917, 300, "stretch"),  # SSD: 19, 10, 5, 3, 2 and 1 squared, times 3 and 6
        (8400, 640, "letterbox"),
        (34_000, 1280, "letterbox"),  # P6
        (34_000, 640, "letterbox"),  # P2
        (2000, 640, "letterbox"),  # YOLOv3-tiny: strides 16 and 32
        (3598, 416, "letterbox"),  # NanoDet-Plus: the edge cuts its last level
        (8401, 640, "stretch"),
    ],
)
def test_anchors_that_are_no_cells_are_those_of_ssd(anchors: int, side_px: int, resize: str) -> None:
    config = recognised(heads(6, anchors, side_px), {})
    assert (config.decoder, config.preprocess.resize) == ("yolov8", resize)
    assert config.nms.iou == (0.6 if resize == "stretch" else 0.7)
    why = reasons(heads(6, anchors, side_px))["resize"][1]
    assert f"{anchors:,} anchors are" in why
    given = {"preprocess": {"resize": "letterbox"}, "nms": {"iou": 0.5}}
    config = recognised(heads(6, anchors, side_px), given)
    assert (config.preprocess.resize, config.nms.iou) == ("letterbox", 0.5)


def test_ultralytics_own_word_is_stronger_than_arithmetic() -> None:
    words = {"author": "Ultralytics"}
    assert prepared(heads(6, 1917, metadata=words))["resize"] == "letterbox"
    assert reasons(heads(6, 1917, metadata=words))["resize"][1] == "the metadata name Ultralytics"


STRIDED = {"names": "['animal']", "stride": "32"}


@pytest.mark.parametrize(
    ("metadata", "side_px", "said"),
    [
        ({"names": "['animal']"}, 640, "640 is usual; if"),
        ({**STRIDED, "stride": "64"}, 1280, "1280 is usual for stride 64; if"),
    ],
)
def test_a_size_that_nobody_states_is_guessed_and_said(metadata: dict[str, str], side_px: int, said: str) -> None:
    """YOLOv5 and MegaDetector v5, exported for any size, state a stride and no size."""
    found, why = reasons(pooling(5, metadata))["input"]
    assert found == f"{side_px} x {side_px} px"
    assert why.startswith("guessed: neither graph nor metadata state it")
    assert said in why
    given = {"preprocess": {"side_px": 320}}
    assert reasons(pooling(5, metadata), given)["input"] == ("320 x 320 px", "the config file")


def test_a_size_that_is_stated_is_no_guess() -> None:
    assert reasons(pooling(5, SIZELESS))["input"] == ("640 x 384 px", "any size; the metadata's 'imgsz'")
    one = {**SIZELESS, "imgsz": "640"}
    assert reasons(pooling(5, one))["input"][0] == "640 x 640 px"
    assert reasons(pooling(5, SIZELESS, (96, 160)), {"preprocess": {"side_px": 160}})["input"] == (
        "160 x 96 px",
        "the config file",
    )


@pytest.mark.parametrize(
    ("size", "line"),
    [((96, 160), '{"preprocess": {"side_px": 160, "height_px": 96}}'), ((96, 96), '{"preprocess": {"side_px": 96}}')],
)
def test_a_graph_of_another_size_than_its_metadata_is_refused(size: tuple[int, int], line: str) -> None:
    weights = pooling(5, SIZELESS, size)
    with pytest.raises(ModelRefused, match="'imgsz' is 640 x 384") as refused:
        recognised(weights, {})
    assert line in str(refused.value)
    given = {"preprocess": {"side_px": size[1], "height_px": size[0]}}
    assert recognised(weights, given).preprocess.input_px == (size[1], size[0])
    same = {**SIZELESS, "imgsz": str(list(size))}
    assert recognised(pooling(5, same, size), {}).preprocess.input_px == (size[1], size[0])


def test_every_choice_has_a_reason_in_words() -> None:
    said = reasons(export("yolov8", 5))
    assert list(said) == ["decoder", "labels", "input", "pixels", "resize", "suppression", "threshold"]
    assert said["decoder"] == (
        "yolov8",
        "outputs output0 [1, 9, 84]: 4 + 5 numbers for each anchor, without objectness",
    )
    assert said["labels"] == ("5: deer, fox, hare, elk, lynx", "'names' in the metadata")
    assert said["pixels"] == ("RGB, 0 to 1", "assumed: the usual for yolov8")
    assert said["suppression"][0] == "over IoU 0.7, within a class, at most 300"
    many = reasons(heads(84, 1917), {"labels": [f"label {i}" for i in range(80)]})
    assert many["labels"] == ("80: label 0, label 1, label 2, label 3, label 4 and 75 more", "the config file")
    assert reasons(export("rfdetr"))["suppression"] == (
        "none, at most 300",
        "the graph suppresses, or its head needs no suppression",
    )
    assert "minus (0.485, 0.456, 0.406), over (0.229" in reasons(export("rfdetr"))["pixels"][0]
    assert "set preprocess in --config" in reasons(export("mmdet"))["resize"][1]
    assert reasons(export("end2end", end2end="True"))["decoder"][1].endswith(
        "the metadata state that the graph ranks ('end2end', or 'nms' in 'args')"
    )
    assert reasons(pooling(5, SIZELESS))["resize"][0] == "rect to 32 px, padded with 114"


def test_whole_numbers_are_stronger_than_what_is_done_to_them() -> None:
    model = onnx.load_model_from_string(begun(export("yolov8"), mul(255)))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    floats = onnx.helper.make_node("Cast", ["images"], ["floats"], to=onnx.TensorProto.FLOAT)
    model.graph.node[0].input[0] = "floats"
    model.graph.node.insert(0, floats)
    weights = model.SerializeToString()
    assert prepared(weights).items() >= BYTES.items()
    assert reasons(weights)["pixels"][1] == "the graph takes integers"
