"""Decode raw network outputs to boxes in network px: one pure function per decoder, and one record in DECODERS.

decode(outputs by name, DecodeSpec) -> list of Detections before NMS, one per image. Scores are above score_floor,
or equal to it if the framework's own code keeps those. Steps to add a decoder: docs/reference/decoders.md.

Decoders with common arithmetic share a file: lists that are ranked already, the exports of one head, and the masks of
three heads. Exports of one head are YOLOX with its grid decoded or not, and the three of RT-DETR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from model_store.decoders import ranked, rfdetr, rtdetr, segment, ssd, yolo, yolox
from model_store.decoders.evidence import Evidence, is_ranked
from model_store.decoders.layout import DecodeSpec, Outputs
from model_store.detections import Detections

IMAGENET: dict[str, Any] = {"divide_by": 255.0, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
"""Scaling that torchvision's and timm's classifiers, and RF-DETR, are trained with."""
LETTERBOX = {"resize": "letterbox", "pad_value": 114}
STRETCH = {"resize": "stretch"}
RANKED: dict[str, Any] = {"kind": "none", "max_detections": 300}
"""Suppression for heads without need of it: rank and limit the number only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """A decoder, and what `models add` needs to recognise and configure the exports that it decodes."""

    decode: Callable[[Outputs, DecodeSpec], list[Detections]]
    fits: Callable[[Evidence, int], bool] | None = None
    """Return whether outputs of these `names`, or else `ranks`, fit a number of classes; None for runtime motion."""
    names: frozenset[str] = frozenset()
    """Names of the outputs where the format defines them."""
    masks: bool = False
    """True if the graph has a second output, the prototypes of masks."""
    description: str = ""
    """Words for outputs that are recognised by shape, with the unit of boxes; `{classes}` stands for their number."""
    preprocess: Mapping[str, Any] = field(default_factory=dict[str, Any])
    nms: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The usual suppression; sources of it and of `preprocess`: the frameworks' own code for inference."""
    keeps_floor: bool = False
    """True if a score of exactly score_floor is kept (`>=`, not `>`)."""
    unranked: bool = False
    """True if the graph does not rank its detections, for outputs that are recognised by shape."""
    rtdetr: bool = False
    """True for the exports of RT-DETR: metadata that name it fit only these."""
    rect_where_free: bool = False
    """True for Ultralytics, which pads exports of any size only to the stride (`auto` of its LetterBox)."""

    def __call__(self, outputs: Outputs, spec: DecodeSpec) -> list[Detections]:
        return self.decode(outputs, replace(spec, keeps_floor=self.keeps_floor))

    def described(self, classes: int) -> str:
        """Return the words for the outputs."""
        return self.description.format(classes=classes)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Return the ranks of the outputs of a format without names."""
        return (3, 4) if self.masks else (3,)


_YOLOV8 = Decoder(
    decode=yolo.decode_yolov8,
    fits=yolo.fits_yolov8,
    description="4 + {classes} numbers for each anchor, without objectness",
    preprocess=LETTERBOX,
    nms={"iou": 0.7},
    unranked=True,
    rect_where_free=True,
)
_YOLOV5 = Decoder(
    decode=yolo.decode_yolov5,
    fits=yolo.fits_yolov5,
    description="5 + {classes} numbers per row, three rows per cell of strides 8, 16, 32 (64)",
    preprocess=LETTERBOX,
    nms={"iou": 0.45},
    unranked=True,
)
_YOLOX = Decoder(
    decode=yolox.decode_yolox,
    fits=yolox.fits_yolox,
    description="5 + {classes} numbers per row, one row per cell, centres all over the image",
    preprocess={"resize": "fit_top_left", "pad_value": 114, "channel_order": "BGR", "divide_by": 1.0},
    nms={"iou": 0.45, "class_aware": False, "inclusive_px": True},
    keeps_floor=True,  # `postprocess`: obj * cls >= conf_thre
    unranked=True,
)
_END2END = Decoder(
    decode=ranked.decode_end2end,
    fits=ranked.fits_end2end,
    description="a list of corners in px, score and class",
    preprocess=LETTERBOX,
    nms=RANKED,
    rect_where_free=True,
)
DECODERS: Mapping[str, Decoder] = {
    "yolov8": _YOLOV8,
    "yolov5": _YOLOV5,
    "yolox": _YOLOX,
    "yolox_raw": replace(
        _YOLOX,
        decode=yolox.decode_yolox_raw,
        fits=yolox.fits_yolox_raw,
        description="5 + {classes} numbers per row, one row per cell, centres within a few cells of it",
    ),
    "end2end": _END2END,
    "rtdetr": Decoder(
        decode=rtdetr.decode_rtdetr,
        fits=rtdetr.fits_rtdetr,
        description="4 + {classes} numbers for each query",
        preprocess=STRETCH,
        nms=RANKED,
        unranked=True,
        rtdetr=True,
    ),
    "rtdetr_topk": Decoder(
        decode=rtdetr.decode_rtdetr_topk,
        fits=rtdetr.fits_rtdetr_topk,
        description="a list of centre and size as fractions, score and class",
        preprocess=STRETCH,
        nms=RANKED,
        rtdetr=True,
    ),
    "yolov8_seg": replace(
        _YOLOV8,
        decode=segment.decode_yolov8_seg,
        masks=True,
        description="4 + {classes} numbers and coefficients for each anchor, and prototypes",
    ),
    "yolov5_seg": replace(
        _YOLOV5,
        decode=segment.decode_yolov5_seg,
        masks=True,
        description="5 + {classes} numbers and coefficients per row, three rows per cell, and prototypes",
    ),
    "end2end_seg": replace(
        _END2END,
        decode=segment.decode_end2end_seg,
        fits=is_ranked,
        masks=True,
        description="a list of corners in px, score, class and coefficients, and prototypes",
    ),
    "tf_detection": Decoder(
        decode=ranked.decode_tf_detection,
        fits=ranked.fits_tf_detection,
        names=frozenset({"detection_boxes", "detection_scores", "detection_classes", "num_detections"}),
        preprocess=STRETCH,
        nms=RANKED,
    ),
    "torchvision": Decoder(
        decode=ranked.decode_torchvision,
        fits=ranked.fits_torchvision,
        names=frozenset({"boxes", "labels", "scores"}),
        preprocess=STRETCH,
        nms=RANKED,
    ),
    "rtdetr_labels": Decoder(
        decode=rtdetr.decode_rtdetr_labels,
        fits=rtdetr.fits_rtdetr_labels,
        names=frozenset({"boxes", "labels", "scores"}),
        preprocess=STRETCH,
        nms=RANKED,
        rtdetr=True,
    ),
    "rfdetr": Decoder(
        decode=rfdetr.decode_rfdetr,
        fits=rfdetr.fits_rfdetr,
        names=frozenset({"dets", "labels"}),
        preprocess={**STRETCH, "mean": IMAGENET["mean"], "std": IMAGENET["std"]},
        nms=RANKED,
    ),
    "mmdet": Decoder(
        decode=ranked.decode_mmdet,
        fits=ranked.fits_mmdet,
        names=frozenset({"dets", "labels"}),
        preprocess=STRETCH,
        nms=RANKED,
    ),
    "ssd": Decoder(
        decode=ssd.decode_ssd,
        fits=ssd.fits_ssd,
        names=frozenset({"boxes", "scores"}),
        preprocess=STRETCH,
        nms={"iou": 0.6},
    ),
    "blobs": Decoder(decode=ranked.decode_blobs),
}
