"""Detector heads with one row per anchor, decoded with plain loops: YOLOv5, YOLOv8, YOLOX, SSD.

outputs {name: (n, ...) float32}  --f(outputs, side_px, classes, score_floor)-->  n lists of Box,

boxes in network px before any NMS, in the order of the anchors. The best class of an anchor is the
one with the highest score, the lowest index among equals. A box is kept when its score, as float32,
is strictly greater than the floor, as float32; of YOLOX, whose own code says `>=`, when it is at least
the floor. NaN never passes. Columns after the last class (mask
coefficients) are not looked at. Written from the formats alone; knows nothing of the product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

STRIDES = (8, 16, 32)  # P3, P4, P5


class Box(NamedTuple):
    """One candidate: corners in network px, score 0..1, class from 0."""

    x1: float
    y1: float
    x2: float
    y2: float
    score: float
    class_id: int


def boxed(corners: Sequence[float], score: float, class_id: int) -> Box:
    """x1, y1, x2, y2 with its score and class."""
    x1, y1, x2, y2 = corners
    return Box(x1, y1, x2, y2, score, class_id)


def passes(score: float, floor: float) -> bool:
    """Strictly greater, both as the float32 a network speaks."""
    return bool(np.float32(score) > np.float32(floor))


def reaches(score: float, floor: float) -> bool:
    """At least, both as float32."""
    return bool(np.float32(score) >= np.float32(floor))


def product(a: float, b: float) -> float:
    """a * b as float32."""
    return float(np.float32(a) * np.float32(b))


def from_centre(cx: float, cy: float, w: float, h: float) -> tuple[float, float, float, float]:
    """Centre and size to corners."""
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def best_of(scores: Sequence[float]) -> tuple[int, float]:
    """(index, score) of the highest score, the first among equals; (-1, -inf) when all are NaN."""
    best, highest = -1, -math.inf
    for index, score in enumerate(scores):
        if score > highest:
            best, highest = index, score
    return best, highest


def yolov5(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
    """output0 (n, A, 5+C): cx, cy, w, h in px, objectness, C scores. Objectness passes first."""
    images: list[list[Box]] = []
    for image in outputs["output0"]:
        found: list[Box] = []
        for row in image.tolist():
            if not passes(row[4], score_floor):
                continue
            best, highest = best_of(row[5 : 5 + classes])
            score = product(row[4], highest)
            if passes(score, score_floor):
                found.append(boxed(from_centre(*row[:4]), score, best))
        images.append(found)
    return images


def yolov5_seg(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
    """output0 (n, A, 5+C+K): YOLOv5's columns, then K coefficients of output1 (n, K, mh, mw)."""
    columns, protos = outputs["output0"].shape[2], outputs["output1"].shape[1]
    if columns != 5 + classes + protos:
        raise ValueError(f"{columns} columns are not 5 + {classes} classes + {protos} coefficients")
    return yolov5(outputs, side_px, classes, score_floor)


def yolov8(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
    """output0 (n, 4+C, A): rows of cx, cy, w, h in px, then of C scores; no objectness."""
    images: list[list[Box]] = []
    for image in outputs["output0"]:
        found: list[Box] = []
        for anchor in range(image.shape[1]):
            column = image[:, anchor].tolist()
            best, score = best_of(column[4 : 4 + classes])
            if passes(score, score_floor):
                found.append(boxed(from_centre(*column[:4]), score, best))
        images.append(found)
    return images


def yolov8_seg(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
    """output0 (n, 4+C+K, A): YOLOv8's rows, then K coefficients of output1 (n, K, mh, mw)."""
    rows, protos = outputs["output0"].shape[1], outputs["output1"].shape[1]
    if rows != 4 + classes + protos:
        raise ValueError(f"{rows} rows are not 4 + {classes} classes + {protos} coefficients")
    return yolov8(outputs, side_px, classes, score_floor)


def cells(side_px: int) -> list[tuple[int, int, int]]:
    """(column, row, stride) of every YOLOX anchor: by stride 8, 16, 32, then row by row."""
    return [
        (column, row, stride)
        for stride in STRIDES
        for row in range(side_px // stride)
        for column in range(side_px // stride)
    ]


def yolox_raw(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
    """output0 (n, A, 5+C) on the grid: xy = (out + cell) * stride, wh = exp(out) * stride."""
    decoded = np.asarray(outputs["output0"], np.float64).copy()
    grid = cells(side_px)
    if decoded.shape[1] != len(grid):
        raise ValueError(f"side {side_px} has {len(grid)} anchors, found {decoded.shape[1]}")
    for image in decoded:
        for row, (cell_x, cell_y, stride) in zip(image, grid, strict=True):
            row[0] = (row[0] + cell_x) * stride
            row[1] = (row[1] + cell_y) * stride
            row[2] = math.exp(row[2]) * stride
            row[3] = math.exp(row[3]) * stride
    return yolox({"output0": decoded}, side_px, classes, score_floor)


def yolox(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
    """output0 (n, A, 5+C) as YOLOv5's, but objectness alone decides nothing, and the floor passes."""
    images: list[list[Box]] = []
    for image in outputs["output0"]:
        found: list[Box] = []
        for row in image.tolist():
            best, highest = best_of(row[5 : 5 + classes])
            score = product(row[4], highest)
            if reaches(score, score_floor):
                found.append(boxed(from_centre(*row[:4]), score, best))
        images.append(found)
    return images


def ssd(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
    """boxes (n, A, 4) y1, x1, y2, x2 as fractions of the square; scores (n, A, C)."""
    images: list[list[Box]] = []
    for corners, scores in zip(outputs["boxes"], outputs["scores"], strict=True):
        found: list[Box] = []
        for (y1, x1, y2, x2), row in zip(corners.tolist(), scores.tolist(), strict=True):
            best, score = best_of(row[:classes])
            if passes(score, score_floor):
                pixels = (x1 * side_px, y1 * side_px, x2 * side_px, y2 * side_px)
                found.append(boxed(pixels, score, best))
        images.append(found)
    return images
