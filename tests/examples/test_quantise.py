"""The int8 version of the shipped model: the same graph from outside, and it still sees the cat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from examples.quantise import main, photographs, quantise, scenes, tensor_of
from model_store.adding.add import add_version
from model_store.config import parse_config
from model_store.detector import LoadedDetector
from model_store.load import load_detector
from model_store.names import version_id
from model_store.store import ModelStore
from tests.fixtures_local import MODELS, copy_of_models, photo

ONE = version_id("ssdlite-coco", "1")
WEIGHTS = (MODELS / "ssdlite-coco" / "1" / "model.onnx").read_bytes()


@pytest.fixture(scope="module")
def float_version() -> LoadedDetector:
    return load_detector(ModelStore(str(MODELS)), ONE)


@pytest.fixture(scope="module")
def quantised(float_version: LoadedDetector) -> bytes:
    """Calibrated with the five photographs only, which is quick."""
    return quantise(WEIGHTS, (tensor_of(float_version, data) for data in photographs()))


def added(place: Path, weights: bytes, config: dict[str, object]) -> LoadedDetector:
    store = ModelStore(str(copy_of_models(place)))
    version = version_id("ssdlite-coco", "2")
    add_version(store, version, weights, config, {"probe/cat.jpg": photo("cat")})
    return load_detector(store, version)


def test_it_loads_as_version_2_and_sees_the_cat(
    quantised: bytes, float_version: LoadedDetector, tmp_path: Path
) -> None:
    two = added(tmp_path, quantised, float_version.config.model_dump(mode="json"))
    assert two.info.inference_key != float_version.info.inference_key
    assert two.config.preprocess == float_version.config.preprocess
    for name, label in (("cat", "cat"), ("panda", "bear")):
        (_, before), (_, after) = (one.detect_encoded(photo(name)) for one in (float_version, two))
        assert two.info.labels[after.class_ids[0]] == label
        assert after.scores[0] == pytest.approx(before.scores[0], abs=0.15)
        side_px = before.boxes_xyxy[0].max()
        np.testing.assert_allclose(after.boxes_xyxy[0], before.boxes_xyxy[0], atol=side_px / 10)


def test_convolutions_are_int8_and_metadata_are_kept(quantised: bytes) -> None:
    before, after = onnx.load_from_string(WEIGHTS), onnx.load_from_string(quantised)
    onnx.checker.check_model(after)
    assert len(quantised) < 0.6 * len(WEIGHTS)
    dequantised = {out for n in after.graph.node if n.op_type == "DequantizeLinear" for out in n.output}
    convs = [node for node in after.graph.node if node.op_type == "Conv"]
    in_float = [node for node in convs if node.input[1] not in dequantised]
    assert len(in_float) == 2 < len(convs)
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in after.graph.initializer]
    weights = [array for array in arrays if array.dtype == np.int8 and array.ndim == 4]
    assert len(weights) == len(convs) - 2
    assert max(np.abs(array.astype(int)).max() for array in weights) == 64, "7 bits"
    assert not [n for n in after.graph.node if n.op_type == "Sum"], "it has no 8-bit kernel"
    given, kept = ({e.key: e.value for e in m.metadata_props} for m in (before, after))
    assert given.items() <= kept.items()
    assert set(kept) - set(given) == {"description"}
    assert [i.name for i in after.graph.input] == [i.name for i in before.graph.input]
    assert [i.name for i in after.graph.output] == [i.name for i in before.graph.output]


def test_the_command_writes_weights_and_the_config_that_goes_with_them(
    quantised: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("examples.quantise.scenes", lambda images, seed: iter([]))
    monkeypatch.setattr("examples.quantise.quantise", lambda weights, images: quantised)
    main(["--out", str(tmp_path / "new" / "small.onnx"), "--compare"])
    said = capsys.readouterr().out
    assert "pictures 5" in said
    assert "median inference on one core" in said
    text = (tmp_path / "new" / "small.json").read_text()
    config = parse_config(text, "small.json")
    assert "int8" in config.description
    assert config.thresholds.default == 0.4
    two = added(tmp_path, (tmp_path / "new" / "small.onnx").read_bytes(), config.model_dump(mode="json"))
    assert two.config == config


def test_scenes_are_sound_pictures_and_other_ones_by_seed() -> None:
    some = list(scenes(24, seed=1))
    assert len(some) > 5
    assert all(data.startswith(b"\xff\xd8") for data in some)
    assert some != list(scenes(24, seed=0))
