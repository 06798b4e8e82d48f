"""Random raw outputs of each detector family: the shapes, names and statistics of real heads.

A few objects an image, each found by several rows (so NMS has work, and heads without NMS must show
them all). Scores of boxes are distinct and lie between 0.4 and 0.98, all others below 0.01, so no
usual floor cuts between two rounding errors. Boxes may reach over the square's edge.
Floats are float32 and labels int64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

QUERIES = 300  # of the DETR and end-to-end heads
LISTED = 100  # rows of the padded formats
STRIDES = (8, 16, 32)
PROTOS = 8  # coefficients a box of the heads with masks
PROTO_STRIDE = 4


class Scene(NamedTuple):
    """Boxes (n, rows, 4) cx, cy, w, h in px; objectness (n, rows); class scores (n, rows, C)."""

    boxes: np.ndarray
    objectness: np.ndarray
    scores: np.ndarray


def grid(side_px: int, per_cell: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells (A, 2) as column, row and strides (A, 1); a level is repeated `per_cell` times."""
    cells, strides = [], []
    for stride in STRIDES:
        count = side_px // stride
        level = [(column, row) for row in range(count) for column in range(count)] * per_cell
        cells += level
        strides += [[stride]] * len(level)
    return np.array(cells, np.float64), np.array(strides, np.float64)


def scored(
    rng: np.random.Generator, images: int, rows: int, classes: int
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Objectness, class scores, and the rows (objects, rows of one) that see an object."""
    objectness = rng.uniform(0, 0.01, (images, rows))
    scores = rng.uniform(0, 0.01, (images, rows, classes))
    seen = []
    for image in range(images):
        # Starts are 4 apart, so that no two objects share one of their three rows.
        starts = rng.choice(rows // 4, int(rng.integers(3, 6)), replace=False) * 4
        objects = starts[:, np.newaxis] + np.arange(3)
        seen.append(objects)
        for group in objects:
            label = int(rng.integers(classes))
            objectness[image, group] = rng.uniform(0.75, 0.98, 3)
            scores[image, group, label] = rng.uniform(0.65, 0.98, 3)
            if classes > 1:  # a second opinion on the first row, above most floors
                scores[image, group[0], (label + 1) % classes] = rng.uniform(0.4, 0.6)
        # An object without a class, and a class without an object: no detection of a product.
        objectness[image, starts[0] + 3] = rng.uniform(0.5, 0.9)
        objectness[image, starts[0] + 2] = rng.uniform(0, 0.01)
    return objectness, scores, seen


def anchored(
    rng: np.random.Generator, images: int, classes: int, side_px: int, per_cell: int
) -> Scene:
    """A scene of one row per anchor, each box near its cell."""
    cells, strides = grid(side_px, per_cell)
    objectness, scores, seen = scored(rng, images, len(cells), classes)
    centres = (cells + rng.uniform(-0.3, 1.3, (images, len(cells), 2))) * strides
    sizes = np.exp(rng.normal(0.8, 0.4, centres.shape)) * strides
    boxes = np.concatenate([centres, sizes], axis=2)
    for image, objects in enumerate(seen):
        for group in objects:
            if len({(float(strides[row, 0]), float(cells[row, 1])) for row in group}) == 1:
                wobble = rng.normal(0, 0.02, (3, 4)) * strides[group[0]]
                boxes[image, group] = boxes[image, group[1]] + wobble
    return Scene(boxes, objectness, scores)


def listed(rng: np.random.Generator, images: int, classes: int, side_px: int, rows: int) -> Scene:
    """A scene of rows in no order, boxes anywhere in the square."""
    objectness, scores, seen = scored(rng, images, rows, classes)
    centres = rng.uniform(0.1, 0.9, (images, rows, 2)) * side_px
    sizes = rng.uniform(0.05, 0.4, (images, rows, 2)) * side_px
    boxes = np.concatenate([centres, sizes], axis=2)
    for image, objects in enumerate(seen):
        for group in objects:
            boxes[image, group] = boxes[image, group[0]] + rng.normal(0, 0.01 * side_px, (3, 4))
    return Scene(boxes, objectness, scores)


def corners(boxes: np.ndarray) -> np.ndarray:
    """cx, cy, w, h to x1, y1, x2, y2."""
    return np.concatenate(
        [boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1
    )


def best_first(scene: Scene, padding: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners, best scores and labels, sorted by score; the last `padding` rows are zero."""
    best = scene.scores.max(axis=2)
    order = np.argsort(-best, axis=1, kind="stable")
    boxes = np.take_along_axis(corners(scene.boxes), order[..., np.newaxis], axis=1)
    labels = np.take_along_axis(scene.scores.argmax(axis=2), order, axis=1)
    scores = np.take_along_axis(best, order, axis=1)
    if padding:
        boxes[:, -padding:], scores[:, -padding:], labels[:, -padding:] = 0, 0, 0
    return boxes, scores, labels


def with_masks(
    rng: np.random.Generator, rows: np.ndarray, side_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """(n, rows, m) with K coefficients after each row, 0 in rows of zeros; protos (n, K, mh, mw)."""
    weights = rng.normal(size=(*rows.shape[:2], PROTOS)) * rows.any(axis=2, keepdims=True)
    small_px = side_px // PROTO_STRIDE
    protos = rng.normal(size=(len(rows), PROTOS, small_px, small_px))
    return np.concatenate([rows, weights], 2), protos


def dense_outputs(
    family: str, rng: np.random.Generator, images: int, classes: int, side_px: int
) -> dict[str, np.ndarray]:
    """The raw outputs of the heads with anchors."""
    scene = anchored(rng, images, classes, side_px, per_cell=3 if "yolov5" in family else 1)
    boxes, objectness, scores = scene
    if family == "yolov8":
        return {"output0": np.concatenate([boxes, scores], 2).transpose(0, 2, 1)}
    if family == "yolov8_seg":
        rows, protos = with_masks(rng, np.concatenate([boxes, scores], 2), side_px)
        return {"output0": rows.transpose(0, 2, 1), "output1": protos}
    if family == "yolov5_seg":
        found = np.concatenate([boxes, objectness[..., np.newaxis], scores], 2)
        return dict(zip(("output0", "output1"), with_masks(rng, found, side_px), strict=True))
    if family == "ssd":
        return {"boxes": corners(boxes)[..., [1, 0, 3, 2]] / side_px, "scores": scores}
    if family == "yolox_raw":
        cells, strides = grid(side_px, 1)
        raw = [boxes[..., :2] / strides - cells, np.log(boxes[..., 2:] / strides)]
        boxes = np.concatenate(raw, 2)
    return {"output0": np.concatenate([boxes, objectness[..., np.newaxis], scores], 2)}


def list_outputs(
    family: str, rng: np.random.Generator, images: int, classes: int, side_px: int
) -> dict[str, np.ndarray]:
    """The raw outputs of the heads with a list of boxes."""
    short = ("tf_detection", "torchvision", "mmdet")
    padded = 40 if family in short else 100 if family.startswith("end2end") else 0
    rows = LISTED if padded == 40 else QUERIES
    scene = listed(rng, images, classes, side_px, rows)
    xyxy, best, labels = best_first(scene, padded)
    if family == "end2end":
        return {"output0": np.concatenate([xyxy, np.stack([best, labels], 2)], 2)}
    if family == "end2end_seg":
        found = np.concatenate([xyxy, np.stack([best, labels], 2)], 2)
        return dict(zip(("output0", "output1"), with_masks(rng, found, side_px), strict=True))
    if family == "rtdetr":
        return {"output0": np.concatenate([scene.boxes / side_px, scene.scores], 2)}
    if family == "rtdetr_topk":
        sizes = xyxy[..., 2:] - xyxy[..., :2]
        cxcywh = np.concatenate([xyxy[..., :2] + sizes / 2, sizes], 2) / side_px
        return {"output0": np.concatenate([cxcywh, np.stack([best, labels], 2)], 2)}
    if family == "rtdetr_labels":
        return {"labels": labels, "boxes": xyxy, "scores": best}
    if family == "rfdetr":
        background = rng.uniform(0, 0.01, (images, rows, 1))
        background[:, 0] = 0.7  # above the floor, and yet no box
        chances = np.concatenate([scene.scores, background], 2).clip(1e-6)
        return {"dets": scene.boxes / side_px, "labels": np.log(chances / (1 - chances))}
    if family == "tf_detection":
        return {
            "detection_boxes": xyxy[..., [1, 0, 3, 2]] / side_px,
            "detection_classes": np.where(best > 0, labels + 1, 1).astype(np.float32),
            "detection_scores": best,
            "num_detections": np.full(images, rows - padded, np.float32),
        }
    if family == "torchvision":
        return {"boxes": xyxy, "labels": np.where(best > 0, labels + 1, 0), "scores": best}
    if family == "mmdet":
        return {"dets": np.concatenate([xyxy, best[..., np.newaxis]], 2), "labels": labels}
    raise ValueError(f"no family {family!r}")


def example(
    family: str,
    rng: np.random.Generator,
    images: int = 2,
    classes: int = 3,
    side_px: int = 64,
) -> dict[str, np.ndarray]:
    """Raw outputs by name of `images` images, as the family's exports give them."""
    dense = family == "ssd" or family.startswith("yolo")
    make = dense_outputs if dense else list_outputs
    outputs = make(family, rng, images, classes, side_px)
    return {
        name: np.ascontiguousarray(values, np.int64 if values.dtype == np.int64 else np.float32)
        for name, values in outputs.items()
    }
