"""Boxes of scaled decoding are matched with those of the full size, whatever the number of each."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.jpeg_shrink import compare
from model_store.detections import Detections

FULL_SIZE = Detections(
    np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]], np.float32),
    np.array([0.9, 0.8, 0.1], np.float32),
    np.array([1, 2, 1], np.int32),
)


def test_boxes_are_matched_within_their_class() -> None:
    detector = SimpleNamespace(config=SimpleNamespace(thresholds=SimpleNamespace(default=0.5)))
    shrunken = Detections(
        np.array([[20, 20, 30, 30], [0, 0, 10, 8]], np.float32),
        np.array([0.8, 0.7], np.float32),
        np.array([1, 1], np.int32),
    )
    found = compare(detector, [FULL_SIZE, FULL_SIZE], [shrunken, Detections.empty()])
    assert found == pytest.approx({"matched": 1 / 4, "median_iou": 0.8, "mean_score_shift": 0.2})
