"""Detections are shown at or above the threshold of their label, compared as float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.config import ModelConfig
from model_store.transform.thresholds import least_scores, shown
from tests.model_store.test_detections import detections, rows_of

BOX = (0.0, 0.0, 1.0, 1.0)


def config_of(**thresholds: Any) -> ModelConfig:
    given = {"runtime": {}, "decoder": "yolov8", "labels": ["deer", "fox"], "thresholds": thresholds}
    return ModelConfig.model_validate({**given, "runtime": {"kind": "onnx"}})


@given(st.floats(0, 1))
def test_a_score_of_exactly_the_threshold_is_shown(threshold: float) -> None:
    """The float32 of 0.7 is less than 0.7, that of 0.1 more than 0.1: both must be shown."""
    at = np.float32(threshold)
    below = np.nextafter(at, np.float32(-1))
    found = detections([(float(at), 0, BOX), (float(below), 0, BOX), (float(below), 1, BOX)])
    assert len(shown(found, least_scores(config_of(default=threshold)))) == 1
    assert len(shown(found, least_scores(config_of(), min_score=threshold))) == 1


def test_each_label_has_its_own_threshold_and_min_score_is_for_all() -> None:
    config = config_of(default=0.5, per_label={"fox": 0.8})
    found = detections([(0.5, 0, BOX), (0.5, 1, BOX), (0.8, 1, BOX), (0.4, 0, BOX)])
    assert [row[:2] for row in rows_of(shown(found, least_scores(config)))] == [(0.5, 0), (pytest.approx(0.8), 1)]
    assert len(shown(found, least_scores(config, 0.4))) == 4
    assert len(shown(found, least_scores(config, 0.0))) == 4
    assert shown(found, least_scores(config, 1.0)).class_ids.tolist() == []
