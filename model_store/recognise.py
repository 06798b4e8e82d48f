"""What a weights file says about itself, so that `models add` needs few words.

ONNX bytes + overrides -> ModelConfig. Order of evidence: the overrides (config file), the file's
metadata (`names`, `imgsz`, `license`, `source`), its input and output shapes. `names` is a Python
literal by convention and is parsed as one, never evaluated.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (libraries here have no complete types)

from __future__ import annotations

import ast
import json
from typing import Any

from model_store.config import ModelConfig, parse_config
from model_store.errors import ModelRefused

MAX_NAMES_CHARS = 1_000_000


def recognise_onnx(weights: bytes, overrides: dict[str, Any]) -> ModelConfig:
    """Raises ModelRefused that says which line to put into the config file."""
    from model_store.runtimes.onnx import ort  # only a store with ONNX models needs it

    try:
        session = ort.InferenceSession(weights, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen unrelated kinds
        raise ModelRefused(f"this is no ONNX file that loads: {error}"[:500]) from error
    metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)
    labels = overrides.get("labels") or _labels(metadata)
    recognised: dict[str, Any] = {
        "runtime": {"kind": "onnx"},
        "labels": labels,
        "decoder": overrides.get("decoder") or _decoder(session, len(labels)),
        "licence": metadata.get("license", ""),
        "source": metadata.get("source", ""),
        "description": metadata.get("description", ""),
    }
    side = session.get_inputs()[0].shape[-1]
    if isinstance(side, int):
        recognised["preprocess"] = {"side_px": side}
    return parse_config(json.dumps(_merge(recognised, overrides)), "config of the new version")


def _labels(metadata: dict[str, str]) -> list[str]:
    text = metadata.get("names", "")
    try:
        if len(text) > MAX_NAMES_CHARS:
            raise ValueError("too long")
        names: Any = ast.literal_eval(text)
        if isinstance(names, dict):
            names = [names[index] for index in range(len(names))]
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError("not a list of strings")
        if not names:
            raise ValueError("empty")
        return list(names)
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise ModelRefused(
            f"the weights name no usable labels (metadata 'names': {error}); "
            'give them in the config file: {"labels": ["deer", …]}'
        ) from error


def _decoder(session: Any, classes: int) -> str:
    shapes = {output.name: output.shape for output in session.get_outputs()}
    first = next(iter(shapes.values()))
    if len(shapes) == 1 and len(first) == 3 and first[1] == 4 + classes:
        return "yolov8"
    raise ModelRefused(
        f"outputs {shapes} with {classes} labels fit no known decoder; "
        'if you know it, say so in the config file: {"decoder": "yolov8"}'
    )


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` wins, field by field, also inside nested objects."""
    merged = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merge(merged[name], value) if both else value
    return merged
