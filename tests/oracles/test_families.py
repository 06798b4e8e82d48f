"""Each family's oracle on boxes worked out by hand; side 64, classes 0 and 1."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.oracles.anchor_families import Box, best_of, cells
from tests.oracles.families import FAMILIES, coefficients, saturated

# Every expected box below stands for one of these: centre (32, 32) and 16 x 8, centre (10, 20) and
# 4 x 8, centre (16, 16) and 32 x 32. As fractions of 64: (.5, .5, .25, .125) and (.25, .25, .5, .5).
WIDE = (24, 28, 40, 36)
TALL = (8, 16, 12, 24)
CORNER = (0, 0, 32, 32)
LN3, LN7 = math.log(3), math.log(7)  # sigmoid: 3/4 and 7/8


def yolox_rows() -> np.ndarray:
    """84 anchors: 8 x 8 of stride 8, 4 x 4 of stride 16 from 64 on, 2 x 2 of stride 32 from 80 on."""
    rows = np.zeros((84, 7))
    rows[9] = (0.5, 0.5, math.log(2), 0, 0.5, 0.5, 0.75)  # cell (1, 1): (12, 12), 16 x 8
    rows[70] = (0, 0, 0, math.log(2), 0.5, 1, 1)  # cell (2, 1): (32, 16), 16 x 32; a tie
    rows[83] = (-0.5, 0.25, math.log(0.5), 0, 0.75, 0.5, 0.25)  # cell (1, 1): (16, 40), 16 x 32
    rows[0] = (0, 0, 0, 0, 0.25, 1, 0)  # .25 is not above .25, but at it: (0, 0), 8 x 8
    rows[1] = (0, 0, 0, 0, 0.25, 0.99, 0)
    return rows


CASES: dict[str, tuple[dict[str, Any], list[Box]]] = {
    "yolov5": (
        {
            "output0": [
                (32, 32, 16, 8, 0.75, 0.5, 0.25),  # .75 * .5
                (10, 20, 4, 8, 0.5, 1, 1),  # a tie: the lower class
                (16, 16, 32, 32, 0.5, 0.125, 0.5),  # .5 * .5 is not above .25
                (16, 16, 32, 32, 0.125, 4, 0),  # .5, and yet no object
            ]
        },
        [Box(*WIDE, 0.375, 0), Box(*TALL, 0.5, 0)],
    ),
    "yolov5_seg": (  # two coefficients, which are no scores
        {
            "output0": [
                (32, 32, 16, 8, 0.75, 0.5, 0.25, 9, -9),
                (16, 16, 32, 32, 0.125, 4, 0, 7, 7),
                (10, 20, 4, 8, 0.5, 1, 1, -2, 3),
            ],
            "output1": np.zeros((2, 3, 3)),
        },
        [Box(*WIDE, 0.375, 0), Box(*TALL, 0.5, 0)],
    ),
    "yolov8": (
        {
            "output0": np.transpose(
                [
                    (32, 32, 16, 8, 0.25, 0.75),
                    (10, 20, 4, 8, 0.5, 0.5),
                    (16, 16, 32, 32, 0.125, 0.25),
                ]
            )
        },
        [Box(*WIDE, 0.75, 1), Box(*TALL, 0.5, 0)],
    ),
    "yolov8_seg": (  # two coefficients, which are no scores
        {
            "output0": np.transpose(
                [
                    (32, 32, 16, 8, 0.25, 0.75, 9, -9),
                    (16, 16, 32, 32, 0.125, 0.25, 7, 7),
                    (10, 20, 4, 8, 0.5, 0.5, -2, 3),
                ]
            ),
            "output1": np.zeros((2, 3, 3)),
        },
        [Box(*WIDE, 0.75, 1), Box(*TALL, 0.5, 0)],
    ),
    "end2end_seg": (
        {
            "output0": [
                (*WIDE, 0.75, 1, 9, -9),
                (*TALL, 0.25, 0, 7, 7),
                (*WIDE, 0.5, 0, -2, 3),
                (0,) * 8,
            ],
            "output1": np.zeros((2, 3, 3)),
        },
        [Box(*WIDE, 0.75, 1), Box(*WIDE, 0.5, 0)],
    ),
    "end2end": (
        {"output0": [(*WIDE, 0.75, 1), (*WIDE, 0.5, 0), (*TALL, 0.25, 0), (0,) * 6]},
        [Box(*WIDE, 0.75, 1), Box(*WIDE, 0.5, 0)],
    ),
    "rtdetr": (
        {
            "output0": [
                (0.5, 0.5, 0.25, 0.125, 0.25, 0.75),
                (0.25, 0.25, 0.5, 0.5, 0.5, 0.5),
                (0.25, 0.25, 0.5, 0.5, 0.25, 0.125),
            ]
        },
        [Box(*WIDE, 0.75, 1), Box(*CORNER, 0.5, 0)],
    ),
    "rtdetr_topk": (
        {
            "output0": [
                (0.5, 0.5, 0.25, 0.125, 0.75, 1),
                (0.25, 0.25, 0.5, 0.5, 0.5, 0),
                (0.25, 0.25, 0.5, 0.5, 0.25, 0),
            ]
        },
        [Box(*WIDE, 0.75, 1), Box(*CORNER, 0.5, 0)],
    ),
    "rtdetr_labels": (
        {"boxes": [WIDE, TALL, CORNER], "labels": [1, 0, 1], "scores": [0.75, 0.5, 0.25]},
        [Box(*WIDE, 0.75, 1), Box(*TALL, 0.5, 0)],
    ),
    "rfdetr": (  # 3 queries, so 3 places: 7/8, 3/4, 3/4; the 1/2 of query 0 comes fourth
        {
            "dets": [(0.5, 0.5, 0.25, 0.125), (0.25, 0.25, 0.5, 0.5), (0.25, 0.25, 0.5, 0.5)],
            "labels": [(0, LN3, -9), (LN7, LN3, -9), (-9, -9, -9)],
        },
        [Box(*CORNER, 0.875, 0), Box(*WIDE, 0.75, 1), Box(*CORNER, 0.75, 1)],
    ),
    "yolox_raw": (
        {"output0": yolox_rows()},
        [
            Box(-4, -4, 4, 4, 0.25, 0),
            Box(4, 8, 20, 16, 0.375, 1),
            Box(24, 0, 40, 32, 0.5, 0),
            Box(8, 24, 24, 56, 0.375, 0),
        ],
    ),
    "yolox": (
        {
            "output0": [
                (32, 32, 16, 8, 0.75, 0.25, 0.5),
                (10, 20, 4, 8, 0.5, 1, 1),
                (16, 16, 32, 32, 0.5, 0.125, 0.5),  # .5 * .5 is at .25
                (16, 16, 32, 32, 0.5, 0.125, 0.49),
                (16, 16, 32, 32, 0.125, 4, 0),  # 0.5: objectness alone decides nothing
            ]
        },
        [Box(*WIDE, 0.375, 1), Box(*TALL, 0.5, 0), Box(*CORNER, 0.25, 1), Box(*CORNER, 0.5, 0)],
    ),
    "ssd": (  # y first: 28/64, 24/64, 36/64, 40/64
        {
            "boxes": [(0.4375, 0.375, 0.5625, 0.625), (0.25, 0.125, 0.375, 0.1875), (0, 0, 1, 1)],
            "scores": [(0.25, 0.75), (0.5, 0.5), (0.25, 0.125)],
        },
        [Box(*WIDE, 0.75, 1), Box(*TALL, 0.5, 0)],
    ),
    "tf_detection": (  # the fourth row has a score, but num_detections is 3
        {
            "detection_boxes": [
                (0.4375, 0.375, 0.5625, 0.625),
                (0.25, 0.125, 0.375, 0.1875),
                (0, 0, 1, 1),
                (0, 0, 1, 1),
            ],
            "detection_scores": [0.75, 0.5, 0.25, 0.9],
            "detection_classes": [2.0, 1.0, 1.0, 1.0],
            "num_detections": 3.0,
        },
        [Box(*WIDE, 0.75, 1), Box(*TALL, 0.5, 0)],
    ),
    "torchvision": (  # the third row is background, the fourth padding
        {
            "boxes": [WIDE, TALL, CORNER, (0, 0, 0, 0)],
            "labels": [2, 1, 0, 0],
            "scores": [0.75, 0.5, 0.9, 0],
        },
        [Box(*WIDE, 0.75, 1), Box(*TALL, 0.5, 0)],
    ),
    "mmdet": (
        {"dets": [(*WIDE, 0.75), (*TALL, 0.5), (*CORNER, 0.25), (0,) * 5], "labels": [1, 0, 1, 0]},
        [Box(*WIDE, 0.75, 1), Box(*TALL, 0.5, 0)],
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_by_hand(family: str) -> None:
    outputs, expected = CASES[family]
    one = {name: np.asarray(values, np.float32)[np.newaxis] for name, values in outputs.items()}
    # A second image without detections: all zero, but for logits, where 0 means 1/2.
    blank = -9 if family == "rfdetr" else 0
    two = {name: np.append(rows, np.full_like(rows, blank), axis=0) for name, rows in one.items()}
    found = FAMILIES[family](two, 64, 2, 0.25)
    assert len(found) == 2
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-5)
    assert found[1] == []


@pytest.mark.parametrize("family", ["yolov5_seg", "yolov8_seg", "end2end_seg"])
def test_coefficients_by_hand(family: str) -> None:
    outputs, expected = CASES[family]
    one = {name: np.asarray(values, np.float32)[np.newaxis] for name, values in outputs.items()}
    two = {name: np.append(np.zeros_like(rows), rows, axis=0) for name, rows in one.items()}
    boxes, weights = coefficients(family, two, 1, 2, 0.25)
    assert boxes == expected == FAMILIES[family](two, 64, 2, 0.25)[1]
    assert weights.tolist() == [[9, -9], [-2, 3]]
    boxes, weights = coefficients(family, two, 0, 2, 0.25)
    assert boxes == []
    assert (weights.shape, weights.dtype) == ((0, 2), np.float64)


def test_coefficients_are_counted() -> None:
    outputs = {"output0": np.zeros((1, 8, 5)), "output1": np.zeros((1, 2, 3, 3))}
    assert FAMILIES["yolov8_seg"](outputs, 64, 2, 0.25) == [[]]
    with pytest.raises(ValueError, match="8 rows are not 4 \\+ 3 classes \\+ 2 coefficients"):
        FAMILIES["yolov8_seg"](outputs, 64, 3, 0.25)
    with pytest.raises(ValueError, match="5 columns are not 6 \\+ 2 coefficients"):
        FAMILIES["end2end_seg"](outputs, 64, 2, 0.25)
    with pytest.raises(ValueError, match="5 columns are not 5 \\+ 2 classes \\+ 2 coefficients"):
        FAMILIES["yolov5_seg"](outputs, 64, 2, 0.25)
    with pytest.raises(ValueError, match="'yolov8' has no coefficients"):
        coefficients("yolov8", outputs, 0, 2, 0.25)


def test_torchvision_of_one_image_without_a_batch() -> None:
    outputs, expected = CASES["torchvision"]
    arrays = {name: np.asarray(values, np.float32) for name, values in outputs.items()}
    assert FAMILIES["torchvision"](arrays, 64, 2, 0.25) == [expected]


def test_background_takes_a_place_of_rfdetr() -> None:
    # Two places: the background's 7/8 and class 0's 3/4; the 1/2 of class 1 is cut.
    dets = np.array([[(0.5, 0.5, 0.25, 0.125), (0.25, 0.25, 0.5, 0.5)]], np.float32)
    labels = np.array([[(LN3, 0, -9), (-9, -9, LN7)]], np.float32)
    (found,) = FAMILIES["rfdetr"]({"dets": dets, "labels": labels}, 64, 2, 0.25)
    np.testing.assert_allclose(found, [Box(*WIDE, 0.75, 0)], rtol=1e-6)


def test_scores_and_floor_meet_as_float32() -> None:
    row = np.array([[(*WIDE, 0.3, 0)]], np.float32)  # 0.3 as float32 is 0.3000000119
    assert FAMILIES["end2end"]({"output0": row}, 64, 2, 0.3) == [[]]
    assert len(FAMILIES["end2end"]({"output0": row}, 64, 2, 0.2999999)[0]) == 1


def test_nan_never_passes() -> None:
    row = np.array([[(*WIDE, math.nan, math.nan)]], np.float32)
    assert FAMILIES["rtdetr"]({"output0": row}, 64, 2, 0.0) == [[]]
    assert best_of([math.nan, 0.25, math.nan, 0.25]) == (1, 0.25)
    assert best_of([math.nan]) == (-1, -math.inf)


def test_a_class_that_does_not_exist_is_an_error() -> None:
    row = np.array([[(*WIDE, 0.5, 2)]], np.float32)
    with pytest.raises(ValueError, match="class 2.0 of 2"):
        FAMILIES["end2end"]({"output0": row}, 64, 2, 0.25)


def test_cells_go_row_by_row() -> None:
    assert cells(32)[:5] == [(0, 0, 8), (1, 0, 8), (2, 0, 8), (3, 0, 8), (0, 1, 8)]
    assert cells(32)[16:] == [(0, 0, 16), (1, 0, 16), (0, 1, 16), (1, 1, 16), (0, 0, 32)]


RANKED = {"end2end", "end2end_seg", "mmdet", "tf_detection"}
RANKED |= {"rtdetr", "rtdetr_topk", "rtdetr_labels"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_list_without_a_row_left_is_saturated(family: str) -> None:
    outputs, _ = CASES[family]  # each has a row that does not pass
    one = {name: np.asarray(values, np.float32)[np.newaxis] for name, values in outputs.items()}
    rfdetr = family == "rfdetr"  # three places; 7/8, 3/4, 3/4 and 1/2 pass
    assert saturated(family, one, 0.25) == [rfdetr]
    assert saturated(family, one, 0.6 if rfdetr else 0.9) == [False]
    keep = [0, 2] if family == "end2end_seg" else [0, 1]
    two = {n: rows if rows.ndim < 2 or n == "output1" else rows[:, keep] for n, rows in one.items()}
    assert saturated(family, two, 0.25) == [family in RANKED or rfdetr]


def test_filler_of_tensorflow_is_what_is_not_counted() -> None:
    scores = np.array([[0.75, 0.5], [0.75, 0.5], [0.75, 0.125]])
    outputs = {"detection_scores": scores, "num_detections": np.array([2.0, 1.0, 2.0])}
    assert saturated("tf_detection", outputs, 0.25) == [True, False, False]
