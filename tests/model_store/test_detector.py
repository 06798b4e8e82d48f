"""Detectors load only with whole files and a reproduced probe; `adding/test_real_weights.py` compares their rows."""

import json
from functools import cache
from pathlib import Path

import pytest

from model_store.adding.add import add_version
from model_store.detector import LoadedDetector
from model_store.errors import DigestMismatch, ModelNotFound, ProbeFailed
from model_store.load import load_detector
from model_store.names import parse_version, version_id
from model_store.probe import EXPECTED
from model_store.store import ModelStore
from tests.shared_data import MODELS


@cache
def ssdlite() -> LoadedDetector:
    return load_detector(ModelStore(str(MODELS)), parse_version("ssdlite-coco@1"))


def test_no_images_give_no_results() -> None:
    assert ssdlite().detect([]) == []
    inferred = ssdlite().infer([])
    assert (inferred.detections, inferred.inference_ms) == ([], 0.0)


def test_loading_verifies_every_file(tmp_path: Path) -> None:
    store = ModelStore(str(tmp_path))
    config = {
        "runtime": {"kind": "motion"},
        "decoder": "blobs",
        "labels": ["blob"],
        "preprocess": {"resize": "stretch", "side_px": 64},
    }
    version = add_version(store, version_id("motion", "1"), None, config, {}).id
    assert load_detector(store, version).detect([]) == []
    store.folder.write("motion/1/README.md", b"changed afterwards")
    with pytest.raises(DigestMismatch, match=r"README\.md"):
        load_detector(store, version)
    with pytest.raises(ModelNotFound):
        load_detector(store, version_id("motion", "2"))


def test_loading_reproduces_the_probe(tmp_path: Path) -> None:
    shipped = ModelStore(str(MODELS))
    motion = shipped.describe(version_id("motion", "1"))
    files = {name: shipped.read_file(motion, name) for name in motion.digests}
    files[EXPECTED] = json.dumps({"images": {"cat.jpg": []}}).encode()
    store = ModelStore(str(tmp_path))
    store.publish(motion.id, files)
    with pytest.raises(ProbeFailed, match=r"^motion@1 does not reproduce its probe cat\.jpg"):
        load_detector(store, motion.id)
