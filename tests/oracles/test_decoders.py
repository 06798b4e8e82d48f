"""Each oracle on boxes worked out by hand; side 64, classes 0 and 1."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.oracles.anchor_decoders import Box, best_of, cells
from tests.oracles.decoders import LN3, LN7, ORACLES, WIDE, coefficients, saturated


@pytest.mark.parametrize("decoder", ORACLES)
def test_boxes_by_hand(decoder: str) -> None:
    oracle = ORACLES[decoder]
    one, expected = oracle.case, oracle.boxes
    # A second image without detections: all zero, but for logits, where 0 means 1/2.
    blank = -9 if decoder == "rfdetr" else 0
    two = {name: np.append(rows, np.full_like(rows, blank), axis=0) for name, rows in one.items()}
    found = oracle.decode(two, 64, 2, 0.25)
    assert len(found) == 2
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-5)
    assert found[1] == []


@pytest.mark.parametrize("decoder", [name for name, o in ORACLES.items() if o.masks])
def test_coefficients_by_hand(decoder: str) -> None:
    oracle = ORACLES[decoder]
    one, expected = oracle.case, oracle.boxes
    two = {name: np.append(np.zeros_like(rows), rows, axis=0) for name, rows in one.items()}
    boxes, weights = coefficients(decoder, two, 1, 2, 0.25)
    assert boxes == expected == oracle.decode(two, 64, 2, 0.25)[1]
    assert weights.tolist() == [[9, -9], [-2, 3]]
    boxes, weights = coefficients(decoder, two, 0, 2, 0.25)
    assert boxes == []
    assert (weights.shape, weights.dtype) == ((0, 2), np.float64)


def test_coefficients_are_counted() -> None:
    outputs = {"output0": np.zeros((1, 8, 5)), "output1": np.zeros((1, 2, 3, 3))}
    assert ORACLES["yolov8_seg"].decode(outputs, 64, 2, 0.25) == [[]]
    with pytest.raises(ValueError, match="8 rows are not 4 \\+ 3 classes \\+ 2 coefficients"):
        ORACLES["yolov8_seg"].decode(outputs, 64, 3, 0.25)
    with pytest.raises(ValueError, match="5 columns are not 6 \\+ 2 coefficients"):
        ORACLES["end2end_seg"].decode(outputs, 64, 2, 0.25)
    with pytest.raises(ValueError, match="5 columns are not 5 \\+ 2 classes \\+ 2 coefficients"):
        ORACLES["yolov5_seg"].decode(outputs, 64, 2, 0.25)
    with pytest.raises(ValueError, match="'yolov8' has no coefficients"):
        coefficients("yolov8", outputs, 0, 2, 0.25)


def test_torchvision_of_one_image_without_a_batch() -> None:
    oracle = ORACLES["torchvision"]
    arrays = {name: values[0] for name, values in oracle.case.items()}
    assert oracle.decode(arrays, 64, 2, 0.25) == [oracle.boxes]


def test_background_takes_a_place_of_rfdetr() -> None:
    # Two places: the background's 7/8 and class 0's 3/4; the 1/2 of class 1 is cut.
    dets = np.array([[(0.5, 0.5, 0.25, 0.125), (0.25, 0.25, 0.5, 0.5)]], np.float32)
    labels = np.array([[(LN3, 0, -9), (-9, -9, LN7)]], np.float32)
    (found,) = ORACLES["rfdetr"].decode({"dets": dets, "labels": labels}, 64, 2, 0.25)
    np.testing.assert_allclose(found, [Box(*WIDE, 0.75, 0)], rtol=1e-6)


def test_scores_and_floor_meet_as_float32() -> None:
    row = np.array([[(*WIDE, 0.3, 0)]], np.float32)  # 0.3 as float32 is 0.3000000119
    assert ORACLES["end2end"].decode({"output0": row}, 64, 2, 0.3) == [[]]
    assert len(ORACLES["end2end"].decode({"output0": row}, 64, 2, 0.2999999)[0]) == 1


def test_nan_never_passes() -> None:
    row = np.array([[(*WIDE, math.nan, math.nan)]], np.float32)
    assert ORACLES["rtdetr"].decode({"output0": row}, 64, 2, 0.0) == [[]]
    assert best_of([math.nan, 0.25, math.nan, 0.25]) == (1, 0.25)
    assert best_of([math.nan]) == (-1, -math.inf)


def test_a_class_that_does_not_exist_is_an_error() -> None:
    row = np.array([[(*WIDE, 0.5, 2)]], np.float32)
    with pytest.raises(ValueError, match="class 2.0 of 2"):
        ORACLES["end2end"].decode({"output0": row}, 64, 2, 0.25)


def test_cells_go_row_by_row() -> None:
    assert cells(32)[:5] == [(0, 0, 8), (1, 0, 8), (2, 0, 8), (3, 0, 8), (0, 1, 8)]
    assert cells(32)[16:] == [(0, 0, 16), (1, 0, 16), (0, 1, 16), (1, 1, 16), (0, 0, 32)]


@pytest.mark.parametrize("decoder", ORACLES)
def test_a_list_without_a_row_left_is_saturated(decoder: str) -> None:
    one = ORACLES[decoder].case  # each has a row that does not pass
    rfdetr = decoder == "rfdetr"  # three places; 7/8, 3/4, 3/4 and 1/2 pass
    assert saturated(decoder, one, 0.25) == [rfdetr]
    assert saturated(decoder, one, 0.6 if rfdetr else 0.9) == [False]
    two = {n: rows if rows.ndim < 2 or n == "output1" else rows[:, :2] for n, rows in one.items()}
    assert saturated(decoder, two, 0.25) == [ORACLES[decoder].scores is not None or rfdetr]


def test_filler_of_tensorflow_is_what_is_not_counted() -> None:
    scores = np.array([[0.75, 0.5], [0.75, 0.5], [0.75, 0.125]])
    outputs = {"detection_scores": scores, "num_detections": np.array([2.0, 1.0, 2.0])}
    assert saturated("tf_detection", outputs, 0.25) == [True, False, False]
