"""What decoders share: outputs by name, what they are told, and boxes between their encodings.

A format that cannot be read is the model's fault (ModelRefused); values that mean nothing are those of one
image (OutputNonsense).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.detections import Detections, FloatArray
from model_store.errors import ModelRefused
from model_store.fit import SizePx

Array = NDArray[np.float32]


class OutputNonsense(ValueError):
    """What the network said of one image means nothing: that image fails, the others do not."""


Outputs = Mapping[str, Array]
"""Raw outputs by their names in the graph, in its order; each has one row per image."""


@dataclass(frozen=True, slots=True)
class DecodeSpec:
    """What a decoder needs to know of the model."""

    network_px: SizePx
    """Width and height of the picture that the network saw."""
    classes: int
    score_floor: float
    fixed_rows: frozenset[str] = frozenset()
    """Outputs of which the graph declares how many rows an image has."""
    keeps_floor: bool = False
    """Whether a score of exactly `score_floor` is kept: the decoder's line in DECODERS says it."""

    def passes(self, scores: Array) -> NDArray[np.bool_]:
        """Which scores count, compared as float32."""
        floor = np.float32(self.score_floor)
        return scores >= floor if self.keeps_floor else scores > floor

    @property
    def corner_px(self) -> Array:
        """(4,) float32: what fractions x, y, x, y of the picture are multiplied by."""
        return np.array(self.network_px * 2, np.float32)


def only(outputs: Outputs, decoder: str, wanted: str, last: int | None = None) -> Array:
    """The first output as (n, rows, columns) float32. Raises ModelRefused when it is not."""
    raw = next(iter(outputs.values()))
    if raw.ndim != 3 or (last is not None and raw.shape[2] != last):
        raise ModelRefused(f"decoder {decoder} needs {wanted}; the model gave {raw.shape}")
    return raw.astype(np.float32, copy=False)


def named(outputs: Outputs, decoder: str, *names: str) -> list[Array]:
    """Outputs by name, float32. Raises ModelRefused that lists what the graph has instead."""
    missing = [name for name in names if name not in outputs]
    if missing:
        raise ModelRefused(
            f"decoder {decoder} needs the outputs {', '.join(names)}; the model has "
            f"{', '.join(outputs)}, so {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        )
    return [outputs[name].astype(np.float32, copy=False) for name in names]


def corners(cxcywh: Array) -> FloatArray:
    """(k, 4) centre and size to (k, 4) corners, in the same unit."""
    cx, cy, w, h = cxcywh.T
    return np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)


def from_yxyx(boxes: Array, spec: DecodeSpec) -> FloatArray:
    """(k, 4) fractions y1, x1, y2, x2 to corners in network px."""
    return np.ascontiguousarray(boxes[:, [1, 0, 3, 2]]) * spec.corner_px


def rows_that_pass(scores: Array, spec: DecodeSpec) -> NDArray[np.intp]:
    """Rows of (k, classes) in which any score passes the floor, in their order.

    Comparing all of them is several times as fast as the maximum of each short row.
    """
    passing = np.flatnonzero(spec.passes(np.ascontiguousarray(scores)))
    return np.unique(passing // max(1, scores.shape[1]))


def best_class(boxes_xyxy: FloatArray, scores: Array, spec: DecodeSpec) -> Detections:
    """One detection per row whose best class passes the floor; ties to the lower index.

    boxes (k, 4), scores (k, classes)
    """
    kept = rows_that_pass(scores, spec)
    scores = scores[kept]
    class_ids = scores.argmax(axis=1)
    best = scores[np.arange(len(scores)), class_ids]
    return Detections(boxes_xyxy[kept], best, class_ids.astype(np.int32))


def with_objectness(image: Array, spec: DecodeSpec) -> Detections:
    """Rows (anchors, 5 + classes): cx, cy, w, h in network px, objectness, class scores (at most 1).

    An anchor is a candidate when its objectness alone passes the floor; its score is objectness
    times the best class.
    """
    candidates = image[np.flatnonzero(spec.passes(image[:, 4]))]
    return best_class(corners(candidates[:, :4]), candidates[:, 5:] * candidates[:, 4:5], spec)


def listed(
    boxes_xyxy: FloatArray, scores: Array, class_ids: Array, spec: DecodeSpec, fixed: bool
) -> Detections:
    """Detections that the graph has ranked itself; class ids come as numbers of any type.

    Rows of a negative class are filler. A list of `fixed` length with no filler is saturated: there may
    have been more to say. Raises OutputNonsense for a class that the model has not.
    """
    kept = np.flatnonzero(spec.passes(scores) & (class_ids >= 0))
    ids = class_ids[kept]
    wrong = ids[(ids >= spec.classes) | (ids != np.floor(ids))]
    if len(wrong):
        raise OutputNonsense(
            f"the network names class {wrong[0]:.7g}, but the model has {spec.classes} labels (classes 0 "
            f"to {spec.classes - 1}); if some are missing, add it again with all of them"
        )
    saturated = fixed and 0 < len(kept) == len(scores)
    return Detections(boxes_xyxy[kept], scores[kept], ids.astype(np.int32), saturated)


def require_lists(decoder: str, boxes: Array, columns: int, **lists: Array) -> None:
    """Raises ModelRefused unless boxes are (n, k, columns) and each other list is (n, k)."""
    alike = all(rows.shape == boxes.shape[:2] for rows in lists.values())
    if boxes.ndim == 3 and boxes.shape[2] == columns and alike:
        return
    given = ", ".join(f"{name} {rows.shape}" for name, rows in lists.items())
    raise ModelRefused(
        f"decoder {decoder} needs boxes (n, k, {columns}) and {', '.join(lists)} (n, k); the model "
        f"gave boxes {boxes.shape}, {given}"
    )
