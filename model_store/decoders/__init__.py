"""Raw network outputs to boxes in network px: one pure function per family.

decode(outputs by name, DecodeSpec) -> list of Detections, one per image, scores > score_floor, before
NMS. DECODERS is the only list of formats: a new one is a function, a line here, its signs in
`recognise.py`, and a test against an oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from model_store.decoders.blobs import decode_blobs
from model_store.decoders.detr import (
    decode_rfdetr,
    decode_rtdetr,
    decode_rtdetr_labels,
    decode_rtdetr_topk,
)
from model_store.decoders.end2end import decode_end2end
from model_store.decoders.layout import DecodeSpec, Outputs
from model_store.decoders.segment import (
    decode_end2end_seg,
    decode_yolov5_seg,
    decode_yolov8_seg,
)
from model_store.decoders.ssd import (
    decode_mmdet,
    decode_ssd,
    decode_tf_detection,
    decode_torchvision,
)
from model_store.decoders.yolov5 import decode_yolov5
from model_store.decoders.yolov8 import decode_yolov8
from model_store.decoders.yolox import decode_yolox, decode_yolox_raw
from model_store.detections import Detections

Decoder = Callable[[Outputs, DecodeSpec], list[Detections]]

DECODERS: Mapping[str, Decoder] = {
    "yolov5": decode_yolov5,
    "yolov5_seg": decode_yolov5_seg,
    "yolov8": decode_yolov8,
    "yolov8_seg": decode_yolov8_seg,
    "end2end": decode_end2end,
    "end2end_seg": decode_end2end_seg,
    "yolox": decode_yolox,
    "yolox_raw": decode_yolox_raw,
    "rtdetr": decode_rtdetr,
    "rtdetr_topk": decode_rtdetr_topk,
    "rtdetr_labels": decode_rtdetr_labels,
    "rfdetr": decode_rfdetr,
    "ssd": decode_ssd,
    "tf_detection": decode_tf_detection,
    "torchvision": decode_torchvision,
    "mmdet": decode_mmdet,
    "blobs": decode_blobs,
}
