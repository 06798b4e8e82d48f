"""Explain what was recognised in a weights file: config, evidence -> each choice with its evidence, as printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from model_store.config import AnyConfig, ClassifierConfig, EmbedderConfig, Nms, Preprocess
from model_store.decoders import DECODERS
from model_store.decoders.evidence import Evidence
from model_store.transform.thresholds import thresholds_in_words

GIVEN = "the config file"
FIELDS = {
    "labels": {"labels"},
    "input": {"side_px", "height_px"},
    "pixels": {"channel_order", "divide_by", "mean", "std"},
    "resize": {"resize", "pad_value", "stride_px", "interpolation"},
    "suppression": {"nms"},
    "threshold": {"thresholds"},
    "vector": {"size", "output"},
}
"""Fields of the config file, or of its `preprocess`, by choice: if it sets one of them, it is the reason."""
SHOWN_LABELS = 5


class Reason(NamedTuple):
    """A choice (`what`), its value (`found`), and its evidence (`why`)."""

    what: str
    found: str
    why: str


def reasons_for(config: AnyConfig, why: Mapping[str, str], overrides: Mapping[str, Any]) -> tuple[Reason, ...]:
    """Return the choices; `why` has their evidence by name, for those that the config file does not make."""
    across, down = config.preprocess.input_px
    labels = ", ".join(config.labels[:SHOWN_LABELS])
    more = len(config.labels) - SHOWN_LABELS
    found = {
        "labels": f"{len(config.labels)}: {labels}{f' and {more} more' if more > 0 else ''}",
        "input": f"{across} x {down} px",
        "pixels": _pixels(config.preprocess),
        "resize": _resize(config.preprocess),
    }
    if isinstance(config, ClassifierConfig):
        found = {"kind": config.kind, **found, "scores": config.scores}
    elif isinstance(config, EmbedderConfig):
        del found["labels"]
        found = {"kind": config.kind, **found, "vector": f"{config.size} numbers"}
    else:
        found = {"decoder": config.decoder, **found, "suppression": _nms(config.nms)}
        found["threshold"] = thresholds_in_words(config.thresholds.default, config.thresholds.per_label)
    given = overrides.keys() | given_preprocess(overrides).keys()
    return tuple(
        Reason(what, value, GIVEN if given & FIELDS.get(what, set()) else why[what]) for what, value in found.items()
    )


def given_preprocess(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return `preprocess` of the config file."""
    given: Any = overrides.get("preprocess")
    return cast(dict[str, Any], given) if isinstance(given, dict) else {}


def why_decoder(name: str, evidence: Evidence, classes: int, given: bool) -> str:
    """Return the evidence for a decoder."""
    outputs, spare = f"outputs {evidence.shapes}", ""
    if name == "rfdetr" and evidence.outputs["labels"].shape[-1] > classes:
        spare = f"; assumed: logits after the first {classes} are background; older RF-DETR has it first: then label it"
    if given:
        return GIVEN + spare
    decoder = DECODERS[name]
    if not decoder.description:
        return f"the names of {outputs}{spare}"
    looks = f"{outputs}: {decoder.described(classes)}"
    if evidence.declares_ranked and not decoder.unranked:
        return f"{looks}; the metadata state that the graph ranks ('end2end', or 'nms' in 'args')"
    if evidence.names_yolo and not decoder.unranked:
        return f"{looks}; the metadata name a YOLO ('head', 'description')"
    if evidence.names_rtdetr and decoder.rtdetr:
        return f"{looks}; the metadata name RT-DETR ('head', 'description')"
    return looks


def _pixels(spec: Preprocess) -> str:
    scaled = {255.0: "0 to 1", 1.0: "0 to 255"}.get(spec.divide_by, f"over {spec.divide_by:g}")
    if spec.mean == (0, 0, 0) and spec.std == (1, 1, 1):
        return f"{spec.channel_order}, {scaled}"
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (spec.mean, spec.std))
    return f"{spec.channel_order}, {scaled}, minus ({mean}), over ({std})"


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
