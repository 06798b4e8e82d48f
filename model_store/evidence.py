"""What an ONNX file shows of itself: labels and metadata, and its outputs for one neutral image.

weights bytes -> Evidence. `names` is a Python literal by convention and is parsed as one, never
evaluated. Shapes come from running the graph, since many exports do not state them.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (libraries here have no complete types)

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import ModelRefused

MAX_NAMES_CHARS = 1_000_000
DEFAULT_SIDE_PX = 640


@dataclass(frozen=True)
class Evidence:
    """`outputs` are those of one grey image; `sized` says that the graph asks for image sizes."""

    metadata: Mapping[str, str]
    side_px: int
    sized: bool
    uint8: bool
    outputs: Mapping[str, NDArray[Any]]

    @property
    def shapes(self) -> str:
        return ", ".join(f"{name} {list(out.shape)}" for name, out in self.outputs.items())

    def says(self, key: str) -> bool:
        """Whether the metadata hold a true flag, as itself or inside the export's `args`."""
        if self.metadata.get(key, "").strip().lower() in ("true", "1"):
            return True
        return f"'{key}': True" in self.metadata.get("args", "")


def read_evidence(weights: bytes, side_px: int | None) -> Evidence:
    """`side_px` is for graphs of any size. Raises ModelRefused when they do not load or run."""
    from model_store.runtimes.onnx import (  # only a store with ONNX models needs it
        OnnxSession,
        channels_last,
        image_input,
        open_graph,
        ort,
    )

    graph = open_graph(weights, ort.SessionOptions(), ["CPUExecutionProvider"])
    image, sized = image_input(graph)
    metadata: dict[str, str] = dict(graph.get_modelmeta().custom_metadata_map)
    fixed = image.shape[1] if channels_last(image.shape) else image.shape[-1]
    side = fixed if isinstance(fixed, int) and fixed > 0 else _imgsz(metadata)
    side = side_px or side or DEFAULT_SIDE_PX
    session = OnnxSession(weights, side, threads=1)
    uint8 = image.type == "tensor(uint8)"
    grey = np.full((1, 3, side, side), 114 if uint8 else 114 / 255, np.float32)
    try:
        outputs = session.run(grey)
    except Exception as error:
        raise ModelRefused(
            f"the graph does not run on {side} x {side} px: {error}"[:500]
        ) from error
    return Evidence(metadata, side, sized, uint8, outputs)


def labels_of(metadata: Mapping[str, str]) -> list[str]:
    """Raises ModelRefused with the line to write when `names` is missing or no list of strings."""
    text = metadata.get("names", "")
    try:
        names = literal(text)
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


def literal(text: str) -> Any:
    """A Python literal, parsed and never evaluated. Raises ValueError and what the parser raises."""
    if len(text) > MAX_NAMES_CHARS:
        raise ValueError("too long")
    return ast.literal_eval(text)


def _imgsz(metadata: Mapping[str, str]) -> int | None:
    """Side of a square `imgsz`, as Ultralytics writes it: "[640, 640]"."""
    try:
        height, width = literal(metadata.get("imgsz", ""))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return height if isinstance(height, int) and height == width and height > 0 else None
