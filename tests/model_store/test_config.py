"""config.json: unknown and invalid fields are rejected, and the message names the field."""

import json
from typing import Any

import pytest

from model_store.config import ClassifierConfig, ModelConfig, OnnxRuntime, parse_config
from model_store.errors import ModelRefused

SMALL: dict[str, Any] = {"runtime": {"kind": "onnx"}, "decoder": "yolov8", "labels": ["deer"]}


def small(**changes: Any) -> str:
    return json.dumps({**SMALL, **changes})


def test_three_fields_are_enough() -> None:
    config = parse_config(small(), "config.json")
    assert config.runtime == OnnxRuntime(weights="model.onnx")
    assert config.labels == ("deer",)
    assert (config.preprocess.side_px, config.preprocess.resize) == (640, "letterbox")
    assert config.nms.max_detections == 300


def test_what_is_written_reads_back_equal() -> None:
    config = parse_config(small(thresholds={"per_label": {"deer": 0.5}}), "config.json")
    assert parse_config(config.model_dump_json(), "again") == config


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "is not JSON"),
        ("[]", "config: "),
        ("{}", "runtime: Field required; decoder: Field required; labels: Field required"),
        (small(sidepx=3), "sidepx: "),
        (small(preprocess={"side": 3}), "preprocess.side: "),
        (small(preprocess={"side_px": 0}), "preprocess.side_px: "),
        (small(preprocess={"resize": "crop"}), "preprocess.resize: "),
        (small(preprocess={"std": [1, 0, 1]}), "preprocess.std.1: "),
        (small(preprocess={"mean": [float("nan"), 0, 0]}), "preprocess.mean.0: "),
        (small(score_floor=float("inf")), "score_floor: "),
        (small(nms={"max_detections": 0}), "nms.max_detections: "),
        (small(labels=[]), "labels: "),
        (small(preprocess={"tiling": {"tile_px": 64}, "jpeg_shrink": 2}), "tiling cannot be combined with rect or"),
        (small(labels=["deer", "fox", "deer"]), "duplicate labels: ['deer']"),
        (small(thresholds={"per_label": {"wolf": 0.5}}), "unknown labels: ['wolf']"),
        (small(decoder="yolov9000"), "decoder: "),
        (small(decoder="blobs"), "motion needs blobs"),
        (small(runtime={"kind": "motion"}), "motion needs blobs"),
        (small(runtime={"kind": "tensorrt"}), "runtime: "),
        (small(runtime={"kind": "onnx", "min_contrast": 1}), "runtime.onnx.min_contrast: "),
    ],
)
def test_a_wrong_field_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        parse_config(text, "deer@1 config.json")
    assert str(refused.value).startswith("deer@1 config.json")
    assert named in str(refused.value)


@pytest.mark.parametrize("weights", ["", "../model.onnx", "a/b.onnx", ".onnx", "config.json"])
def test_weights_are_a_file_of_the_versions_folder(weights: str) -> None:
    with pytest.raises(ModelRefused, match=r"runtime\.onnx\.weights"):
        parse_config(small(runtime={"kind": "onnx", "weights": weights}), "config.json")


@pytest.mark.parametrize("part", [{"labels": ["\ud800deer"]}, {"licence": "\udfff"}])
def test_half_a_character_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(ModelRefused, match=r"^config\.json contains half a character .*'.*\\ud[8f]"):
        parse_config(small(**part), "config.json")
    assert parse_config(small(labels=["\U0001f98c"]), "config.json").labels == ("\U0001f98c",)


def test_a_threshold_is_the_labels_own_or_the_default() -> None:
    config = parse_config(small(labels=["deer", "fox"], thresholds={"default": 0.4, "per_label": {"fox": 0.7}}), "x")
    assert dict(zip(config.labels, config.class_thresholds, strict=True)) == {"deer": 0.4, "fox": 0.7}


SMALL_CLASSIFIER: dict[str, Any] = {"kind": "classifier", "runtime": {"kind": "onnx"}, "labels": ["deer", "fox"]}


def test_a_config_without_a_kind_is_a_detectors() -> None:
    assert isinstance(parse_config(small(), "x"), ModelConfig)
    assert parse_config(small(), "x") == parse_config(small(kind="detector"), "x")


def test_a_classifier_needs_neither_decoder_nor_suppression() -> None:
    config = parse_config(json.dumps(SMALL_CLASSIFIER), "x")
    assert isinstance(config, ClassifierConfig)
    assert (config.scores, config.preprocess.resize) == ("logits", "stretch")
    assert config.preprocess.input_px == (224, 224)
    assert parse_config(config.model_dump_json(), "again") == config
    assert {"decoder", "nms", "score_floor", "thresholds"}.isdisjoint(config.model_dump())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "pose"}, "unknown kind 'pose': use detector, classifier, embedder"),
        ({"kind": None}, "kind: "),
        ({"kind": ["classifier"]}, "unknown kind ['classifier']"),
        ({"decoder": "yolov8"}, "decoder: unknown field"),
        ({"nms": {}}, "nms: unknown field"),
        ({"scores": "ranks"}, "scores: "),
        ({"labels": ["deer"]}, "labels: "),
        ({"labels": ["deer", "deer"]}, "duplicate labels: ['deer']"),
        ({"runtime": {"kind": "motion"}}, "runtime: "),
        ({"preprocess": {"tiling": {"tile_px": 64}}}, "cannot use tiling, rect or jpeg_shrink"),
    ],
)
def test_a_wrong_field_of_a_classifier_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        parse_config(json.dumps({**SMALL_CLASSIFIER, **changes}), "deer@1 config.json")
    assert str(refused.value).startswith("deer@1 config.json")
    assert named in str(refused.value)
