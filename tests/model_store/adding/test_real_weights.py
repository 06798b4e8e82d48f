"""Compare real and generated networks on real images with the oracle, added without options and run in any batch."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import onnxruntime as ort
import pytest

from model_store.adding.add import recognised
from model_store.config import Batch
from model_store.detections import Detections
from model_store.detector import LoadedDetector
from model_store.images.decode import Pixels, decode
from model_store.runtimes import open_session
from model_store.store import ModelInfo
from tests.graphs import random_head
from tests.oracles.nms import iou
from tests.oracles.pixels import Recipe, Row, detect
from tests.shared_data import MODELS, PHOTOS, SHARED, shared

FLOOR = 0.05
NEAR = 1e-3
"""Detections this close to the floor may be missing."""
RECIPES = {
    "ssdlite_coco_300.ssd-layout": Recipe("ssd", 300, 90, "stretch", 0.6),
    "nanodet_coco_416.yolov8-layout": Recipe("yolov8", 416, 80, "letterbox", 0.7),
    "trailcam_yolox_tiny_640.yolox-raw": Recipe(
        "yolox_raw", 640, 1, "fit_top_left", 0.45, class_aware=False, pad_value=0, one_px=1.0
    ),
}
"""Settings by ../shared/data/README.md, with the suppression of their frameworks."""
YOLOX = Recipe("yolox_raw", 64, 3, "fit_top_left", 0.45, class_aware=False, one_px=1.0)
GENERATED = {
    "shipped": Recipe("yolov8", 300, 80, "stretch", 0.6),
    "generated yolov8": Recipe("yolov8", 64, 3, "letterbox", 0.7),
    "generated ssd": Recipe("ssd", 64, 3, "stretch", 0.6),
    "generated yolox_raw": YOLOX._replace(pad_value=0),
    "generated yolox_raw of bytes": YOLOX._replace(scale=1.0, bgr=True),
}
"""Settings by docs/reference/decoders.md."""


def weights_of(file: str) -> bytes:
    if file == "shipped":
        return (MODELS / "ssdlite-coco" / "1" / "model.onnx").read_bytes()
    if recipe := GENERATED.get(file):
        return random_head(recipe.decoder, takes_bytes=file.endswith("of bytes"))
    twins = (
        "test_pixels_become_the_oracles_rows[generated",
        "test_rows_are_the_same_to_the_last_bit_in_any_batch[generated",
    )
    return shared(f"models/{file}.fp16.onnx", *twins).read_bytes()


@cache
def detector_of(file: str) -> LoadedDetector:
    weights = weights_of(file)
    config = recognised(weights, {"score_floor": FLOOR}).config
    session = open_session(config, {"model.onnx": weights}, threads=1)
    return LoadedDetector(ModelInfo("m", "1", "", "", config.labels), config, session, config.batch)


def pixels_of(path: Path) -> Pixels:
    return decode(path.read_bytes()).pixels


@pytest.mark.parametrize(
    ("file", "picture"),
    [*product(GENERATED, ["cat", "tiny person"]), *product(RECIPES, ["moose", "american_black_bear"])],
)
def test_pixels_become_the_oracles_rows(file: str, picture: str) -> None:
    """The oracle has its own preprocessing, decoding and suppression; both run the network."""
    known = {path.stem: path for path in PHOTOS}
    twin = "test_pixels_become_the_oracles_rows[generated"
    path = known.get(picture.removeprefix("tiny ")) or shared(f"camera_trap/{picture}.jpg", twin)
    image = pixels_of(path)
    if picture.startswith("tiny "):  # 16 x 16 px, where a pixel more for each box is visible
        image = image[::32, ::32].copy()
    (found,) = detector_of(file).detect([image])
    session = ort.InferenceSession(weights_of(file), providers=["CPUExecutionProvider"])
    rows = detect(session, image, (GENERATED | RECIPES)[file], FLOOR)
    assert len(rows) > 0
    assert_same(found, rows)


def assert_same(found: Detections, rows: list[Row]) -> None:
    """Require a one-to-one match, except for detections close to the floor."""
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
def four() -> list[Pixels]:
    """Return camera trap images if available, else photographs."""
    return [pixels_of(path) for path in [*sorted((SHARED / "camera_trap").glob("*.jpg")), *PHOTOS][:4]]


@pytest.mark.parametrize("file", [*GENERATED, "nanodet_coco_416.yolov8-layout"])
def test_rows_are_the_same_to_the_last_bit_in_any_batch(file: str) -> None:
    detector = detector_of(file)
    prepared = [detector.prepare(image) for image in four()]
    seen = [
        [columns_of(one) for one in replace(detector, batch=Batch(max=n)).infer(prepared).detections]
        for n in (1, 3, 16)
    ]
    assert seen[0] == seen[1] == seen[2]
    assert sum(len(boxes) for boxes, _, _ in seen[0]) > 0


def columns_of(found: Detections) -> tuple[bytes, bytes, bytes]:
    return found.boxes_xyxy.tobytes(), found.scores.tobytes(), found.class_ids.tobytes()
