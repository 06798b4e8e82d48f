"""Infer preprocessing and suppression for a graph, with the evidence for each choice.

Evidence, first steps of the graph, decoder -> Preparation(preprocess, nms, why)

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
from model_store.decoders import DECODERS
from model_store.decoders.evidence import Evidence, pyramids

AS_THEY_ARE = {"divide_by": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3}
AS_FRACTIONS = {**AS_THEY_ARE, "divide_by": 255.0}
BLACK = 0
CLASSIFIER_SIDE_PX = 224
CLASSIFIER_SCALING: dict[str, dict[str, Any]] = {
    "efficientnet-lite": {"divide_by": 1.0, "mean": [127.0] * 3, "std": [128.0] * 3}
}
"""Scaling by name in the metadata, lower case and with hyphens; tensorflow/tpu, efficientnet/lite (MEAN_RGB,
STDDEV_RGB)."""


@dataclass(frozen=True)
class Preparation:
    """Inferred settings; `why` gives the reason for each choice: input, pixels, resize, suppression."""

    preprocess: Mapping[str, Any]
    nms: Mapping[str, Any]
    why: Mapping[str, str]


def preparation(evidence: Evidence, scaling: Scaling, decoder: str, tiled: bool) -> Preparation:
    """Infer preprocessing and suppression. `tiled` images are never padded only to the stride."""
    foreign = decoder == "yolov8" and not of_ultralytics(evidence) and not _cells(evidence)
    record = DECODERS.get("ssd" if foreign else decoder)
    preprocess: Mapping[str, Any] = record.preprocess if record else {}
    nms: Mapping[str, Any] = record.nms if record else {}
    assumed = f"assumed: the usual for {decoder}"
    pixels, why_pixels = _pixels(evidence, scaling, preprocess, assumed)
    resize, why_resize, why_nms = {}, assumed, assumed
    if nms.get("kind") == "none":
        why_nms = "the graph suppresses, or its head needs no suppression"
    if decoder == "mmdet":
        why_resize = "assumed, as MMDetection's files do not state it: set preprocess in --config"
    if foreign:
        why_nms = f"{_anchors(evidence):,} anchors are not the cells of strides 4 to 64: not an Ultralytics export"
        why_resize = f"{why_nms}, so stretched as for SSD and torchvision"
        why_nms += ", so as for SSD"
    elif record and record.rect_where_free and evidence.any_size and evidence.stride_px and not tiled:
        resize = {"resize": "rect", "stride_px": evidence.stride_px}
        why_resize = "any size, and a stride in the metadata: padded to it as in Ultralytics"
    elif of_ultralytics(evidence):
        why_resize = "the metadata name Ultralytics"
    elif decoder == "yolov8":
        cells = f"{_anchors(evidence):,} anchors are the cells of neighbouring strides"
        why_resize = f"{cells}, as in exports of Ultralytics"
    if "pad_value" in pixels:
        why_resize += ", except the padding, see pixels"
    across, down = evidence.network_px
    size = {"side_px": across} | ({"height_px": down} if down != across else {})
    return Preparation(
        {**preprocess, **size, **pixels, **resize},
        nms,
        {"input": why_size(evidence), "pixels": why_pixels, "resize": why_resize, "suppression": why_nms},
    )


def _pixels(evidence: Evidence, scaling: Scaling, usual: Mapping[str, Any], assumed: str) -> tuple[dict[str, Any], str]:
    """Return range, order and padding of pixels, and the reason.

    An export with its own scaling in the graph was not made by the framework's code. So the framework's convention
    for bytes (BGR, as OpenCV reads files, and its padding) does not apply to it.
    """
    order = {"channel_order": "RGB"} if scaling.turned else {}
    reverses = "; it reverses the channels" if scaling.turned else ""
    if evidence.input.dtype == np.uint8:
        return {**AS_THEY_ARE, **order}, f"the graph takes integers{reverses}"
    if scaling.fed is None:
        begins = f" (the graph begins with {scaling.words})" if scaling.steps else ""
        return order, f"{assumed}{begins}{reverses}"
    begins = f"the graph begins with {scaling.words}{reverses}"
    if scaling.fed == "bytes":
        return {**AS_THEY_ARE, **order}, begins
    if usual.get("divide_by") != 1.0:
        return {**AS_FRACTIONS, **order}, begins
    inferred = {**AS_FRACTIONS, "channel_order": "RGB", "pad_value": BLACK}
    return inferred, f"{begins}, unlike the framework's exports: RGB and black padding are assumed"


def why_size(evidence: Evidence) -> str:
    """Return the reason for the size of the input."""
    if evidence.size_from == "graph":
        return "fixed by the graph"
    if evidence.size_from == "config":
        return "the config file"
    if evidence.size_from == "imgsz":
        return "any size; the metadata's 'imgsz'"
    p6 = f" for stride {P6_STRIDE_PX}" if evidence.stride_px == P6_STRIDE_PX else ""
    return (
        f"guessed: neither graph nor metadata state it, and {evidence.network_px[0]} is usual{p6}; if it was "
        "trained at another size, set preprocess.side_px in --config"
    )


def of_ultralytics(evidence: Evidence) -> bool:
    words = (evidence.metadata.get(key, "") for key in ("author", "description", "docs"))
    return any("ultralytics" in word.lower() for word in words)


def _anchors(evidence: Evidence) -> int:
    """Return the number of anchors of the only output (n, 4 + classes, anchors)."""
    return int(next(iter(evidence.outputs.values())).shape[-1])


def _cells(evidence: Evidence) -> bool:
    return _anchors(evidence) in pyramids(evidence.network_px)
