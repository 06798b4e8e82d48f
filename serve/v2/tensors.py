"""Tensors as v2 writes them, in JSON or in binary, to arrays and back.

FP32 in    JSON numbers, flat or nested, or little-endian binary (a view of the body) -> float32
BYTES in   JSON strings of base64, or binary: 4 bytes of length (little-endian) before each -> bytes
out        (n, …) array -> an output as JSON, and a buffer where binary was asked for
"""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# (`data` is any JSON)

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pydantic_core
from numpy.typing import NDArray

from model_store.errors import BadRequest, ModelRefused
from serve.v2.contract import InputTensor, OutputTensor

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
"""What each input takes."""
_LENGTH_BYTES = 4
_PART = 8192

TensorData = memoryview | NDArray[np.float32] | list[bytes]
"""Of an input: in binary; or from JSON, numbers or what base64 said."""


def require_datatype(tensor: InputTensor, wanted: str) -> None:
    """Raises BadRequest."""
    if tensor.datatype == wanted:
        return
    known = tensor.datatype in DATATYPES or tensor.datatype in ("BYTES", "BF16")
    what = "" if known else ", and is no datatype of v2"
    raise BadRequest(f"input '{tensor.name}' is {wanted}; '{tensor.datatype[:16]}' was sent{what}")


def from_json(tensor: InputTensor) -> TensorData | None:
    """What `data` says; None without it, and for what is refused later: by its name, or its datatype.

    Raises BadRequest.
    """
    if tensor.data is None or tensor.datatype != DATATYPE_OF.get(tensor.name):
        return None
    return _numbers(tensor) if tensor.name == TENSOR else _from_base64(tensor)


def floats(tensor: InputTensor, data: TensorData | None) -> NDArray[np.float32]:
    """An FP32 input in its shape; read-only, and a view where it came in binary. Raises BadRequest.

    Without `data` it is the tensor's own.
    """
    require_datatype(tensor, "FP32")
    count = math.prod(tensor.shape)
    if not count:  # numpy refuses some shapes of empty arrays
        raise BadRequest(f"input '{tensor.name}': shape {tensor.shape} has a length of 0")
    if isinstance(data, memoryview):
        sent = f"{data.nbytes} bytes"
        fits = data.nbytes == 4 * count
        values = np.frombuffer(data, DATATYPES["FP32"]) if fits else np.zeros(0, np.float32)
    else:
        values = data if isinstance(data, np.ndarray) else _numbers(tensor)
        sent = f"{values.size} numbers in `data`"
        fits = values.size == count
    if not fits:
        raise BadRequest(
            f"input '{tensor.name}': shape {tensor.shape} takes {count} numbers of 4 bytes; {sent} "
            "were sent"
        )
    if not np.isfinite(values.sum(dtype=np.float64)):
        raise BadRequest(f"input '{tensor.name}' holds NaN or infinity")
    return values.reshape(tensor.shape)


def byte_strings(tensor: InputTensor, data: TensorData | None) -> list[bytes]:
    """The elements of a BYTES input, row-major; without `data` the tensor's own. Raises BadRequest."""
    require_datatype(tensor, "BYTES")
    count = math.prod(tensor.shape)
    if isinstance(data, memoryview):
        found = _cut(tensor, data, count)
    else:
        found = data if isinstance(data, list) else _from_base64(tensor)
    if len(found) != count:
        raise BadRequest(
            f"input '{tensor.name}': shape {tensor.shape} takes {count} elements, {len(found)} were "
            "sent"
        )
    return found


def written(name: str, values: NDArray[Any], binary: bool) -> tuple[bytes, memoryview | None]:
    """Return an output as JSON, and its bytes where binary was asked for.

    Raises ModelRefused for a type without a name in v2, BadRequest for NaN in JSON.
    """
    datatype = datatype_of(name, values.dtype)
    shape = list(values.shape)
    if binary:
        plain = np.ascontiguousarray(values, DATATYPES[datatype])
        size = {"binary_data_size": plain.nbytes}
        output = OutputTensor(name=name, datatype=datatype, shape=shape, parameters=size)
        return _as_json(output), plain.reshape(-1).view(np.uint8).data
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadRequest(
            f"output '{name}' holds NaN or infinity, which JSON cannot say: ask for it with "
            "binary_data"
        )
    flat = values.reshape(-1)
    parts = [  # in parts: as Python's numbers, all of them would take many times their size
        pydantic_core.to_json(flat[at : at + _PART].tolist())[1:-1]
        for at in range(0, flat.size, _PART)
    ]
    parts = parts or [b""]
    head = _as_json(OutputTensor(name=name, datatype=datatype, shape=shape))
    parts[0] = b'%s,"data":[%s' % (head[:-1], parts[0])
    parts[-1] += b"]}"
    return b",".join(parts), None


def _as_json(output: OutputTensor) -> bytes:
    return output.model_dump_json(exclude_none=True).encode()


def datatype_of(name: str, dtype: np.dtype[Any]) -> str:
    """Raises ModelRefused."""
    for datatype, ours in DATATYPES.items():
        if ours == dtype:
            return datatype
    raise ModelRefused(f"output '{name}' is {dtype}, which has no name in v2: ask for another one")


def _numbers(tensor: InputTensor) -> NDArray[np.float32]:
    """`data` as float32, whatever its nesting."""
    if not isinstance(tensor.data, list):
        raise BadRequest(
            f"input '{tensor.name}' has neither `data` nor the parameter binary_data_size"
        )
    try:
        values = np.array(tensor.data, np.float64)  # told the type, a long string cannot widen it
    except (ValueError, TypeError, OverflowError):
        raise BadRequest(
            f"input '{tensor.name}': `data` must be numbers, flat or nested evenly"
        ) from None
    with np.errstate(over="ignore"):  # becomes infinite, which is refused with the others
        return values.astype(np.float32)


def _from_base64(tensor: InputTensor) -> list[bytes]:
    try:
        return [base64.b64decode(text, validate=True) for text in _strings(tensor)]
    except (binascii.Error, ValueError):
        raise BadRequest(
            f"input '{tensor.name}': JSON cannot hold bytes; send them as base64, or in binary"
        ) from None


def _strings(tensor: InputTensor) -> Sequence[str]:
    """`data`, flat or one string to a row."""
    rows = tensor.data
    if isinstance(rows, list):
        flat: list[Any] = [
            row[0] if isinstance(row, list) and len(row) == 1 else row for row in rows
        ]
        if all(isinstance(text, str) for text in flat):
            return flat
    raise BadRequest(f"input '{tensor.name}': `data` must be a list of base64 strings")


def _cut(tensor: InputTensor, binary: memoryview, count: int) -> list[bytes]:
    """Not more than `count` + 1 elements, however many there are."""
    found: list[bytes] = []
    at = 0
    while at < len(binary) and len(found) <= count:
        start = at + _LENGTH_BYTES
        end = start + int.from_bytes(binary[at:start], "little")
        if end > len(binary):
            raise BadRequest(
                f"input '{tensor.name}': its binary data ends within element {len(found)}; each is "
                "4 bytes of length, little-endian, and that many bytes"
            )
        found.append(bytes(binary[start:end]))
        at = end
    return found
