"""Whether a weights file is a classifier, and the config that it is added with.

Evidence, first steps of the graph, labels, overrides -> is_classifier; -> Findings(scores, preprocess, why)
One output with a score a label is a classifier, unless it may be meant for a decoder; metadata `task` settles it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.classifier import SUM_TOLERANCE, scores_of
from model_store.errors import ModelRefused
from model_store.evidence import Evidence
from model_store.preparation import AS_FRACTIONS, AS_THEY_ARE, of_ultralytics, why_size
from model_store.presets import CLASSIFIER_FAMILIES, CLASSIFIER_SIDE_PX, IMAGENET
from model_store.scaling import Scaling
from model_store.signs import candidates

CLASSIFY = "classify"
"""What exporters write as `task`."""


@dataclass(frozen=True)
class Findings:
    """`why` by what was chosen: kind, scores, input, pixels, resize."""

    scores: str
    preprocess: Mapping[str, Any]
    why: Mapping[str, str]


def is_classifier(evidence: Evidence, labels: int, overrides: Mapping[str, Any]) -> bool:
    """In this order: the config file, the metadata, the shape of the output."""
    if overrides.get("kind"):
        return overrides["kind"] == "classifier"
    if overrides.get("decoder"):
        return False
    task = evidence.metadata.get("task")
    if task:
        return task == CLASSIFY
    return _fits(evidence, labels) and not candidates(evidence, labels)


def findings(
    evidence: Evidence, scaling: Scaling, labels: int, overrides: Mapping[str, Any]
) -> Findings:
    """Raises ModelRefused for outputs that are no scores of these labels, or may be of two meanings."""
    if not _fits(evidence, labels):
        raise ModelRefused(
            f"this is said to be a classifier ({_said(evidence, overrides)}), but its outputs {evidence.shapes} are "
            f"not one score for each of its {labels} labels: is the number of labels right?"
        )
    scores, why_scores = _scores(evidence, labels, overrides)
    pixels, why_pixels = _pixels(evidence, scaling)
    guessed = evidence.size_from == "guess"
    across, down = (CLASSIFIER_SIDE_PX,) * 2 if guessed else evidence.network_px
    size = {"side_px": across} | ({"height_px": down} if down != across else {})
    usual = f"guessed: neither graph nor metadata say it, and {CLASSIFIER_SIDE_PX} is usual"
    return Findings(
        scores,
        {"resize": "stretch", **size, **pixels},
        {
            "kind": _said(evidence, overrides),
            "scores": why_scores,
            "input": usual if guessed else why_size(evidence),
            "pixels": why_pixels,
            "resize": "assumed: all of a crop is seen; many are trained on the middle of their pictures",
        },
    )


def _fits(evidence: Evidence, labels: int) -> bool:
    """A score a label; all other axes have the length 1."""
    shapes = [out.shape for out in evidence.outputs.values()]
    return len(shapes) == 1 and labels > 1 and sorted(shapes[0])[-2:] == [1, labels]


def _said(evidence: Evidence, overrides: Mapping[str, Any]) -> str:
    if overrides.get("kind"):
        return "the config file"
    task = evidence.metadata.get("task")
    outputs = f"outputs {evidence.shapes}: a score a label"
    return f"metadata 'task': {task}" if task else outputs


def _scores(evidence: Evidence, labels: int, overrides: Mapping[str, Any]) -> tuple[str, str]:
    if overrides.get("scores"):
        return str(overrides["scores"]), "the config file"
    (found,) = scores_of(evidence.outputs, 1, labels)
    least, most = float(found.min()), float(found.max())
    if least >= 0 and abs(float(found.sum()) - 1) <= SUM_TOLERANCE:
        return "probabilities", "those of a grey picture are 0 or more, and 1 together"
    if least >= 0 and most <= 1:
        lines = " or ".join(json.dumps({"scores": one}) for one in ("logits", "probabilities"))
        raise ModelRefused(
            f"scores of a grey picture lie from {least:.3g} to {most:.3g} and are not 1 together: logits, or "
            "labels that are judged one by one (a sigmoid), which is not offered? If you know, say so in the "
            f"config file: {lines}"
        )
    return "logits", f"those of a grey picture lie from {least:.3g} to {most:.3g}"


def _pixels(evidence: Evidence, scaling: Scaling) -> tuple[dict[str, Any], str]:
    """The type of the graph's input, its first steps, the metadata; else what most are trained with."""
    if evidence.input.dtype == np.uint8:
        return {**AS_THEY_ARE}, "the graph takes whole numbers"
    if scaling.fed is not None:
        scaled = AS_THEY_ARE if scaling.fed == "bytes" else AS_FRACTIONS
        return {**scaled}, f"the graph begins with {scaling.words}"
    if of_ultralytics(evidence):
        return {**AS_FRACTIONS}, "the metadata name Ultralytics"
    words = " ".join(evidence.metadata.values()).lower().replace("_", "-")
    for family, scaled in CLASSIFIER_FAMILIES.items():
        if family in words:
            return {**scaled}, f"the metadata name {family}"
    return {**IMAGENET}, "assumed: ImageNet's mean and deviation, as of torchvision and timm"
