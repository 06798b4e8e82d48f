"""Shared parts of the decoders: outputs by name, the decoder's input, and conversion between box encodings.

An output of the wrong format concerns the whole model (ModelRefused); invalid values concern one image
(OutputNonsense).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.detections import Detections, FloatArray, Masks
from model_store.errors import ModelRefused
from model_store.transform.letterbox import SizePx

Array = NDArray[np.float32]


class OutputNonsense(ValueError):
    """The network's output for one image is invalid: that image fails, the others do not."""


Outputs = Mapping[str, Array]
"""Raw outputs by name, in the graph's order; each has one row per image."""


@dataclass(frozen=True, slots=True)
class DecodeSpec:
    """Properties of the model that a decoder needs."""

    network_px: SizePx
    """Width and height of the network's input."""
    classes: int
    score_floor: float
    fixed_rows: frozenset[str] = frozenset()
    """Outputs for which the graph declares the number of rows per image."""
    keeps_floor: bool = False
    """True if a score of exactly `score_floor` is kept; set by the decoder's record in DECODERS."""

    def passes(self, scores: Array) -> NDArray[np.bool_]:
        """Return a mask of the scores that pass the floor, compared as float32."""
        floor = np.float32(self.score_floor)
        return scores >= floor if self.keeps_floor else scores > floor

    @property
    def corner_px(self) -> Array:
        """Return the factors (4,) float32 from fractions x, y, x, y of the input to px."""
        return np.array(self.network_px * 2, np.float32)


def only(outputs: Outputs, decoder: str, wanted: str, last: int | None = None) -> Array:
    """Return the first output as (n, rows, columns) float32. Raises ModelRefused if it has another shape."""
    raw = next(iter(outputs.values()))
    if raw.ndim != 3 or (last is not None and raw.shape[2] != last):
        raise ModelRefused(f"decoder {decoder} needs {wanted}; the model returned {raw.shape}")
    return raw.astype(np.float32, copy=False)


def named(outputs: Outputs, decoder: str, *names: str) -> list[Array]:
    """Return outputs by name, as float32. Raises ModelRefused with the graph's outputs if one is missing."""
    missing = [name for name in names if name not in outputs]
    if missing:
        raise ModelRefused(
            f"decoder {decoder} needs the outputs {', '.join(names)}; the model has "
            f"{', '.join(outputs)}, so {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        )
    return [outputs[name].astype(np.float32, copy=False) for name in names]


def corners(cxcywh: Array) -> FloatArray:
    """Convert centre and size (k, 4) to corners (k, 4), in the same unit."""
    cx, cy, w, h = cxcywh.T
    return np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)


def from_yxyx(boxes: Array, spec: DecodeSpec) -> FloatArray:
    """Convert fractions y1, x1, y2, x2 (k, 4) to corners in network px."""
    return np.ascontiguousarray(boxes[:, [1, 0, 3, 2]]) * spec.corner_px


def rows_that_pass(scores: Array, spec: DecodeSpec) -> NDArray[np.intp]:
    """Return the rows of (k, classes) in which any score passes the floor, in their order.

    Comparing all scores is several times as fast as the maximum of each short row.
    """
    passing = np.flatnonzero(spec.passes(np.ascontiguousarray(scores)))
    return np.unique(passing // max(1, scores.shape[1]))


def best_class(boxes_xyxy: FloatArray, scores: Array, spec: DecodeSpec, masks: Masks | None = None) -> Detections:
    """Return one detection per row of boxes (k, 4) if its best class in scores (k, classes) passes the floor.

    Ties go to the lower index. `masks` has one row per row of boxes.
    """
    kept = rows_that_pass(scores, spec)
    scores = scores[kept]
    class_ids = scores.argmax(axis=1)
    best = scores[np.arange(len(scores)), class_ids]
    return Detections(boxes_xyxy[kept], best, class_ids.astype(np.int32), masks=masks and masks.select(kept))


def with_objectness(image: Array, spec: DecodeSpec, masks: Masks | None = None) -> Detections:
    """Decode rows (anchors, 5 + classes): cx, cy, w, h in network px, objectness, class scores (at most 1).

    An anchor is a candidate if its objectness alone passes the floor; its score is objectness times the best class.
    """
    kept = np.flatnonzero(spec.passes(image[:, 4]))
    candidates = image[kept]
    scores = candidates[:, 5:] * candidates[:, 4:5]
    return best_class(corners(candidates[:, :4]), scores, spec, masks and masks.select(kept))


def listed(
    boxes_xyxy: FloatArray, scores: Array, class_ids: Array, spec: DecodeSpec, fixed: bool, masks: Masks | None = None
) -> Detections:
    """Return detections that the graph has ranked itself, with class ids of any number type.

    Rows with a negative class are filler. A list of `fixed` length without filler is saturated: detections may be
    missing. Raises OutputNonsense for a class that the model lacks.
    """
    kept = np.flatnonzero(spec.passes(scores) & (class_ids >= 0))
    ids = class_ids[kept]
    wrong = ids[(ids >= spec.classes) | (ids != np.floor(ids))]
    if len(wrong):
        raise OutputNonsense(
            f"the network returned class {wrong[0]:.7g}, but the model has {spec.classes} labels (classes 0 "
            f"to {spec.classes - 1}); if labels are missing, add the model again with all of them"
        )
    saturated = fixed and 0 < len(kept) == len(scores)
    masks = masks and masks.select(kept)
    return Detections(boxes_xyxy[kept], scores[kept], ids.astype(np.int32), saturated, masks)


def require_lists(decoder: str, boxes: Array, columns: int, **lists: Array) -> None:
    """Raise ModelRefused unless boxes are (n, k, columns) and each other list is (n, k)."""
    alike = all(rows.shape == boxes.shape[:2] for rows in lists.values())
    if boxes.ndim == 3 and boxes.shape[2] == columns and alike:
        return
    given = ", ".join(f"{name} {rows.shape}" for name, rows in lists.items())
    raise ModelRefused(
        f"decoder {decoder} needs boxes (n, k, {columns}) and {', '.join(lists)} (n, k); the model "
        f"returned boxes {boxes.shape}, {given}"
    )
