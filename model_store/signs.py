"""Which decoders the outputs of a graph may be meant for.

Evidence, number of classes -> candidates. Output names decide where a format has names of its own;
else shapes are compared with the arithmetic of anchors, and metadata with what exporters write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from model_store.evidence import Evidence
from model_store.fit import SizePx

STRIDES_PX = (8, 16, 32, 64)
TF_NAMES = {"detection_boxes", "detection_scores", "detection_classes", "num_detections"}


def candidates(evidence: Evidence, classes: int) -> list[str]:
    """Decoders that fit; one is an answer, several or none are a question for the user."""
    names = set(evidence.outputs)
    if names >= TF_NAMES:
        return ["tf_detection"]
    if names >= {"boxes", "labels", "scores"}:
        return ["rtdetr_labels" if evidence.input.sized else "torchvision"]
    if names >= {"dets", "labels"}:
        return ["mmdet" if evidence.outputs["dets"].shape[-1] == 5 else "rfdetr"]
    if names >= {"boxes", "scores"}:
        fits = evidence.outputs["scores"].shape[-1] == classes
        return ["ssd"] if fits and evidence.outputs["boxes"].shape[-1] == 4 else []
    by_rank = {out.ndim: out for out in evidence.outputs.values()}
    if len(names) == 2 and by_rank.keys() == {3, 4}:
        return _segmenting(evidence, by_rank[3], by_rank[4].shape[1], classes)
    if len(names) != 1 or 3 not in by_rank:
        return []
    return [name for name, fits in _SHAPED.items() if fits(evidence, by_rank[3], classes)]


def possible(evidence: Evidence) -> list[str]:
    """Decoders for graphs of as many outputs; those that read one, where there is none for so many."""
    count = len(evidence.outputs)
    return sorted(n for n, outputs in _OUTPUTS.items() if outputs == count) or sorted(_SHAPED)


def contradicted(evidence: Evidence, fitting: Sequence[str]) -> bool:
    """Whether the metadata say that the graph ranks its detections, and its outputs say it does not."""
    return _says_ranked(evidence) and bool(fitting) and set(fitting) <= _UNRANKED


def anchors(network_px: SizePx, levels: int, per_cell: int) -> int:
    """Anchors of a pyramid with strides 8, 16, 32 (levels 3) and 64 (levels 4)."""
    across, down = network_px
    cells = ((across // stride) * (down // stride) for stride in STRIDES_PX[:levels])
    return per_cell * sum(cells)


def _segmenting(
    evidence: Evidence, out: NDArray[np.float32], prototypes: int, classes: int
) -> list[str]:
    """The output of rank 4 holds prototypes of masks; rows of the other end with their coefficients."""
    fits = {
        "yolov8_seg": out.shape[1] == 4 + classes + prototypes,
        "yolov5_seg": _yolov5(evidence, out, classes + prototypes),
        "end2end_seg": out.shape[2] == 6 + prototypes and not _anchored(evidence, out),
    }
    return [name for name, fit in fits.items() if fit]


def _yolov8(_: Evidence, out: NDArray[np.float32], classes: int) -> bool:
    return out.shape[1] == 4 + classes


def _of_yolov5(evidence: Evidence) -> set[int]:
    return {anchors(evidence.network_px, levels, 3) for levels in (3, 4)}


def _anchored(evidence: Evidence, out: NDArray[np.float32]) -> bool:
    """As many rows as a pyramid of anchors has: no list of a graph that ranks."""
    return out.shape[1] in _of_yolov5(evidence) | {anchors(evidence.network_px, 3, 1)}


def _yolov5(evidence: Evidence, out: NDArray[np.float32], classes: int) -> bool:
    return out.shape[2] == 5 + classes and out.shape[1] in _of_yolov5(evidence)


def _is_yolox(evidence: Evidence, out: NDArray[np.float32], classes: int) -> bool:
    return out.shape[2] == 5 + classes and out.shape[1] == anchors(evidence.network_px, 3, 1)


def _decoded(evidence: Evidence, out: NDArray[np.float32]) -> bool:
    """Decoded centres lie all over the square; raw ones are offsets within a few cells."""
    return float(np.abs(out[..., :2]).max()) > max(evidence.network_px) / 4


def _yolox(evidence: Evidence, out: NDArray[np.float32], classes: int) -> bool:
    return _is_yolox(evidence, out, classes) and _decoded(evidence, out)


def _yolox_raw(evidence: Evidence, out: NDArray[np.float32], classes: int) -> bool:
    return _is_yolox(evidence, out, classes) and not _decoded(evidence, out)


def _is_ranked(evidence: Evidence, out: NDArray[np.float32]) -> bool:
    return out.shape[2] == 6 and not _anchored(evidence, out)


def _end2end(evidence: Evidence, out: NDArray[np.float32], _: int) -> bool:
    named = _says_ranked(evidence) or not _rtdetr_by_name(evidence)
    return _is_ranked(evidence, out) and named


def _rtdetr_topk(evidence: Evidence, out: NDArray[np.float32], _: int) -> bool:
    return _is_ranked(evidence, out) and not _says_ranked(evidence)


def _rtdetr(evidence: Evidence, out: NDArray[np.float32], classes: int) -> bool:
    few = out.shape[1] <= 1000
    return out.shape[2] == 4 + classes and few and not _says_ranked(evidence)


def _says_ranked(evidence: Evidence) -> bool:
    return evidence.says("end2end") or evidence.says("nms")


def _rtdetr_by_name(evidence: Evidence) -> bool:
    words = (evidence.metadata.get("head", ""), evidence.metadata.get("description", ""))
    return any("rtdetr" in word.lower().replace("-", "") for word in words)


_SHAPED: dict[str, Callable[[Evidence, NDArray[np.float32], int], bool]] = {
    "yolov8": _yolov8,
    "yolov5": _yolov5,
    "yolox": _yolox,
    "yolox_raw": _yolox_raw,
    "end2end": _end2end,
    "rtdetr": _rtdetr,
    "rtdetr_topk": _rtdetr_topk,
}

_OUTPUTS = dict.fromkeys(_SHAPED, 1) | {
    "yolov5_seg": 2,
    "yolov8_seg": 2,
    "end2end_seg": 2,
    "rfdetr": 2,
    "ssd": 2,
    "mmdet": 2,
    "rtdetr_labels": 3,
    "torchvision": 3,
    "tf_detection": 4,
}
_UNRANKED = {"yolov5", "yolov5_seg", "yolov8", "yolov8_seg", "yolox", "yolox_raw"}
"""Candidates that suppression is still to come for."""
