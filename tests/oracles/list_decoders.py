"""Detector heads with a short list of boxes an image, decoded with plain loops.

Same contract as `tests.oracles.anchor_decoders`. Boxes come in the order of the rows, except
`rfdetr`: best first. Where a format names the class itself, a box above the floor whose class lies
outside 0..C-1 means nothing: ValueError, so that no test can rest on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tests.oracles.anchor_decoders import Box, best_of, boxed, from_centre, passes


def scaled(corners: Sequence[float], side_px: int) -> list[float]:
    """Fractions of the square to px."""
    return [value * side_px for value in corners]


def named(class_id: float, classes: int) -> int:
    """The class a head names, checked."""
    if class_id != int(class_id) or not 0 <= class_id < classes:
        raise ValueError(f"class {class_id} of {classes}")
    return int(class_id)


def end2end(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
    """output0 (n, k, 6): x1, y1, x2, y2 in px, score, class."""
    return [
        [boxed(row[:4], row[4], named(row[5], classes)) for row in image.tolist() if passes(row[4], score_floor)]
        for image in outputs["output0"]
    ]


def end2end_seg(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
    """output0 (n, k, 6+K): `end2end`'s columns, then K coefficients of output1 (n, K, mh, mw)."""
    columns, protos = outputs["output0"].shape[2], outputs["output1"].shape[1]
    if columns != 6 + protos:
        raise ValueError(f"{columns} columns are not 6 + {protos} coefficients")
    return end2end(outputs, side_px, classes, score_floor)


def rtdetr(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
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


def rtdetr_topk(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
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


def rtdetr_labels(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
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


def rfdetr(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
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


def tf_detection(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
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


def torchvision(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
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


def mmdet(outputs: dict[str, np.ndarray], side_px: int, classes: int, score_floor: float) -> list[list[Box]]:
    """dets (n, k, 5): x1, y1, x2, y2 in px, score; labels (n, k)."""
    dets = outputs["dets"]
    split = {"boxes": dets[:, :, :4], "labels": outputs["labels"], "scores": dets[:, :, 4]}
    return rtdetr_labels(split, side_px, classes, score_floor)
