"""Heads with instance masks: YOLOv8-seg and 11-seg (before NMS), YOLO26-seg (ranked in the graph).

yolov8_seg    (n, 4 + classes + K, anchors): as `yolov8`, then K coefficients of the prototypes
end2end_seg   (n, k, 6 + K): as `end2end`, then K coefficients
both          a second output (n, K, h, w): the prototypes; `masks.py` makes masks of them
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model_store.decoders.layout import (
    Array,
    DecodeSpec,
    Outputs,
    best_class,
    corners,
    listed,
    only,
)
from model_store.detections import Detections
from model_store.errors import ModelRefused
from model_store.masks import PrototypeMasks


def decode_yolov8_seg(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when the outputs are not the two of the format."""
    raw, prototypes = _both(outputs, "yolov8_seg", f"(n, {4 + spec.classes} + K, anchors)")
    if raw.shape[1] != 4 + spec.classes + prototypes.shape[1]:
        raise _refused("yolov8_seg", f"(n, {4 + spec.classes} + K, anchors)", raw, prototypes)
    return [_anchors(image, own, spec) for image, own in zip(raw, prototypes, strict=True)]


def decode_end2end_seg(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Raises ModelRefused when the outputs are not the two of the format."""
    raw, prototypes = _both(outputs, "end2end_seg", "(n, k, 6 + K)")
    if raw.shape[2] != 6 + prototypes.shape[1]:
        raise _refused("end2end_seg", "(n, k, 6 + K)", raw, prototypes)
    return [_ranked(image, own, spec) for image, own in zip(raw, prototypes, strict=True)]


def _anchors(raw: Array, prototypes: Array, spec: DecodeSpec) -> Detections:
    end = 4 + spec.classes
    over = np.flatnonzero(raw[4:end].max(axis=0) > spec.score_floor)
    found = best_class(corners(raw[:4, over].T), raw[4:end, over].T, spec.score_floor)
    return replace(found, masks=PrototypeMasks(raw[end:, over].T, prototypes, spec.network_px))


def _ranked(raw: Array, prototypes: Array, spec: DecodeSpec) -> Detections:
    rows = raw[(raw[:, 4] > spec.score_floor) & (raw[:, 5] >= 0)]
    found = listed(rows[:, :4], rows[:, 4], rows[:, 5], spec.score_floor)
    return replace(found, masks=PrototypeMasks(rows[:, 6:], prototypes, spec.network_px))


def _both(outputs: Outputs, decoder: str, wanted: str) -> tuple[Array, Array]:
    raw = only(outputs, decoder, f"{wanted} and (n, K, h, w)")
    second = list(outputs.values())[1:]
    if len(second) != 1 or second[0].ndim != 4:
        raise _refused(decoder, wanted, raw, *second)
    return raw, second[0].astype(np.float32, copy=False)


def _refused(decoder: str, wanted: str, *given: Array) -> ModelRefused:
    shapes = " and ".join(str(array.shape) for array in given)
    return ModelRefused(
        f"decoder {decoder} needs {wanted} and (n, K, h, w); the model gave {shapes}"
    )
