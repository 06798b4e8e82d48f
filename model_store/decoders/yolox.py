"""Decode YOLOX, with its grid raw (`yolox_raw`, the usual export) or decoded in the graph (`yolox`).

output (n, anchors, 5 + classes): x, y, w, h, objectness, one score per class
raw: centre = (xy + cell) * stride, size = exp(wh) * stride, cells row by row, strides 8, 16, 32
decoded: cx, cy, w, h in network px
A score equal to the floor is kept, as in YOLOX's `postprocess`.
"""

from __future__ import annotations

import functools

import numpy as np

from model_store.decoders.evidence import Evidence, anchors
from model_store.decoders.layout import Array, DecodeSpec, Outputs, only, with_objectness
from model_store.detections import Detections
from model_store.errors import ModelRefused
from model_store.transform.letterbox import SizePx

STRIDES_PX = (8, 16, 32)
"""Strides of YOLOX nano to x (Ge et al. 2021, the P3 to P5 levels of its pyramid)."""


def decode_yolox_raw(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode raw anchors. Raises ModelRefused if their number is not that of strides 8, 16 and 32."""
    raw = _raw(outputs, spec, "yolox_raw")
    cells, strides = grid(spec.network_px)
    if raw.shape[1] != len(cells):
        raise ModelRefused(
            f"decoder yolox_raw expects {len(cells)} anchors for {spec.network_px} px "
            f"(strides {STRIDES_PX}); the model returned {raw.shape[1]}"
        )
    return [_on_grid(image, cells, strides, spec) for image in raw]


def _on_grid(raw: Array, cells: Array, strides: Array, spec: DecodeSpec) -> Detections:
    """Decode only the rows that pass the floor: they are few."""
    over = np.flatnonzero(spec.passes(raw[:, 4]))
    rows, stride = raw[over], strides[over]
    centre = (rows[:, :2] + cells[over]) * stride
    size = np.exp(np.minimum(rows[:, 2:4], 20.0)) * stride  # exp(20) px: still finite
    return with_objectness(np.concatenate([centre, size, rows[:, 4:]], axis=1), spec)


def decode_yolox(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode anchors in network px. Raises ModelRefused if the first output is not (n, anchors, 5 + classes)."""
    return [with_objectness(image, spec) for image in _raw(outputs, spec, "yolox")]


@functools.cache
def grid(network_px: SizePx) -> tuple[Array, Array]:
    """Return the cells (anchors, 2) as column, row, and their strides in px (anchors, 1)."""
    cells: list[Array] = []
    strides: list[Array] = []
    for stride in STRIDES_PX:
        across, down = (side // stride for side in network_px)
        rows, columns = np.mgrid[:down, :across]
        cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32))
        strides.append(np.full((down * across, 1), stride, np.float32))
    return np.concatenate(cells), np.concatenate(strides)


def _raw(outputs: Outputs, spec: DecodeSpec, decoder: str) -> Array:
    columns = 5 + spec.classes
    return only(outputs, decoder, f"(n, anchors, {columns})", columns)


def fits_yolox(evidence: Evidence, classes: int) -> bool:
    return _fits(evidence, classes) and _has_decoded_centres(evidence)


def fits_yolox_raw(evidence: Evidence, classes: int) -> bool:
    return _fits(evidence, classes) and not _has_decoded_centres(evidence)


def _fits(evidence: Evidence, classes: int) -> bool:
    _, rows, columns = evidence.rows.shape
    return columns == 5 + classes and rows == anchors(evidence.network_px, 3, 1)


def _has_decoded_centres(evidence: Evidence) -> bool:
    """Return True if centres are decoded: those cover the whole input, raw ones are offsets of a few cells."""
    return float(np.abs(evidence.rows[..., :2]).max()) > max(evidence.network_px) / 4
