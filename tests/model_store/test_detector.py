"""Compare the whole detector on real weights and photographs with the oracle, alone and in batches."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from model_store.adding.add import add_version
from model_store.detections import Detections
from model_store.detector import LoadedDetector
from model_store.errors import DigestMismatch, ModelNotFound, ProbeFailed
from model_store.images.decode import Pixels, decode
from model_store.load import load_detector
from model_store.names import parse_version, version_id
from model_store.probe import EXPECTED
from model_store.store import ModelStore
from tests.graphs import random_head
from tests.oracles.nms import iou
from tests.oracles.yolov8 import Detection, detect, names_of
from tests.shared_data import MODELS, PHOTOS, shared

PHOTO_NAMES = [path.stem for path in PHOTOS]


@cache
def ssdlite() -> LoadedDetector:
    return load_detector(ModelStore(str(MODELS)), parse_version("ssdlite-coco@1"))


@cache
def pixels(name: str) -> Pixels:
    return decode(next(path for path in PHOTOS if path.stem == name).read_bytes()).pixels


def oracle(weights: str, image: Pixels, detector: LoadedDetector) -> list[Detection]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    spec, nms = detector.config.preprocess, detector.config.nms
    assert names_of(session) == dict(enumerate(detector.info.labels))
    return detect(
        session,
        image,
        side=spec.side_px,
        geometry=spec.resize,
        score_floor=detector.config.score_floor,
        iou=nms.iou,
        class_aware=nms.class_aware,
        max_detections=nms.max_detections,
        pad_value=spec.pad_value,
    )


def assert_same(found: Detections, wanted: list[Detection]) -> None:
    """Require a one-to-one match of all rows."""
    left: list[Any] = list(zip(found.class_ids, found.scores, found.boxes_xyxy, strict=True))
    assert len(left) == len(wanted)
    for class_id, score, x1, y1, x2, y2 in wanted:
        index = next(
            i
            for i, (c, s, b) in enumerate(left)
            if c == class_id and abs(s - score) <= 1e-5 and iou(tuple(b), (x1, y1, x2, y2)) >= 0.999
        )
        del left[index]


@pytest.mark.parametrize("name", PHOTO_NAMES)
def test_a_stretched_photograph_gives_the_oracles_rows(name: str) -> None:
    (found,) = ssdlite().detect([pixels(name)])
    wanted = oracle(f"{MODELS}/ssdlite-coco/1/model.onnx", pixels(name), ssdlite())
    assert len(wanted) > 0
    assert_same(found, wanted)


@pytest.mark.parametrize("file", ["generated", "nanodet_coco_416.yolov8-layout.fp16.onnx"])
def test_letterboxed_photographs_give_the_oracles_rows(tmp_path: Path, file: str) -> None:
    twin = "test_letterboxed_photographs_give_the_oracles_rows[generated"
    weights = tmp_path / "generated.onnx"
    if file == "generated":
        weights.write_bytes(random_head("yolov8"))
    else:
        weights = shared(f"models/{file}", twin)
    store = ModelStore(str(tmp_path / "models"))
    version = version_id("letterboxed", "1")
    add_version(store, version, weights.read_bytes(), {"score_floor": 0.05}, {})
    detector = load_detector(store, version)
    assert detector.config.preprocess.resize == "letterbox"
    for name in PHOTO_NAMES:
        (found,) = detector.detect([pixels(name)])
        assert len(found) > 0
        assert_same(found, oracle(str(weights), pixels(name), detector))


def test_the_cat_is_a_cat() -> None:
    (found,) = ssdlite().detect([pixels("cat")])
    assert ssdlite().info.labels[found.class_ids[0]] == "cat"
    assert found.scores[0] > 0.5


def test_no_images_give_no_results() -> None:
    assert ssdlite().detect([]) == []
    inferred = ssdlite().infer([])
    assert (inferred.detections, inferred.inference_ms) == ([], 0.0)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_batch_gives_the_same_rows_as_each_image_alone(size: int) -> None:
    names = PHOTO_NAMES[:size]
    together = ssdlite().detect([pixels(name) for name in names])
    assert len(together) == size
    for name, found in zip(names, together, strict=True):
        (alone,) = ssdlite().detect([pixels(name)])
        assert found.boxes_xyxy.tobytes() == alone.boxes_xyxy.tobytes()
        assert found.scores.tobytes() == alone.scores.tobytes()
        assert found.class_ids.tobytes() == alone.class_ids.tobytes()


def test_prepared_pixels_and_times_travel_separately() -> None:
    prepared = ssdlite().prepare(pixels("panda"))
    inferred = ssdlite().infer([prepared])
    (alone,) = ssdlite().detect([pixels("panda")])
    assert np.array_equal(inferred.detections[0].boxes_xyxy, alone.boxes_xyxy)
    assert inferred.inference_ms > 0
    assert inferred.postprocess_ms > 0


def test_a_black_one_pixel_image_is_no_trouble() -> None:
    (found,) = ssdlite().detect([np.zeros((1, 1, 3), np.uint8)])
    assert (found.boxes_xyxy >= 0).all()
    assert (found.boxes_xyxy <= 1).all()


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
