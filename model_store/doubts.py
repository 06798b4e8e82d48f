"""Why a weights file is not taken as it is: what contradicts itself, what was nearly recognised.

Evidence, decoders that fit -> words for a refusal
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from model_store.evidence import Evidence
from model_store.signs import (
    MOST_QUERIES,
    SHAPED,
    TF_NAMES,
    anchors,
    names_rtdetr,
    names_yolo,
    pyramids,
    rows_of_yolov5,
    says_ranked,
)

OUTPUTS = dict.fromkeys(SHAPED, 1) | {
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
NAMED: dict[str, set[str]] = {
    "tf_detection": TF_NAMES,
    "torchvision or rtdetr_labels": {"boxes", "labels", "scores"},
    "rfdetr or mmdet": {"dets", "labels"},
    "ssd": {"boxes", "scores"},
}
_UNRANKED = {"yolov5", "yolov5_seg", "yolov8", "yolov8_seg", "yolox", "yolox_raw", "rtdetr"}
"""Candidates that the graph leaves unranked."""
_RTDETR = {"rtdetr", "rtdetr_topk", "rtdetr_labels"}


def possible(evidence: Evidence) -> list[str]:
    """Decoders for graphs of as many outputs; those that read one, where there is none for so many."""
    count = len(evidence.outputs)
    return sorted(n for n, outputs in OUTPUTS.items() if outputs == count) or sorted(SHAPED)


def contradiction(evidence: Evidence, fitting: Sequence[str]) -> tuple[str, list[str]] | None:
    """Metadata against outputs, or against other metadata: in words, with the decoders to choose from."""
    outputs = f"the outputs {evidence.shapes} are those of {', '.join(fitting)}"
    found, ranked = set(fitting), says_ranked(evidence)
    segments = any(name.endswith("_seg") for name in fitting)
    task = evidence.metadata.get("task")
    if not found:
        return None
    if task and segments != (task == "segment"):
        return f"metadata 'task' says {task}, but {outputs}", [*fitting]
    if ranked and names_rtdetr(evidence):
        both = "name RT-DETR ('head', 'description') and say that the graph ranks its detections"
        choice = sorted({*fitting, "end2end", "rtdetr_topk"})
        return (
            f"the metadata {both} ('end2end', or 'nms' in 'args'), which RT-DETR's do not",
            choice,
        )
    if ranked and found <= _UNRANKED:
        ranks = (
            "the metadata ('end2end', or 'nms' in 'args') say that the graph ranks its detections"
        )
        return f"{ranks}, but {outputs}, which are not ranked", [*fitting]
    if names_rtdetr(evidence) and not found & _RTDETR:
        return f"the metadata ('head', 'description') name RT-DETR, but {outputs}", [*fitting]
    if names_yolo(evidence) and found <= _RTDETR:
        return f"the metadata ('head', 'description') name a YOLO, but {outputs}", [*fitting]
    return None


def near_misses(evidence: Evidence, classes: int) -> list[str]:
    """Decoders that would fit with another output, or another number of labels."""
    return [*_by_name(evidence), *(near for near in _by_shape(evidence, classes))]


def _by_name(evidence: Evidence) -> Iterator[str]:
    names = set(evidence.outputs)
    for decoder, wanted in NAMED.items():
        missing = sorted(wanted - names)
        if missing and 2 * len(missing) <= len(wanted):
            one = len(missing) == 1
            yield f"{decoder}, but {' and '.join(missing)} {'is' if one else 'are'} missing"


def _by_shape(evidence: Evidence, classes: int) -> Iterator[str]:
    outputs = evidence.outputs
    if outputs.keys() >= {"dets", "labels"}:
        logits = outputs["labels"].shape[-1]
        gaps = "; COCO's own class numbers have gaps: name those too" if logits > classes else ""
        yield f"rfdetr, with {logits - 1} or {logits} labels{gaps}"
    elif outputs.keys() >= {"boxes", "scores"}:
        yield f"ssd, with {outputs['scores'].shape[-1]} labels"
    by_rank = {out.ndim: out for out in outputs.values()}
    if len(outputs) == 2 and by_rank.keys() == {3, 4}:
        yield from _of_rows(evidence, by_rank[3], by_rank[4].shape[1], "_seg")
    elif len(outputs) == 1 and 3 in by_rank:
        yield from _of_rows(evidence, by_rank[3], 0, "")


def _of_rows(
    evidence: Evidence, out: NDArray[np.float32], prototypes: int, suffix: str
) -> Iterator[str]:
    rows, columns = out.shape[1:]
    several = pyramids(evidence.network_px, least=3)
    boxes, objects = 4 + prototypes, 5 + prototypes
    if columns in several and rows > boxes:
        yield f"yolov8{suffix}, with {rows - boxes} labels"
    if rows in rows_of_yolov5(evidence) and columns > objects:
        yield f"yolov5{suffix}, with {columns - objects} labels"
    if suffix:
        return
    if rows == anchors(evidence.network_px, 3, 1) and columns > objects:
        yield f"yolox, with {columns - objects} labels"
    if rows in several and columns > boxes:
        yield (
            f"yolov8, with {columns - boxes} labels, if its last two axes were exchanged (export it without "
            "the transposition)"
        )
    elif rows <= MOST_QUERIES and boxes < columns < rows:
        yield f"rtdetr, with {columns - boxes} labels"
