"""What a weights file says about itself, so that `models add` needs no words for a usual export.

session of the weights + overrides -> ModelConfig. Order of evidence: the overrides (config file), the file's
metadata, the names of its outputs, their shapes. Where several decoders fit or none does, the model is
refused with the candidates and the line to write.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from model_store.config import ModelConfig, parse_config
from model_store.errors import ModelRefused
from model_store.evidence import MAX_SIDE_PX, Evidence, labels_of, read_evidence
from model_store.fit import SizePx
from model_store.presets import PRESETS, RECT_WHERE_FREE
from model_store.runtimes import WeightsSession
from model_store.signs import candidates, contradicted, possible

OTHER_TASKS = {
    "classify": "a classifier, which names no boxes",
    "pose": "a pose model",
    "obb": "a model of rotated boxes",
}


def recognise(runtime: str, session: WeightsSession, overrides: dict[str, Any]) -> ModelConfig:
    """Raises ModelRefused that says which line to put into the config file."""
    _require_kinds(overrides)
    evidence = read_evidence(session, _given_px(overrides))
    labels: list[str] = overrides.get("labels") or labels_of(evidence.metadata)
    decoder: str = overrides.get("decoder") or _decoder(evidence, len(labels))
    recognised: dict[str, Any] = {
        "runtime": {"kind": runtime},
        "labels": labels,
        "decoder": decoder,
        "preprocess": _preprocess(evidence, decoder, bool(_part(overrides).get("tiling"))),
        "licence": evidence.metadata.get("license", ""),
        "source": evidence.metadata.get("source", ""),
        "description": evidence.metadata.get("description", ""),
    }
    config = _merge(_merge(PRESETS.get(decoder, {}), recognised), overrides)
    return parse_config(json.dumps(config), "config of the new version")


def _require_kinds(overrides: dict[str, Any]) -> None:
    """Of what recognition itself looks at; the rest is checked when all of the config is known."""
    labels, decoder = overrides.get("labels"), overrides.get("decoder")
    names = cast(Sequence[object], labels) if isinstance(labels, list | tuple) else (None,)
    if labels is not None and not all(isinstance(name, str) for name in names):
        raise ModelRefused(
            f'labels: {labels!r} is no list of names; write {{"labels": ["deer", …]}}'
        )
    if decoder is not None and not isinstance(decoder, str):
        raise ModelRefused(f'decoder: {decoder!r} is no name; write {{"decoder": "yolov8"}}')


def _preprocess(evidence: Evidence, decoder: str, tiled: bool) -> dict[str, Any]:
    """What the graph's input says: its size, whole numbers, and padding to the stride where it is free."""
    across, down = evidence.network_px
    found: dict[str, Any] = {"side_px": across}
    if down != across:
        found["height_px"] = down
    if evidence.input.dtype == np.uint8:
        found |= {"divide_by": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3}
    if decoder in RECT_WHERE_FREE and evidence.any_size and evidence.stride_px and not tiled:
        found |= {"resize": "rect", "stride_px": evidence.stride_px}
    return found


def _part(overrides: dict[str, Any]) -> dict[str, Any]:
    """What the config file says of preprocessing."""
    given: Any = overrides.get("preprocess")
    return cast(dict[str, Any], given) if isinstance(given, dict) else {}


def _given_px(overrides: dict[str, Any]) -> SizePx | None:
    side: Any = _part(overrides).get("side_px")
    height: Any = _part(overrides).get("height_px") or side
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
    if contradicted(evidence, fitting):
        raise ModelRefused(
            "the metadata ('end2end', or 'nms' in 'args') say that the graph ranks its detections, but the "
            f"outputs {evidence.shapes} are those of {', '.join(fitting)}, before any suppression; if that "
            f"is right, say so in the config file: {_lines(fitting)}"
        )
    if len(fitting) == 1:
        return fitting[0]
    shapes = f"outputs {evidence.shapes} with {classes} labels and {evidence.network_px} px"
    if fitting:
        raise ModelRefused(
            f"{shapes} may mean several things; say which in the config file: {_lines(fitting)}"
        )
    raise ModelRefused(
        f"{shapes} fit no known decoder (is the number of labels right?); if you know it, say so in "
        f"the config file; with as many outputs there is: {_lines(possible(evidence))}"
    )


def _lines(decoders: Sequence[str]) -> str:
    return " or ".join(f'{{"decoder": "{name}"}}' for name in decoders)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` wins, field by field, also inside nested objects."""
    merged = dict(base)
    for name, value in over.items():
        below: Any = merged.get(name)
        both = isinstance(value, dict) and isinstance(below, dict)
        merged[name] = _merge(below, value) if both else value  # pyright: ignore[reportUnknownArgumentType]
    return merged
