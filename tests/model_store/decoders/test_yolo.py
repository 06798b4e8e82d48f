"""Decode the YOLOv8 layout from tensors written by hand, and compare with the oracle's loops."""

from collections.abc import Sequence

import numpy as np
import pytest

from model_store.decoders.layout import DecodeSpec
from model_store.decoders.yolo import decode_yolov8
from model_store.errors import ModelRefused
from tests.model_store.test_detections import rows_of
from tests.oracles.yolov8 import decode


def output(anchors: Sequence[tuple[float, ...]], classes: int = 2) -> np.ndarray:
    """Return anchors (cx, cy, w, h, score, score, ...) in the network's layout, (4 + classes, n)."""
    return np.array(anchors, np.float32).reshape(-1, 4 + classes).T


@pytest.mark.parametrize(
    ("anchors", "wanted"),
    [
        ([], []),
        ([(10, 20, 8, 4, 0.125, 0)], []),
        ([(10, 20, 8, 4, 0.5, 0.75)], [(0.75, 1, (6, 18, 14, 22))]),
        ([(10, 20, 8, 4, 0.25, 0)], []),
        ([(10, 20, 8, 4, 0.5, 0.5)], [(0.5, 0, (6, 18, 14, 22))]),
        ([(0, 0, 2, 2, 0, 0), (9, 9, 0, 0, 0, 1)], [(1.0, 1, (9, 9, 9, 9))]),
    ],
    ids=["no anchors", "under", "best class", "at the floor", "tie", "order"],
)
def test_an_anchor_becomes_its_best_class_above_the_floor(
    anchors: list[tuple[float, ...]], wanted: list[tuple[float, int, tuple[float, ...]]]
) -> None:
    raw = output(anchors)[np.newaxis] if anchors else np.zeros((1, 6, 1), np.float32)
    (found,) = decode_yolov8({"output0": raw}, DecodeSpec((64, 64), 2, 0.25))
    assert rows_of(found) == wanted


def test_each_image_of_the_batch_has_its_own_detections() -> None:
    one, none, two = [(5, 5, 2, 2, 0.5, 0)] * 2, [(0, 0, 0, 0, 0, 0)] * 2, [(9, 9, 2, 2, 0, 1)] * 2
    raw = np.stack([output(one), output(none), output(two)])
    spec = DecodeSpec((64, 64), 2, 0.25)
    found = decode_yolov8({"output0": raw}, spec)
    assert [len(image) for image in found] == [2, 0, 2]
    assert found[2].class_ids.tolist() == [1, 1]
    assert decode_yolov8({"output0": raw[:0]}, spec) == []


def test_random_tensors_decode_as_in_the_oracle() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        raw = random.uniform(0, 320, (1, 9, 50)).astype(np.float32)
        raw[0, 4:] = random.choice(np.array([0, 0.125, 0.25, 0.5, 0.75], np.float32), (5, 50))
        (found,) = decode_yolov8({"output0": raw}, DecodeSpec((320, 320), 5, 0.49))
        boxes, scores, classes = decode(raw, 0.49)
        assert found.scores.tolist() == scores
        assert found.class_ids.tolist() == classes
        assert np.abs(found.boxes_xyxy - np.array(boxes)).max() < 1e-4


@pytest.mark.parametrize("shape", [(0,), (6, 20), (1, 4, 20), (1, 7, 20), (1, 1, 6, 20)])
def test_other_layouts_are_refused_with_the_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelRefused, match=r"\(n, 6, anchors\)") as refused:
        decode_yolov8({"output0": np.zeros(shape, np.float32)}, DecodeSpec((64, 64), 2, 0.25))
    assert str(shape) in str(refused.value)
