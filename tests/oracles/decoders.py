"""One record for each decoder (ORACLES): its loops, raw outputs that show given boxes, and a case worked out by hand.

Imports nothing of the product. Tests and the benchmark of decoders take all records; most need no other entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.anchor_decoders import Box, passes, ssd, yolov5, yolov5_seg, yolov8, yolov8_seg, yolox, yolox_raw
from tests.oracles.list_decoders import (
    end2end,
    end2end_seg,
    mmdet,
    rfdetr,
    rtdetr,
    rtdetr_labels,
    rtdetr_topk,
    sigmoid,
    tf_detection,
    torchvision,
)
from tests.oracles.scenes import (
    Outputs,
    Scene,
    best,
    columns,
    corners,
    fractions,
    lists,
    masked,
    on_grid,
    queries,
    ranked,
    tensorflow,
    turned,
    yxyx,
)

QUERIES = 300  # of the DETR and end-to-end heads
LISTED = 100  # rows of the padded formats


@dataclass(frozen=True)
class Oracle:
    """An independent decoder, and what its format looks like."""

    decode: Callable[[Outputs, int, int, float], list[list[Box]]]
    """outputs, side in px, number of classes, floor -> boxes of each image."""
    write: Callable[[Scene], Outputs]
    """Return the raw outputs of a network that sees the scene."""
    outputs: Mapping[str, Any]
    """Outputs of one image, worked out by hand, for side 64 and two classes."""
    boxes: list[Box]
    """Boxes of these outputs above 0.25."""
    per_cell: int = 0
    """Rows per cell of strides 8, 16, 32; 0: a list of `rows`."""
    rows: int = QUERIES
    padding: int = 0
    """Rows of a list that are filler in examples."""
    scores: Callable[[Outputs], NDArray[Any]] | None = None
    """Best scores (n, k) of lists with a fixed length; a list is saturated if all its rows pass."""
    metadata: Mapping[str, str] | None = field(default_factory=dict[str, str])
    """Metadata by which an export is recognised, beyond labels; None if the config file must name the decoder."""
    sized: bool = False
    """True if the graph has the input orig_target_sizes."""
    batchless: bool = False
    """True if the graph has no batch."""

    @property
    def masks(self) -> bool:
        return "output1" in self.outputs

    @property
    def case(self) -> Outputs:
        """Return the outputs by hand as a batch of one."""
        return {name: np.asarray(v, np.float32)[np.newaxis] for name, v in self.outputs.items()}


def fifth(outputs: Outputs) -> NDArray[Any]:
    return outputs["output0"][:, :, 4]


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


ORACLES: dict[str, Oracle] = {
    "yolov5": Oracle(
        yolov5,
        lambda s: {"output0": columns(s.boxes, s.objectness, s.scores)},
        {
            "output0": [
                (32, 32, 16, 8, 0.75, 0.5, 0.25),  # .75 * .5
                (10, 20, 4, 8, 0.5, 1, 1),  # a tie: the lower class
                (16, 16, 32, 32, 0.5, 0.125, 0.5),  # .5 * .5 is not above .25
                (16, 16, 32, 32, 0.125, 4, 0),  # .5, and yet no object
            ]
        },
        [Box(*WIDE, 0.375, 0), Box(*TALL, 0.5, 0)],
        per_cell=3,
    ),
    "yolov5_seg": Oracle(
        yolov5_seg,
        lambda s: masked(columns(s.boxes, s.objectness, s.scores, s.weights), s),
        # two coefficients, which are no scores
        {
            "output0": [
                (32, 32, 16, 8, 0.75, 0.5, 0.25, 9, -9),
                (16, 16, 32, 32, 0.125, 4, 0, 7, 7),
                (10, 20, 4, 8, 0.5, 1, 1, -2, 3),
            ],
            "output1": np.zeros((2, 3, 3)),
        },
        [Box(*WIDE, 0.375, 0), Box(*TALL, 0.5, 0)],
        per_cell=3,
    ),
    "yolov8": Oracle(
        yolov8,
        lambda s: {"output0": turned(s.boxes, s.scores)},
        {
            "output0": np.transpose(
                [(32, 32, 16, 8, 0.25, 0.75), (10, 20, 4, 8, 0.5, 0.5), (16, 16, 32, 32, 0.125, 0.25)]
            )
        },
        [Box(*WIDE, 0.75, 1), Box(*TALL, 0.5, 0)],
        per_cell=1,
    ),
    "yolov8_seg": Oracle(
        yolov8_seg,
        lambda s: masked(turned(s.boxes, s.scores, s.weights), s),
        # two coefficients, which are no scores
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
        per_cell=1,
    ),
    "end2end": Oracle(
        end2end,
        lambda s: {"output0": columns(corners(ranked(s).boxes), *best(ranked(s)))},
        {"output0": [(*WIDE, 0.75, 1), (*WIDE, 0.5, 0), (*TALL, 0.25, 0), (0,) * 6]},
        [Box(*WIDE, 0.75, 1), Box(*WIDE, 0.5, 0)],
        padding=100,
        scores=fifth,
        metadata={"end2end": "True"},
    ),
    "end2end_seg": Oracle(
        end2end_seg,
        lambda s: masked(columns(corners(ranked(s).boxes), *best(ranked(s)), ranked(s).weights), s),
        {
            "output0": [(*WIDE, 0.75, 1, 9, -9), (*WIDE, 0.5, 0, -2, 3), (*TALL, 0.25, 0, 7, 7), (0,) * 8],
            "output1": np.zeros((2, 3, 3)),
        },
        [Box(*WIDE, 0.75, 1), Box(*WIDE, 0.5, 0)],
        padding=100,
        scores=fifth,
    ),
    "rtdetr": Oracle(
        rtdetr,
        lambda s: {"output0": columns(fractions(s), s.scores)},
        {
            "output0": [
                (0.5, 0.5, 0.25, 0.125, 0.25, 0.75),
                (0.25, 0.25, 0.5, 0.5, 0.5, 0.5),
                (0.25, 0.25, 0.5, 0.5, 0.25, 0.125),
            ]
        },
        [Box(*WIDE, 0.75, 1), Box(*CORNER, 0.5, 0)],
        scores=lambda outputs: outputs["output0"][:, :, 4:].max(axis=2),
    ),
    "rtdetr_topk": Oracle(
        rtdetr_topk,
        lambda s: {"output0": columns(fractions(ranked(s)), *best(ranked(s)))},
        {
            "output0": [
                (0.5, 0.5, 0.25, 0.125, 0.75, 1),
                (0.25, 0.25, 0.5, 0.5, 0.5, 0),
                (0.25, 0.25, 0.5, 0.5, 0.25, 0),
            ]
        },
        [Box(*WIDE, 0.75, 1), Box(*CORNER, 0.5, 0)],
        scores=fifth,
        metadata={"head": "RTDETRDecoder"},
    ),
    "rtdetr_labels": Oracle(
        rtdetr_labels,
        lambda s: lists(ranked(s), 0),
        {"boxes": [WIDE, TALL, CORNER], "labels": [1, 0, 1], "scores": [0.75, 0.5, 0.25]},
        [Box(*WIDE, 0.75, 1), Box(*TALL, 0.5, 0)],
        scores=lambda outputs: outputs["scores"],
        sized=True,
    ),
    "rfdetr": Oracle(
        rfdetr,
        queries,
        # 3 queries, so 3 places: 7/8, 3/4, 3/4; the 1/2 of query 0 comes fourth
        {
            "dets": [(0.5, 0.5, 0.25, 0.125), (0.25, 0.25, 0.5, 0.5), (0.25, 0.25, 0.5, 0.5)],
            "labels": [(0, LN3, -9), (LN7, LN3, -9), (-9, -9, -9)],
        },
        [Box(*CORNER, 0.875, 0), Box(*WIDE, 0.75, 1), Box(*CORNER, 0.75, 1)],
    ),
    "yolox_raw": Oracle(
        yolox_raw,
        lambda s: {"output0": columns(on_grid(s), s.objectness, s.scores)},
        {"output0": yolox_rows()},
        [
            Box(-4, -4, 4, 4, 0.25, 0),
            Box(4, 8, 20, 16, 0.375, 1),
            Box(24, 0, 40, 32, 0.5, 0),
            Box(8, 24, 24, 56, 0.375, 0),
        ],
        per_cell=1,
    ),
    "yolox": Oracle(
        yolox,
        lambda s: {"output0": columns(s.boxes, s.objectness, s.scores)},
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
        per_cell=1,
    ),
    "ssd": Oracle(
        ssd,
        lambda s: {"boxes": yxyx(s), "scores": s.scores},
        # y first: 28/64, 24/64, 36/64, 40/64
        {
            "boxes": [(0.4375, 0.375, 0.5625, 0.625), (0.25, 0.125, 0.375, 0.1875), (0, 0, 1, 1)],
            "scores": [(0.25, 0.75), (0.5, 0.5), (0.25, 0.125)],
        },
        [Box(*WIDE, 0.75, 1), Box(*TALL, 0.5, 0)],
        per_cell=1,
    ),
    "tf_detection": Oracle(
        tf_detection,
        tensorflow,
        # the fourth row has a score, but num_detections is 3
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
        rows=LISTED,
        padding=40,
        scores=lambda outputs: outputs["detection_scores"],
    ),
    "torchvision": Oracle(
        torchvision,
        lambda s: lists(ranked(s), 1),
        # the third row is background, the fourth padding
        {"boxes": [WIDE, TALL, CORNER, (0, 0, 0, 0)], "labels": [2, 1, 0, 0], "scores": [0.75, 0.5, 0.9, 0]},
        [Box(*WIDE, 0.75, 1), Box(*TALL, 0.5, 0)],
        rows=LISTED,
        padding=40,
        batchless=True,
    ),
    "mmdet": Oracle(
        mmdet,
        lambda s: {"dets": columns(corners(ranked(s).boxes), best(ranked(s))[0]), "labels": best(ranked(s))[1]},
        {"dets": [(*WIDE, 0.75), (*TALL, 0.5), (*CORNER, 0.25), (0,) * 5], "labels": [1, 0, 1, 0]},
        [Box(*WIDE, 0.75, 1), Box(*TALL, 0.5, 0)],
        rows=LISTED,
        padding=40,
        scores=lambda outputs: outputs["dets"][:, :, 4],
    ),
}


def saturated(decoder: str, outputs: Outputs, floor: float) -> list[bool]:
    """For each image whether its list had no row left to say more in.

    Of `mmdet` only where the length is fixed. `rfdetr` has as many places as queries, and more pairs of
    query and column. Heads that suppression comes after, and `torchvision`, are never full.
    """
    if decoder == "rfdetr":
        places = outputs["dets"].shape[1]
        return [
            sum(passes(sigmoid(x), floor) for row in image for x in row) > places
            for image in outputs["labels"].tolist()
        ]
    of_rows = ORACLES[decoder].scores
    if of_rows is None:
        return [False] * len(next(iter(outputs.values())))
    full: list[bool] = []
    for image, scores in enumerate(of_rows(outputs).tolist()):
        used = int(outputs["num_detections"][image]) if decoder == "tf_detection" else len(scores)
        full.append(used >= len(scores) and all(passes(score, floor) for score in scores))
    return full


def coefficients(
    decoder: str, outputs: dict[str, np.ndarray], image_index: int, classes: int, floor: float
) -> tuple[list[Box], NDArray[np.float64]]:
    """The boxes of one image of a decoder with masks, in the order of the rows, before NMS.

    With them (m, K) float64: the coefficients in the row of each box. Every row is decoded alone,
    so a row gives one box or none.
    """
    rows = outputs["output0"][image_index]
    if decoder == "yolov8_seg":
        rows, first = rows.T, 4 + classes
    elif decoder == "yolov5_seg":
        first = 5 + classes
    elif decoder == "end2end_seg":
        first = 6
    else:
        raise ValueError(f"{decoder!r} has no coefficients")
    boxes: list[Box] = []
    kept: list[list[float]] = []
    for row in rows:
        alone = row[:, np.newaxis] if decoder == "yolov8_seg" else row[np.newaxis]
        one = {**outputs, "output0": alone[np.newaxis]}
        for box in ORACLES[decoder].decode(one, 0, classes, floor)[0]:  # px already: the side is not used
            boxes.append(box)
            kept.append(row[first:].tolist())
    return boxes, np.array(kept, np.float64).reshape(len(kept), rows.shape[1] - first)
