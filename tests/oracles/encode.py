"""Boxes to the raw outputs of a family: what a network would have to say for them to be decoded.

boxes in network px, number of classes, side --encode--> {name: (1, ...) float32}

Written from the formats alone, row by row; knows nothing of the product. Rows without a box say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tests.oracles.anchor_families import Box, cells

ROWS = 40  # of lists and queries
COEFFICIENTS = 4
SILENT_LOGIT = -30.0


def dense_rows(family: str, side_px: int) -> int:
    """One row a cell; YOLOv5 has three."""
    return len(cells(side_px)) * (3 if "yolov5" in family else 1)


def centred(box: Box) -> tuple[float, float, float, float]:
    return (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2, box.x2 - box.x1, box.y2 - box.y1


def one_hot(value: float, class_id: int, classes: int, rest: float = 0.0) -> list[float]:
    row = [rest] * classes
    row[class_id] = value
    return row


def on_grid(row: int, box: Box, side_px: int) -> tuple[float, float, float, float]:
    """What YOLOX leaves undecoded: centre less the cell, in strides; logarithm of the size in strides."""
    column, line, stride = cells(side_px)[row]
    cx, cy, w, h = centred(box)
    return cx / stride - column, cy / stride - line, math.log(w / stride), math.log(h / stride)


def dense(family: str, boxes: dict[int, Box], classes: int, side_px: int) -> dict[str, np.ndarray]:
    """Of heads that suppression comes after: `boxes` by their row."""
    plain = family.removesuffix("_seg")
    rows = np.zeros((dense_rows(family, side_px), (4 if plain == "yolov8" else 5) + classes))
    for row, box in boxes.items():
        objectness = (1.0 + box.score) / 2
        place = on_grid(row, box, side_px) if family == "yolox_raw" else centred(box)
        score = box.score if plain == "yolov8" else box.score / objectness
        middle = [] if plain == "yolov8" else [objectness]
        rows[row] = [*place, *middle, *one_hot(score, box.class_id, classes)]
    return {"output0": rows}


def listed(family: str, boxes: Sequence[Box], classes: int, side_px: int) -> dict[str, np.ndarray]:
    """Of heads that name their detections one by one."""
    xyxy, scores, labels = np.zeros((ROWS, 4)), np.zeros(ROWS), np.zeros(ROWS)
    chances = np.full((ROWS, classes + 1), SILENT_LOGIT)
    best = np.zeros((ROWS, classes))
    for row, box in enumerate(boxes):
        xyxy[row], scores[row], labels[row] = box[:4], box.score, box.class_id
        logit = math.log(box.score / (1 - box.score))
        chances[row] = one_hot(logit, box.class_id, classes + 1, SILENT_LOGIT)
        best[row] = one_hot(box.score, box.class_id, classes)
    sizes = xyxy[:, 2:] - xyxy[:, :2]
    fractions = np.hstack([xyxy[:, :2] + sizes / 2, sizes]) / side_px
    yxyx = xyxy[:, [1, 0, 3, 2]] / side_px
    return {
        "end2end": {"output0": np.column_stack([xyxy, scores, labels])},
        "rtdetr": {"output0": np.hstack([fractions, best])},
        "rtdetr_topk": {"output0": np.column_stack([fractions, scores, labels])},
        "rtdetr_labels": {"labels": labels, "boxes": xyxy, "scores": scores},
        "rfdetr": {"dets": fractions, "labels": chances},
        "ssd": {"boxes": yxyx, "scores": best},
        "tf_detection": {
            "detection_boxes": yxyx,
            "detection_scores": scores,
            "detection_classes": labels + 1,
            "num_detections": np.array(len(boxes)),
        },
        "torchvision": {"boxes": xyxy, "labels": labels + 1, "scores": scores},
        "mmdet": {"dets": np.column_stack([xyxy, scores]), "labels": labels},
    }[family.removesuffix("_seg")]


def encode(family: str, boxes: Sequence[Box], classes: int, side_px: int) -> dict[str, np.ndarray]:
    """Dense heads find the boxes in rows that lie apart, the first box in the first."""
    if family.startswith("yolo"):
        apart = dense_rows(family, side_px) // max(1, len(boxes))
        outputs = dense(family, {i * apart: box for i, box in enumerate(boxes)}, classes, side_px)
    else:
        outputs = listed(family, boxes, classes, side_px)
    if family.endswith("_seg"):
        rows = outputs["output0"]
        outputs["output0"] = np.hstack([rows, np.ones((len(rows), COEFFICIENTS))])
        outputs["output1"] = np.zeros((COEFFICIENTS, side_px // 4, side_px // 4))
    if family.startswith("yolov8"):
        outputs["output0"] = outputs["output0"].T
    return {name: np.asarray(rows, np.float32)[np.newaxis] for name, rows in outputs.items()}
