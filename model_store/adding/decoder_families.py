"""Describe the exports of each decoder (`FAMILIES`), and find the decoders that fit the outputs of a graph.

Evidence, number of classes -> candidates. Output names decide if a format defines them; else shapes are compared
with the number of anchors, and metadata with those of exporters.
Sources of preprocessing and suppression: the exporters' inference code, as collected in the table of
docs/reference/decoders.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.adding.evidence import Evidence
from model_store.transform.letterbox import SizePx

STRIDES_PX = (8, 16, 32, 64)
PYRAMID_PX = (4, 8, 16, 32, 64)
"""Strides of the levels of heads without anchor boxes: consecutive ones are used, with one row per cell."""
TF_NAMES = {"detection_boxes", "detection_scores", "detection_classes", "num_detections"}
MOST_QUERIES = 1000
Fits = Callable[[Evidence, NDArray[np.float32], int], bool]
"""Return whether the one output, of rank 3, has the shape of a format for this number of classes."""


@dataclass(frozen=True, slots=True)
class DecoderFamily:
    """Exports of one decoder: number of `outputs`, and their usual preprocessing and suppression.

    `fits` is the rule for a format with one output, which is recognised by its shape and not by its name; `layout`
    describes the outputs that are recognised by shape. `unranked`: the graph does not rank its detections.
    `rect_where_free`: Ultralytics pads exports of any size only to the stride, not to the square (`auto` of its
    LetterBox); YOLOv5's own code pads to the square.
    """

    outputs: int
    preprocess: Mapping[str, Any]
    nms: Mapping[str, Any]
    layout: str = ""
    fits: Fits | None = None
    unranked: bool = False
    rect_where_free: bool = False


def candidates(evidence: Evidence, classes: int) -> list[str]:
    """Return the decoders that fit; the user must decide unless there is exactly one."""
    names = set(evidence.outputs)
    if names >= TF_NAMES:
        return ["tf_detection"]
    if names >= {"boxes", "labels", "scores"}:
        return ["rtdetr_labels" if evidence.input.sized else "torchvision"]
    if names >= {"dets", "labels"}:
        return _dets_and_labels_decoders(evidence, classes)
    if names >= {"boxes", "scores"}:
        fits = evidence.outputs["scores"].shape[-1] == classes
        return ["ssd"] if fits and evidence.outputs["boxes"].shape[-1] == 4 else []
    by_rank = {out.ndim: out for out in evidence.outputs.values()}
    if len(names) == 2 and by_rank.keys() == {3, 4}:
        return _mask_decoders(evidence, by_rank[3], by_rank[4].shape[1], classes)
    if len(names) != 1 or 3 not in by_rank:
        return []
    out = by_rank[3]
    return [name for name, fam in FAMILIES.items() if fam.fits and fam.fits(evidence, out, classes)]


def anchors(network_px: SizePx, levels: int, per_cell: int) -> int:
    """Return the number of anchors of a pyramid with strides 8, 16, 32 (levels 3) and 64 (levels 4)."""
    return per_cell * sum(_cells(network_px, STRIDES_PX[:levels]))


def pyramids(network_px: SizePx, least: int = 1) -> set[int]:
    """Return the possible numbers of rows of heads with one anchor per cell.

    A head uses at least `least` consecutive strides from 4 to 64, with or without the cells that the edge cuts.
    """
    ends = combinations(range(len(PYRAMID_PX) + 1), 2)
    runs = [PYRAMID_PX[start:end] for start, end in ends if end - start >= least]
    return {sum(_cells(network_px, run, cut)) for run in runs for cut in (False, True)}


def says_ranked(evidence: Evidence) -> bool:
    """Return True if the metadata state that the graph ranks its detections."""
    return evidence.says("end2end") or evidence.says("nms")


def names_rtdetr(evidence: Evidence) -> bool:
    return any("rtdetr" in word for word in _words(evidence))


def names_yolo(evidence: Evidence) -> bool:
    """Return True for a head or description of Ultralytics' YOLOs ("Detect", "Ultralytics YOLO26n model")."""
    head, description = _words(evidence)
    named = head.endswith("detect") or head.startswith("segment") or "yolo" in head + description
    return named and not names_rtdetr(evidence)


def _words(evidence: Evidence) -> tuple[str, str]:
    head, description = (evidence.metadata.get(key, "") for key in ("head", "description"))
    plain = str.maketrans("", "", "-_ ")
    return head.lower().translate(plain), description.lower().translate(plain)


def _cells(network_px: SizePx, strides: tuple[int, ...], cut: bool = False) -> list[int]:
    across, down = network_px
    more = 1 if cut else 0
    return [((across - more) // s + more) * ((down - more) // s + more) for s in strides]


def _dets_and_labels_decoders(evidence: Evidence, classes: int) -> list[str]:
    """Return the decoder for outputs `dets` and `labels`: RF-DETR has one logit per label, and one for background."""
    dets, labels = evidence.outputs["dets"], evidence.outputs["labels"]
    if dets.shape[-1] == 5:
        return ["mmdet"]
    return ["rfdetr"] if labels.shape[-1] - classes in (0, 1) else []


def _mask_decoders(
    evidence: Evidence, out: NDArray[np.float32], prototypes: int, classes: int
) -> list[str]:
    """Return the decoders for heads with masks.

    The output of rank 4 contains the prototypes; rows of the other end with their coefficients.
    """
    fits = {
        "yolov8_seg": out.shape[1] == 4 + classes + prototypes,
        "yolov5_seg": _yolov5(evidence, out, classes + prototypes),
        "end2end_seg": out.shape[2] == 6 + prototypes and not _has_anchor_rows(evidence, out),
    }
    return [name for name, fit in fits.items() if fit]


def _yolov8(_: Evidence, out: NDArray[np.float32], classes: int) -> bool:
    return out.shape[1] == 4 + classes


def rows_of_yolov5(evidence: Evidence) -> set[int]:
    return {anchors(evidence.network_px, levels, 3) for levels in (3, 4)}


def _has_anchor_rows(evidence: Evidence, out: NDArray[np.float32]) -> bool:
    """Return True if the number of rows is that of a pyramid of anchors, so neither a ranked list nor queries."""
    return out.shape[1] in rows_of_yolov5(evidence) | pyramids(evidence.network_px, least=3)


def _yolov5(evidence: Evidence, out: NDArray[np.float32], classes: int) -> bool:
    return out.shape[2] == 5 + classes and out.shape[1] in rows_of_yolov5(evidence)


def _is_yolox(evidence: Evidence, out: NDArray[np.float32], classes: int) -> bool:
    return out.shape[2] == 5 + classes and out.shape[1] == anchors(evidence.network_px, 3, 1)


def _has_decoded_centres(evidence: Evidence, out: NDArray[np.float32]) -> bool:
    """Return True if centres are decoded: those cover the whole input, raw ones are offsets of a few cells."""
    return float(np.abs(out[..., :2]).max()) > max(evidence.network_px) / 4


def _yolox(evidence: Evidence, out: NDArray[np.float32], classes: int) -> bool:
    return _is_yolox(evidence, out, classes) and _has_decoded_centres(evidence, out)


def _yolox_raw(evidence: Evidence, out: NDArray[np.float32], classes: int) -> bool:
    return _is_yolox(evidence, out, classes) and not _has_decoded_centres(evidence, out)


def _is_ranked(evidence: Evidence, out: NDArray[np.float32]) -> bool:
    return out.shape[2] == 6 and not _has_anchor_rows(evidence, out)


def _identifies_yolo(evidence: Evidence) -> bool:
    """Return True if the metadata identify a list of six numbers per row as YOLO's."""
    yolo = names_yolo(evidence) and not evidence.denies("end2end")
    return says_ranked(evidence) or yolo


def _end2end(evidence: Evidence, out: NDArray[np.float32], _: int) -> bool:
    named = says_ranked(evidence) or not names_rtdetr(evidence)
    return _is_ranked(evidence, out) and named


def _rtdetr_topk(evidence: Evidence, out: NDArray[np.float32], _: int) -> bool:
    return _is_ranked(evidence, out) and not _identifies_yolo(evidence)


def _rtdetr(evidence: Evidence, out: NDArray[np.float32], classes: int) -> bool:
    few = out.shape[1] <= MOST_QUERIES and not _has_anchor_rows(evidence, out)
    fits = out.shape[2] == 4 + classes and few
    return fits and not (_is_ranked(evidence, out) and _identifies_yolo(evidence))


IMAGENET: dict[str, Any] = {
    "divide_by": 255.0,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
"""Scaling that torchvision's and timm's classifiers, and RF-DETR, are trained with."""
_LETTERBOX = {"resize": "letterbox", "pad_value": 114}
_STRETCH = {"resize": "stretch"}
_RANKED: dict[str, Any] = {"kind": "none", "max_detections": 300}
"""Suppression for heads without need of it: rank and limit the number only."""
_YOLOV5 = DecoderFamily(
    *(1, _LETTERBOX, {"iou": 0.45}),
    "5 + {classes} numbers per row, three rows per cell of strides 8, 16, 32 (64)",
    _yolov5,
    unranked=True,
)
_YOLOV8 = DecoderFamily(
    *(1, _LETTERBOX, {"iou": 0.7}),
    "4 + {classes} numbers for each anchor, without objectness",
    _yolov8,
    unranked=True,
    rect_where_free=True,
)
_END2END = DecoderFamily(
    *(1, _LETTERBOX, _RANKED),
    "a list of corners, score and class",
    _end2end,
    rect_where_free=True,
)
_YOLOX = DecoderFamily(
    1,
    {"resize": "fit_top_left", "pad_value": 114, "channel_order": "BGR", "divide_by": 1.0},
    {"iou": 0.45, "class_aware": False, "inclusive_px": True},
    "5 + {classes} numbers per row, one row per cell, centres all over the image",
    _yolox,
    unranked=True,
)
_RTDETR = DecoderFamily(
    *(1, _STRETCH, _RANKED), "4 + {classes} numbers for each query", _rtdetr, unranked=True
)
FAMILIES: Mapping[str, DecoderFamily] = {
    "yolov8": _YOLOV8,
    "yolov5": _YOLOV5,
    "yolox": _YOLOX,
    "yolox_raw": replace(
        _YOLOX,
        layout="5 + {classes} numbers per row, one row per cell, centres within a few cells of it",
        fits=_yolox_raw,
    ),
    "end2end": _END2END,
    "rtdetr": _RTDETR,
    "rtdetr_topk": DecoderFamily(
        *(1, _STRETCH, _RANKED), "a list of centre, size, score and class", _rtdetr_topk
    ),
    "yolov8_seg": replace(
        _YOLOV8,
        outputs=2,
        layout="4 + {classes} numbers and coefficients for each anchor, and prototypes",
        fits=None,
    ),
    "yolov5_seg": replace(
        _YOLOV5,
        outputs=2,
        layout="5 + {classes} numbers and coefficients per row, three rows per cell, and prototypes",
        fits=None,
    ),
    "end2end_seg": replace(
        _END2END,
        outputs=2,
        layout="a list of corners, score, class and coefficients, and prototypes",
        fits=None,
    ),
    "rfdetr": DecoderFamily(
        2, {**_STRETCH, "mean": IMAGENET["mean"], "std": IMAGENET["std"]}, _RANKED
    ),
    "ssd": DecoderFamily(2, _STRETCH, {"iou": 0.6}),
    "mmdet": DecoderFamily(2, _STRETCH, _RANKED),
    "rtdetr_labels": DecoderFamily(3, _STRETCH, _RANKED),
    "torchvision": DecoderFamily(3, _STRETCH, _RANKED),
    "tf_detection": DecoderFamily(4, _STRETCH, _RANKED),
}
