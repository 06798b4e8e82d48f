"""Scenes, and parts of the raw outputs of networks that see them; written from the formats alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tests.oracles.anchor_decoders import STRIDES

Outputs = dict[str, np.ndarray]


class Scene(NamedTuple):
    """n images with a number of rows; no row but those of objects has a score above a usual floor."""

    network_px: tuple[int, int]
    """Width and height."""
    boxes: np.ndarray
    """(n, rows, 4): cx, cy, w, h in px."""
    objectness: np.ndarray
    """(n, rows)."""
    scores: np.ndarray
    """(n, rows, C)."""
    weights: np.ndarray
    """(n, rows, K): coefficients of the masks."""
    prototypes: np.ndarray
    """(n, K, h, w)."""


def grid(network_px: tuple[int, int], per_cell: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells (A, 2) as column, row and strides (A, 1); a level is repeated `per_cell` times."""
    cells, strides = [], []
    for stride in STRIDES:
        across, down = (side // stride for side in network_px)
        level = [(column, row) for row in range(down) for column in range(across)] * per_cell
        cells += level
        strides += [[stride]] * len(level)
    return np.array(cells, np.float64), np.array(strides, np.float64)


def columns(*parts: np.ndarray) -> np.ndarray:
    """Parts (n, rows, m) and (n, rows) side by side."""
    return np.concatenate([p if p.ndim == 3 else p[..., np.newaxis] for p in parts], 2)


def turned(*parts: np.ndarray) -> np.ndarray:
    """Parts side by side, columns before rows."""
    return columns(*parts).transpose(0, 2, 1)


def masked(rows: np.ndarray, scene: Scene) -> Outputs:
    """Rows that end with coefficients, and the prototypes."""
    return {"output0": rows, "output1": scene.prototypes}


def corners(boxes: np.ndarray) -> np.ndarray:
    """cx, cy, w, h to x1, y1, x2, y2."""
    return np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def fractions(scene: Scene) -> np.ndarray:
    """Centre and size as fractions of width and height."""
    return scene.boxes / (scene.network_px * 2)


def yxyx(scene: Scene) -> np.ndarray:
    """Corners as fractions, y first."""
    return (corners(scene.boxes) / (scene.network_px * 2))[..., [1, 0, 3, 2]]


def on_grid(scene: Scene) -> np.ndarray:
    """Raw values of YOLOX: centre less the cell, in strides; logarithm of the size in strides."""
    cells, strides = grid(scene.network_px, 1)
    return columns(scene.boxes[..., :2] / strides - cells, np.log(scene.boxes[..., 2:] / strides))


def best(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Best score and its class, (n, rows) each."""
    return scene.scores.max(axis=2), scene.scores.argmax(axis=2)


def ranked(scene: Scene) -> Scene:
    """The rows by their best scores."""
    order = np.argsort(-best(scene)[0], axis=1, kind="stable")
    rows = [
        np.take_along_axis(part, order.reshape(*order.shape, *[1] * (part.ndim - 2)), axis=1) for part in scene[1:5]
    ]
    return Scene(scene.network_px, *rows, scene.prototypes)


def padded(scene: Scene, rows: int) -> Scene:
    """The best rows, and zeros instead of the last ones."""
    scene = ranked(scene)
    for part in scene[1:5]:
        part[:, -rows:] = 0
    return scene


def lists(scene: Scene, first: int) -> Outputs:
    """Corners, classes from `first`, and scores; filler has class 0."""
    scores, labels = best(scene)
    named = np.where(scores > 0, labels + first, 0)
    return {"labels": named, "boxes": corners(scene.boxes), "scores": scores}


def queries(scene: Scene) -> Outputs:
    """Logits of RF-DETR, one more than classes: the background has a score in the first row, and yet no box."""
    background = np.zeros(scene.boxes.shape[:2])
    background[:, 0] = 0.7
    chances = columns(scene.scores, background).clip(1e-6)
    return {"dets": fractions(scene), "labels": np.log(chances / (1 - chances))}


def tensorflow(scene: Scene) -> Outputs:
    """The four outputs of TensorFlow's detectors; filler is not counted."""
    scores, labels = best(ranked(scene))
    return {
        "detection_boxes": yxyx(ranked(scene)),
        "detection_classes": (labels + 1).astype(np.float32),
        "detection_scores": scores,
        "num_detections": (scores > 0).sum(axis=1).astype(np.float32),
    }
