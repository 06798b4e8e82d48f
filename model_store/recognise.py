"""What a weights file says about itself, so that `models add` needs no words for a usual export.

session of the weights + overrides -> ModelConfig. Order of evidence: the overrides (config file), the file's
metadata, the names of its outputs, their shapes. Where several decoders fit or none does, the model is
refused with the candidates and the line to write.
"""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np

from model_store.config import ModelConfig, parse_config
from model_store.decoders import DECODERS
from model_store.errors import ModelRefused
from model_store.evidence import MAX_SIDE_PX, Evidence, labels_of, read_evidence
from model_store.fit import SizePx
from model_store.presets import PRESETS, RECT_WHERE_FREE
from model_store.runtimes import WeightsSession
from model_store.signs import candidates

OTHER_TASKS = {
    "classify": "a classifier, which names no boxes",
    "pose": "a pose model",
    "obb": "a model of rotated boxes",
}


def recognise(runtime: str, session: WeightsSession, overrides: dict[str, Any]) -> ModelConfig:
    """Raises ModelRefused that says which line to put into the config file."""
    evidence = read_evidence(session, _given_px(overrides))
    labels = overrides.get("labels") or labels_of(evidence.metadata)
    decoder = overrides.get("decoder") or _decoder(evidence, len(labels))
    across, down = evidence.network_px
    size = {"side_px": across} | ({"height_px": down} if down != across else {})
    recognised: dict[str, Any] = {
        "runtime": {"kind": runtime},
        "labels": labels,
        "decoder": decoder,
        "preprocess": size | ({"divide_by": 1.0} if session.input.dtype == np.uint8 else {}),
        "licence": evidence.metadata.get("license", ""),
        "source": evidence.metadata.get("source", ""),
        "description": evidence.metadata.get("description", ""),
    }
    known: dict[str, Any] = PRESETS.get(decoder, {}) if isinstance(decoder, str) else {}
    if decoder in RECT_WHERE_FREE and evidence.any_size and evidence.stride_px:
        rect = {"preprocess": {"resize": "rect", "stride_px": evidence.stride_px}}
        known = _merge(known, rect)
    config = _merge(_merge(known, recognised), overrides)
    return parse_config(json.dumps(config), "config of the new version")


def _given_px(overrides: dict[str, Any]) -> SizePx | None:
    given: Any = overrides.get("preprocess")
    if not isinstance(given, dict):
        return None
    side: Any = cast(dict[str, Any], given).get("side_px")
    height: Any = cast(dict[str, Any], given).get("height_px") or side
    if not all(isinstance(x, int) and 0 < x <= MAX_SIDE_PX for x in (side, height)):
        return None
    return side, height


def _decoder(evidence: Evidence, classes: int) -> str:
    task = evidence.metadata.get("task", "detect")
    if task in OTHER_TASKS:
        raise ModelRefused(
            f"this is {OTHER_TASKS[task]} (metadata 'task': {task}); a detector is needed"
        )
    fitting = candidates(evidence, classes)
    segments = any(name.endswith("_seg") for name in fitting)
    if fitting and "task" in evidence.metadata and segments != (task == "segment"):
        raise ModelRefused(
            f"metadata 'task' says {task}, but the outputs {evidence.shapes} are those of "
            f"{', '.join(fitting)}; if that is right, say so in the config file: "
            f'{{"decoder": "{fitting[0]}"}}'
        )
    if len(fitting) == 1:
        return fitting[0]
    shapes = f"outputs {evidence.shapes} with {classes} labels and {evidence.network_px} px"
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
