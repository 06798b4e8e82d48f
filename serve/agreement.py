"""How much two versions agree on one image: what a shadow is judged by.

active, candidate: Detections of the same image, image px --compare--> Agreement

Boxes are matched one to one, best IoU first, at 0.5 or more, whatever their labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from model_store.detections import Detections
from model_store.nms import iou

MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Agreement:
    """Sums over images; scores as candidate minus active, of matched boxes."""

    images: int = 0
    matched: int = 0
    label_flips: int = 0
    only_active: int = 0
    only_candidate: int = 0
    score_shift: float = 0.0
    score_shift_abs: float = 0.0

    def plus(self, other: Agreement) -> Agreement:
        return Agreement(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def compare(
    active: Detections,
    candidate: Detections,
    active_labels: Sequence[str],
    candidate_labels: Sequence[str],
) -> Agreement:
    """Of one image; give only what each version would show."""
    pairs = _pairs(active, candidate)
    shifts = [float(candidate.scores[j]) - float(active.scores[i]) for i, j in pairs]
    flips = sum(
        active_labels[active.class_ids[i]] != candidate_labels[candidate.class_ids[j]]
        for i, j in pairs
    )
    return Agreement(
        images=1,
        matched=len(pairs),
        label_flips=flips,
        only_active=len(active) - len(pairs),
        only_candidate=len(candidate) - len(pairs),
        score_shift=sum(shifts),
        score_shift_abs=sum(map(abs, shifts)),
    )


def _pairs(active: Detections, candidate: Detections) -> list[tuple[int, int]]:
    """Positions that match, best first; ties to the better ranked."""
    overlap = iou(active.boxes_xyxy.astype(np.float64), candidate.boxes_xyxy.astype(np.float64))
    order = np.argsort(-overlap, axis=None, kind="stable")
    rows: set[int] = set()
    columns: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for flat in order.tolist():
        i, j = divmod(flat, overlap.shape[1])
        if overlap[i, j] < MATCH_IOU:
            break
        if i not in rows and j not in columns:
            rows.add(i)
            columns.add(j)
            pairs.append((i, j))
    return pairs
