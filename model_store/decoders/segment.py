"""Decode heads with masks: YOLOv5-seg, YOLOv8-seg and 11-seg (before NMS), YOLO26-seg (ranked in the graph).

yolov5_seg    (n, anchors, 5 + classes + K): as `yolov5`, then K coefficients of the prototypes
yolov8_seg    (n, 4 + classes + K, anchors): as `yolov8`, then K coefficients
end2end_seg   (n, k, 6 + K): as `end2end`, then K coefficients
all           a second output (n, K, h, w): the prototypes, from which `masks.py` assembles masks. The outputs
              are identified by their ranks, not by their order
"""

from __future__ import annotations

import numpy as np

from model_store.decoders.layout import Array, DecodeSpec, Outputs, listed, with_objectness
from model_store.decoders.yolo import anchors_of
from model_store.detections import Detections
from model_store.errors import ModelRefused
from model_store.transform.masks import PrototypeMasks


def decode_yolov5_seg(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode anchors with objectness and masks. Raises ModelRefused for other outputs than the format's two."""
    end = 5 + spec.classes
    raw, prototypes = _rows_and_prototypes(outputs, "yolov5_seg", end, 2)
    return [
        with_objectness(rows[:, :end], spec, PrototypeMasks(rows[:, end:], own, spec.network_px))
        for rows, own in zip(raw, prototypes, strict=True)
    ]


def decode_yolov8_seg(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode anchors with masks. Raises ModelRefused for other outputs than the format's two."""
    raw, prototypes = _rows_and_prototypes(outputs, "yolov8_seg", 4 + spec.classes, 1)
    return [anchors_of(image, spec, own) for image, own in zip(raw, prototypes, strict=True)]


def decode_end2end_seg(outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
    """Decode a ranked list with masks. Raises ModelRefused for other outputs than the format's two."""
    raw, prototypes = _rows_and_prototypes(outputs, "end2end_seg", 6, 2)
    masks = [PrototypeMasks(rows[:, 6:], own, spec.network_px) for rows, own in zip(raw, prototypes, strict=True)]
    return [
        listed(rows[:, :4], rows[:, 4], rows[:, 5], spec, fixed=True, masks=own)
        for rows, own in zip(raw, masks, strict=True)
    ]


def _rows_and_prototypes(outputs: Outputs, decoder: str, columns: int, axis: int) -> tuple[Array, Array]:
    """Return rows and prototypes; `axis` of the rows has `columns` numbers and then K coefficients."""
    by_rank = {array.ndim: array.astype(np.float32, copy=False) for array in outputs.values()}
    raw, prototypes = by_rank.get(3), by_rank.get(4)
    if len(outputs) != 2 or raw is None or prototypes is None:
        raise _refused(outputs, decoder, columns, axis)
    if raw.shape[axis] != columns + prototypes.shape[1]:
        raise _refused(outputs, decoder, columns, axis)
    return raw, prototypes


def _refused(outputs: Outputs, decoder: str, columns: int, axis: int) -> ModelRefused:
    wanted = f"(n, {columns} + K, anchors)" if axis == 1 else f"(n, rows, {columns} + K)"
    given = " and ".join(f"{name} {array.shape}" for name, array in outputs.items())
    return ModelRefused(f"decoder {decoder} needs two outputs, {wanted} and (n, K, h, w); the model returned {given}")
