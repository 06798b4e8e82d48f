"""Read a weights file from disk, including the external tensors of an ONNX file.

path --read_weights--> bytes. PyTorch's exporter writes `model.onnx` and `model.onnx.data`; a version in the store has
one weights file, so that one digest covers all tensors.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from model_store.errors import ModelRefused, error_text

ZIP_MAGIC = b"PK\x03\x04"
"""First bytes of a .pt2 archive; ONNX files have no magic bytes."""
_MAGIC_BYTES = {
    b"version https://git-lfs": "a Git LFS pointer: run 'git lfs pull'",
    b"\x89HDF": "an HDF5 file, as written by Keras: convert it with tf2onnx",
    b"\x80": "a pickle, as written by old PyTorch: export the model to ONNX",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"<": "a web page or XML",
    b"{": "JSON",
}
_MAGIC_BYTES_AT_4 = {b"TFL3": "a TensorFlow Lite file: convert it with tf2onnx"}


def read_weights(path: Path) -> bytes:
    """Return the weights as one file.

    Raises ModelRefused for a checkpoint of PyTorch, a graph in a ZIP file, and external data that are missing or
    elsewhere; OSError.
    """
    data = path.read_bytes()
    if data.startswith(ZIP_MAGIC):
        names = _names_in(data)
        if any(name.endswith(".onnx") for name in names):
            raise ModelRefused(f"{path.name} is a ZIP file: unpack it, and add the .onnx file that it contains")
        if any(name.partition("/")[2] == "data.pkl" for name in names):  # of torch.save
            raise ModelRefused(
                f"{path.name} is a checkpoint of PyTorch or TorchScript, which needs its own code: export it to ONNX "
                f"(a YOLO with 'yolo export model={path.name} format=onnx'), and add the .onnx file"
            )
        return data
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError):
        return data  # the runtime reports the error
    external = list(_external_tensors(model))
    if not external:
        return data
    for place in sorted(set(map(_location, external))):
        _require_inside(path.parent, place, path.name)
    try:
        for tensor in external:
            load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
        return model.SerializeToString()
    except Exception as error:  # onnx raises its checker's and protobuf's own kinds
        raise ModelRefused(f"external data of {path.name} cannot be read: {error_text(error)}") from error


def _names_in(data: bytes) -> list[str]:
    """Return the names in a ZIP file, none if it is damaged, which the runtime reports."""
    try:
        return zipfile.ZipFile(io.BytesIO(data)).namelist()
    except Exception:  # zipfile raises a dozen kinds
        return []


def require_whole(weights: bytes) -> None:
    """Raise ModelRefused if an ONNX file has tensors in other files.

    ONNX Runtime would search for them in the working folder, and at any other path in the file.
    """
    if b"location" not in weights:  # the key of every such tensor; parsing the whole file takes time
        return
    try:
        places = sorted(set(map(_location, _external_tensors(onnx.load_model_from_string(weights)))))
    except (DecodeError, ValueError) as error:
        raise ModelRefused(no_onnx(weights)) from error
    if places:
        raise ModelRefused(
            f"the weights have tensors in other files ({', '.join(map(repr, places[:3]))}), but a version has one "
            "weights file: run 'resight models add' on the .onnx file in the folder that contains them"
        )


def no_onnx(data: bytes) -> str:
    """Return the error text for bytes that are not an ONNX graph."""
    if not data:
        return "this is not an ONNX file: it is empty"
    formats = (words for magic, words in _MAGIC_BYTES.items() if data.startswith(magic))
    words = next(formats, _MAGIC_BYTES_AT_4.get(data[4:8]))
    if words:
        return f"this is not an ONNX file but {words}"
    return "this is not an ONNX file, or only a part of one: copy it again, or export the model to ONNX"


def _external_tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Yield all tensors with external data, also in nested graphs, functions and sparse tensors."""
    if isinstance(message, onnx.TensorProto):
        if uses_external_data(message):
            yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _external_tensors(inner)


def _location(tensor: onnx.TensorProto) -> str:
    return {entry.key: entry.value for entry in tensor.external_data}.get("location", "")


def _require_inside(folder: Path, place: str, name: str) -> None:
    root = folder.resolve()
    if not place.strip() or "\0" in place:
        reason = "without a name" if not place.strip() else f"with the invalid name {place!r}"
        raise ModelRefused(f"{name} refers to external data in a file {reason}: export it again")
    target = (root / place).resolve()
    if Path(place).is_absolute() or not target.is_relative_to(root):
        raise ModelRefused(f"{name} refers to external data in {place!r}, outside its own folder")
    if not target.is_file():
        reason = "a folder" if target.is_dir() else "not in the same folder; copy both"
        raise ModelRefused(f"{name} refers to external data in {place}, which is {reason}")
