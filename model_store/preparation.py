"""How pictures are prepared for a graph, and suppressed after it, with the evidence for each choice.

Evidence, first steps of the graph, decoder -> Preparation(preprocess, nms, why)

In this order: the type of the graph's input, its first steps (`scaling.py`), the size and stride that the metadata
state, the number of anchors. What they leave open is what the decoder's own framework does (`presets.py`), which
`why` then calls assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.evidence import P6_STRIDE_PX, Evidence
from model_store.presets import PRESETS, RECT_WHERE_FREE
from model_store.scaling import Scaling
from model_store.signs import pyramids

AS_THEY_ARE = {"divide_by": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3}
AS_FRACTIONS = {**AS_THEY_ARE, "divide_by": 255.0}
BLACK = 0


@dataclass(frozen=True)
class Preparation:
    """`why` by what was chosen: input, pixels, resize, suppression."""

    preprocess: Mapping[str, Any]
    nms: Mapping[str, Any]
    why: Mapping[str, str]


def preparation(evidence: Evidence, scaling: Scaling, decoder: str, tiled: bool) -> Preparation:
    """`tiled` pictures are never padded to the stride only."""
    alien = decoder == "yolov8" and not of_ultralytics(evidence) and not _cells(evidence)
    usual = PRESETS.get("ssd" if alien else decoder, {})
    assumed = f"assumed: what is usual for {decoder}"
    pixels, why_pixels = _pixels(evidence, scaling, usual.get("preprocess", {}), assumed)
    resize, why_resize, why_nms = {}, assumed, assumed
    if usual.get("nms", {}).get("kind") == "none":
        why_nms = "its graph suppresses, or its head needs none"
    if decoder == "mmdet":
        why_resize = "assumed, as MMDetection's files do not say: give preprocess in --config"
    if alien:
        why_nms = f"{_anchors(evidence):,} anchors are no cells of strides 4 to 64, so no export of Ultralytics"
        why_resize = f"{why_nms}: stretched, as for SSD and torchvision"
        why_nms += ": as for SSD"
    elif decoder in RECT_WHERE_FREE and evidence.any_size and evidence.stride_px and not tiled:
        resize = {"resize": "rect", "stride_px": evidence.stride_px}
        why_resize = "any size, and a stride in the metadata: padded to it, as by Ultralytics"
    elif of_ultralytics(evidence):
        why_resize = "the metadata name Ultralytics"
    elif decoder == "yolov8":
        cells = f"{_anchors(evidence):,} anchors are the cells of neighbouring strides"
        why_resize = f"{cells}, as in exports of Ultralytics"
    if "pad_value" in pixels:
        why_resize += ", but for the padding, see pixels"
    across, down = evidence.network_px
    size = {"side_px": across} | ({"height_px": down} if down != across else {})
    return Preparation(
        {**usual.get("preprocess", {}), **size, **pixels, **resize},
        usual.get("nms", {}),
        {
            "input": why_size(evidence),
            "pixels": why_pixels,
            "resize": why_resize,
            "suppression": why_nms,
        },
    )


def _pixels(
    evidence: Evidence, scaling: Scaling, usual: Mapping[str, Any], assumed: str
) -> tuple[dict[str, Any], str]:
    """Range, order and padding. Whoever folds the scaling into a graph has his own code in front of it, so
    that a framework's habits of bytes (BGR, as OpenCV reads files, and its padding) say nothing about it.
    """
    turned = {"channel_order": "RGB"} if scaling.turned else {}
    turns = "; it turns the channels round itself" if scaling.turned else ""
    if evidence.input.dtype == np.uint8:
        return {**AS_THEY_ARE, **turned}, f"the graph takes whole numbers{turns}"
    if scaling.fed is None:
        begins = f" (the graph begins with {scaling.words})" if scaling.steps else ""
        return turned, f"{assumed}{begins}{turns}"
    begins = f"the graph begins with {scaling.words}{turns}"
    if scaling.fed == "bytes":
        return {**AS_THEY_ARE, **turned}, begins
    if usual.get("divide_by") != 1.0:
        return {**AS_FRACTIONS, **turned}, begins
    found = {**AS_FRACTIONS, "channel_order": "RGB", "pad_value": BLACK}
    return found, f"{begins}, which its framework's own does not: RGB and black padding are assumed"


def why_size(evidence: Evidence) -> str:
    if evidence.size_from == "graph":
        return "fixed by the graph"
    if evidence.size_from == "config":
        return "the config file"
    if evidence.size_from == "imgsz":
        return "any size; the metadata's 'imgsz'"
    p6 = f" for stride {P6_STRIDE_PX}" if evidence.stride_px == P6_STRIDE_PX else ""
    return (
        f"guessed: neither graph nor metadata say it, and {evidence.network_px[0]} is usual{p6}; if it was "
        "trained at another, give preprocess.side_px in --config"
    )


def of_ultralytics(evidence: Evidence) -> bool:
    words = (evidence.metadata.get(key, "") for key in ("author", "description", "docs"))
    return any("ultralytics" in word.lower() for word in words)


def _anchors(evidence: Evidence) -> int:
    """Of the one output (n, 4 + classes, anchors)."""
    return int(next(iter(evidence.outputs.values())).shape[-1])


def _cells(evidence: Evidence) -> bool:
    return _anchors(evidence) in pyramids(evidence.network_px)
