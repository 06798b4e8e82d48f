"""What was recognised of a weights file, in words: each choice with what it was made from.

config, Evidence, why of the preparation, overrides -> Reasons, in the order people ask for them
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from model_store.config import AnyConfig, ClassifierConfig, ModelConfig, Nms, Preprocess
from model_store.evidence import Evidence
from model_store.signs import names_rtdetr, names_yolo, says_ranked

GIVEN = "the config file"
FIELDS = {
    "input": {"side_px", "height_px"},
    "pixels": {"channel_order", "divide_by", "mean", "std"},
    "resize": {"resize", "pad_value", "stride_px", "interpolation"},
}
"""Of `preprocess`: which of them, given, make a choice the config file's."""
_LOOKS = {
    "yolov8": "4 + {classes} numbers for each anchor, without objectness",
    "yolov8_seg": "4 + {classes} numbers and coefficients for each anchor, and prototypes",
    "yolov5": "5 + {classes} numbers a row, three rows to a cell of strides 8, 16, 32 (64)",
    "yolov5_seg": "5 + {classes} numbers and coefficients a row, three rows to a cell, and prototypes",
    "yolox": "5 + {classes} numbers a row, one row to a cell, centres all over the picture",
    "yolox_raw": "5 + {classes} numbers a row, one row to a cell, centres within a few cells of it",
    "end2end": "a list of corners, score and class",
    "end2end_seg": "a list of corners, score, class and coefficients, and prototypes",
    "rtdetr": "4 + {classes} numbers for each query",
    "rtdetr_topk": "a list of centre, size, score and class",
}
SHOWN_LABELS = 5


class Reason(NamedTuple):
    """What was chosen, for what, and why."""

    what: str
    found: str
    why: str


def reasons_for(
    config: ModelConfig, evidence: Evidence, why: Mapping[str, str], overrides: Mapping[str, Any]
) -> tuple[Reason, ...]:
    return (
        Reason("decoder", config.decoder, _decoder(config, evidence, "decoder" in overrides)),
        *_prepared(config, why, overrides),
        Reason(
            "suppression", _nms(config.nms), GIVEN if "nms" in overrides else why["suppression"]
        ),
    )


def reasons_for_classifier(
    config: ClassifierConfig, why: Mapping[str, str], overrides: Mapping[str, Any]
) -> tuple[Reason, ...]:
    return (
        Reason("kind", config.kind, why["kind"]),
        *_prepared(config, why, overrides),
        Reason("scores", config.scores, why["scores"]),
    )


def _prepared(
    config: AnyConfig, why: Mapping[str, str], overrides: Mapping[str, Any]
) -> tuple[Reason, ...]:
    """Labels, and how pictures are prepared."""
    spec, given = config.preprocess, overrides.get("preprocess")
    fields = set(cast(Mapping[str, Any], given)) if isinstance(given, dict) else set[str]()
    whose = {what: GIVEN if fields & FIELDS[what] else why[what] for what in FIELDS}
    across, down = spec.input_px
    labels = ", ".join(config.labels[:SHOWN_LABELS])
    more = len(config.labels) - SHOWN_LABELS
    return (
        Reason(
            "labels",
            f"{len(config.labels)}: {labels}{f' and {more} more' if more > 0 else ''}",
            GIVEN if overrides.get("labels") else "'names' in the metadata",
        ),
        Reason("input", f"{across} x {down} px", whose["input"]),
        Reason("pixels", _pixels(spec), whose["pixels"]),
        Reason("resize", _resize(spec), whose["resize"]),
    )


def _decoder(config: ModelConfig, evidence: Evidence, given: bool) -> str:
    labels = evidence.outputs.get("labels")
    beyond = labels.shape[-1] - len(config.labels) if labels is not None else 0
    spare = config.decoder == "rfdetr" and beyond > 1
    unused = f"; {beyond} logits beyond the labels are taken for background" if spare else ""
    if given:
        return GIVEN + unused
    outputs = f"outputs {evidence.shapes}"
    if config.decoder not in _LOOKS:
        return f"the names of {outputs}"
    looks = f"{outputs}: {_LOOKS[config.decoder].format(classes=len(config.labels))}"
    if config.decoder.startswith("end2end") and says_ranked(evidence):
        return f"{looks}; the metadata say that the graph ranks ('end2end', or 'nms' in 'args')"
    if config.decoder == "end2end" and names_yolo(evidence):
        return f"{looks}; the metadata name a YOLO ('head', 'description')"
    if config.decoder.startswith("rtdetr") and names_rtdetr(evidence):
        return f"{looks}; the metadata name RT-DETR ('head', 'description')"
    return looks


def _pixels(spec: Preprocess) -> str:
    scaled = {255.0: "0 to 1", 1.0: "0 to 255"}.get(spec.divide_by, f"over {spec.divide_by:g}")
    if spec.mean == (0, 0, 0) and spec.std == (1, 1, 1):
        return f"{spec.channel_order}, {scaled}"
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (spec.mean, spec.std))
    return f"{spec.channel_order}, {scaled}, less ({mean}), over ({std})"


def _resize(spec: Preprocess) -> str:
    if spec.resize == "stretch":
        return "stretch"
    to = f" to {spec.stride_px} px" if spec.resize == "rect" else ""
    return f"{spec.resize}{to}, padded with {spec.pad_value}"


def _nms(spec: Nms) -> str:
    if spec.kind == "none":
        return f"none, at most {spec.max_detections}"
    classes = "within a class" if spec.class_aware else "across classes"
    inclusive = ", pixels inclusive" if spec.inclusive_px else ""
    return f"over IoU {spec.iou:g}, {classes}{inclusive}, at most {spec.max_detections}"
