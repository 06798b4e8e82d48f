"""Convert tensors of v2, in JSON or in binary, to arrays and back.

FP32 in    JSON numbers, flat or nested, or little-endian binary (a view of the body) -> float32
BYTES in   JSON strings of base64, or binary: 4 bytes of length (little-endian) before each -> bytes
out        (n, …) array -> an output as JSON, and a buffer if binary was requested
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pydantic_core
from numpy.typing import NDArray

from model_store.errors import BadRequest, ModelRefused
from serve.api.v2.schemas import InputTensor, OutputTensor

DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
IMAGE, TENSOR = "image", "images"
DATATYPE_OF = {IMAGE: "BYTES", TENSOR: "FP32"}
"""Datatype of each input."""
_LENGTH_BYTES = 4
_PART = 8192

TensorData = memoryview | NDArray[np.float32] | list[bytes]
"""Data of an input: binary; or from JSON, numbers or decoded base64."""


def require_datatype(tensor: InputTensor, wanted: str) -> None:
    """Raise BadRequest if the tensor has another datatype."""
    if tensor.datatype == wanted:
        return
    is_valid = tensor.datatype in DATATYPES or tensor.datatype in ("BYTES", "BF16")
    note = "" if is_valid else ", which is not a datatype of v2"
    raise BadRequest(f"input '{tensor.name}' must be {wanted}, not '{tensor.datatype[:16]}'{note}")


def from_json(tensor: InputTensor) -> TensorData | None:
    """Return the value of `data`; None without it, or if name or datatype will be refused later. Raises BadRequest."""
    if tensor.data is None or tensor.datatype != DATATYPE_OF.get(tensor.name):
        return None
    return (_numbers if tensor.name == TENSOR else _from_base64)(tensor, tensor.data)


def floats(tensor: InputTensor, data: TensorData | None) -> NDArray[np.float32]:
    """Return an FP32 input in its shape: read-only, and a view if it is binary. Raises BadRequest."""
    require_datatype(tensor, "FP32")
    count = math.prod(tensor.shape)
    if not count:  # numpy refuses some shapes of empty arrays
        raise BadRequest(f"input '{tensor.name}': shape {tensor.shape} has a length of 0")
    if isinstance(data, memoryview):
        sent = f"{data.nbytes} bytes"
        fits = data.nbytes == 4 * count
        values = np.frombuffer(data, DATATYPES["FP32"]) if fits else np.zeros(0, np.float32)
    else:
        values = data if isinstance(data, np.ndarray) else _numbers(tensor, None)
        sent = f"{values.size} numbers in `data`"
        fits = values.size == count
    if not fits:
        raise BadRequest(
            f"input '{tensor.name}': shape {tensor.shape} needs {count} numbers of 4 bytes; {sent} were sent"
        )
    if not np.isfinite(values.sum(dtype=np.float64)):
        raise BadRequest(f"input '{tensor.name}' contains NaN or infinity")
    return values.reshape(tensor.shape)


def byte_strings(tensor: InputTensor, data: TensorData | None) -> list[bytes]:
    """Return the elements of a BYTES input, row-major. Raises BadRequest."""
    require_datatype(tensor, "BYTES")
    count = math.prod(tensor.shape)
    if isinstance(data, memoryview):
        elements = _split(tensor, data, count)
    else:
        elements = data if isinstance(data, list) else _from_base64(tensor, None)
    if len(elements) != count:
        raise BadRequest(
            f"input '{tensor.name}': shape {tensor.shape} needs {count} elements, {len(elements)} were sent"
        )
    return elements


def json_outputs(arrays: Mapping[str, NDArray[Any]]) -> dict[str, bytes]:
    """Return each output as JSON. Raises BadRequest for NaN or infinity, ModelRefused for a dtype that v2 lacks."""
    return {name: _json_output(name, values) for name, values in arrays.items()}


def binary_outputs(arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[bytes, memoryview]]:
    """Return the JSON that describes each output, and its bytes. Raises ModelRefused for a dtype that v2 lacks."""
    outputs: dict[str, tuple[bytes, memoryview]] = {}
    for name, values in arrays.items():
        plain = np.ascontiguousarray(values, DATATYPES[datatype_of(name, values.dtype)])
        described = _described(name, values, {"binary_data_size": plain.nbytes})
        outputs[name] = described, plain.reshape(-1).view(np.uint8).data
    return outputs


def _json_output(name: str, values: NDArray[Any]) -> bytes:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadRequest(
            f"output '{name}' contains NaN or infinity, which JSON cannot represent: request it with binary_data"
        )
    flat = values.reshape(-1)
    parts = [  # in parts: all values as Python numbers would take many times their size
        pydantic_core.to_json(flat[at : at + _PART].tolist())[1:-1] for at in range(0, flat.size, _PART)
    ]
    parts = parts or [b""]
    parts[0] = b'%s,"data":[%s' % (_described(name, values)[:-1], parts[0])
    parts[-1] += b"]}"
    return b",".join(parts)


def _described(name: str, values: NDArray[Any], parameters: dict[str, int] | None = None) -> bytes:
    datatype = datatype_of(name, values.dtype)
    output = OutputTensor(name=name, datatype=datatype, shape=list(values.shape), parameters=parameters)
    return output.model_dump_json(exclude_none=True).encode()


def datatype_of(name: str, dtype: np.dtype[Any]) -> str:
    """Return the v2 name of a dtype. Raises ModelRefused if it has none."""
    for datatype, supported in DATATYPES.items():
        if supported == dtype:
            return datatype
    raise ModelRefused(f"output '{name}' is {dtype}, which v2 does not support: request another output")


def _numbers(tensor: InputTensor, data: Any) -> NDArray[np.float32]:
    """Return JSON as float32, flat or nested."""
    if not isinstance(data, list):
        raise BadRequest(f"input '{tensor.name}' has neither `data` nor the parameter binary_data_size")
    try:
        values = np.array(data, np.float64)  # with a dtype, a long string cannot widen it
    except (ValueError, TypeError, OverflowError):
        raise BadRequest(f"input '{tensor.name}': `data` must be numbers, flat or nested evenly") from None
    with np.errstate(over="ignore"):  # overflow gives infinity, which is refused later
        return values.astype(np.float32)


def _from_base64(tensor: InputTensor, data: Any) -> list[bytes]:
    """Return the bytes of JSON that is flat or has one string per row."""
    rows = data if isinstance(data, list) else [None]
    flat: list[Any] = [row[0] if isinstance(row, list) and len(row) == 1 else row for row in rows]
    try:
        return [base64.b64decode(text, validate=True) for text in flat]
    except (TypeError, ValueError):
        raise BadRequest(
            f"input '{tensor.name}': JSON cannot contain bytes; `data` must be a list of base64 strings, or binary"
        ) from None


def _split(tensor: InputTensor, binary: memoryview, count: int) -> list[bytes]:
    """Split binary data into its elements, but stop after `count` + 1."""
    elements: list[bytes] = []
    at = 0
    while at < len(binary) and len(elements) <= count:
        start = at + _LENGTH_BYTES
        end = start + int.from_bytes(binary[at:start], "little")
        if end > len(binary):
            raise BadRequest(
                f"input '{tensor.name}': the binary data ends within element {len(elements)}; each is a "
                "length of 4 bytes, little-endian, followed by that number of bytes"
            )
        elements.append(bytes(binary[start:end]))
        at = end
    return elements
