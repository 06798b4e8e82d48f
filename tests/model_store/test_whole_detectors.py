"""Test all parts from encoded bytes to rows, for models with other inputs and outputs than squares and boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from model_store.adding.add import add_version, recognised
from model_store.config import Batch
from model_store.decoders.layout import OutputNonsense
from model_store.detections import RunLengths
from model_store.detector import LoadedDetector
from model_store.load import load_detector
from model_store.names import version_id
from model_store.runtimes import open_session
from model_store.store import ModelInfo, ModelStore
from tests.fixtures_local import MODELS, photo
from tests.graphs import constant_graph, pooling
from tests.model_store.test_detections import rows_of
from tests.oracles import masks as mask_oracle
from tests.oracles import tiling as tiling_oracle
from tests.oracles.anchor_decoders import Box
from tests.oracles.decoders import ORACLES, coefficients
from tests.oracles.geometry import place, resize_picture
from tests.oracles.tensors import example

NAMES = "{0: 'deer', 1: 'fox', 2: 'hare'}"
RANKS = {"end2end": "True"}


def added(folder: Path, weights: bytes, overrides: dict[str, Any] | None = None) -> LoadedDetector:
    store = ModelStore(str(folder))
    version = version_id("deer", "1")
    add_version(store, version, weights, overrides or {}, {"probe/cat.jpg": photo("cat")})
    return load_detector(store, version)


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("decoder", [name for name, oracle in ORACLES.items() if oracle.masks])
def test_masks_of_a_model_are_the_oracles_at_the_size_of_the_image(tmp_path: Path, decoder: str) -> None:
    outputs = example(decoder, np.random.default_rng(2), 1, 3, 64)
    metadata = {"names": NAMES, "task": "segment"}
    detector = added(tmp_path, constant_graph(outputs, 64, metadata))
    assert detector.config.decoder == decoder
    width, height = 150, 90
    (found,) = detector.detect([picture(width, height)])
    assert isinstance(found.masks, RunLengths)
    boxes, weights = coefficients(decoder, outputs, 0, 3, detector.config.score_floor)
    placement = place("letterbox", width, height, 64, 64)[0]
    by_score = {round(box.score, 6): row for box, row in zip(boxes, weights, strict=True)}
    wanted = mask_oracle.native_masks(
        np.array([by_score[round(float(score), 6)] for score in found.scores]),
        outputs["output1"][0],
        found.boxes_xyxy,
        (width, height),
        (placement.scale_x, placement.scale_y, placement.left, placement.top),
        (64, 64),
    )
    assert len(found) > 2
    for counts, area, want in zip(found.masks.counts, found.masks.area_px, wanted, strict=True):
        have = coco.decode({"size": [height, width], "counts": counts.encode()})
        assert have.sum() == area
        assert (have != want).sum() <= 2


def test_pictures_of_many_shapes_are_padded_to_the_stride_and_batched_by_shape(tmp_path: Path) -> None:
    """The graph's boxes are the mean colours of 8 x 8 cells, so they show the network's input."""
    metadata = {"names": "{0: 'deer'}", "stride": "32", "imgsz": "[96, 96]"}
    detector = added(tmp_path, pooling(5, metadata), {"score_floor": 0.0})
    spec = detector.config.preprocess
    assert (spec.resize, spec.stride_px, spec.side_px) == ("rect", 32, 96)
    images = [picture(300, 200, i) for i in range(3)] + [picture(100, 260), picture(96, 96)]
    for image in images:
        _, down, across, _ = detector.prepare(image).pixels.shape
        wanted = resize_picture(image, "rect", 96, 96, 32)
        assert wanted.shape[:2] == (down, across)
        outputs = detector.session.run(np.full((1, 3, down, across), 0.5, np.float32))
        assert outputs["output0"].shape == (1, 5, down // 8 * across // 8)
    together = replace(detector, batch=Batch(max=8)).detect(images)
    for one, image in zip(together, images, strict=True):
        assert rows_of(one) == rows_of(detector.detect([image])[0])


def ssdlite_tiled(tiling: dict[str, Any]) -> LoadedDetector:
    weights = (MODELS / "ssdlite-coco" / "1" / "model.onnx").read_bytes()
    overrides = {
        "preprocess": {"resize": "stretch", "pad_value": 0, "tiling": tiling},
        "nms": {"iou": 0.6},
        "score_floor": 0.1,
    }
    config = recognised(weights, overrides).config
    session = open_session(config, {"model.onnx": weights}, threads=1)
    return LoadedDetector(ModelInfo("m", "1", "", "", config.labels), config, session, config.batch)


@pytest.mark.parametrize("kind", ["suppress", "union"])
def test_tiles_of_a_real_picture_are_seen_and_merged_as_in_the_oracle(kind: str) -> None:
    """Each tile is run by the same model untiled; the oracle places, suppresses and merges."""
    detector = ssdlite_tiled({"tile_px": 300, "merge": {"kind": kind}})
    untiled = detector.config.preprocess.model_copy(update={"tiling": None})
    whole = replace(detector, config=detector.config.model_copy(update={"preprocess": untiled}))
    image = picture(500, 380)
    for name, at in (("cat", (20, 10)), ("panda", (250, 150))):
        pasted = cv2.imdecode(np.frombuffer(photo(name), np.uint8), cv2.IMREAD_COLOR_RGB)
        pasted = cv2.resize(pasted, (230, 200))
        image[at[1] : at[1] + 200, at[0] : at[0] + 230] = pasted
    parts: list[list[Box]] = []
    for x, y, w, h in tiling_oracle.tiles(500, 380, 300, 0.2, whole=True):
        (seen,) = whole.detect([np.ascontiguousarray(image[y : y + h, x : x + w])])
        parts.append(
            [
                Box(x1 + x, y1 + y, x2 + x, y2 + y, score, class_id)
                for score, class_id, (x1, y1, x2, y2) in rows_of(seen)
            ]
        )
    wanted, _ = tiling_oracle.merge(parts, kind, "smaller", 0.5, True, 300)
    (found,) = detector.detect([image])
    assert len(found) == len(wanted) > 1
    assert sum(map(len, parts)) > len(wanted)
    for (score, class_id, box), want in zip(rows_of(found), sorted(wanted, key=lambda b: -b.score), strict=True):
        assert (score, class_id) == (want.score, want.class_id)
        np.testing.assert_allclose(box, want[:4], atol=1e-3)


def test_tiled_images_of_any_size_give_the_same_rows_alone_and_together() -> None:
    detector = ssdlite_tiled({"tile_px": 200})
    images = [picture(300, 190, 1), picture(90, 90, 2)]
    assert [len(detector.prepare(image).fits) for image in images] == [3, 1]
    together = detector.detect(images)
    alone = [detector.detect([image])[0] for image in images]
    assert [rows_of(one) for one in together] == [rows_of(one) for one in alone]
    assert detector.lane_batch.max == 1


def grey(value: int) -> np.ndarray:
    """Return an image with `value` as red of its first pixel, which `constant_graph` reads."""
    return np.full((64, 64, 3), value, np.uint8)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ((0, 5), 5.0, "returned class 5, but the model has 3 labels"),
        ((0, 4), np.nan, "output output0 holds NaN or infinity"),
        ((2, 0), -np.inf, "output output0 holds NaN or infinity"),
    ],
)
def test_an_image_of_which_the_network_says_nonsense_fails_alone(
    tmp_path: Path, place: tuple[int, int], value: float, said: str
) -> None:
    rows = np.zeros((256, 10, 6), np.float32)
    rows[:, 0] = [1, 1, 30, 30, 0.9, 1]
    rows[201, *place] = value
    detector = added(tmp_path, constant_graph({"output0": rows}, 64, {"names": NAMES, **RANKS}))
    images = [detector.prepare(grey(value)) for value in (100, 201, 102)]
    with pytest.raises(OutputNonsense, match=said):
        detector.infer(images)
    with pytest.raises(OutputNonsense, match=said):
        detector.infer(images[1:2])
    assert [len(found) for found in detector.infer(images[::2]).detections] == [1, 1]
