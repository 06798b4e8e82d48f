"""Decode raw network outputs to boxes in network px: one pure function per format.

decode(outputs by name, DecodeSpec) -> list of Detections before NMS, one per image. Scores are above score_floor,
or equal to it if the format's original code keeps those. DECODERS is the only list of formats: a new one needs a
function, a line here, its record in `adding/decoder_families.py`, and a test against an oracle.

Formats with common arithmetic share a file: lists that are ranked already, the exports of one head, and the masks of
three heads. Exports of one head are YOLOX with its grid decoded or not, and the three of RT-DETR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from model_store.decoders.layout import DecodeSpec, Outputs
from model_store.decoders.ranked import (
    decode_blobs,
    decode_end2end,
    decode_mmdet,
    decode_tf_detection,
    decode_torchvision,
)
from model_store.decoders.rfdetr import decode_rfdetr
from model_store.decoders.rtdetr import decode_rtdetr, decode_rtdetr_labels, decode_rtdetr_topk
from model_store.decoders.segment import (
    decode_end2end_seg,
    decode_yolov5_seg,
    decode_yolov8_seg,
)
from model_store.decoders.ssd import decode_ssd
from model_store.decoders.yolo import decode_yolov5, decode_yolov8
from model_store.decoders.yolox import decode_yolox, decode_yolox_raw
from model_store.detections import Detections


@dataclass(frozen=True, slots=True)
class Decoder:
    """A format: its function, and True in `keeps_floor` if it keeps a score of exactly score_floor (`>=`, not `>`)."""

    decode: Callable[[Outputs, DecodeSpec], list[Detections]]
    keeps_floor: bool = False

    def __call__(self, outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
        return self.decode(outputs, replace(spec, keeps_floor=self.keeps_floor))


DECODERS: Mapping[str, Decoder] = {
    "yolov5": Decoder(decode_yolov5),
    "yolov5_seg": Decoder(decode_yolov5_seg),
    "yolov8": Decoder(decode_yolov8),
    "yolov8_seg": Decoder(decode_yolov8_seg),
    "end2end": Decoder(decode_end2end),
    "end2end_seg": Decoder(decode_end2end_seg),
    "yolox": Decoder(decode_yolox, keeps_floor=True),  # `postprocess`: obj * cls >= conf_thre
    "yolox_raw": Decoder(decode_yolox_raw, keeps_floor=True),
    "rtdetr": Decoder(decode_rtdetr),
    "rtdetr_topk": Decoder(decode_rtdetr_topk),
    "rtdetr_labels": Decoder(decode_rtdetr_labels),
    "rfdetr": Decoder(decode_rfdetr),
    "ssd": Decoder(decode_ssd),
    "tf_detection": Decoder(decode_tf_detection),
    "torchvision": Decoder(decode_torchvision),
    "mmdet": Decoder(decode_mmdet),
    "blobs": Decoder(decode_blobs),
}
