"""A weights file from disk, whole: tensors that an ONNX file keeps beside it are taken into it.

path --read_weights--> bytes. PyTorch's exporter writes `model.onnx` and `model.onnx.data`; a version
of the store has one weights file, whose digest stands for all of it.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (libraries here have no complete types)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from model_store.errors import ModelRefused

ZIP_MAGIC = b"PK\x03\x04"
"""Of a .pt2 archive; an ONNX file has no magic of its own."""


def read_weights(path: Path) -> bytes:
    """Raises ModelRefused when external data are missing or outside the folder; OSError."""
    data = path.read_bytes()
    if data.startswith(ZIP_MAGIC):
        return data
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError):
        return data  # the runtime says what is wrong with it
    places = sorted(set(_external(model.graph)))
    if not places:
        return data
    for place in places:
        _require_inside(path.parent, place, path.name)
    try:
        load_external_data_for_model(model, str(path.parent))
        return model.SerializeToString()
    except Exception as error:  # onnx raises its checker's and protobuf's own kinds
        raise ModelRefused(f"external data of {path.name} cannot be read: {error}"[:500]) from error


def _external(graph: onnx.GraphProto) -> Iterator[str]:
    """Files named by the tensors of a graph and the graphs inside it."""
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for inner in (attribute.g, *attribute.graphs):
                yield from _external(inner)
    for tensor in tensors:
        if uses_external_data(tensor):
            yield {entry.key: entry.value for entry in tensor.external_data}.get("location", "")


def _require_inside(folder: Path, place: str, name: str) -> None:
    root = folder.resolve()
    target = (root / place).resolve()
    if not place or Path(place).is_absolute() or not target.is_relative_to(root):
        raise ModelRefused(f"{name} wants its data from {place!r}, outside its own folder")
    if not target.is_file():
        raise ModelRefused(f"{name} keeps its data in {place}, which is not beside it; copy both")
