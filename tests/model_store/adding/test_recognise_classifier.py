"""Classifiers are recognised, with reasons, or rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.adding.add import add_version
from model_store.adding.recognise import recognise
from model_store.config import ClassifierConfig, ModelConfig
from model_store.errors import ModelRefused
from model_store.store import ModelStore
from tests.graphs import constant_graph, mean_colours
from tests.model_store.adding.first_layers import begun, div, sub
from tests.model_store.adding.recognised import reasons
from tests.model_store.classifiers import LABELS, NAMES, ONE, SIDE_PX, WEIGHT, colours

ONLY_NAMES = {"names": NAMES["names"]}


def classifier(weights: bytes, overrides: dict[str, Any] | None = None) -> ClassifierConfig:
    config = recognise("onnx", weights, overrides or {}).config
    assert isinstance(config, ClassifierConfig)
    return config


def refusal(weights: bytes, overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(ModelRefused) as refused:
        recognise("onnx", weights, overrides or {})
    return str(refused.value)


@pytest.mark.parametrize("metadata", [NAMES, ONLY_NAMES], ids=["task", "shape"])
@pytest.mark.parametrize("more", [{}, {"batch": 1}, {"shape": [-1, 4, 1, 1]}], ids=["free", "one", "ones"])
def test_a_score_a_label_is_a_classifier(metadata: dict[str, str], more: dict[str, Any]) -> None:
    config = classifier(mean_colours(WEIGHT, SIDE_PX, metadata, **more))
    assert (config.kind, config.labels, config.scores) == ("classifier", LABELS, "logits")
    assert (config.preprocess.resize, config.preprocess.input_px) == ("stretch", (16, 16))


def test_what_was_found_is_said_with_its_reasons() -> None:
    said = reasons(colours())
    assert list(said) == ["kind", "labels", "input", "pixels", "resize", "scores"]
    assert said["kind"] == ("classifier", "metadata 'task': classify")
    assert said["labels"][0] == "4: red, green, blue, grey"
    assert said["input"] == ("16 x 16 px", "fixed by the graph")
    assert said["pixels"][0] == ("RGB, 0 to 1, minus (0.485, 0.456, 0.406), over (0.229, 0.224, 0.225)")
    assert said["pixels"][1].startswith("assumed: ImageNet")
    assert said["scores"][0] == "logits"
    by_shape = reasons(mean_colours(WEIGHT, SIDE_PX, ONLY_NAMES))["kind"]
    assert by_shape == ("classifier", "outputs output0 [1, 4]: one score per label")


def constant(row: list[float], metadata: dict[str, str] = NAMES) -> bytes:
    return constant_graph({"output0": np.array([row], np.float32)}, SIDE_PX, metadata)


@pytest.mark.parametrize(
    ("row", "scores"),
    [
        ([0.1, 0.2, 0.3, 0.4], "probabilities"),
        ([0.1, 0.2, 0.3, 0.405], "probabilities"),  # float16 rounds
        ([-0.1, 0.3, 0.4, 0.4], "logits"),
        ([0.1, 0.2, 0.3, 1.4], "logits"),
    ],
)
def test_scores_of_a_grey_picture_tell_logits_from_probabilities(row: list[float], scores: str) -> None:
    assert classifier(constant(row)).scores == scores


def test_scores_that_may_be_a_sigmoids_are_refused_with_the_line_to_write() -> None:
    weights = constant([0.9, 0.8, 0.1, 0.2])
    said = refusal(weights)
    assert "independent scores per label" in said
    assert '{"scores": "logits"} or {"scores": "probabilities"}' in said
    assert classifier(weights, {"scores": "logits"}).scores == "logits"


@pytest.mark.parametrize("metadata", [{"task": "classify"}, {}])
def test_another_number_of_labels_is_refused(metadata: dict[str, str]) -> None:
    said = refusal(mean_colours(WEIGHT, SIDE_PX, {"names": "['a', 'b', 'c']", **metadata}))
    assert "[1, 4]" in said
    assert "3 labels" in said
    assert "is the number of labels right?" in said
    assert ('{"kind": "embedder"}' in said) == bool(metadata)


def test_the_config_file_decides_between_the_kinds() -> None:
    rows = np.zeros((1, 1, 6), np.float32)
    rows[0, 0] = [3, 1, 2, 5, -1, 0]
    names = {"names": str(list("abcdef"))}
    one_box = constant_graph({"output0": rows}, 64, {**names, "end2end": "True"}, batchless=False)
    assert isinstance(recognise("onnx", one_box, {}).config, ModelConfig)
    config = classifier(one_box, {"kind": "classifier"})
    assert (config.scores, len(config.labels)) == ("logits", 6)
    assert reasons(one_box, {"kind": "classifier"})["kind"][1] == "the config file"
    said = refusal(colours(), {"kind": "detector"})
    assert "fit no supported decoder" in said


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"kind": "pose"}, "unknown kind 'pose': use detector, classifier, embedder"),
        ({"kind": "classifier", "decoder": "yolov8"}, "decoder: unknown field"),
        ({"nms": {"iou": 0.5}}, "nms: unknown field"),
        ({"scores": "ranks"}, "scores: "),
        ({"preprocess": {"side_px": 32}}, "side_px 32"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        add_version(ModelStore(str(tmp_path)), ONE, colours(), overrides, {})


@pytest.mark.parametrize(
    ("weights", "divide_by", "mean", "std", "why"),
    [
        (begun(colours(), sub(127.0), div(128.0)), 1.0, 0.0, 1.0, "the graph begins with Sub 127"),
        (begun(colours(), sub(0.45), div(0.22)), 255.0, 0.0, 1.0, "the graph begins with Sub 0.45"),
        (
            mean_colours(WEIGHT, SIDE_PX, {**NAMES, "author": "Ultralytics"}),
            255.0,
            0.0,
            1.0,
            "the metadata name Ultralytics",
        ),
        (
            mean_colours(WEIGHT, SIDE_PX, {**NAMES, "source": "my EfficientNet_Lite2"}),
            1.0,
            127.0,
            128.0,
            "the metadata name efficientnet-lite",
        ),
    ],
    ids=["bytes", "fractions", "ultralytics", "efficientnet-lite"],
)
def test_pixels_are_what_graph_and_metadata_say(
    weights: bytes, divide_by: float, mean: float, std: float, why: str
) -> None:
    spec = classifier(weights).preprocess
    assert (spec.divide_by, spec.mean, spec.std) == (divide_by, (mean,) * 3, (std,) * 3)
    assert reasons(weights)["pixels"][1].startswith(why)


def test_a_graph_of_any_size_is_shown_224_px() -> None:
    weights = mean_colours(WEIGHT, "side", NAMES)
    assert classifier(weights).preprocess.input_px == (224, 224)
    assert "guessed" in reasons(weights)["input"][1]
    with_size = mean_colours(WEIGHT, "side", {**NAMES, "imgsz": "[64, 64]"})
    assert classifier(with_size).preprocess.input_px == (64, 64)
    assert classifier(weights, {"preprocess": {"side_px": 96}}).preprocess.input_px == (96, 96)
