"""What a weights file says about itself, so that `models add` needs no words for a usual export.

ONNX bytes + overrides -> ModelConfig. Order of evidence: the overrides (config file), the file's
metadata, the names of its outputs, their shapes. Where several decoders fit or none does, the model is
refused with the candidates and the line to write.
"""

from __future__ import annotations

import json
from typing import Any

from model_store.config import ModelConfig, parse_config
from model_store.decoders import DECODERS
from model_store.errors import ModelRefused
from model_store.evidence import Evidence, labels_of, read_evidence
from model_store.presets import PRESETS
from model_store.signs import candidates

OTHER_TASKS = {
    "classify": "a classifier, which names no boxes",
    "pose": "a pose model",
    "obb": "a model of rotated boxes",
    "segment": "a segmentation model",
}


def recognise_onnx(weights: bytes, overrides: dict[str, Any]) -> ModelConfig:
    """Raises ModelRefused that says which line to put into the config file."""
    evidence = read_evidence(weights, _given_side(overrides))
    labels = overrides.get("labels") or labels_of(evidence.metadata)
    decoder = overrides.get("decoder") or _decoder(evidence, len(labels))
    recognised: dict[str, Any] = {
        "runtime": {"kind": "onnx"},
        "labels": labels,
        "decoder": decoder,
        "preprocess": {"side_px": evidence.side_px}
        | ({"divide_by": 1.0} if evidence.uint8 else {}),
        "licence": evidence.metadata.get("license", ""),
        "source": evidence.metadata.get("source", ""),
        "description": evidence.metadata.get("description", ""),
    }
    known: dict[str, Any] = PRESETS.get(decoder, {}) if isinstance(decoder, str) else {}
    config = _merge(_merge(known, recognised), overrides)
    return parse_config(json.dumps(config), "config of the new version")


def _given_side(overrides: dict[str, Any]) -> int | None:
    given: Any = overrides.get("preprocess")
    side: Any = given.get("side_px") if isinstance(given, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return side if isinstance(side, int) and side > 0 else None


def _decoder(evidence: Evidence, classes: int) -> str:
    task = evidence.metadata.get("task", "detect")
    if task in OTHER_TASKS:
        raise ModelRefused(
            f"this is {OTHER_TASKS[task]} (metadata 'task': {task}); a detector is needed"
        )
    fitting = candidates(evidence, classes)
    if len(fitting) == 1:
        return fitting[0]
    shapes = f"outputs {evidence.shapes} with {classes} labels and side {evidence.side_px} px"
    if fitting:
        lines = " or ".join(f'{{"decoder": "{name}"}}' for name in fitting)
        raise ModelRefused(
            f"{shapes} may mean several things; say which in the config file: {lines}"
        )
    raise ModelRefused(
        f"{shapes} fit no known decoder (is the number of labels right?); if you know it, say so in "
        f'the config file: {{"decoder": "yolov8"}}; there is: {", ".join(sorted(DECODERS))}'
    )


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` wins, field by field, also inside nested objects."""
    merged = dict(base)
    for name, value in over.items():
        below: Any = merged.get(name)
        both = isinstance(value, dict) and isinstance(below, dict)
        merged[name] = _merge(below, value) if both else value  # pyright: ignore[reportUnknownArgumentType]
    return merged
