"""Detector heads with a short list of boxes an image, decoded with plain loops; and all families.

Same contract as `tests.oracles.anchor_families`. Boxes come in the order of the rows, except
`rfdetr`: best first. Where a format names the class itself, a box above the floor whose class lies
outside 0..C-1 means nothing: ValueError, so that no test can rest on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tests.oracles.anchor_families import (
    Box,
    best_of,
    boxed,
    from_centre,
    passes,
    ssd,
    yolov5,
    yolov5_seg,
    yolov8,
    yolov8_seg,
    yolox,
    yolox_raw,
)


def scaled(corners: Sequence[float], side_px: int) -> list[float]:
    """Fractions of the square to px."""
    return [value * side_px for value in corners]


def named(class_id: float, classes: int) -> int:
    """The class a head names, checked."""
    if class_id != int(class_id) or not 0 <= class_id < classes:
        raise ValueError(f"class {class_id} of {classes}")
    return int(class_id)


def end2end(
    outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float
) -> list[list[Box]]:
    """output0 (n, k, 6): x1, y1, x2, y2 in px, score, class."""
    return [
        [
            boxed(row[:4], row[4], named(row[5], classes))
            for row in image.tolist()
            if passes(row[4], score_floor)
        ]
        for image in outputs["output0"]
    ]


def end2end_seg(
    outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float
) -> list[list[Box]]:
    """output0 (n, k, 6+K): `end2end`'s columns, then K coefficients of output1 (n, K, mh, mw)."""
    columns, protos = outputs["output0"].shape[2], outputs["output1"].shape[1]
    if columns != 6 + protos:
        raise ValueError(f"{columns} columns are not 6 + {protos} coefficients")
    return end2end(outputs, side_px, classes, score_floor)


def rtdetr(
    outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float
) -> list[list[Box]]:
    """output0 (n, q, 4+C): cx, cy, w, h as fractions of the square, C scores; the best class."""
    images: list[list[Box]] = []
    for image in outputs["output0"]:
        found: list[Box] = []
        for row in image.tolist():
            best, score = best_of(row[4 : 4 + classes])
            if passes(score, score_floor):
                found.append(boxed(scaled(from_centre(*row[:4]), side_px), score, best))
        images.append(found)
    return images


def rtdetr_topk(
    outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float
) -> list[list[Box]]:
    """output0 (n, q, 6): cx, cy, w, h as fractions of the square, score, class."""
    images: list[list[Box]] = []
    for image in outputs["output0"]:
        found: list[Box] = []
        for row in image.tolist():
            if passes(row[4], score_floor):
                corners = scaled(from_centre(*row[:4]), side_px)
                found.append(boxed(corners, row[4], named(row[5], classes)))
        images.append(found)
    return images


def rtdetr_labels(
    outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float
) -> list[list[Box]]:
    """labels (n, k), boxes (n, k, 4) x1, y1, x2, y2 in px, scores (n, k)."""
    images: list[list[Box]] = []
    lists = (outputs["boxes"], outputs["labels"], outputs["scores"])
    for boxes, labels, scores in zip(*lists, strict=True):
        found: list[Box] = []
        rows = zip(boxes.tolist(), labels.tolist(), scores.tolist(), strict=True)
        for corners, label, score in rows:
            if passes(score, score_floor):
                found.append(boxed(corners, score, named(label, classes)))
        images.append(found)
    return images


def sigmoid(logit: float) -> float:
    """1 / (1 + e^-x) as float32, without overflow."""
    small = math.exp(-abs(logit))
    return float(np.float32(1 / (1 + small) if logit >= 0 else small / (1 + small)))


def rfdetr(
    outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float
) -> list[list[Box]]:
    """dets (n, q, 4) cx, cy, w, h as fractions; labels (n, q, L) logits, L >= C.

    The best q of all q x L pairs count (the lower query, then column, among equals), so one query
    can give several boxes. Pairs of a column >= C are background: they take a place, and no box.
    """
    images: list[list[Box]] = []
    for dets, labels in zip(outputs["dets"].tolist(), outputs["labels"].tolist(), strict=True):
        pairs: list[tuple[float, int, int]] = []
        for query, logits in enumerate(labels):
            for column, logit in enumerate(logits):
                if not math.isnan(logit):
                    pairs.append((-sigmoid(logit), query, column))
        found: list[Box] = []
        for negated, query, column in sorted(pairs)[: len(dets)]:
            if column < classes and passes(-negated, score_floor):
                corners = scaled(from_centre(*dets[query]), side_px)
                found.append(boxed(corners, -negated, column))
        images.append(found)
    return images


def tf_detection(
    outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float
) -> list[list[Box]]:
    """detection_boxes (n, k, 4) y1, x1, y2, x2 as fractions; classes from 1; the first num rows."""
    images: list[list[Box]] = []
    for image, count in enumerate(outputs["num_detections"].tolist()):
        found: list[Box] = []
        for row in range(int(count)):
            score = float(outputs["detection_scores"][image, row])
            if passes(score, score_floor):
                y1, x1, y2, x2 = outputs["detection_boxes"][image, row].tolist()
                class_id = named(float(outputs["detection_classes"][image, row]) - 1, classes)
                found.append(boxed(scaled((x1, y1, x2, y2), side_px), score, class_id))
        images.append(found)
    return images


def torchvision(
    outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float
) -> list[list[Box]]:
    """boxes (n, k, 4) x1, y1, x2, y2 in px, labels (n, k), scores (n, k); or one image without n.

    Label 0 is background and gives no box, so class = label - 1. Rows of score 0 are padding.
    """
    names = ("boxes", "labels", "scores")
    if outputs["boxes"].ndim == 2:
        outputs = {name: outputs[name][np.newaxis] for name in names}
    images: list[list[Box]] = []
    for boxes, labels, scores in zip(*(outputs[name].tolist() for name in names), strict=True):
        found: list[Box] = []
        for corners, label, score in zip(boxes, labels, scores, strict=True):
            if score != 0 and label != 0 and passes(score, score_floor):
                found.append(boxed(corners, score, named(label - 1, classes)))
        images.append(found)
    return images


def mmdet(
    outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float
) -> list[list[Box]]:
    """dets (n, k, 5): x1, y1, x2, y2 in px, score; labels (n, k)."""
    dets = outputs["dets"]
    split = {"boxes": dets[:, :, :4], "labels": outputs["labels"], "scores": dets[:, :, 4]}
    return rtdetr_labels(split, side_px, classes, score_floor)


FAMILIES: dict[str, Callable[[dict[str, np.ndarray], int, int, float], list[list[Box]]]] = {
    "yolov5": yolov5,
    "yolov5_seg": yolov5_seg,
    "yolov8": yolov8,
    "yolov8_seg": yolov8_seg,
    "end2end": end2end,
    "end2end_seg": end2end_seg,
    "rtdetr": rtdetr,
    "rtdetr_topk": rtdetr_topk,
    "rtdetr_labels": rtdetr_labels,
    "rfdetr": rfdetr,
    "yolox_raw": yolox_raw,
    "yolox": yolox,
    "ssd": ssd,
    "tf_detection": tf_detection,
    "torchvision": torchvision,
    "mmdet": mmdet,
}


SCORES: dict[str, Callable[[dict[str, np.ndarray]], np.ndarray]] = {
    "end2end": lambda outputs: outputs["output0"][:, :, 4],
    "end2end_seg": lambda outputs: outputs["output0"][:, :, 4],
    "rtdetr": lambda outputs: outputs["output0"][:, :, 4:].max(axis=2),
    "rtdetr_topk": lambda outputs: outputs["output0"][:, :, 4],
    "rtdetr_labels": lambda outputs: outputs["scores"],
    "tf_detection": lambda outputs: outputs["detection_scores"],
    "mmdet": lambda outputs: outputs["dets"][:, :, 4],
}
"""Of the heads whose list has a length of its own, as (n, k): the best one of each row."""


def saturated(family: str, outputs: dict[str, np.ndarray], floor: float) -> list[bool]:
    """For each image whether its list had no row left to say more in.

    Of `mmdet` only where the length is fixed. `rfdetr` has as many places as queries, and more pairs of
    query and column. Heads that suppression comes after, and `torchvision`, are never full.
    """
    if family == "rfdetr":
        places = outputs["dets"].shape[1]
        return [
            sum(passes(sigmoid(x), floor) for row in image for x in row) > places
            for image in outputs["labels"].tolist()
        ]
    if family not in SCORES:
        return [False] * len(next(iter(outputs.values())))
    full: list[bool] = []
    for image, scores in enumerate(SCORES[family](outputs).tolist()):
        used = int(outputs["num_detections"][image]) if family == "tf_detection" else len(scores)
        full.append(used >= len(scores) and all(passes(score, floor) for score in scores))
    return full


def coefficients(
    family: str, outputs: dict[str, np.ndarray], image_index: int, classes: int, floor: float
) -> tuple[list[Box], NDArray[np.float64]]:
    """The boxes of one image of a family with masks, in the order of the rows, before NMS.

    With them (m, K) float64: the coefficients in the row of each box. Every row is decoded alone,
    so a row gives one box or none.
    """
    rows = outputs["output0"][image_index]
    if family == "yolov8_seg":
        rows, first = rows.T, 4 + classes
    elif family == "yolov5_seg":
        first = 5 + classes
    elif family == "end2end_seg":
        first = 6
    else:
        raise ValueError(f"{family!r} has no coefficients")
    boxes: list[Box] = []
    kept: list[list[float]] = []
    for row in rows:
        alone = row[:, np.newaxis] if family == "yolov8_seg" else row[np.newaxis]
        one = {**outputs, "output0": alone[np.newaxis]}
        for box in FAMILIES[family](one, 0, classes, floor)[0]:  # px already: the side is not used
            boxes.append(box)
            kept.append(row[first:].tolist())
    return boxes, np.array(kept, np.float64).reshape(len(kept), rows.shape[1] - first)
