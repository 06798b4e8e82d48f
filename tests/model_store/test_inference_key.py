"""The inference key changes with every setting that changes rows, and with no other."""

import hashlib
import json
from typing import Any

import pytest

from model_store.config import ClassifierConfig, ModelConfig
from model_store.errors import ModelRefused
from model_store.inference_key import NUMERICS_VERSION, inference_key, weights_digest
from model_store.names import version_id
from model_store.store import ModelStore
from tests.shared_data import MODELS

WEIGHTS = "11" * 32
BASE: dict[str, Any] = {
    "runtime": {"kind": "onnx"},
    "decoder": "yolov8",
    "labels": ["deer", "renard roux", "håre"],
    "score_floor": 0.05,
}
# Written by hand: sorted keys, no spaces, UTF-8. If this must change, so must NUMERICS_VERSION, or
# every archive is recomputed (or, worse, is not).
CANONICAL = (
    '{"decoder":"yolov8",'
    f'"labels":"{hashlib.sha256("""["deer","renard roux","håre"]""".encode()).hexdigest()}",'
    '"nms":{"class_aware":true,"iou":0.5,"kind":"greedy","max_detections":300},'
    '"numerics":2,'
    '"preprocess":{"channel_order":"RGB","divide_by":255.0,"interpolation":"linear",'
    '"mean":[0.0,0.0,0.0],"pad_value":114,"resize":"letterbox","side_px":640,'
    '"std":[1.0,1.0,1.0]},'
    '"score_floor":0.05,'
    f'"weights":"{WEIGHTS}"}}'
)

SHIPPED = {
    "motion": "eb77a74c7c6e47e9841d86714db704761177af1c848b1aa0e034b791af498a7f",
    "ssdlite-coco": "e7b18947027a2ea08145d8329150796d140ea042cbcb246d178a25a085a0f34d",
}
"""Results in existing archives are stored under these keys."""


def key(weights: str = WEIGHTS, **changes: Any) -> str:
    return inference_key(ModelConfig.model_validate({**BASE, **changes}), weights)


def test_the_key_is_the_hash_of_the_canonical_text() -> None:
    assert NUMERICS_VERSION == 2
    assert key() == hashlib.sha256(CANONICAL.encode()).hexdigest()


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": "22" * 32},
        {"labels": ["renard roux", "deer", "håre"]},
        {"labels": ["deer", "renard roux"]},
        {"score_floor": 0.06},
        {"preprocess": {"resize": "stretch"}},
        {"preprocess": {"jpeg_shrink": 2}},
        {"preprocess": {"damaged": "refuse"}},
        {"preprocess": {"tiling": {"tile_px": 200}}},
        {"preprocess": {"interpolation": "area"}},
        {"preprocess": {"mean": [0.1, 0, 0]}},
        {"preprocess": {"std": [0.5, 1, 1]}},
        {"nms": {"iou": 0.6}},
        {"nms": {"inclusive_px": True}},
        {"runtime": {"kind": "motion"}, "decoder": "blobs"},
    ],
)
def test_it_changes_with_what_changes_rows(changes: dict[str, Any]) -> None:
    assert key(**changes) != key()


@pytest.mark.parametrize("decoder", ["yolox", "yolox_raw"])
def test_a_decoder_that_changed_has_a_numerics_version_of_its_own(decoder: str) -> None:
    """The text of other decoders does not change: their archives are not due."""
    own = CANONICAL.replace('"decoder":"yolov8",', f'"decoder":"{decoder}","decoder_numerics":1,')
    assert key(decoder=decoder) == hashlib.sha256(own.encode()).hexdigest()


def test_the_keys_of_the_shipped_models_are_what_they_always_were() -> None:
    keys = {
        name: ModelStore(str(MODELS)).describe(version_id(name, "1")).info.inference_key
        for name in ("motion", "ssdlite-coco")
    }
    assert keys == SHIPPED


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"thresholds": {"default": 0.9, "per_label": {"deer": 0.1}}},
        {"batch": {"max": 1, "wait_ms": 5}},
        {"licence": "MIT", "source": "somewhere", "description": "better"},
        {"kind": "detector"},
        {"preprocess": {"side_px": 640, "resize": "letterbox", "jpeg_shrink": 1, "damaged": "tolerate"}},
        {"runtime": {"kind": "onnx", "weights": "renamed.onnx"}},
    ],
)
def test_it_does_not_change_with_anything_else(changes: dict[str, Any]) -> None:
    assert key(**changes) == key()


def test_weights_are_the_file_or_the_settings() -> None:
    config = ModelConfig.model_validate(BASE)
    assert weights_digest(config, {"model.onnx": WEIGHTS, "README.md": "00"}) == WEIGHTS
    motion = {**BASE, "decoder": "blobs"}
    settings = {"kind": "motion", "min_contrast": 12.5}
    whole = {**settings, "min_area_frac": 0.002, "background_sigma_px": 24.0, "max_blobs": 50}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
    config = ModelConfig.model_validate({**motion, "runtime": settings})
    assert weights_digest(config, {}) == hashlib.sha256(text.encode()).hexdigest()


def test_weights_that_are_not_there_are_refused_by_name() -> None:
    with pytest.raises(ModelRefused, match=r"model\.onnx"):
        weights_digest(ModelConfig.model_validate(BASE), {"config.json": "00"})


CLASSIFIER: dict[str, Any] = {
    "kind": "classifier",
    "runtime": {"kind": "onnx"},
    "labels": ["deer", "fox"],
    "scores": "logits",
    "preprocess": {"resize": "stretch", "side_px": 224},
}
OF_CLASSIFIER = (
    '{"kind":"classifier",'
    f'"labels":"{hashlib.sha256(b"""["deer","fox"]""").hexdigest()}",'
    '"numerics":1,'
    '"preprocess":{"channel_order":"RGB","divide_by":255.0,"interpolation":"linear",'
    '"mean":[0.0,0.0,0.0],"pad_value":114,"resize":"stretch","side_px":224,'
    '"std":[1.0,1.0,1.0]},'
    '"scores":"logits",'
    f'"weights":"{WEIGHTS}"}}'
)


def classifier_key(weights: str = WEIGHTS, **changes: Any) -> str:
    return inference_key(ClassifierConfig.model_validate({**CLASSIFIER, **changes}), weights)


def test_the_key_of_a_classifier_is_the_hash_of_its_own_text() -> None:
    assert classifier_key() == hashlib.sha256(OF_CLASSIFIER.encode()).hexdigest()
