"""Convert the tensors of a `.pt2` file, raw bytes with a description, to tensors of torch.

Sizes, strides and offset must lie within the bytes. Tensors that share bytes in the file also share memory, on the
device too.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false
# (torch is an extra, and has no complete types)

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from model_store.runtimes.torch.archive import Stored, refuse

DTYPES: dict[int, Any] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    12: torch.bool,
    13: torch.bfloat16,
}
"""Types by their numbers in torch.export's schema."""


def load_tensors(stored: Mapping[str, Stored], device: str) -> dict[str, Any]:
    """Return tensors by name. Raises ModelRefused for a tensor that exceeds its bytes."""
    whole: dict[tuple[int, Any], Any] = {}
    loaded: dict[str, Any] = {}
    for name, tensor in stored.items():
        key = (id(tensor.data), tensor.meta["dtype"])
        if key not in whole:
            whole[key] = _whole(tensor.data, DTYPES[tensor.meta["dtype"]]).to(device, copy=True)
        loaded[name] = _part(name, whole[key], tensor.meta)
    return loaded


def _whole(data: bytes, dtype: Any) -> Any:
    if not data:
        return torch.empty(0, dtype=dtype)
    if dtype == torch.bool:  # bytes other than 0 and 1 are not valid as a C++ bool
        return torch.frombuffer(bytearray(data), dtype=torch.uint8) != 0
    return torch.frombuffer(bytearray(data), dtype=dtype)


def _part(name: str, whole: Any, meta: Mapping[str, Any]) -> Any:
    sizes, strides = ([n["as_int"] for n in meta[key]] for key in ("sizes", "strides"))
    offset = meta["storage_offset"]["as_int"]
    if len(sizes) != len(strides) or not all(type(n) is int and 0 <= n < 1 << 48 for n in (*sizes, *strides, offset)):
        refuse(f"{name} has sizes {sizes}, strides {strides}, offset {offset}")
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if math.prod(sizes) > len(whole) or (math.prod(sizes) and last >= len(whole)):
        refuse(f"{name} is larger than its record (if it was expanded: export it contiguous)")
    return whole.as_strided(sizes, strides, offset)
