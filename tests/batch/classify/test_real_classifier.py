"""Test real and generated weights on crops of photographs, from the plan's row to the table's, without a cluster."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from batch.classify.rows import classification_table, classify_target
from batch.crops.model_stage import crops_of
from model_store.adding.add import add_version
from model_store.images.decode import decode
from model_store.load import load_model
from model_store.names import version_id
from model_store.store import ModelStore
from serve.inference.chunks import Chunk, CropsAnswer
from tests.fixtures_local import PHOTOS
from tests.model_store.classifiers import colours
from tests.shared_data import shared

WEIGHTS = "models/efficientnet_lite0_imagenet_224.classifier.fp16.onnx"


@pytest.mark.parametrize(
    ("weights", "photo", "label"), [("generated", "cat", "red"), ("efficientnet", "panda", "giant panda")]
)
def test_the_row_has_the_class_in_the_image(weights: str, photo: str, label: str, tmp_path: Path) -> None:
    store = _store(tmp_path, weights)
    version = store.describe(store.versions("m")[0])
    model = load_model(store, version.id)
    data = (PHOTOS / f"{photo}.jpg").read_bytes()
    height_px, width_px = decode(data).pixels.shape[:2]
    whole = {"x1_px": 0.0, "y1_px": 0.0, "x2_px": float(width_px), "y2_px": float(height_px)}
    row = {"media_sha256": hashlib.sha256(data).hexdigest(), "source_root": str(PHOTOS)}
    row |= {"path": f"{photo}.jpg", "width_px": width_px, "height_px": height_px}
    row |= {"boxes": [{"rank": 0, "replaces": False, **whole}]}
    crops = crops_of(row, version.config.preprocess, 0.0, 10**8)
    inputs = np.stack([crop.input for crop in crops if crop.input is not None])
    chunk = Chunk.of_inputs(str(version.id), inputs)
    logits = model.infer(np.concatenate([one.pixels for one in chunk.items()]))
    times = np.zeros(1, np.float32)
    answer = CropsAnswer(model.info, logits, times, times, (None,))
    target = classify_target("k" * 64, version, 0.0)
    (found,) = classification_table("r", model.info, target, crops, answer).to_pylist()
    assert (found["status"], len(found["logits"])) == ("ok", len(model.labels))
    assert len(model.labels) == (4 if weights == "generated" else 1000)
    assert label in found["label"]
    alone = model.of_images([decode(data).pixels])[0]
    assert np.array_equal(alone, logits[0])
    assert found["logits"] == alone.astype(np.float16).astype(np.float32).tolist()


def _store(place: Path, weights: str) -> ModelStore:
    twin = "test_the_row_has_the_class_in_the_image[generated"
    data = colours() if weights == "generated" else shared(WEIGHTS, twin).read_bytes()
    store = ModelStore(str(place / "models"))
    add_version(store, version_id("m", "1"), data, {}, {})
    return store
