"""Usual exports are recognised without options; ambiguous ones are rejected with the candidates."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest

from model_store.decoders import DECODERS
from model_store.errors import ModelRefused
from tests.graphs import constant_graph, pooling
from tests.model_store.adding.recognised import reasons, recognised
from tests.oracles.decoders import ORACLES
from tests.oracles.tensors import example
from tests.oracles.tensors import export as graph_of

SEGMENTING = [name for name, oracle in ORACLES.items() if oracle.masks]
NAMES = ("deer", "fox", "hare", "elk", "lynx")
NAMED = str(NAMES[:3])
RT_RANKED = {"description": "Ultralytics rtdetr-l model", "end2end": "True"}
LINES = re.compile(r'{"decoder": "(\w+)"}')


def export(decoder: str, classes: int = 3, **metadata: str) -> bytes:
    names = str(dict(enumerate(NAMES[:classes])))
    outputs = example(decoder, np.random.default_rng(3), 2, classes, 64)
    task = "segment" if ORACLES[decoder].masks else "detect"
    return graph_of(decoder, outputs, 64, {"names": names, "task": task, **metadata})


def refusal(weights: bytes) -> str:
    with pytest.raises(ModelRefused) as refused:
        recognised(weights, {})
    return str(refused.value)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("decoder", ORACLES)
def test_a_usual_export_needs_no_options(decoder: str, classes: int) -> None:
    metadata = ORACLES[decoder].metadata
    given = {} if metadata is not None else {"decoder": decoder}
    config = recognised(export(decoder, classes, **(metadata or {})), given)
    assert config.decoder == decoder
    assert config.labels == NAMES[:classes]
    assert config.preprocess.side_px == 64
    for part in ("preprocess", "nms"):
        written = getattr(config, part).model_dump(mode="json")
        assert getattr(DECODERS[decoder], part).items() <= written.items()


@pytest.mark.parametrize(
    "metadata",
    [
        {"end2end": "True"},
        {"args": "{'batch': 1, 'nms': True, 'half': False}"},
        {"head": "v10Detect"},
        {"description": "Ultralytics YOLO26n model"},
        {"description": "Ultralytics YOLO11n model", "end2end": "False", "args": "{'nms': True}"},
    ],
)
def test_ranked_rows_are_recognised_by_what_the_exporter_wrote(metadata: dict[str, str]) -> None:
    """The names also decide with two classes, where rows of RT-DETR have the same length."""
    for classes in (2, 3):
        assert recognised(export("end2end", classes, **metadata), {}).decoder == "end2end"


def test_rows_of_six_have_several_meanings_and_are_refused_with_them() -> None:
    rng = np.random.default_rng(3)
    shapes = {name: [v.shape for v in example(name, rng, 2, 2).values()] for name in ORACLES}
    meanings = {name for name, shape in shapes.items() if shape == [(2, 300, 6)]}
    assert meanings >= {"end2end", "rtdetr", "rtdetr_topk"}
    for decoder in meanings:
        refused = refusal(export(decoder, classes=2))
        assert set(LINES.findall(refused)) == meanings
        assert '{"decoder": "end2end"}: a list of corners in px' in refused
        assert '{"decoder": "rtdetr_topk"}: a list of centre and size as fractions' in refused
    nothing = {"args": "{'batch': 1, 'nms': False}", "end2end": "False"}
    assert "are ambiguous" in refusal(export("end2end", 2, **nothing))
    assert recognised(export("end2end", 2), {"decoder": "end2end"}).decoder == "end2end"
    denied = {"description": "Ultralytics YOLO26n model", "end2end": "False"}
    assert "are ambiguous" in refusal(export("end2end", 2, **denied))


def test_rtdetr_is_recognised_by_its_name() -> None:
    words = {"description": "Ultralytics RT-DETR-l model"}
    assert recognised(export("rtdetr_topk", 3, **words), {}).decoder == "rtdetr_topk"
    assert recognised(export("rtdetr", 3, **words, end2end="False"), {}).decoder == "rtdetr"
    said = refusal(export("rtdetr", 2, **words))  # rows of six, ranked or not
    assert set(LINES.findall(said)) == {"rtdetr", "rtdetr_topk"}


@pytest.mark.parametrize(
    ("decoder", "words", "said", "choice"),
    [
        ("yolov8", {"head": "RTDETRDecoder"}, "name RT-DETR, but", {"yolov8"}),
        ("end2end", RT_RANKED, "name RT-DETR .* and state that", {"end2end", "rtdetr_topk"}),
        ("rtdetr", RT_RANKED, "name RT-DETR .* and state that", {"end2end", "rtdetr", "rtdetr_topk"}),
        ("rtdetr", {"end2end": "True"}, "state that the graph ranks its", {"rtdetr"}),
        ("rtdetr", {"head": "Detect"}, "name a YOLO, but", {"rtdetr"}),
        ("rtdetr_labels", {"head": "Detect"}, "name a YOLO, but", {"rtdetr_labels"}),
    ],
)
def test_metadata_that_contradict_outputs_or_each_other_are_refused(
    decoder: str, words: dict[str, str], said: str, choice: set[str]
) -> None:
    refused = refusal(export(decoder, 3, **words))
    assert re.search(said, refused)
    assert set(LINES.findall(refused)) == choice
    assert recognised(export(decoder, 3, **words), {"decoder": decoder}).decoder == decoder


def test_anchors_whose_axes_were_exchanged_are_no_queries() -> None:
    """(1, anchors, 4 + classes) looks like rtdetr's queries, except for their number."""
    side_px = 160
    rows = sum((side_px // stride) ** 2 for stride in (8, 16, 32))
    weights = constant_graph({"output0": np.zeros((1, rows, 4 + 3))}, side_px, {"names": NAMED})
    said = refusal(weights)
    assert "yolov8, with 3 labels, if its last two axes are transposed" in said
    queries = constant_graph({"output0": np.zeros((1, 300, 4 + 3))}, side_px, {"names": NAMED})
    assert recognised(queries, {}).decoder == "rtdetr"


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({"output0": (9, 84)}, "yolov8, with 5 labels"),
        ({"output0": (252, 9)}, "yolov5, with 4 labels"),
        ({"output0": (84, 9)}, "yolox, with 4 labels"),
        ({"output0": (300, 9)}, "rtdetr, with 5 labels"),
        ({"boxes": (9, 4), "labels": (9,)}, "torchvision or rtdetr_labels, but scores is missing"),
        ({"dets": (9, 5)}, "rfdetr or mmdet, but labels is missing"),
        ({"boxes": (9, 4), "scores": (9, 7)}, "ssd, with 7 labels"),
        (
            {"detection_boxes": (9, 4), "detection_scores": (9,)},
            "tf_detection, but detection_classes and num_detections are missing",
        ),
        ({"output0": (9 + 8, 84), "output1": (8, 16, 16)}, "yolov8_seg, with 5 labels"),
        ({"output0": (252, 9 + 8), "output1": (8, 16, 16)}, "yolov5_seg, with 4 labels"),
    ],
)
def test_what_is_nearly_a_known_format_is_named(outputs: dict[str, tuple[int, ...]], said: str) -> None:
    arrays = {name: np.zeros((1, *shape), np.float32) for name, shape in outputs.items()}
    refused = refusal(constant_graph(arrays, 64, {"names": NAMED}))
    assert "fit no supported decoder (is the number of labels right?)" in refused
    assert said in refused.split("Nearest: ")[1]


def test_rfdetr_of_more_logits_is_refused_and_taken_with_a_word() -> None:
    """Its COCO models have 91 logits, numbered by COCO: with 80 names most would be wrong."""
    assert recognised(queries_of(3), {}).decoder == recognised(queries_of(4), {}).decoder == "rfdetr"
    said = refusal(queries_of(91))
    assert "rfdetr, with 90 or 91 labels; COCO's class numbers have gaps" in said
    assert "rfdetr, with 1 or 2 labels." in refusal(queries_of(2))
    given = {"decoder": "rfdetr"}
    assert recognised(queries_of(91), given).decoder == "rfdetr"
    for logits, overrides in ((91, given), (4, given), (4, {})):
        assert "logits after the first 3 are background" in reasons(queries_of(logits), overrides)["decoder"][1]
    assert reasons(queries_of(3), given)["decoder"][1] == "the config file"


def queries_of(logits: int) -> bytes:
    outputs = {"dets": np.zeros((1, 300, 4)), "labels": np.full((1, 300, logits), -9.0)}
    floats = {name: rows.astype(np.float32) for name, rows in outputs.items()}
    return constant_graph(floats, 64, {"names": NAMED})


@pytest.mark.parametrize(
    ("exported", "decoder", "said"),
    [
        ("yolov8", "yolov5", r"needs \(n, anchors, 8\); .*look like those of yolov8$"),
        ("yolov5", "ssd", "so boxes and scores are missing; .*look like those of yolov5$"),
        ("rfdetr", "mmdet", "needs boxes .*those of rfdetr$"),
    ],
)
def test_a_decoder_that_cannot_read_the_outputs_is_refused_with_one_that_can(
    exported: str, decoder: str, said: str
) -> None:
    with pytest.raises(ModelRefused, match=said):
        recognised(export(exported, 3), {"decoder": decoder})


@pytest.mark.parametrize("decoder", ["yolov8", "yolox_raw", "ssd"])
def test_labels_that_do_not_fit_the_classes_are_refused(decoder: str) -> None:
    said = refusal(export(decoder, 3, names="{0: 'deer', 1: 'fox'}"))
    assert "fit no supported decoder (is the number of labels right?)" in said
    assert "with 2 labels" in said


@pytest.mark.parametrize("classes", [1, 2])
def test_rows_of_yolov5_with_masks_are_no_ranked_list(classes: int) -> None:
    """Rows with one class and 32 prototypes have the 6 + 32 columns of a ranked list."""
    rows, side_px = 102_000, 1280  # P6, with four levels
    outputs = {"output0": np.zeros((1, rows, 5 + 1 + 32), np.float32), "output1": np.zeros((1, 32, 8, 8), np.float32)}
    weights = constant_graph(outputs, side_px, {"names": str(NAMES[:classes])})
    if classes == 1:
        assert recognised(weights, {}).decoder == "yolov5_seg"
    else:
        assert "is the number of labels right?" in refusal(weights)


@pytest.mark.parametrize("says", [{"end2end": "True"}, {"args": "{'nms': True}"}], ids=["end2end", "nms=True"])
@pytest.mark.parametrize("decoder", ["yolov8_seg", "yolox"])
def test_a_graph_that_is_said_to_rank_and_does_not_is_refused(decoder: str, says: dict[str, str]) -> None:
    said = refusal(export(decoder, 3, **says))
    assert "state that the graph ranks its detections, but" in said
    assert f'{{"decoder": "{decoder}"}}' in said
    assert recognised(export(decoder, 3, **says), {"decoder": decoder}).decoder == decoder


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_hint_lists_what_has_as_many_outputs(count: int) -> None:
    outputs = {name: np.zeros((1, 7, 7), np.float32) for name in "abcd"[:count]}
    said = refusal(constant_graph(outputs, 64, {"names": "['deer']"}))
    fitting = {name for name, oracle in ORACLES.items() if len(oracle.outputs) == count}
    assert set(LINES.findall(said)) == fitting != set()


@pytest.mark.parametrize(("decoder", "task"), [("yolov8", "segment"), ("yolov8_seg", "detect")])
def test_a_task_that_contradicts_the_outputs_is_refused(decoder: str, task: str) -> None:
    said = refusal(export(decoder, 3, task=task))
    assert f"'task' is {task}" in said
    assert f'{{"decoder": "{decoder}"}}' in said


SIZELESS = {"names": "{0: 'deer'}", "task": "detect", "stride": "32", "imgsz": "[384, 640]"}


def test_an_export_of_any_size_is_padded_to_its_stride_as_ultralytics_does() -> None:
    config = recognised(pooling(4 + 1, SIZELESS), {})
    assert config.decoder == "yolov8"
    assert (config.preprocess.resize, config.preprocess.stride_px) == ("rect", 32)
    assert config.preprocess.input_px == (640, 384)
    plain = recognised(pooling(4 + 1, {**SIZELESS, "stride": ""}), {})
    assert plain.preprocess.resize == "letterbox"
    given = {"preprocess": {"resize": "letterbox", "side_px": 320}}
    assert recognised(pooling(4 + 1, SIZELESS), given).preprocess.input_px == (320, 320)


@pytest.mark.parametrize("decoder", ["rfdetr", "yolox"])
def test_a_graph_that_takes_whole_numbers_is_given_them(decoder: str) -> None:
    model = onnx.load_model_from_string(export(decoder, 3))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    floats = onnx.helper.make_node("Cast", ["images"], ["floats"], to=onnx.TensorProto.FLOAT)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = "floats" if name == "images" else name
    model.graph.node.insert(0, floats)
    spec = recognised(model.SerializeToString(), {}).preprocess
    assert (spec.divide_by, *spec.mean, *spec.std) == (1, 0, 0, 0, 1, 1, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"decoderr": "yolov8"}, "decoderr: unknown field, did you mean decoder?"),
        ({"preprocess": {"side": 64}}, "preprocess.side: unknown field, did you mean side_px?"),
        ({"kind": "detector", "scores": "logits"}, "scores: unknown field"),
    ],
)
def test_an_unknown_field_is_named_before_a_wrong_number_of_labels(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelRefused, match=re.escape(said)):
        recognised(constant_graph({"output0": np.zeros((1, 9, 84), np.float32)}, 64, {}), {"labels": ["a"], **given})


def test_tiles_are_never_padded_to_the_stride() -> None:
    given = {"preprocess": {"tiling": {"tile_px": 640}}}
    config = recognised(pooling(4 + 1, SIZELESS), given)
    assert config.preprocess.resize == "letterbox"
    assert config.preprocess.tiling is not None
    assert config.preprocess.tiling.tile_px == 640
