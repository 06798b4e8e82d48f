"""Adding a version recognises, probes and publishes it, or leaves nothing behind."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.adding.add import add_version, already_there, recognised
from model_store.errors import ImageError, ModelRefused
from model_store.load import load_detector
from model_store.names import version_id
from model_store.probe import EXPECTED
from model_store.store import ModelStore
from tests.graphs import constant_graph
from tests.model_store.tiny_graphs import averaging, of_one_size, random_scores, two_inputs
from tests.shared_data import photo

MOTION: dict[str, Any] = {
    "runtime": {"kind": "motion"},
    "decoder": "blobs",
    "labels": ["blob"],
    "preprocess": {"resize": "stretch", "side_px": 64},
}
DEER = version_id("deer", "1")
RECT: dict[str, Any] = {"labels": ["deer", "boar"], "preprocess": {"resize": "rect", "side_px": 128}}


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(str(tmp_path))


def test_a_version_needs_no_more_than_weights_with_names(store: ModelStore) -> None:
    weights = averaging(metadata={"names": "['deer']"})
    added = add_version(store, DEER, weights, {}, {})
    assert store.versions("deer") == [DEER]
    assert added.digests.keys() == {"config.json", "model.onnx", "README.md", EXPECTED, "probe/synthetic.png"}
    assert store.read_file(added, "model.onnx") == weights
    readme = store.read_file(added, "README.md").decode()
    assert readme.startswith("Added with 'resight models add'.\n\n- decoder: yolov8 (outputs output0 ")
    assert "- input: 10 x 10 px (fixed by the graph)\n" in readme
    assert load_detector(store, DEER).info == added.info


def test_given_files_are_kept_and_given_pictures_are_the_probe(store: ModelStore) -> None:
    files = {"README.md": b"mine", "LICENSE": b"MIT", "probe/cat.jpg": photo("cat")}
    added = add_version(store, DEER, None, MOTION, files)
    for name, data in files.items():
        assert store.read_file(added, name) == data
    assert json.loads(store.read_file(added, EXPECTED))["images"].keys() == {"cat.jpg"}
    assert "probe/synthetic.png" not in added.digests


@pytest.mark.parametrize(
    ("weights", "overrides", "said"),
    [
        (None, {}, "runtime: Field required"),
        (None, {**MOTION, "runtime": {"kind": "onnx"}, "decoder": "yolov8"}, r"model\.onnx"),
        (two_inputs(), {"decoder": "yolov8"}, r"2 inputs \(left, right\)"),
        (averaging(), {}, "labels"),
        (averaging(), {"labels": ["deer"], "preprocess": {"side_px": 64}}, "side_px 64"),
        (of_one_size(None, 128, 6), RECT, r'does not run on the probe; .*"letterbox"'),
    ],
    ids=["nothing", "no weights", "two inputs", "no names", "another side", "one size of many"],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(
    store: ModelStore, weights: bytes | None, overrides: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelRefused, match=said):
        add_version(store, DEER, weights, overrides, {})
    assert store.folder.names() == []


def test_a_probe_that_is_no_picture_leaves_nothing(store: ModelStore) -> None:
    with pytest.raises(ImageError):
        add_version(store, DEER, None, MOTION, {"probe/cat.jpg": b"not a picture"})
    assert store.folder.names() == []


def test_a_graph_that_answers_differently_each_time_is_refused(store: ModelStore) -> None:
    with pytest.raises(ModelRefused, match=r"deer@1 gives different results .*random") as refused:
        add_version(store, DEER, random_scores({"names": "['deer']"}), {}, {})
    assert "synthetic.png: expected deer" in str(refused.value)
    assert store.folder.names() == []


def test_a_class_beyond_the_labels_is_refused_with_both_numbers(store: ModelStore) -> None:
    rows = np.zeros((1, 10, 6), np.float32)
    rows[0, 0] = [1, 1, 30, 30, 0.9, 5]
    names = {"names": "{0: 'deer', 1: 'fox'}", "end2end": "True"}
    with pytest.raises(ModelRefused, match=r"deer@1 cannot be trusted: .* class 5, but the model has 2"):
        add_version(store, DEER, constant_graph({"output0": rows}, 64, names), {}, {})
    assert store.folder.names() == []


def test_what_was_recognised_once_is_not_asked_again(store: ModelStore) -> None:
    weights = averaging(metadata={"names": "['deer']"})
    known = recognised(weights, {"labels": ["elk"]})
    assert add_version(store, DEER, weights, {}, {}, known).config.labels == ("elk",)
    assert [reason.what for reason in known.reasons][:2] == ["decoder", "labels"]
    assert recognised(None, MOTION).reasons == ()


def test_the_same_weights_with_the_same_config_are_there_already(store: ModelStore) -> None:
    deer, elk = (averaging(metadata={"names": f"['{name}']"}) for name in ("deer", "elk"))
    config = recognised(deer, {}).config
    assert already_there(store, "deer", config, deer) is None
    for version in ("2026-11", "9", "10"):
        add_version(store, version_id("deer", version), deer, {}, {})
    found = already_there(store, "deer", config, deer)
    assert found is not None
    assert str(found.id) == "deer@10"
    assert already_there(store, "fox", config, deer) is None
    assert already_there(store, "deer", config, elk) is None
    other = recognised(deer, {"thresholds": {"default": 0.5}}).config
    assert already_there(store, "deer", other, deer) is None


def test_a_damaged_version_is_not_what_is_there(store: ModelStore) -> None:
    add_version(store, DEER, None, MOTION, {})
    config = recognised(None, MOTION).config
    assert already_there(store, "deer", config, None) is not None
    store.folder.write("deer/1/config.json", b"{}")
    assert already_there(store, "deer", config, None) is None
