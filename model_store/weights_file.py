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
from google.protobuf.message import DecodeError, Message
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from model_store.errors import ModelRefused
from model_store.said import said

ZIP_MAGIC = b"PK\x03\x04"
"""Of a .pt2 archive; an ONNX file has no magic of its own."""
_BEGINNINGS = {
    b"version https://git-lfs": "the pointer that Git LFS leaves in its place: run 'git lfs pull'",
    b"\x89HDF": "an HDF5 file, as Keras writes it: convert it with tf2onnx",
    b"\x80": "a pickle, as old PyTorch writes it: export the model to ONNX",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"<": "a web page or XML",
    b"{": "JSON",
}
_AT_4 = {b"TFL3": "a TensorFlow Lite file: convert it with tf2onnx"}


def read_weights(path: Path) -> bytes:
    """Raises ModelRefused when external data are missing or outside the folder; OSError."""
    data = path.read_bytes()
    if data.startswith(ZIP_MAGIC):
        return data
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError):
        return data  # the runtime says what is wrong with it
    outside = list(_external(model))
    if not outside:
        return data
    for place in sorted(set(map(_place, outside))):
        _require_inside(path.parent, place, path.name)
    try:
        for tensor in outside:
            load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
        return model.SerializeToString()
    except Exception as error:  # onnx raises its checker's and protobuf's own kinds
        raise ModelRefused(f"external data of {path.name} cannot be read: {said(error)}") from error


def require_whole(weights: bytes) -> None:
    """Raises ModelRefused when an ONNX file has tensors in other files, which ONNX Runtime would look for in
    the working folder, and wherever else they say.
    """
    if b"location" not in weights:  # the key of every such tensor; parsing all of a file takes time
        return
    try:
        places = sorted(set(map(_place, _external(onnx.load_model_from_string(weights)))))
    except (DecodeError, ValueError) as error:
        raise ModelRefused(no_onnx(weights)) from error
    if places:
        raise ModelRefused(
            f"the weights keep tensors in other files ({', '.join(map(repr, places[:3]))}), and a version "
            "has one: add the .onnx file from the folder that has them, 'resight models add' takes them in"
        )


def no_onnx(data: bytes) -> str:
    """What to say of bytes that are no ONNX graph."""
    if not data:
        return "this is no ONNX file: it is empty"
    known = (what for magic, what in _BEGINNINGS.items() if data.startswith(magic))
    what = next(known, _AT_4.get(data[4:8]))
    if what:
        return f"this is no ONNX file but {what}"
    return "this is no ONNX file, or only a part of one: copy it again, or export the model to ONNX"


def _external(message: Message) -> Iterator[onnx.TensorProto]:
    """Tensors with data elsewhere, wherever they stand: graphs in graphs, functions, sparse ones."""
    if isinstance(message, onnx.TensorProto):
        if uses_external_data(message):
            yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _external(inner)


def _place(tensor: onnx.TensorProto) -> str:
    return {entry.key: entry.value for entry in tensor.external_data}.get("location", "")


def _require_inside(folder: Path, place: str, name: str) -> None:
    root = folder.resolve()
    if not place.strip() or "\0" in place:
        what = "without a name" if not place.strip() else f"whose name no file can have, {place!r}"
        raise ModelRefused(f"{name} says that its data are in a file {what}: export it again")
    target = (root / place).resolve()
    if Path(place).is_absolute() or not target.is_relative_to(root):
        raise ModelRefused(f"{name} wants its data from {place!r}, outside its own folder")
    if not target.is_file():
        what = "a folder" if target.is_dir() else "not beside it; copy both"
        raise ModelRefused(f"{name} keeps its data in {place}, which is {what}")
