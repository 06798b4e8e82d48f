"""Real networks on real pictures: added without a word, from pixels to rows as the oracle's, and in any batch."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from model_store.add import recognised
from model_store.config import Batch
from model_store.detections import Detections
from model_store.detector import LoadedDetector
from model_store.images import Pixels, decode
from model_store.runtimes import open_session
from model_store.store import ModelInfo
from tests.oracles.nms import iou
from tests.oracles.pixels import Recipe, Row, detect
from tests.shared_data import MODELS, PHOTOS, SHARED, shared

FLOOR = 0.05
NEAR = 1e-3
"""Whatever lies this near the floor may be there or not."""
RECIPES = {
    "ssdlite_coco_300.yolov8-layout": Recipe("yolov8", 300, 80, "stretch", 0.6),
    "ssdlite_coco_300.ssd-layout": Recipe("ssd", 300, 90, "stretch", 0.6),
    "nanodet_coco_416.yolov8-layout": Recipe("yolov8", 416, 80, "letterbox", 0.7),
    "trailcam_yolox_tiny_640.yolox-raw": Recipe(
        "yolox_raw", 640, 1, "fit_top_left", 0.45, class_aware=False, pad_value=0, one_px=1.0
    ),
}
"""As ../shared/data/README.md says of them, and as their frameworks suppress."""


def weights_of(file: str) -> Path:
    if file == "ssdlite-coco":
        return MODELS / "ssdlite-coco" / "1" / "model.onnx"
    return shared(f"models/{file}.fp16.onnx")


@cache
def detector_of(file: str) -> LoadedDetector:
    weights = weights_of(file).read_bytes()
    config = recognised(weights, {"score_floor": FLOOR}).config
    session = open_session(config, {"model.onnx": weights}, threads=1)
    return LoadedDetector(ModelInfo("m", "1", "", "", config.labels), config, session, config.batch)


def pixels_of(path: Path) -> Pixels:
    return decode(path.read_bytes()).pixels


@pytest.mark.parametrize("picture", ["cat", "moose", "person", "american_black_bear", "vehicle"])
@pytest.mark.parametrize("file", RECIPES)
def test_pixels_become_the_oracles_rows(file: str, picture: str) -> None:
    """The oracle prepares, decodes and suppresses by itself; both run the network."""
    known = {path.stem: path for path in PHOTOS}
    image = pixels_of(known.get(picture) or shared(f"camera_trap/{picture}.jpg"))
    (found,) = detector_of(file).detect([image])
    session = ort.InferenceSession(str(weights_of(file)), providers=["CPUExecutionProvider"])
    rows = detect(session, image, RECIPES[file], FLOOR)
    assert len(rows) > 0
    assert_same(found, rows)


def assert_same(found: Detections, rows: list[Row]) -> None:
    """One to one, but for what may have fallen on either side of the floor."""
    columns = (found.class_ids.tolist(), found.scores.tolist(), found.boxes_xyxy.tolist())
    left = [Row(c, s, tuple(b)) for c, s, b in zip(*columns, strict=True)]
    for row in rows:
        match = next((i for i, have in enumerate(left) if same(have, row)), None)
        if match is not None:
            del left[match]
        else:
            assert row.score < FLOOR + NEAR, row
    assert all(have.score < FLOOR + NEAR for have in left), left


def same(have: Row, row: Row) -> bool:
    alike = have.class_id == row.class_id and abs(have.score - row.score) <= 1e-5
    return alike and iou(have.box, row.box) >= 0.999


@cache
def sixteen() -> list[Pixels]:
    """Pictures of camera traps where they are at hand; else photographs, and parts of them."""
    paths = [*sorted((SHARED / "camera_trap").glob("*.jpg")), *PHOTOS]
    whole = [pixels_of(path) for path in paths[:16]]
    parts = [image[: len(image) // n] for n in (2, 3, 4) for image in whole]
    return (whole + [np.ascontiguousarray(part) for part in parts])[:16]


@pytest.mark.parametrize("file", ["ssdlite-coco", *RECIPES])
def test_rows_are_the_same_to_the_last_bit_in_batches_of_1_3_and_16(file: str) -> None:
    detector = detector_of(file)
    prepared = [detector.prepare(image) for image in sixteen()]
    assert len(prepared) == 16
    seen = [
        [
            columns_of(one)
            for one in replace(detector, batch=Batch(max=n)).infer(prepared).detections
        ]
        for n in (1, 3, 16)
    ]
    assert seen[0] == seen[1] == seen[2]
    assert sum(len(boxes) for boxes, _, _ in seen[0]) > 0


def columns_of(found: Detections) -> tuple[bytes, bytes, bytes]:
    return found.boxes_xyxy.tobytes(), found.scores.tobytes(), found.class_ids.tobytes()
