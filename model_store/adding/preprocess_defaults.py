"""Infer preprocessing and suppression for a graph, with the evidence for each choice.

Evidence, first steps of the graph, decoder -> InferredPreprocess(fields of the config, reasons)

Evidence in this order: the type of the graph's input, its first steps (`input_scaling.py`), size and stride in the
metadata, the number of anchors. All else follows the decoder's framework (`DECODERS`), and `why` calls it assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.adding.evidence import P6_STRIDE_PX
from model_store.adding.input_scaling import Scaling
from model_store.decoders import DECODERS, IMAGENET
from model_store.decoders.evidence import Evidence, pyramids, stride

AS_THEY_ARE = {"divide_by": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3}
AS_FRACTIONS = {**AS_THEY_ARE, "divide_by": 255.0}
BLACK = 0
CROP_SIDE_PX = 224
CROP_SCALING: dict[str, dict[str, Any]] = {
    "efficientnet-lite": {"divide_by": 1.0, "mean": [127.0] * 3, "std": [128.0] * 3}
}
"""Scaling by name in the metadata, lower case and with hyphens; tensorflow/tpu, efficientnet/lite (MEAN_RGB,
STDDEV_RGB)."""
GUESSED = "guessed: neither graph nor metadata state it, and {side_px} is usual"


@dataclass(frozen=True)
class InferredPreprocess:
    """Inferred fields of config.json; `why` gives the reason for each choice by its name in `explain.py`."""

    fields: Mapping[str, Any]
    why: Mapping[str, str]


def infer_detector(evidence: Evidence, scaling: Scaling, decoder: str, tiled: bool) -> InferredPreprocess:
    """Infer preprocessing and suppression. `tiled` images are never padded only to the stride."""
    ultralytics = _is_ultralytics(evidence)
    has_cells = decoder == "yolov8" and _anchors(evidence) in pyramids(evidence.network_px)
    foreign = decoder == "yolov8" and not ultralytics and not has_cells
    record = DECODERS.get("ssd" if foreign else decoder)
    preprocess: Mapping[str, Any] = record.preprocess if record else {}
    nms: Mapping[str, Any] = record.nms if record else {}
    assumed = f"assumed: the usual for {decoder}"
    pixels, why_pixels = _pixels(evidence, scaling, preprocess, assumed)
    resize, why_resize, why_nms = {}, assumed, assumed
    stride_px = stride(evidence.metadata)
    if nms.get("kind") == "none":
        why_nms = "the graph suppresses, or its head needs no suppression"
    if decoder == "mmdet":
        why_resize = "assumed, as MMDetection's files do not state it: set preprocess in --config"
    if foreign:
        why_nms = f"{_anchors(evidence):,} anchors are not the cells of strides 4 to 64: not an Ultralytics export"
        why_resize = f"{why_nms}, so stretched as for SSD and torchvision"
        why_nms += ", so as for SSD"
    elif record and record.rect_where_free and evidence.input.size_px == (None, None) and stride_px and not tiled:
        resize = {"resize": "rect", "stride_px": stride_px}
        why_resize = "any size, and a stride in the metadata: padded to it as in Ultralytics"
    elif ultralytics:
        why_resize = "the metadata name Ultralytics"
    elif decoder == "yolov8":
        cells = f"{_anchors(evidence):,} anchors are the cells of neighbouring strides"
        why_resize = f"{cells}, as in exports of Ultralytics"
    if "pad_value" in pixels:
        why_resize += ", except the padding, see pixels"
    return InferredPreprocess(
        {"decoder": decoder, "preprocess": {**preprocess, **_size(evidence), **pixels, **resize}, "nms": dict(nms)},
        {"input": _why_size(evidence), "pixels": why_pixels, "resize": why_resize, "suppression": why_nms},
    )


def infer_crops(kind: str, evidence: Evidence, scaling: Scaling) -> InferredPreprocess:
    """Infer the preprocessing of a classifier or an embedder."""
    pixels, why_pixels = _crop_pixels(evidence, scaling)
    size, why_input = _size(evidence), _why_size(evidence)
    if evidence.size_from == "guess":
        size, why_input = {"side_px": CROP_SIDE_PX}, GUESSED.format(side_px=CROP_SIDE_PX)
    resize = "assumed: the whole crop is used; many are trained on the centre of their images"
    return InferredPreprocess(
        {"kind": kind, "preprocess": {"resize": "stretch", **size, **pixels}},
        {"input": why_input, "pixels": why_pixels, "resize": resize},
    )


def _pixels(evidence: Evidence, scaling: Scaling, usual: Mapping[str, Any], assumed: str) -> tuple[dict[str, Any], str]:
    """Return range, order and padding of pixels, and the reason.

    An export with its own scaling in the graph was not made by the framework's code. So the framework's convention
    for bytes (BGR, as OpenCV reads files, and its padding) does not apply to it.
    """
    order = {"channel_order": "RGB"} if scaling.turned else {}
    reverses = "; it reverses the channels" if scaling.turned else ""
    known = _known_range(evidence, scaling)
    if known is None:
        begins = f" (the graph begins with {scaling.words})" if scaling.steps else ""
        return order, f"{assumed}{begins}{reverses}"
    pixels, why = known
    why += reverses
    if pixels == AS_THEY_ARE or usual.get("divide_by") != 1.0:
        return {**pixels, **order}, why
    inferred = {**pixels, "channel_order": "RGB", "pad_value": BLACK}
    return inferred, f"{why}, unlike the framework's exports: RGB and black padding are assumed"


def _crop_pixels(evidence: Evidence, scaling: Scaling) -> tuple[Mapping[str, Any], str]:
    """Return range and scaling of pixels, and the reason: the graph, the metadata, else the most common training."""
    if known := _known_range(evidence, scaling):
        return known
    if _is_ultralytics(evidence):
        return AS_FRACTIONS, "the metadata name Ultralytics"
    words = " ".join(evidence.metadata.values()).lower().replace("_", "-")
    for network, scaled in CROP_SCALING.items():
        if network in words:
            return scaled, f"the metadata name {network}"
    return IMAGENET, "assumed: ImageNet's mean and deviation, as of torchvision and timm"


def _known_range(evidence: Evidence, scaling: Scaling) -> tuple[Mapping[str, Any], str] | None:
    """Return the range of pixels that the graph itself states, and the reason."""
    if evidence.input.dtype == np.uint8:
        return AS_THEY_ARE, "the graph takes integers"
    if scaling.fed is None:
        return None
    return AS_THEY_ARE if scaling.fed == "bytes" else AS_FRACTIONS, f"the graph begins with {scaling.words}"


def _size(evidence: Evidence) -> dict[str, int]:
    across, down = evidence.network_px
    return {"side_px": across} | ({"height_px": down} if down != across else {})


def _why_size(evidence: Evidence) -> str:
    known = {"graph": "fixed by the graph", "config": "the config file", "imgsz": "any size; the metadata's 'imgsz'"}
    if evidence.size_from != "guess":
        return known[evidence.size_from]
    p6 = f" for stride {P6_STRIDE_PX}" if stride(evidence.metadata) == P6_STRIDE_PX else ""
    usual = GUESSED.format(side_px=evidence.network_px[0])
    return f"{usual}{p6}; if it was trained at another size, set preprocess.side_px in --config"


def _is_ultralytics(evidence: Evidence) -> bool:
    words = (evidence.metadata.get(key, "") for key in ("author", "description", "docs"))
    return any("ultralytics" in word.lower() for word in words)


def _anchors(evidence: Evidence) -> int:
    """Return the number of anchors of the only output (n, 4 + classes, anchors)."""
    return int(next(iter(evidence.outputs.values())).shape[-1])
